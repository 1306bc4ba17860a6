"""Parsing one range object of a configuration to a Range: defaults are filled in, unusable values are refused.

Must not: know of other ranges, or touch anything.
"""

from cni_protocol.address import CIDR, IP, parse_cidr
from cni_protocol.fields import Fields
from cni_protocol.light.standard import NamedTuple

from .ranges import Range

RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway", "exclude")


class _Kind(NamedTuple):
    """A network of special addresses, their purpose, and whether a container can use one nevertheless."""

    network: CIDR
    purpose: str
    usable: bool


_KINDS = tuple(
    _Kind(parse_cidr(network), purpose, usable)
    for network, purpose, usable in (
        ("127.0.0.0/8", "loopback (RFC 1122, 3.2.1.3)", False),
        ("224.0.0.0/4", "multicast (RFC 5771)", False),
        ("0.0.0.0/32", "no address (RFC 1122, 3.2.1.3)", False),
        ("255.255.255.255/32", "the limited broadcast (RFC 919)", False),
        ("::1/128", "loopback (RFC 4291, 2.5.3)", False),
        ("::/128", "no address (RFC 4291, 2.5.2)", False),
        ("ff00::/8", "multicast (RFC 4291, 2.7)", False),
        ("0.0.0.0/8", "this network (RFC 1122, 3.2.1.3); many systems drop its packets", True),
        ("240.0.0.0/4", "future use (RFC 1112, 4); many systems drop its packets", True),
        ("169.254.0.0/16", "link-local addresses (RFC 3927); no router forwards its packets", True),
        ("fe80::/10", "link-local addresses (RFC 4291, 2.5.6); no router forwards its packets", True),
    )
)


def parse_range(fields: Fields, warnings: list[str]) -> Range | None:
    """Parse a range object. Returns None when its subnet is missing or invalid. Appends to `warnings`.

    Problems are noted in `fields`. In a /31 or /127 hosts can have all addresses (RFC 3021, RFC 6164), and the first is
    the default gateway. A /32 or /128 has no default gateway.
    """
    subnet = fields.cidr("subnet")
    gateway, start, end = (fields.ip(key) for key in ("gateway", "rangeStart", "rangeEnd"))
    excluded = _parse_excluded(fields)
    if not fields.has("subnet"):
        fields.problem("subnet", "is missing; a range needs its subnet such as 10.1.0.0/16")
    if subnet is None:
        return None
    if subnet != subnet.network:
        fields.problem("subnet", f"{subnet} has host bits set; the network is {subnet.network}")
        subnet = subnet.network
    for key, ip in (("gateway", gateway), ("rangeStart", start), ("rangeEnd", end)):
        if ip is not None:
            warnings += _check_address(fields, key, ip, subnet)
    first, last = _default_ends(subnet)
    if gateway is None and subnet.prefix < subnet.ip.bits:
        gateway = first
    entry = Range(subnet, start or first, end or last, gateway)
    if entry.start.version != entry.end.version:
        return entry
    if entry.start > entry.end:
        fields.problem("rangeEnd", f"{entry.end} is before rangeStart {entry.start}")
        return entry
    for key, network in excluded.items():
        if not (network.first in subnet or subnet.first in network):
            fields.problem(key, f"{network} is not in subnet {subnet}")
    _check_kind(fields, entry, warnings)
    entry = entry.without([*excluded.values(), *([CIDR(gateway, gateway.bits)] if gateway is not None else [])])
    if next(entry.runs(entry.start.value, entry.end.value), None) is None:
        fields.problem("", f"{entry} has no address to give out beside the gateway and what is excluded")
    return entry


def _default_ends(subnet: CIDR) -> tuple[IP, IP]:
    """The first and the last address of a subnet that a host can have."""
    if subnet.prefix > subnet.ip.bits - 2:
        return subnet.first, subnet.last
    return IP(subnet.version, subnet.first.value + 1), IP(
        subnet.version, subnet.last.value - (1 if subnet.version == 4 else 0)
    )


def _parse_excluded(fields: Fields) -> dict[str, CIDR]:
    """The networks in the list `exclude`, by their keys. An address counts as a network of one."""
    found = {}
    for i, text in enumerate(fields.texts("exclude")):
        key = f"exclude[{i}]"
        try:
            network = parse_cidr(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
        except ValueError as error:
            fields.problem(key, str(error))
            continue
        if network != network.network:
            fields.problem(key, f"{network} has host bits set; the network is {network.network}")
        found[key] = network
    return found


def _check_address(fields: Fields, key: str, ip: IP, subnet: CIDR) -> list[str]:
    """Note a problem when no host of the subnet can have an address. Returns warnings about doubtful ones."""
    if ip not in subnet:
        fields.problem(key, f"{ip} is not in subnet {subnet}")
    elif subnet.prefix > ip.bits - 2:
        return []
    elif ip.version == 6 and ip == subnet.first:
        return [
            f"{fields.path(key)}: {ip} is the address of all routers in {subnet} (RFC 4291, 2.6.1), and a router that "
            "forwards answers for it"
        ]
    elif ip.version == 4 and ip in (subnet.first, subnet.last):
        what = "network" if ip == subnet.first else "broadcast"
        fields.problem(key, f"{ip} is the {what} address of {subnet}, which no interface can have")
    return []


def _check_kind(fields: Fields, entry: Range, warnings: list[str]) -> None:
    """Note a problem or append a warning when a range has special addresses (_KINDS)."""
    for kind in _KINDS:
        if kind.network.version == entry.start.version and (entry.start in kind.network or kind.network.first in entry):
            text = f"{entry} has addresses of {kind.network}, which is for {kind.purpose}"
            if kind.usable:
                warnings.append(f"{fields.path('subnet')}: {text}")
            else:
                fields.problem("subnet", text)
                return
