"""nftables rules as values: maps, chains, elements, and the expressions that rules are made of. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h, nft(8). An expression is its name and the attributes that the kernel
takes for it. Registers are counted in 32 bits, as in a concatenation.
Must not: know what a rule is for.
"""

import sys

from cni_protocol.address import CIDR
from cni_protocol.light.standard import Any, NamedTuple, Sequence

INET, BRIDGE = 1, 7  # NFPROTO_INET, NFPROTO_BRIDGE: the families of tables

PREROUTING, INPUT, OUTPUT, POSTROUTING = 0, 1, 3, 4  # NF_INET_*; NF_BR_PRE_ROUTING is 0 too
# NF_IP_PRI_*; connection tracking is at -200, and NF_BR_PRI_NAT_DST_BRIDGED is -300
RAW, MANGLE, DESTINATION_NAT, SOURCE_NAT = -300, -150, -100, 100

# What nft(8) calls ipv4_addr, ipv6_addr, ether_addr, inet_proto, inet_service and ifname, with their bytes.
IPV4_ADDR, IPV6_ADDR, ETHER_ADDR, INET_PROTO, INET_SERVICE, IFNAME = (7, 4), (8, 16), (9, 6), (12, 1), (13, 2), (41, 16)
ADDRESS = {4: IPV4_ADDR, 6: IPV6_ADDR}
_NAME_REGISTERS = IFNAME[1] // 4
VERDICT = (0xFFFFFF00, 16)  # NFT_DATA_VERDICT

_RETURN, _DROP = -5, 0  # NFT_RETURN, NF_DROP
_VERDICT_REGISTER, FIRST_REGISTER = 0, 8  # NFT_REG_VERDICT, NFT_REG32_00
_LINK_HEADER, NETWORK_HEADER, _TRANSPORT_HEADER = 0, 1, 2  # NFT_PAYLOAD_*
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
NFPROTO = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
EQUAL, NOT_EQUAL = 0, 1  # NFT_CMP_*
_DADDR_FLAG, _LOCAL = 1 << 1, 2  # NFTA_FIB_F_DADDR, RTN_LOCAL
_RESULT_ADDRTYPE = 3  # NFT_FIB_RESULT_ADDRTYPE
_INVERTED = 1 << 0  # NFT_LOOKUP_F_INV
_TYPE_BITS = 6  # bits per type in a concatenation's type number (TYPE_BITS of nft)

# Where an address stands in the network header, in bytes, by IP version.
SOURCE = {4: 12, 6: 8}
DESTINATION = {4: 16, 6: 24}

Attributes = list[tuple[str, Any]]
Expression = tuple[str, Attributes]
Rule = Sequence[Expression]
DataType = tuple[int, int]


class Map(NamedTuple):
    """A set, or with `data` a map: type and length (bytes) of its keys and of what they lead to.

    With `interval` its elements are the beginnings and ends of intervals of keys.
    """

    name: str
    key: DataType
    data: DataType | None = None
    interval: bool = False


class Element(NamedTuple):
    """An element of a set or map: key, what it leads to (bytes, or a chain to jump to), and whose it is.

    `claim` says in words what a key stands for that no two owners may have; where it is empty, an element that
    somebody left behind gives way. With `end` the key is the first one behind an interval that began with another.
    """

    map: str
    key: bytes
    comment: str
    data: bytes = b""
    chain: str = ""
    claim: str = ""
    end: bool = False


class Chain(NamedTuple):
    """A chain with all its rules; with `kind` ("nat" or "filter") one that the kernel runs at a hook."""

    name: str
    rules: tuple[Rule, ...]
    kind: str = ""
    hook: int = 0
    priority: int = 0


class Rules(NamedTuple):
    """What a table of one family should hold for an attachment. Maps and chains are shared, elements are its own."""

    family: int
    maps: tuple[Map, ...]
    chains: tuple[Chain, ...]
    elements: tuple[Element, ...]


def concatenated(*types: DataType) -> DataType:
    """The type of a concatenation: every part takes whole 32-bit words."""
    number = 0
    for kind, _ in types:
        number = number << _TYPE_BITS | kind
    return number, sum(_padded_length(length) for _, length in types)


def pad(*parts: bytes) -> bytes:
    """The bytes of a concatenation."""
    return b"".join(part.ljust(_padded_length(len(part)), b"\0") for part in parts)


def pack_name(interface: str) -> bytes:
    """The bytes of an interface's name as a key."""
    return interface.encode().ljust(IFNAME[1], b"\0")


def _padded_length(length: int) -> int:
    return (length + 3) & ~3


def expression(name: str, *attributes: tuple[str, Any]) -> Expression:
    """An expression of that name, with the attributes that are given."""
    return name, list(attributes)


def data_value(data: bytes) -> Attributes:
    """Bytes as the kernel takes them (NFTA_DATA_VALUE)."""
    return [("NFTA_DATA_VALUE", data)]


def data_verdict(code: int, chain: str = "") -> Attributes:
    """A verdict as the kernel takes it (NFTA_DATA_VERDICT)."""
    target = [("NFTA_VERDICT_CHAIN", chain)] if chain else []
    return [("NFTA_DATA_VERDICT", [("NFTA_VERDICT_CODE", code), *target])]


def _load_meta(key: int, register: int) -> Expression:
    return expression("meta", ("NFTA_META_KEY", key), ("NFTA_META_DREG", FIRST_REGISTER + register))


def _load_payload(base: int, offset: int, length: int, register: int) -> Expression:
    return expression(
        "payload",
        ("NFTA_PAYLOAD_DREG", FIRST_REGISTER + register),
        ("NFTA_PAYLOAD_BASE", base),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    )


def compare(operator: int, data: bytes) -> Expression:
    """Go on only if what was loaded begins with these bytes (EQUAL), or does not (NOT_EQUAL)."""
    return expression(
        "cmp",
        ("NFTA_CMP_SREG", FIRST_REGISTER),
        ("NFTA_CMP_OP", operator),
        ("NFTA_CMP_DATA", data_value(data)),
    )


def mask(bits: bytes) -> Expression:
    """Keep these bits alone of what was loaded."""
    return expression(
        "bitwise",
        ("NFTA_BITWISE_SREG", FIRST_REGISTER),
        ("NFTA_BITWISE_DREG", FIRST_REGISTER),
        ("NFTA_BITWISE_LEN", len(bits)),
        ("NFTA_BITWISE_MASK", data_value(bits)),
        ("NFTA_BITWISE_XOR", data_value(bytes(len(bits)))),
    )


def match_version(version: int) -> list[Expression]:
    """Go on only with packets of an IP version."""
    return [_load_meta(_META_NFPROTO, 0), compare(EQUAL, bytes([NFPROTO[version]]))]


def load_address(version: int, offset: dict[int, int]) -> Expression:
    """Load the SOURCE or DESTINATION address of a packet that is known to be of this IP version."""
    return _load_payload(NETWORK_HEADER, offset[version], ADDRESS[version][1], 0)


def load_destination(version: int) -> list[Expression]:
    """Go on only with packets of an IP version, and load their destination address."""
    return [*match_version(version), load_address(version, DESTINATION)]


def load_sender(version: int) -> list[Expression]:
    """Go on only with packets of an IP version; load the interface that they came in by and their source address.

    After routing the kernel still knows that interface from Linux 5.7 on (nothing that the host sends has one).
    """
    address = _load_payload(NETWORK_HEADER, SOURCE[version], ADDRESS[version][1], _NAME_REGISTERS)
    return [*match_version(version), _load_meta(_META_IIFNAME, 0), address]


def load_receiver(version: int) -> list[Expression]:
    """Go on only with packets of an IP version; load the interface that they leave by and their destination address."""
    address = _load_payload(NETWORK_HEADER, DESTINATION[version], ADDRESS[version][1], _NAME_REGISTERS)
    return [*match_version(version), _load_meta(_META_OIFNAME, 0), address]


def load_service(register: int) -> list[Expression]:
    """Load transport protocol and destination port into a register and the one after it."""
    return [_load_meta(_META_L4PROTO, register), _load_payload(_TRANSPORT_HEADER, 2, 2, register + 1)]


def load_interface() -> Expression:
    """Load the name of the interface that the packet came in by."""
    return _load_meta(_META_IIFNAME, 0)


def load_source_mac(register: int) -> Expression:
    """Load the frame's source address."""
    return _load_payload(_LINK_HEADER, 6, 6, register)


def match_network(network: CIDR, offset: dict[int, int]) -> list[Expression]:
    """Go on only with packets of the network's IP version whose SOURCE or DESTINATION address lies in it.

    Of a prefix of whole bytes only these are loaded and compared, as nft(8) does it: so a rule is the same after nft(8)
    has saved and loaded it.
    """
    version, (whole, part) = network.version, divmod(network.prefix, 8)
    if not network.prefix:
        return match_version(version)
    load = _load_payload(NETWORK_HEADER, offset[version], ADDRESS[version][1] if part else whole, 0)
    return [*match_version(version), load, *match_loaded(network)]


def match_loaded(network: CIDR) -> list[Expression]:
    """Go on only if the loaded address lies in a network, which is not that of all addresses."""
    whole, part = divmod(network.prefix, 8)
    if not part:
        return [compare(EQUAL, network.first.packed[:whole])]
    bits = network.ip.bits
    kept = (1 << network.prefix) - 1 << bits - network.prefix
    return [mask(kept.to_bytes(bits // 8, "big")), compare(EQUAL, network.first.packed)]


def match_local_destination() -> list[Expression]:
    """Go on only if the packet is for an address of this host."""
    load = expression(
        "fib",
        ("NFTA_FIB_DREG", FIRST_REGISTER),
        ("NFTA_FIB_RESULT", _RESULT_ADDRTYPE),
        ("NFTA_FIB_FLAGS", _DADDR_FLAG),
    )
    return [load, compare(EQUAL, _LOCAL.to_bytes(4, sys.byteorder))]


def load_value(data: bytes) -> Expression:
    """Load these bytes."""
    return expression("immediate", ("NFTA_IMMEDIATE_DREG", FIRST_REGISTER), ("NFTA_IMMEDIATE_DATA", data_value(data)))


def look_up(name: str, *, verdict: bool = False, data: bool = False, inverted: bool = False) -> Expression:
    """Look what was loaded up in a set or map: go on only if it is in (or with `inverted`, is not).

    With `verdict` the map's verdict is followed, with `data` what it leads to is loaded.
    """
    attributes: Attributes = [("NFTA_LOOKUP_SET", name), ("NFTA_LOOKUP_SREG", FIRST_REGISTER)]
    if verdict or data:
        attributes.append(("NFTA_LOOKUP_DREG", _VERDICT_REGISTER if verdict else FIRST_REGISTER))
    if inverted:
        attributes.append(("NFTA_LOOKUP_FLAGS", _INVERTED))
    return expression("lookup", *attributes)


def _end(code: int) -> Expression:
    return expression(
        "immediate", ("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", data_verdict(code))
    )


def leave_chain() -> Expression:
    """Go back to where the chain was called from."""
    return _end(_RETURN)


def drop() -> Expression:
    """Drop the packet."""
    return _end(_DROP)
