"""The netlink attributes of nftables that our tables need, under the kernel's names: values to bytes and back. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h; libnftnl for the format of user data (comments). Numbers are in
network byte order.
"""

import sys

from cni_protocol.light.standard import Any, Sequence

from .attributes import BE32, NESTED, RAW, TEXT, U8, Kind, Table, nested, number, split

_SIGNED = Kind(
    lambda value: value.to_bytes(4, "big", signed=True), lambda data: int.from_bytes(data, "big", signed=True)
)
_LIST_ELEM = 1  # NFTA_LIST_ELEM


def _list_of(kind: Kind) -> Kind:
    table = Table(NFTA_LIST_ELEM=(_LIST_ELEM, Kind(kind.pack, kind.unpack, NESTED)))
    return Kind(
        lambda values: table.pack([("NFTA_LIST_ELEM", value) for value in values]),
        lambda data: [value for _, value in table.unpack_all(data)],
        NESTED,
    )


VERDICT = Table(NFTA_VERDICT_CODE=(1, _SIGNED), NFTA_VERDICT_CHAIN=(2, TEXT))
DATA = Table(NFTA_DATA_VALUE=(1, RAW), NFTA_DATA_VERDICT=(2, nested(VERDICT)))

GENERATION = Table(NFTA_GEN_ID=(1, BE32))
TABLE = Table(NFTA_TABLE_NAME=(1, TEXT))
HOOK = Table(NFTA_HOOK_HOOKNUM=(1, BE32), NFTA_HOOK_PRIORITY=(2, _SIGNED))
CHAIN = Table(
    NFTA_CHAIN_TABLE=(1, TEXT),
    NFTA_CHAIN_NAME=(3, TEXT),
    NFTA_CHAIN_HOOK=(4, nested(HOOK)),
    NFTA_CHAIN_TYPE=(7, TEXT),
)
SET = Table(
    NFTA_SET_TABLE=(1, TEXT),
    NFTA_SET_NAME=(2, TEXT),
    NFTA_SET_FLAGS=(3, BE32),
    NFTA_SET_KEY_TYPE=(4, BE32),
    NFTA_SET_KEY_LEN=(5, BE32),
    NFTA_SET_DATA_TYPE=(6, BE32),
    NFTA_SET_DATA_LEN=(7, BE32),
    NFTA_SET_ID=(10, BE32),
    NFTA_SET_USERDATA=(13, RAW),
)
ELEMENT = Table(
    NFTA_SET_ELEM_KEY=(1, nested(DATA)),
    NFTA_SET_ELEM_DATA=(2, nested(DATA)),
    NFTA_SET_ELEM_FLAGS=(3, BE32),
    NFTA_SET_ELEM_USERDATA=(6, RAW),
)
ELEMENTS = Table(
    NFTA_SET_ELEM_LIST_TABLE=(1, TEXT),
    NFTA_SET_ELEM_LIST_SET=(2, TEXT),
    NFTA_SET_ELEM_LIST_ELEMENTS=(3, _list_of(nested(ELEMENT))),
)

_BE64 = number(8, "big")
_EXPRESSIONS = {
    "bitwise": Table(
        NFTA_BITWISE_SREG=(1, BE32),
        NFTA_BITWISE_DREG=(2, BE32),
        NFTA_BITWISE_LEN=(3, BE32),
        NFTA_BITWISE_MASK=(4, nested(DATA)),
        NFTA_BITWISE_XOR=(5, nested(DATA)),
    ),
    "cmp": Table(NFTA_CMP_SREG=(1, BE32), NFTA_CMP_OP=(2, BE32), NFTA_CMP_DATA=(3, nested(DATA))),
    "counter": Table(NFTA_COUNTER_BYTES=(1, _BE64), NFTA_COUNTER_PACKETS=(2, _BE64)),
    "ct": Table(NFTA_CT_DREG=(1, BE32), NFTA_CT_KEY=(2, BE32), NFTA_CT_DIRECTION=(3, U8)),
    "fib": Table(NFTA_FIB_DREG=(1, BE32), NFTA_FIB_RESULT=(2, BE32), NFTA_FIB_FLAGS=(3, BE32)),
    "immediate": Table(NFTA_IMMEDIATE_DREG=(1, BE32), NFTA_IMMEDIATE_DATA=(2, nested(DATA))),
    "limit": Table(NFTA_LIMIT_RATE=(1, _BE64), NFTA_LIMIT_UNIT=(2, _BE64), NFTA_LIMIT_BURST=(3, BE32)),
    "log": Table(NFTA_LOG_PREFIX=(2, TEXT), NFTA_LOG_LEVEL=(5, BE32)),
    "lookup": Table(
        NFTA_LOOKUP_SET=(1, TEXT),
        NFTA_LOOKUP_SREG=(2, BE32),
        NFTA_LOOKUP_DREG=(3, BE32),
        NFTA_LOOKUP_FLAGS=(5, BE32),
    ),
    "masq": Table(NFTA_MASQ_FLAGS=(1, BE32)),
    "meta": Table(NFTA_META_DREG=(1, BE32), NFTA_META_KEY=(2, BE32)),
    "nat": Table(
        NFTA_NAT_TYPE=(1, BE32),
        NFTA_NAT_FAMILY=(2, BE32),
        NFTA_NAT_REG_ADDR_MIN=(3, BE32),
        NFTA_NAT_REG_PROTO_MIN=(5, BE32),
    ),
    "payload": Table(
        NFTA_PAYLOAD_DREG=(1, BE32),
        NFTA_PAYLOAD_BASE=(2, BE32),
        NFTA_PAYLOAD_OFFSET=(3, BE32),
        NFTA_PAYLOAD_LEN=(4, BE32),
        NFTA_PAYLOAD_SREG=(5, BE32),
        NFTA_PAYLOAD_CSUM_TYPE=(6, BE32),
        NFTA_PAYLOAD_CSUM_OFFSET=(7, BE32),
        NFTA_PAYLOAD_CSUM_FLAGS=(8, BE32),
    ),
}
_EXPRESSION = Table(NFTA_EXPR_NAME=(1, TEXT), NFTA_EXPR_DATA=(2, Kind(bytes, bytes, NESTED)))


def _pack_expression(expression: tuple[str, Sequence[tuple[str, Any]]]) -> bytes:
    name, attributes = expression
    data = [("NFTA_EXPR_DATA", _EXPRESSIONS[name].pack(attributes))] if attributes else []
    return _EXPRESSION.pack([("NFTA_EXPR_NAME", name), *data])


_PACKED = _list_of(RAW)  # a list of expressions
RULE = Table(
    NFTA_RULE_TABLE=(1, TEXT),
    NFTA_RULE_CHAIN=(2, TEXT),
    NFTA_RULE_EXPRESSIONS=(4, Kind(lambda rule: pack_rule(rule), bytes, NESTED)),
    NFTA_RULE_USERDATA=(7, RAW),
)


def pack_rule(rule: Sequence[tuple[str, Sequence[tuple[str, Any]]]]) -> bytes:
    """Encode the expressions of a rule."""
    return _PACKED.pack([_pack_expression(expression) for expression in rule])


def names_in(rule: bytes) -> list[str]:
    """The names of the expressions of an encoded rule."""
    return [_EXPRESSION.unpack(entry)["NFTA_EXPR_NAME"] for entry in _PACKED.unpack(rule)]


def values_in(rule: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Decode a rule for comparison: the name of each expression and its attributes that are not zero.

    The kernel lists attributes that are zero, and numbers registers in 128 bits where it can; we do neither. After this
    function both are the same.
    """
    found = []
    for entry in _PACKED.unpack(rule):
        expression = _EXPRESSION.unpack(entry)
        table = _EXPRESSIONS.get(expression["NFTA_EXPR_NAME"], Table())
        attributes = table.unpack(expression.get("NFTA_EXPR_DATA", b""))
        values = {key: _wide(value) if "REG" in key else value for key, value in attributes.items() if value}
        found.append((expression["NFTA_EXPR_NAME"], values))
    return found


def _wide(register: int) -> int:
    """The number of the 128-bit register (1 to 4) that begins with a 32-bit register (from 8 on), if one does."""
    return 1 + (register - 8) // 4 if register >= 8 and register % 4 == 0 else register


def chain_after(data: bytes) -> str:
    """The chain of a verdict. `data` begins with the attribute NFTA_VERDICT_CHAIN."""
    [(_, name), *_] = split(data[: int.from_bytes(data[:2], sys.byteorder)])
    return str(TEXT.unpack(name))


def pack_user_data(number: int, data: bytes) -> bytes:
    """Encode one entry of user data as libnftnl does: its number and its length, a byte each, then the data."""
    return bytes([number, len(data)]) + data


def unpack_user_data(data: bytes) -> dict[int, bytes]:
    """Decode user data: its entries by their number."""
    found = {}
    while len(data) >= 2:
        found[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found
