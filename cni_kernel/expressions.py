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
VERDICT = (0xFFFFFF00, 16)  # NFT_DATA_VERDICT

_RETURN, _DROP = -5, 0  # NFT_RETURN, NF_DROP
_VERDICT_REGISTER, _FIRST_REGISTER = 0, 8  # NFT_REG_VERDICT, NFT_REG32_00
_LINK_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER = 0, 1, 2  # NFT_PAYLOAD_*
_META_IIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 15, 16
_NFPROTO = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_EQUAL, _NOT_EQUAL = 0, 1  # NFT_CMP_*
_CT_DIRECTION, _CT_STATUS, _CT_SRC_IP, _CT_DST_IP = 1, 2, 19, 20  # NFT_CT_*
_STATUS_CONFIRMED, _STATUS_DNAT = 1 << 3, 1 << 5  # IPS_CONFIRMED, IPS_DST_NAT
_CHECKSUM_INET, _CHECKSUM_AT, _CHECKSUM_FLAGS = 1, 10, 1  # NFT_PAYLOAD_CSUM_INET; the IPv4 header's; and TCP's, UDP's
_DADDR_FLAG, _LOCAL = 1 << 1, 2  # NFTA_FIB_F_DADDR, RTN_LOCAL
_RESULT_ADDRTYPE = 3  # NFT_FIB_RESULT_ADDRTYPE
_DNAT = 1  # NFT_NAT_DNAT
_INVERTED = 1 << 0  # NFT_LOOKUP_F_INV
_TYPE_BITS = 6  # bits per type in a concatenation's type number (TYPE_BITS of nft)

# Where an address stands in the network header, in bytes, by IP version.
SOURCE = {4: 12, 6: 8}
DESTINATION = {4: 16, 6: 24}
ORIGINAL, REPLY = 0, 1  # IP_CT_DIR_*

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


def _padded_length(length: int) -> int:
    return (length + 3) & ~3


def _expression(name: str, *attributes: tuple[str, Any]) -> Expression:
    return name, list(attributes)


def data_value(data: bytes) -> Attributes:
    """Bytes as the kernel takes them (NFTA_DATA_VALUE)."""
    return [("NFTA_DATA_VALUE", data)]


def data_verdict(code: int, chain: str = "") -> Attributes:
    """A verdict as the kernel takes it (NFTA_DATA_VERDICT)."""
    target = [("NFTA_VERDICT_CHAIN", chain)] if chain else []
    return [("NFTA_DATA_VERDICT", [("NFTA_VERDICT_CODE", code), *target])]


def _load_meta(key: int, register: int) -> Expression:
    return _expression("meta", ("NFTA_META_KEY", key), ("NFTA_META_DREG", _FIRST_REGISTER + register))


def _load_payload(base: int, offset: int, length: int, register: int) -> Expression:
    return _expression(
        "payload",
        ("NFTA_PAYLOAD_DREG", _FIRST_REGISTER + register),
        ("NFTA_PAYLOAD_BASE", base),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    )


def _compare(operator: int, data: bytes) -> Expression:
    return _expression(
        "cmp",
        ("NFTA_CMP_SREG", _FIRST_REGISTER),
        ("NFTA_CMP_OP", operator),
        ("NFTA_CMP_DATA", data_value(data)),
    )


def _mask(mask: bytes) -> Expression:
    return _expression(
        "bitwise",
        ("NFTA_BITWISE_SREG", _FIRST_REGISTER),
        ("NFTA_BITWISE_DREG", _FIRST_REGISTER),
        ("NFTA_BITWISE_LEN", len(mask)),
        ("NFTA_BITWISE_MASK", data_value(mask)),
        ("NFTA_BITWISE_XOR", data_value(bytes(len(mask)))),
    )


def match_version(version: int) -> list[Expression]:
    """Go on only with packets of an IP version."""
    return [_load_meta(_META_NFPROTO, 0), _compare(_EQUAL, bytes([_NFPROTO[version]]))]


def load_address(version: int, offset: dict[int, int]) -> list[Expression]:
    """Go on only with packets of an IP version, and load their SOURCE or DESTINATION address."""
    return [*match_version(version), _load_payload(_NETWORK_HEADER, offset[version], ADDRESS[version][1], 0)]


def load_service(register: int) -> list[Expression]:
    """Load transport protocol and destination port into a register and the one after it."""
    return [_load_meta(_META_L4PROTO, register), _load_payload(_TRANSPORT_HEADER, 2, 2, register + 1)]


def load_interface() -> Expression:
    """Load the name of the interface that the packet came in by."""
    return _load_meta(_META_IIFNAME, 0)


def load_source_mac(register: int) -> Expression:
    """Load the frame's source address."""
    return _load_payload(_LINK_HEADER, 6, 6, register)


def match_network(network: CIDR) -> list[Expression]:
    """Go on only if the loaded address lies in a network."""
    bits = network.ip.bits
    mask = ((1 << network.prefix) - 1 << bits - network.prefix).to_bytes(bits // 8, "big")
    return [_mask(mask), _compare(_EQUAL, network.first.packed)]


def match_local_destination() -> list[Expression]:
    """Go on only if the packet is for an address of this host."""
    load = _expression(
        "fib",
        ("NFTA_FIB_DREG", _FIRST_REGISTER),
        ("NFTA_FIB_RESULT", _RESULT_ADDRTYPE),
        ("NFTA_FIB_FLAGS", _DADDR_FLAG),
    )
    return [load, _compare(_EQUAL, _LOCAL.to_bytes(4, sys.byteorder))]


def _load_connection(key: int, *attributes: tuple[str, Any]) -> Expression:
    return _expression("ct", ("NFTA_CT_DREG", _FIRST_REGISTER), ("NFTA_CT_KEY", key), *attributes)


def match_destination_nat() -> list[Expression]:
    """Go on only if the connection's destination was translated."""
    status = _STATUS_DNAT.to_bytes(4, sys.byteorder)
    return [_load_connection(_CT_STATUS), _mask(status), _compare(_NOT_EQUAL, bytes(4))]


def match_no_destination_nat() -> list[Expression]:
    """Go on only if the connection's destination was not translated, and no longer can be."""
    mask, status = _STATUS_CONFIRMED | _STATUS_DNAT, _STATUS_CONFIRMED
    equal = _compare(_EQUAL, status.to_bytes(4, sys.byteorder))
    return [_load_connection(_CT_STATUS), _mask(mask.to_bytes(4, sys.byteorder)), equal]


def match_direction(direction: int) -> list[Expression]:
    """Go on only with packets of this direction of their connection: ORIGINAL or REPLY."""
    return [_load_connection(_CT_DIRECTION), _compare(_EQUAL, bytes([direction]))]


def load_connection_address(direction: int, offset: dict[int, int]) -> Expression:
    """Load the IPv4 address that packets of a direction have as SOURCE or DESTINATION, before it is translated."""
    key = _CT_SRC_IP if offset is SOURCE else _CT_DST_IP
    return _load_connection(key, ("NFTA_CT_DIRECTION", direction))


def load_value(data: bytes) -> Expression:
    """Load these bytes."""
    return _expression("immediate", ("NFTA_IMMEDIATE_DREG", _FIRST_REGISTER), ("NFTA_IMMEDIATE_DATA", data_value(data)))


def set_address(offset: dict[int, int]) -> Expression:
    """Make what was loaded the packet's IPv4 SOURCE or DESTINATION, unknown to connection tracking; mend checksums."""
    return _expression(
        "payload",
        ("NFTA_PAYLOAD_SREG", _FIRST_REGISTER),
        ("NFTA_PAYLOAD_BASE", _NETWORK_HEADER),
        ("NFTA_PAYLOAD_OFFSET", offset[4]),
        ("NFTA_PAYLOAD_LEN", ADDRESS[4][1]),
        ("NFTA_PAYLOAD_CSUM_TYPE", _CHECKSUM_INET),
        ("NFTA_PAYLOAD_CSUM_OFFSET", _CHECKSUM_AT),
        ("NFTA_PAYLOAD_CSUM_FLAGS", _CHECKSUM_FLAGS),
    )


def look_up(name: str, *, verdict: bool = False, data: bool = False, inverted: bool = False) -> Expression:
    """Look what was loaded up in a set or map: go on only if it is in (or with `inverted`, is not).

    With `verdict` the map's verdict is followed, with `data` what it leads to is loaded.
    """
    attributes: Attributes = [("NFTA_LOOKUP_SET", name), ("NFTA_LOOKUP_SREG", _FIRST_REGISTER)]
    if verdict or data:
        attributes.append(("NFTA_LOOKUP_DREG", _VERDICT_REGISTER if verdict else _FIRST_REGISTER))
    if inverted:
        attributes.append(("NFTA_LOOKUP_FLAGS", _INVERTED))
    return _expression("lookup", *attributes)


def translate_destination(version: int) -> Expression:
    """Send the connection to the loaded address and port."""
    return _expression(
        "nat",
        ("NFTA_NAT_TYPE", _DNAT),
        ("NFTA_NAT_FAMILY", _NFPROTO[version]),
        ("NFTA_NAT_REG_ADDR_MIN", _FIRST_REGISTER),
        ("NFTA_NAT_REG_PROTO_MIN", _FIRST_REGISTER + ADDRESS[version][1] // 4),
    )


def masquerade() -> Expression:
    """Give the connection the source address of the interface that it leaves by."""
    return _expression("masq")


def _end(code: int) -> Expression:
    return _expression(
        "immediate", ("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", data_verdict(code))
    )


def leave_chain() -> Expression:
    """Go back to where the chain was called from."""
    return _end(_RETURN)


def drop() -> Expression:
    """Drop the packet."""
    return _end(_DROP)
