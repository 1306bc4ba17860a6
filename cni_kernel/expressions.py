"""nftables rules as values: maps, chains, elements, and the expressions that rules are made of. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h, nft(8). An expression is a name and the attributes that the kernel
defines for it. A rule is a list of expressions; the kernel runs them in order until one does not match. Registers are
numbered in words of 32 bits, as in a concatenation.
Must not: know what a rule is for.
"""

import sys

from cni_protocol.address import CIDR
from cni_protocol.light.standard import Any, NamedTuple, Sequence

INET, BRIDGE = 1, 7  # NFPROTO_INET, NFPROTO_BRIDGE: the families of tables

PREROUTING, INPUT, OUTPUT, POSTROUTING = 0, 1, 3, 4  # NF_INET_*; NF_BR_PRE_ROUTING is 0 too
# NF_IP_PRI_*; connection tracking is at -200, and NF_BR_PRI_NAT_DST_BRIDGED is -300
RAW, MANGLE, DESTINATION_NAT, SOURCE_NAT = -300, -150, -100, 100

# Data types as (number, length in bytes); nft(8) has them as ipv4_addr, ipv6_addr, ether_addr, and so on.
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

# The offset of an address in the network header, in bytes, by IP version.
SOURCE = {4: 12, 6: 8}
DESTINATION = {4: 16, 6: 24}

Attributes = list[tuple[str, Any]]
Expression = tuple[str, Attributes]
Rule = Sequence[Expression]
DataType = tuple[int, int]


class Map(NamedTuple):
    """A set, or with `data` a map. `key` and `data` are the types of keys and values: number and length in bytes.

    With `interval` its elements are the beginnings and ends of intervals of keys.
    """

    name: str
    key: DataType
    data: DataType | None = None
    interval: bool = False


class Element(NamedTuple):
    """An element of a set or map: its key, its value (`data`, or a `chain` to jump to), and its owner (`comment`).

    `claim` describes in words a key that only one owner may have, such as a host port. Without `claim`, an element that
    another owner left behind is replaced. `end` marks the end of an interval: the first key after it.
    """

    map: str
    key: bytes
    comment: str
    data: bytes = b""
    chain: str = ""
    claim: str = ""
    end: bool = False


class Chain(NamedTuple):
    """A chain with all its rules. With `kind` ("nat" or "filter") it is a base chain: the kernel runs it at `hook`."""

    name: str
    rules: tuple[Rule, ...]
    kind: str = ""
    hook: int = 0
    priority: int = 0


class Rules(NamedTuple):
    """What a table of one family should hold for an attachment: shared maps and chains, and elements of its own."""

    family: int
    maps: tuple[Map, ...]
    chains: tuple[Chain, ...]
    elements: tuple[Element, ...]


def concatenated(*types: DataType) -> DataType:
    """The type of a concatenation. Each part is padded to whole 32-bit words."""
    number = 0
    for kind, _ in types:
        number = number << _TYPE_BITS | kind
    return number, sum(_padded_length(length) for _, length in types)


def pad(*parts: bytes) -> bytes:
    """The bytes of a concatenated key: each part padded to whole 32-bit words."""
    return b"".join(part.ljust(_padded_length(len(part)), b"\0") for part in parts)


def pack_name(interface: str) -> bytes:
    """The bytes of an interface's name as a key."""
    return interface.encode().ljust(IFNAME[1], b"\0")


def _padded_length(length: int) -> int:
    return (length + 3) & ~3


def expression(name: str, *attributes: tuple[str, Any]) -> Expression:
    """Make an expression of its name and attributes."""
    return name, list(attributes)


def data_value(data: bytes) -> Attributes:
    """Bytes as attributes (NFTA_DATA_VALUE)."""
    return [("NFTA_DATA_VALUE", data)]


def data_verdict(code: int, chain: str = "") -> Attributes:
    """A verdict as attributes (NFTA_DATA_VERDICT); `chain` is the target of a jump."""
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
    """Continue the rule only if the loaded value begins with these bytes (EQUAL), or does not (NOT_EQUAL)."""
    return expression(
        "cmp",
        ("NFTA_CMP_SREG", FIRST_REGISTER),
        ("NFTA_CMP_OP", operator),
        ("NFTA_CMP_DATA", data_value(data)),
    )


def mask(bits: bytes) -> Expression:
    """Clear all other bits of the loaded value."""
    return expression(
        "bitwise",
        ("NFTA_BITWISE_SREG", FIRST_REGISTER),
        ("NFTA_BITWISE_DREG", FIRST_REGISTER),
        ("NFTA_BITWISE_LEN", len(bits)),
        ("NFTA_BITWISE_MASK", data_value(bits)),
        ("NFTA_BITWISE_XOR", data_value(bytes(len(bits)))),
    )


def match_version(version: int) -> list[Expression]:
    """Continue the rule only for packets of an IP version."""
    return [_load_meta(_META_NFPROTO, 0), compare(EQUAL, bytes([NFPROTO[version]]))]


def load_address(version: int, offset: dict[int, int]) -> Expression:
    """Load the SOURCE or DESTINATION address. The rule must have matched the packet's IP version before."""
    return _load_payload(NETWORK_HEADER, offset[version], ADDRESS[version][1], 0)


def load_destination(version: int) -> list[Expression]:
    """Continue the rule only for packets of an IP version, and load their destination address."""
    return [*match_version(version), load_address(version, DESTINATION)]


def load_sender(version: int) -> list[Expression]:
    """Continue the rule only for packets of an IP version; load their incoming interface and their source address.

    After routing, the incoming interface is available from Linux 5.7 on. Packets of the host itself have none.
    """
    address = _load_payload(NETWORK_HEADER, SOURCE[version], ADDRESS[version][1], _NAME_REGISTERS)
    return [*match_version(version), _load_meta(_META_IIFNAME, 0), address]


def load_receiver(version: int) -> list[Expression]:
    """Continue the rule only for packets of an IP version; load their outgoing interface and destination address."""
    address = _load_payload(NETWORK_HEADER, DESTINATION[version], ADDRESS[version][1], _NAME_REGISTERS)
    return [*match_version(version), _load_meta(_META_OIFNAME, 0), address]


def load_service(register: int) -> list[Expression]:
    """Load the transport protocol into `register`, and the destination port into the next one."""
    return [_load_meta(_META_L4PROTO, register), _load_payload(_TRANSPORT_HEADER, 2, 2, register + 1)]


def load_interface() -> Expression:
    """Load the name of the interface that the packet came in by."""
    return _load_meta(_META_IIFNAME, 0)


def load_source_mac(register: int) -> Expression:
    """Load the frame's source MAC."""
    return _load_payload(_LINK_HEADER, 6, 6, register)


def match_network(network: CIDR, offset: dict[int, int]) -> list[Expression]:
    """Continue the rule only for packets whose SOURCE or DESTINATION address lies in the network.

    When the prefix ends at a byte, only its bytes are loaded and compared. nft(8) encodes it so, and thus a rule stays
    the same when nft(8) saves and restores it.
    """
    version, (whole, part) = network.version, divmod(network.prefix, 8)
    if not network.prefix:
        return match_version(version)
    load = _load_payload(NETWORK_HEADER, offset[version], ADDRESS[version][1] if part else whole, 0)
    return [*match_version(version), load, *match_loaded(network)]


def match_loaded(network: CIDR) -> list[Expression]:
    """Continue the rule only if the loaded address lies in a network. The prefix length must not be 0."""
    whole, part = divmod(network.prefix, 8)
    if not part:
        return [compare(EQUAL, network.first.packed[:whole])]
    bits = network.ip.bits
    kept = (1 << network.prefix) - 1 << bits - network.prefix
    return [mask(kept.to_bytes(bits // 8, "big")), compare(EQUAL, network.first.packed)]


def match_local_destination() -> list[Expression]:
    """Continue the rule only if the packet's destination is an address of this host."""
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
    """Look up the loaded value in a set or map. Continue the rule only if it is there (with `inverted`: is not there).

    With `verdict`, follow the verdict that the map has for it; with `data`, load the value that the map has for it.
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
    """Return to the calling chain."""
    return _end(_RETURN)


def drop() -> Expression:
    """Drop the packet."""
    return _end(_DROP)
