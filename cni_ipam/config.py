"""The `ipam` part of a network configuration, and the requested addresses: JSON to an immutable IpamConfig.

One error names all problems, each with its key and value. Keys and defaults are those of host-local.
Must not: touch the store.
"""

from cni_protocol.address import CIDR, IP, parse_ip_or_cidr
from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.fields import Fields
from cni_protocol.light.standard import NamedTuple
from cni_protocol.request import Request, check_args
from cni_protocol.result import Route, parse_routes
from cni_protocol.typos import check_keys
from cni_protocol.version import at_least

from .data_dir import read_data_dir
from .range_objects import RANGE_KEYS, parse_range
from .ranges import Range, RangeSet, RangeTable

KNOWN_ARGS = ("IP", "MAC")  # MAC is for cni-bridge, which passes CNI_ARGS on unchanged
_MAX_SETS = 1000  # an attachment gets an address of each set; more sets must be a mistake


class IpamConfig(NamedTuple):
    """The configuration of ADD, CHECK and STATUS.

    `pools` are the range sets, and `table` finds ranges in them by address. `requested` are the addresses that the call
    asks for. `warnings` are for stderr and do not make the call fail.
    """

    network: str
    data_dir: str
    pools: tuple[RangeSet, ...]
    table: RangeTable
    routes: tuple[Route, ...]
    resolv_conf: str
    requested: tuple[IP, ...]
    warnings: tuple[str, ...]


def parse_config(request: Request) -> IpamConfig:
    """The configuration of an ADD, CHECK or STATUS. Raises CNIError: 7 naming all problems, 4 for CNI_ARGS."""
    check_args(request, KNOWN_ARGS)
    problems: list[str] = []
    network = Fields(request.config, "", problems)
    ipam = network.object("ipam")
    if not network.has("ipam"):
        network.problem("ipam", "is missing; it names the ranges to give addresses from")
    sets = _range_sets(network, ipam)
    warnings: list[str] = []
    pools = _parse_pools(network, ipam, sets, warnings) if network.has("ipam") else ()
    _check_families(pools, request.version, problems)
    config = IpamConfig(
        network=request.name,
        data_dir=read_data_dir(ipam),
        pools=pools,
        table=RangeTable(pools),
        routes=parse_routes(ipam.objects("routes")),
        resolv_conf=ipam.text("resolvConf"),
        requested=_parse_requested(request, network),
        warnings=tuple(warnings),
    )
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid IPAM configuration: " + "; ".join(problems))
    ipam.text("type")
    ranges = [entry for _, objects in sets for entry in objects if entry is not ipam]
    check_keys("cni-ipam", network.flag("strict"), [ipam, *ranges, *ipam.objects("routes")])
    return config


def _parse_requested(request: Request, network: Fields) -> tuple[IP, ...]:
    """The requested addresses: runtimeConfig.ips, or else args.cni.ips, or else IP of CNI_ARGS (CONVENTIONS.md)."""
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
    """The range objects of all range sets, each set with its path in the configuration, in the order of host-local."""
    sets = _range_set_objects(network.object("runtimeConfig"), "ipRanges")
    single = [ipam.has(key) for key in RANGE_KEYS]
    if any(single):
        sets.append((ipam.where, [ipam]))
    return sets + _range_set_objects(ipam, "ranges")


def _parse_pools(
    network: Fields, ipam: Fields, sets: list[tuple[str, list[Fields]]], warnings: list[str]
) -> tuple[RangeSet, ...]:
    """Parse the range sets. No range of the returned sets gives out the gateway of another range."""
    problems = network.problems
    if not sets:
        ipam.problem("ranges", "no address range; give a subnet, ranges, or the capability ipRanges")
    if len(sets) > _MAX_SETS:
        ipam.problem("ranges", f"{len(sets)} range sets; an attachment gets an address of each, of {_MAX_SETS} at most")
        return ()
    pools, places = [], []
    for where, objects in sets:
        ranges = [entry for entry in [parse_range(fields, warnings) for fields in objects] if entry is not None]
        if not objects:
            problems.append(f"{where}: is an empty range set")
        if len({entry.subnet.version for entry in ranges}) > 1:
            problems.append(f"{where}: mixes IPv4 and IPv6 in one range set; use a set for each")
        if ranges:
            pools.append(RangeSet(tuple(ranges)))
            places.append(where)
    for place, other in RangeTable(pools).overlaps():
        where = places[place.pool] if place.pool == other.pool else f"{places[place.pool]} and {places[other.pool]}"
        problems.append(f"{where}: ranges {place.entry} and {other.entry} overlap")
    return _withhold_gateways(pools)


def _withhold_gateways(pools: list[RangeSet]) -> tuple[RangeSet, ...]:
    """The same range sets, where each range withholds the gateways of all other ranges."""
    gateways = {entry.gateway for pool in pools for entry in pool.ranges if entry.gateway is not None}
    table = RangeTable(pools)
    inside: dict[Range, list[CIDR]] = {}
    for gateway in gateways:
        place = table.find(gateway)
        if place is not None:
            inside.setdefault(place.entry, []).append(CIDR(gateway, gateway.bits))
    return tuple(
        RangeSet(tuple([entry.without(inside[entry]) if entry in inside else entry for entry in pool.ranges]))
        for pool in pools
    )


def _range_set_objects(fields: Fields, key: str) -> list[tuple[str, list[Fields]]]:
    """The list of lists of range objects under a key, each inner list with its path."""
    sets = []
    for i, entry in enumerate(fields.values(key)):
        where = f"{fields.path(key)}[{i}]"
        if not isinstance(entry, list):
            fields.problem(f"{key}[{i}]", "must be a list of ranges")
            continue
        sets.append((where, [Fields(value, f"{where}[{j}]", fields.problems) for j, value in enumerate(entry)]))
    return sets


def _check_families(pools: tuple[RangeSet, ...], version: str, problems: list[str]) -> None:
    if at_least(version, "0.3.0"):
        return
    for family in (4, 6):
        if sum(1 for pool in pools if pool.ranges[0].subnet.version == family) > 1:
            problems.append(f"ipam.ranges: cniVersion {version} has room for one IPv{family} address only")
