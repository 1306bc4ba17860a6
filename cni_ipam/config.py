"""The `ipam` part of a network configuration, and the addresses that are asked for: JSON to a frozen IpamConfig.

Every problem is reported at once, with the key and the value. Keys and defaults are those of host-local.
Must not: touch the store.
"""

from itertools import combinations

from cni_protocol.address import IP, parse_ip_or_cidr
from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.fields import Fields
from cni_protocol.light.standard import NamedTuple
from cni_protocol.request import Request, check_args
from cni_protocol.result import Route, parse_routes
from cni_protocol.typos import check_keys
from cni_protocol.version import at_least

from .ranges import Range, RangeSet

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
KNOWN_ARGS = ("IP", "MAC")  # MAC is the bridge's; both see the same CNI_ARGS
_RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")


class IpamConfig(NamedTuple):
    """What ADD and CHECK go by."""

    network: str
    data_dir: str
    pools: tuple[RangeSet, ...]
    routes: tuple[Route, ...]
    resolv_conf: str
    requested: tuple[IP, ...]


def parse_config(request: Request) -> IpamConfig:
    """The configuration of an ADD or CHECK. Raises CNIError: 7 with all problems in one go, 4 for CNI_ARGS."""
    check_args(request, KNOWN_ARGS)
    problems: list[str] = []
    network = Fields(request.config, "", problems)
    ipam = network.object("ipam")
    if not network.has("ipam"):
        network.problem("ipam", "is missing; it names the ranges to give addresses from")
    sets = _range_sets(network, ipam)
    pools = _parse_pools(network, ipam, sets) if network.has("ipam") else []
    _check_families(pools, request.version, problems)
    config = IpamConfig(
        network=request.name,
        data_dir=_parse_data_dir(ipam),
        pools=tuple(pool for _, pool in pools),
        routes=parse_routes(ipam.objects("routes")),
        resolv_conf=ipam.text("resolvConf"),
        requested=_parse_requested(request, network),
    )
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid IPAM configuration: " + "; ".join(problems))
    ipam.text("type")
    ranges = [entry for _, objects in sets for entry in objects if entry is not ipam]
    check_keys("cni-ipam", network.flag("strict"), [ipam, *ranges, *ipam.objects("routes")])
    return config


def parse_data_dir(request: Request) -> str:
    """All that DEL needs of a configuration: the rest may be broken by now. Raises CNIError (code 7)."""
    problems: list[str] = []
    data_dir = _parse_data_dir(Fields(request.config, "", problems).object("ipam"))
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid IPAM configuration: " + "; ".join(problems))
    return data_dir


def _parse_data_dir(ipam: Fields) -> str:
    data_dir = ipam.text("dataDir") or DEFAULT_DATA_DIR
    if not data_dir.startswith("/"):
        ipam.problem("dataDir", f"{data_dir!r} must be an absolute path")
    return data_dir


def _parse_requested(request: Request, network: Fields) -> tuple[IP, ...]:
    """The addresses asked for, from the first of the three channels that has any (CONVENTIONS.md)."""
    return (
        network.object("runtimeConfig").ips("ips")
        or network.object("args").object("cni").ips("ips")
        or _parse_ip_arg(request.args.get("IP", ""), network.problems)
    )


def _parse_ip_arg(text: str, problems: list[str]) -> tuple[IP, ...]:
    try:
        return (parse_ip_or_cidr(text),) if text else ()
    except ValueError as error:
        problems.append(f"CNI_ARGS IP: {error}")
        return ()


def _range_sets(network: Fields, ipam: Fields) -> list[tuple[str, list[Fields]]]:
    """The objects of all range sets with the place they come from, in the order of host-local."""
    sets = _range_set_objects(network.object("runtimeConfig"), "ipRanges")
    single = [ipam.has(key) for key in _RANGE_KEYS]
    if any(single):
        sets.append((ipam.where, [ipam]))
    return sets + _range_set_objects(ipam, "ranges")


def _parse_pools(network: Fields, ipam: Fields, sets: list[tuple[str, list[Fields]]]) -> list[tuple[str, RangeSet]]:
    """The range sets with the place they come from."""
    problems = network.problems
    if not sets:
        ipam.problem("ranges", "no address range; give a subnet, ranges, or the capability ipRanges")
    pools = []
    for where, objects in sets:
        ranges = [entry for entry in map(_parse_range, objects) if entry is not None]
        if not objects:
            problems.append(f"{where}: is an empty range set")
        if len({entry.subnet.version for entry in ranges}) > 1:
            problems.append(f"{where}: mixes IPv4 and IPv6 in one range set; use a set for each")
        problems += [f"{where}: ranges {a} and {b} overlap" for a, b in combinations(ranges, 2) if a.overlaps(b)]
        if ranges:
            pools.append((where, RangeSet(tuple(ranges))))
    for (where, pool), (other_where, other) in combinations(pools, 2):
        pairs = [(a, b) for a in pool.ranges for b in other.ranges if a.overlaps(b)]
        problems += [f"{where} and {other_where}: ranges {a} and {b} overlap" for a, b in pairs]
    return pools


def _range_set_objects(fields: Fields, key: str) -> list[tuple[str, list[Fields]]]:
    """The list of lists of range objects below a key."""
    sets = []
    for i, entry in enumerate(fields.values(key)):
        where = f"{fields.path(key)}[{i}]"
        if not isinstance(entry, list):
            fields.problem(f"{key}[{i}]", "must be a list of ranges")
            continue
        sets.append((where, [Fields(value, f"{where}[{j}]", fields.problems) for j, value in enumerate(entry)]))
    return sets


def _parse_range(fields: Fields) -> Range | None:
    """One range with its defaults; None (and a problem) when its subnet is no use."""
    subnet = fields.cidr("subnet")
    gateway, start, end = fields.ip("gateway"), fields.ip("rangeStart"), fields.ip("rangeEnd")
    if not fields.has("subnet"):
        fields.problem("subnet", "is missing; a range needs its subnet such as 10.1.0.0/16")
    if subnet is None:
        return None
    if subnet.prefix > subnet.ip.bits - 2:
        fields.problem("subnet", f"{subnet} is too small to give addresses from (at most /{subnet.ip.bits - 2})")
        return None
    if subnet != subnet.network:
        fields.problem("subnet", f"{subnet} has host bits set; the network is {subnet.network}")
        subnet = subnet.network
    for key, ip in (("gateway", gateway), ("rangeStart", start), ("rangeEnd", end)):
        if ip is not None and ip not in subnet:
            fields.problem(key, f"{ip} is not in subnet {subnet}")
    first = IP(subnet.version, subnet.first.value + 1)
    last = IP(subnet.version, subnet.last.value - (1 if subnet.version == 4 else 0))
    entry = Range(subnet, start or first, end or last, gateway or first)
    if entry.start.version == entry.end.version and entry.start > entry.end:
        fields.problem("rangeEnd", f"{entry.end} is before rangeStart {entry.start}")
    return entry


def _check_families(pools: list[tuple[str, RangeSet]], version: str, problems: list[str]) -> None:
    if at_least(version, "0.3.0"):
        return
    for family in (4, 6):
        if sum(1 for _, pool in pools if pool.ranges[0].subnet.version == family) > 1:
            problems.append(f"ipam.ranges: cniVersion {version} has room for one IPv{family} address only")
