"""nftables expressions on connections: matching the state of connection tracking, and translating addresses. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h and nf_conntrack_common.h, nft(8).
Must not: know what a rule is for.
"""

import sys

from cni_protocol.light.standard import Any

from .expressions import (
    ADDRESS,
    EQUAL,
    FIRST_REGISTER,
    NETWORK_HEADER,
    NFPROTO,
    NOT_EQUAL,
    SOURCE,
    Expression,
    compare,
    expression,
    mask,
)

ORIGINAL, REPLY = 0, 1  # IP_CT_DIR_*
_CT_DIRECTION, _CT_STATUS, _CT_SRC_IP, _CT_DST_IP = 1, 2, 19, 20  # NFT_CT_*
_STATUS_CONFIRMED, _STATUS_DNAT = 1 << 3, 1 << 5  # IPS_CONFIRMED, IPS_DST_NAT
_CHECKSUM_INET, _CHECKSUM_AT, _CHECKSUM_FLAGS = 1, 10, 1  # NFT_PAYLOAD_CSUM_INET; the IPv4 header's; and TCP's, UDP's
_DNAT = 1  # NFT_NAT_DNAT


def _load_connection(key: int, *attributes: tuple[str, Any]) -> Expression:
    return expression("ct", ("NFTA_CT_DREG", FIRST_REGISTER), ("NFTA_CT_KEY", key), *attributes)


def match_destination_nat() -> list[Expression]:
    """Continue the rule only if the connection's destination was translated."""
    status = _STATUS_DNAT.to_bytes(4, sys.byteorder)
    return [_load_connection(_CT_STATUS), mask(status), compare(NOT_EQUAL, bytes(4))]


def match_no_destination_nat() -> list[Expression]:
    """Continue the rule only if the connection is confirmed and its destination was not translated."""
    both, status = _STATUS_CONFIRMED | _STATUS_DNAT, _STATUS_CONFIRMED
    equal = compare(EQUAL, status.to_bytes(4, sys.byteorder))
    return [_load_connection(_CT_STATUS), mask(both.to_bytes(4, sys.byteorder)), equal]


def match_direction(direction: int) -> list[Expression]:
    """Continue the rule only for packets of this direction of their connection: ORIGINAL or REPLY."""
    return [_load_connection(_CT_DIRECTION), compare(EQUAL, bytes([direction]))]


def load_connection_address(direction: int, offset: dict[int, int]) -> Expression:
    """Load the IPv4 SOURCE or DESTINATION of a connection's packets in a direction, as it is before translation."""
    key = _CT_SRC_IP if offset is SOURCE else _CT_DST_IP
    return _load_connection(key, ("NFTA_CT_DIRECTION", direction))


def set_address(offset: dict[int, int]) -> Expression:
    """Write the loaded IPv4 address into the packet as SOURCE or DESTINATION, and correct its checksums.

    Connection tracking does not take part in this.
    """
    return expression(
        "payload",
        ("NFTA_PAYLOAD_SREG", FIRST_REGISTER),
        ("NFTA_PAYLOAD_BASE", NETWORK_HEADER),
        ("NFTA_PAYLOAD_OFFSET", offset[4]),
        ("NFTA_PAYLOAD_LEN", ADDRESS[4][1]),
        ("NFTA_PAYLOAD_CSUM_TYPE", _CHECKSUM_INET),
        ("NFTA_PAYLOAD_CSUM_OFFSET", _CHECKSUM_AT),
        ("NFTA_PAYLOAD_CSUM_FLAGS", _CHECKSUM_FLAGS),
    )


def translate_destination(version: int) -> Expression:
    """Translate the connection's destination to the loaded address and port."""
    return expression(
        "nat",
        ("NFTA_NAT_TYPE", _DNAT),
        ("NFTA_NAT_FAMILY", NFPROTO[version]),
        ("NFTA_NAT_REG_ADDR_MIN", FIRST_REGISTER),
        ("NFTA_NAT_REG_PROTO_MIN", FIRST_REGISTER + ADDRESS[version][1] // 4),
    )


def masquerade() -> Expression:
    """Translate the connection's source to the address of the interface that it leaves by."""
    return expression("masq")
