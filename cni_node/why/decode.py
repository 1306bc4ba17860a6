"""What the kernel says of its packet filter, from bytes to values. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h, fib_rules.h.
Must not: decide what a rule does.
"""

import struct
from collections.abc import Iterable

from cni_kernel.attributes import ADDRESS, BE32, NESTED, RAW, TEXT, U8, U32, Kind, Table, nested, split
from cni_kernel.nft_attributes import DATA
from cni_node.why.values import BaseChain, ChainKey, Expression, FilterSet, RoutingRule, Rule, SetElement
from cni_protocol.address import CIDR, IP

FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_AF_INET = 2
_SIGNED = Kind(bytes, lambda data: int.from_bytes(data, "big", signed=True))
_HOOK = Table(HOOKNUM=(1, BE32), PRIORITY=(2, _SIGNED), DEV=(3, TEXT))
_CHAIN = Table(TABLE=(1, TEXT), NAME=(3, TEXT), HOOK=(4, nested(_HOOK)), POLICY=(5, BE32), TYPE=(7, TEXT))
_LIST = Kind(bytes, bytes, NESTED)
_RULE = Table(TABLE=(1, TEXT), CHAIN=(2, TEXT), EXPRESSIONS=(4, _LIST))
_FIELDS = Table(LEN=(1, BE32))
_CONCAT = Kind(
    bytes, lambda data: tuple(_FIELDS.unpack(body).get("LEN", 0) for number, body in split(data) if number == 1)
)
_DESC = Table(CONCAT=(2, _CONCAT))
_SET = Table(
    TABLE=(1, TEXT), NAME=(2, TEXT), FLAGS=(3, BE32), KEY_LEN=(5, BE32), DATA_TYPE=(6, BE32), DESC=(9, nested(_DESC))
)
_ELEMENT = Table(KEY=(1, nested(DATA)), DATA=(2, nested(DATA)), FLAGS=(3, BE32), KEY_END=(10, nested(DATA)))
_ELEMENTS = Table(SET=(2, TEXT), ELEMENTS=(3, _LIST))
_INTERVAL = 1 << 2  # NFT_SET_INTERVAL
_END, _CATCHALL = 1, 2  # NFT_SET_ELEM_*
_EXPRESSION = Table(NAME=(1, TEXT), DATA=(2, _LIST))
_VALUE = nested(DATA)
_KNOWN = {
    "bitwise": Table(SREG=(1, BE32), DREG=(2, BE32), LEN=(3, BE32), MASK=(4, _VALUE), XOR=(5, _VALUE), OP=(6, BE32)),
    "byteorder": Table(SREG=(1, BE32), DREG=(2, BE32), OP=(3, BE32), LEN=(4, BE32), SIZE=(5, BE32)),
    "cmp": Table(SREG=(1, BE32), OP=(2, BE32), DATA=(3, _VALUE)),
    "ct": Table(DREG=(1, BE32), KEY=(2, BE32), DIRECTION=(3, U8), SREG=(4, BE32)),
    "fib": Table(DREG=(1, BE32), RESULT=(2, BE32), FLAGS=(3, BE32)),
    "immediate": Table(DREG=(1, BE32), DATA=(2, _VALUE)),
    "limit": Table(FLAGS=(5, BE32)),
    "lookup": Table(SET=(1, TEXT), SREG=(2, BE32), DREG=(3, BE32), FLAGS=(5, BE32)),
    "masq": Table(FLAGS=(1, BE32)),
    "match": Table(NAME=(1, TEXT), REV=(2, BE32), INFO=(3, RAW)),
    "meta": Table(DREG=(1, BE32), KEY=(2, BE32), SREG=(3, BE32)),
    "nat": Table(TYPE=(1, BE32), ADDR=(3, BE32), ADDR_MAX=(4, BE32), PROTO=(5, BE32)),
    "numgen": Table(DREG=(1, BE32), MODULUS=(2, BE32), TYPE=(3, BE32), OFFSET=(4, BE32)),
    "payload": Table(DREG=(1, BE32), BASE=(2, BE32), OFFSET=(3, BE32), LEN=(4, BE32), SREG=(5, BE32)),
    "range": Table(SREG=(1, BE32), OP=(2, BE32), FROM=(3, _VALUE), TO=(4, _VALUE)),
    "redir": Table(PROTO=(1, BE32)),
    "reject": Table(TYPE=(1, BE32)),
    "target": Table(NAME=(1, TEXT), REV=(2, BE32), INFO=(3, RAW)),
}
_PASSED_OVER = ("counter", "log", "quota", "notrack", "dynset", "last", "flow_offload", "connlimit")
_FRA = Table(
    DST=(1, ADDRESS),
    SRC=(2, ADDRESS),
    IIFNAME=(3, TEXT),
    FWMARK=(10, U32),
    PRIORITY=(6, U32),
    TABLE=(15, U32),
    SUPPRESSED=(14, U32),
    FWMASK=(16, U32),
    OIFNAME=(17, TEXT),
)
_UNDERSTOOD = {*range(7), 10, 14, 15, 16, 17, 21}  # FRA_*
_RULE_HEAD = struct.Struct("=BBBBBxxBI")  # fib_rule_hdr: family, lengths, tos, table, action, flags
_NEVER = 0xFFFFFFFF
_TO_TABLE, _INVERT = 1, 2  # FR_ACT_TO_TBL, FIB_RULE_INVERT


def parse_chain(family: int, body: bytes) -> BaseChain | None:
    """A chain at a hook, None for any other."""
    found = _CHAIN.unpack(body)
    hook = found.get("HOOK")
    if hook is None:
        return None
    key = (FAMILIES.get(family, ""), found["TABLE"], found["NAME"])
    where = (hook.get("HOOKNUM", 0), hook.get("PRIORITY", 0))
    return BaseChain(key, *where, found.get("TYPE", "filter"), found.get("POLICY", 1) == 0, hook.get("DEV", ""))


def parse_rules(family: int, bodies: Iterable[bytes]) -> dict[ChainKey, tuple[Rule, ...]]:
    """The rules of a table by their chains, in their order."""
    chains: dict[ChainKey, list[Rule]] = {}
    for body in bodies:
        found = _RULE.unpack(body)
        rules = chains.setdefault((FAMILIES[family], found["TABLE"], found["CHAIN"]), [])
        entries = [data for _, data in split(found.get("EXPRESSIONS", b""))]
        rules.append(Rule(len(rules) + 1, tuple(_expression(data) for data in entries)))
    return {key: tuple(rules) for key, rules in chains.items()}


def _expression(data: bytes) -> Expression:
    found = _EXPRESSION.unpack(data)
    name, table = found["NAME"], _KNOWN.get(found["NAME"])
    if table is None:
        return Expression(name, {} if name in _PASSED_OVER else None)
    return Expression(name, table.unpack(found.get("DATA", b"")))


def parse_set(body: bytes) -> tuple[str, int, int, tuple[int, ...]]:
    """The name of a set, its flags, the bytes of its keys, and those of their parts."""
    found = _SET.unpack(body)
    parts = found.get("DESC", {}).get("CONCAT", ())
    return found["NAME"], found.get("FLAGS", 0), found.get("KEY_LEN", 0), parts


def parse_elements(bodies: Iterable[bytes], flags: int, length: int, parts: tuple[int, ...]) -> FilterSet:
    """A set with its elements."""
    raw = [_ELEMENT.unpack(one) for body in bodies for _, one in split(_ELEMENTS.unpack(body).get("ELEMENTS", b""))]
    other = next((_element(one, b"") for one in raw if one.get("FLAGS", 0) & _CATCHALL), None)
    plain = [one for one in raw if not one.get("FLAGS", 0) & _CATCHALL]
    if flags & _INTERVAL and len(parts) < 2:
        return FilterSet(length, tuple(_intervals(plain, length)), (), other)
    elements = [_element(one, _key(one, "KEY_END") or _key(one, "KEY")) for one in plain]
    return FilterSet(length, tuple(elements), parts if flags & _INTERVAL else (), other)


def _key(found: dict[str, dict[str, bytes]], name: str) -> bytes:
    return found.get(name, {}).get("NFTA_DATA_VALUE", b"")


def _element(found: dict[str, dict[str, bytes]], last: bytes) -> SetElement:
    data = found.get("DATA", {})
    verdict = data.get("NFTA_DATA_VERDICT")
    known = None
    if isinstance(verdict, dict):
        known = (verdict.get("NFTA_VERDICT_CODE", 0), verdict.get("NFTA_VERDICT_CHAIN", ""))
    return SetElement(_key(found, "KEY"), last, data.get("NFTA_DATA_VALUE", b""), known)


def _intervals(raw: list[dict[str, dict[str, bytes]]], length: int) -> Iterable[SetElement]:
    """Beginnings and ends in any order; a beginning comes behind an end at the same key."""
    begin = None
    for one in sorted(raw, key=lambda one: (_key(one, "KEY"), not _ends(one))):
        if begin is not None:
            yield _element(begin, (int.from_bytes(_key(one, "KEY"), "big") - 1).to_bytes(length, "big"))
        begin = None if _ends(one) else one
    if begin is not None:
        yield _element(begin, b"\xff" * length)


def _ends(found: dict[str, dict[str, bytes]]) -> bool:
    flags = found.get("FLAGS", 0)
    return isinstance(flags, int) and bool(flags & _END)


def parse_routing_rule(body: bytes) -> RoutingRule:
    """A rule that says which table is asked."""
    family, to_bits, from_bits, tos, table, action, flags = _RULE_HEAD.unpack_from(body)
    data = body[_RULE_HEAD.size :]
    found, version = _FRA.unpack(data), 4 if family == _AF_INET else 6
    return RoutingRule(
        version,
        found.get("PRIORITY", 0),
        found.get("TABLE", table),
        CIDR(found["SRC"], from_bits) if "SRC" in found else None,
        CIDR(found["DST"], to_bits) if "DST" in found else None,
        found.get("IIFNAME", ""),
        found.get("OIFNAME", ""),
        found.get("FWMARK"),
        found.get("FWMASK", 0xFFFFFFFF),
        action == _TO_TABLE
        and not tos
        and found.get("SUPPRESSED", _NEVER) == _NEVER
        and {number for number, _ in split(data)} <= _UNDERSTOOD,
        bool(flags & _INVERT),
    )


def address_of(data: bytes) -> IP:
    """An address from its bytes."""
    return IP(4 if len(data) == 4 else 6, int.from_bytes(data, "big"))
