"""nftables expressions for a stateful packet filter: state of connections, sets of addresses and ports, verdicts. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h and nf_conntrack_common.h, nft(8); see expressions.py.
Must not: know what a rule is for.
"""

import sys

from cni_protocol.light.standard import Any, Mapping, NamedTuple

from .expressions import (
    ADDRESS,
    DESTINATION,
    SOURCE,
    DataType,
    Expression,
    data_value,
    data_verdict,
    load_service,
    look_up,
    match_version,
)

# Elements of a set by their key: in a verdict map the chain to jump to, in a set of intervals the last key, else b"".
Elements = Mapping[bytes, bytes | str]

FORWARD = 2  # NF_INET_FORWARD
FILTER = 0  # NF_IP_PRI_FILTER

_VERDICT_REGISTER, _FIRST_REGISTER = 0, 8  # NFT_REG_VERDICT, NFT_REG32_00
_ACCEPT, _JUMP, _GOTO = 1, -3, -4  # NF_ACCEPT, NFT_JUMP, NFT_GOTO
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2  # NFT_PAYLOAD_*
_META_L4PROTO = 16
_CT_STATE, _CT_MARK = 0, 3  # NFT_CT_*
_ESTABLISHED, _RELATED = 1 << 1, 1 << 2  # NF_CT_STATE_BIT of IP_CT_*
_EQUAL, _NOT_EQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5  # NFT_CMP_EQ, NEQ, LTE, GTE
_TCP, _ICMPV6 = 6, 58  # IPPROTO_*
_DESTINATION_PORT_AT, _LAST_PORT = 2, 65535  # the same of TCP, UDP and SCTP
_FLAGS_AT, _FIN_SYN_RST_ACK, _SYN = 13, 0x17, 0x02  # of the TCP header
_INFO = 6  # LOGLEVEL_INFO


class SetType(NamedTuple):
    """The type of a set: its keys, whether it maps them to verdicts, whether its keys are intervals.

    `parts` are the lengths (bytes) of the parts of a key, for intervals of concatenated keys only.
    """

    key: DataType
    verdicts: bool = False
    intervals: bool = False
    parts: tuple[int, ...] = ()


def match_mark(mark: int) -> list[Expression]:
    """Continue the rule only if the connection's mark has one of these bits."""
    return [_load("ct", _CT_MARK), _mask(_native(mark)), _compare(_NOT_EQUAL, bytes(4))]


def match_established() -> list[Expression]:
    """Continue the rule only for packets whose connection is established or related (conntrack states)."""
    return [_load("ct", _CT_STATE), _mask(_native(_ESTABLISHED | _RELATED)), _compare(_NOT_EQUAL, bytes(4))]


def match_icmpv6(first: int, last: int) -> list[Expression]:
    """Continue the rule only for ICMPv6 messages of types from `first` to `last`, both included."""
    kind = _payload(_TRANSPORT_HEADER, 0, 1)
    at_least, at_most = _compare(_AT_LEAST, bytes([first])), _compare(_AT_MOST, bytes([last]))
    return [_load("meta", _META_L4PROTO), _compare(_EQUAL, bytes([_ICMPV6])), kind, at_least, at_most]


def match_no_syn() -> list[Expression]:
    """Continue the rule only for TCP packets that do not open a connection: all but SYN alone of FIN, SYN, RST, ACK."""
    flags = [_payload(_TRANSPORT_HEADER, _FLAGS_AT, 1), _mask(bytes([_FIN_SYN_RST_ACK]))]
    return [
        _load("meta", _META_L4PROTO),
        _compare(_EQUAL, bytes([_TCP])),
        *flags,
        _compare(_NOT_EQUAL, bytes([_SYN])),
    ]


def find_address(version: int, offset: dict[int, int], name: str, *, verdict: bool = False) -> list[Expression]:
    """Continue only if the SOURCE or DESTINATION address is in a set; with `verdict`, follow the map's verdict."""
    return [*match_version(version), _address(version, offset, 0), look_up(name, verdict=verdict)]


def find_ends(version: int, name: str) -> list[Expression]:
    """Continue the rule only if the pair of source and destination address is in a set."""
    words = ADDRESS[version][1] // 4
    return [
        *match_version(version),
        _address(version, SOURCE, 0),
        _address(version, DESTINATION, words),
        look_up(name),
    ]


def match_service(protocol: int, first: int, last: int) -> list[Expression]:
    """Continue the rule only for packets of a transport protocol to ports from `first` to `last`, both included."""
    found = [_load("meta", _META_L4PROTO), _compare(_EQUAL, bytes([protocol]))]
    bounds = [number.to_bytes(2, "big") for number in (first, last)]
    if (first, last) == (0, _LAST_PORT):
        return found
    found.append(_payload(_TRANSPORT_HEADER, _DESTINATION_PORT_AT, 2))
    if first == last:
        return [*found, _compare(_EQUAL, bounds[0])]
    return [*found, _compare(_AT_LEAST, bounds[0]), _compare(_AT_MOST, bounds[1])]


def find_service(name: str) -> list[Expression]:
    """Continue the rule only if the pair of protocol and destination port is in a set."""
    return [*load_service(0), look_up(name)]


def find_destination_service(version: int, name: str) -> list[Expression]:
    """Continue the rule only if destination address, protocol and destination port, as one key, are in a set."""
    words = ADDRESS[version][1] // 4
    return [*match_version(version), _address(version, DESTINATION, 0), *load_service(words), look_up(name)]


def count() -> Expression:
    """Count packets and bytes."""
    return "counter", []


def log(prefix: str, per_second: int, burst: int) -> list[Expression]:
    """Log the packet (dmesg). Above the rate limit the rule ends here instead. `prefix` has at most 127 bytes."""
    limit: list[tuple[str, Any]] = [
        ("NFTA_LIMIT_RATE", per_second),
        ("NFTA_LIMIT_UNIT", 1),
        ("NFTA_LIMIT_BURST", burst),
    ]
    return [("limit", limit), ("log", [("NFTA_LOG_PREFIX", prefix), ("NFTA_LOG_LEVEL", _INFO)])]


def accept() -> Expression:
    """Accept the packet: the base chain ends here, other base chains still run."""
    return _verdict(_ACCEPT)


def jump(chain: str) -> Expression:
    """Jump to a chain, and continue here at its end."""
    return _verdict(_JUMP, chain)


def goto(chain: str) -> Expression:
    """Go to a chain without returning here."""
    return _verdict(_GOTO, chain)


def _verdict(code: int, chain: str = "") -> Expression:
    data = data_verdict(code, chain)
    return "immediate", [("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", data)]


def _load(kind: str, key: int) -> Expression:
    prefix = f"NFTA_{kind.upper()}"
    return kind, [(f"{prefix}_KEY", key), (f"{prefix}_DREG", _FIRST_REGISTER)]


def _address(version: int, offset: dict[int, int], register: int) -> Expression:
    return _payload(_NETWORK_HEADER, offset[version], ADDRESS[version][1], register)


def _payload(base: int, offset: int, length: int, register: int = 0) -> Expression:
    return "payload", [
        ("NFTA_PAYLOAD_DREG", _FIRST_REGISTER + register),
        ("NFTA_PAYLOAD_BASE", base),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    ]


def _compare(operator: int, data: bytes) -> Expression:
    return "cmp", [
        ("NFTA_CMP_SREG", _FIRST_REGISTER),
        ("NFTA_CMP_OP", operator),
        ("NFTA_CMP_DATA", data_value(data)),
    ]


def _mask(mask: bytes) -> Expression:
    return "bitwise", [
        ("NFTA_BITWISE_SREG", _FIRST_REGISTER),
        ("NFTA_BITWISE_DREG", _FIRST_REGISTER),
        ("NFTA_BITWISE_LEN", len(mask)),
        ("NFTA_BITWISE_MASK", data_value(mask)),
        ("NFTA_BITWISE_XOR", data_value(bytes(len(mask)))),
    ]


def _native(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
