"""The packet filter's and the routing rules' messages, numbered here as nf_tables.h and fib_rules.h number them."""

import struct
from typing import Any

import pytest

from cni_kernel.attributes import attribute
from cni_node.why.decode import parse_chain, parse_elements, parse_routing_rule, parse_rules, parse_set
from cni_node.why.values import BaseChain, Expression, FilterSet, RoutingRule, Rule, SetElement
from cni_protocol.address import parse_cidr, parse_ip

NESTED = 0x8000
VALUE = attribute(1 | NESTED, b"value")  # NFTA_DATA_VALUE
DATA = {"NFTA_DATA_VALUE": b"value"}


def text(number: int, value: str) -> bytes:
    return attribute(number, value.encode() + b"\0")


def big(number: int, value: int) -> bytes:
    return attribute(number, value.to_bytes(4, "big"))


def nest(number: int, *parts: bytes) -> bytes:
    return attribute(number | NESTED, b"".join(parts))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("bitwise", {"SREG": 1, "DREG": 2, "LEN": 3, "OP": 6}),
        ("byteorder", {"SREG": 1, "DREG": 2, "OP": 3, "LEN": 4, "SIZE": 5}),
        ("cmp", {"SREG": 1, "OP": 2}),
        ("ct", {"DREG": 1, "KEY": 2, "SREG": 4}),
        ("fib", {"DREG": 1, "RESULT": 2, "FLAGS": 3}),
        ("immediate", {"DREG": 1}),
        ("limit", {"FLAGS": 5}),
        ("lookup", {"SREG": 2, "DREG": 3, "FLAGS": 5}),
        ("masq", {"FLAGS": 1}),
        ("match", {"REV": 2}),
        ("meta", {"DREG": 1, "KEY": 2, "SREG": 3}),
        ("nat", {"TYPE": 1, "ADDR": 3, "ADDR_MAX": 4, "PROTO": 5}),
        ("numgen", {"DREG": 1, "MODULUS": 2, "TYPE": 3, "OFFSET": 4}),
        ("payload", {"DREG": 1, "BASE": 2, "OFFSET": 3, "LEN": 4, "SREG": 5}),
        ("range", {"SREG": 1, "OP": 2}),
        ("redir", {"PROTO": 1}),
        ("reject", {"TYPE": 1}),
        ("target", {"REV": 2}),
    ],
)
def test_numbers_of_expressions(name: str, numbers: dict[str, int]) -> None:
    data = b"".join(big(number, number + 70) for number in numbers.values())
    assert expression_of(name, data) == Expression(name, {key: number + 70 for key, number in numbers.items()})


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("bitwise", nest(4, VALUE) + nest(5, VALUE), {"MASK": DATA, "XOR": DATA}),
        ("cmp", nest(3, VALUE), {"DATA": DATA}),
        ("ct", attribute(3, b"\x01"), {"DIRECTION": 1}),
        ("immediate", nest(2, VALUE), {"DATA": DATA}),
        ("lookup", text(1, "set7"), {"SET": "set7"}),
        ("match", text(1, "tcp") + attribute(3, b"info"), {"NAME": "tcp", "INFO": b"info"}),
        ("range", nest(3, VALUE) + nest(4, VALUE), {"FROM": DATA, "TO": DATA}),
        ("target", text(1, "DNAT") + attribute(3, b"info"), {"NAME": "DNAT", "INFO": b"info"}),
        *((name, b"", {}) for name in ("counter", "log", "quota", "notrack", "dynset", "last", "flow_offload")),
        ("connlimit", big(1, 7), {}),
        ("socket", b"", None),
    ],
)
def test_expressions(name: str, data: bytes, expected: Any) -> None:
    assert expression_of(name, data) == Expression(name, expected)


def packed(name: str, data: bytes = b"") -> bytes:
    return nest(1, text(1, name), nest(2, data))


def expression_of(name: str, data: bytes) -> Expression:
    body = text(1, "t") + text(2, "c") + nest(4, packed(name, data))
    [rule] = parse_rules(2, [body])["ip", "t", "c"]
    [expression] = rule.expressions
    return expression


def test_rules_are_counted_in_each_chain() -> None:
    bodies = [text(1, "t") + text(2, chain) + nest(4, packed("counter"), packed("socket")) for chain in "aba"]
    parts = (Expression("counter", {}), Expression("socket", None))
    assert parse_rules(1, [*bodies, text(1, "t") + text(2, "c")]) == {
        ("inet", "t", "a"): (Rule(1, parts), Rule(2, parts)),
        ("inet", "t", "b"): (Rule(1, parts),),
        ("inet", "t", "c"): (Rule(1, ()),),
    }


HOOK = nest(4, big(1, 2), attribute(2, (-150).to_bytes(4, "big", signed=True)))
CHAIN = text(1, "t") + text(3, "c")
KEY = ("ip", "t", "c")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (CHAIN, None),
        (CHAIN + HOOK, BaseChain(KEY, 2, -150, "filter", drops=False)),
        (CHAIN + HOOK + text(7, "nat") + big(5, 1), BaseChain(KEY, 2, -150, "nat", drops=False)),
        (CHAIN + HOOK + big(5, 0), BaseChain(KEY, 2, -150, "filter", drops=True)),
        (CHAIN + nest(4, text(3, "eth0")), BaseChain(KEY, 0, 0, "filter", drops=False, device="eth0")),
    ],
)
def test_chains(body: bytes, expected: BaseChain | None) -> None:
    assert parse_chain(2, body) == expected


@pytest.mark.parametrize(
    ("family", "name"), [(1, "inet"), (2, "ip"), (5, "netdev"), (7, "bridge"), (10, "ip6"), (99, "")]
)
def test_families(family: int, name: str) -> None:
    found = parse_chain(family, CHAIN + HOOK)
    assert found is not None
    assert found.key[0] == name


def test_sets() -> None:
    plain = text(1, "t") + text(2, "s") + big(3, 4) + big(5, 8)
    fields = nest(9, nest(2, nest(1, big(1, 4)), nest(1, big(1, 2)), nest(2, big(1, 9))))
    assert parse_set(plain) == ("s", 4, 8, ())
    assert parse_set(plain + big(6, 9) + fields) == ("s", 4, 8, (4, 2))
    assert parse_set(text(2, "s")) == ("s", 0, 0, ())


def element(key: bytes, *more: bytes, flags: int = 0) -> bytes:
    return nest(1, nest(1, attribute(1, key)), *more, *([big(3, flags)] if flags else []))


def elements(*each: bytes) -> list[bytes]:
    return [text(2, "s") + nest(3, *each), text(2, "s")]


CATCHALL = nest(1, big(3, 2), nest(2, attribute(1, b"rest")))
JUMP = nest(2, nest(2, attribute(1, (-3).to_bytes(4, "big", signed=True)), text(2, "there")))


def test_elements_of_plain_sets_and_maps() -> None:
    found = parse_elements(elements(element(b"ab"), element(b"cd", JUMP), CATCHALL), 0, 2, ())
    other = SetElement(b"", b"", b"rest")
    assert found == FilterSet(2, (SetElement(b"ab", b"ab"), SetElement(b"cd", b"cd", b"", (-3, "there"))), (), other)


def test_intervals_are_joined_from_their_ends() -> None:
    """0x10 to 0x1f, 0x20 to 0x2f right behind it, and from 0xf0 on."""
    parts = [element(b"\x20", JUMP), element(b"\x30", flags=1), element(b"\x10"), element(b"\x20", flags=1)]
    found = parse_elements(elements(*parts, element(b"\xf0")), 4, 1, (1,))
    assert found == FilterSet(
        1,
        (
            SetElement(b"\x10", b"\x1f"),
            SetElement(b"\x20", b"\x2f", b"", (-3, "there")),
            SetElement(b"\xf0", b"\xff"),
        ),
    )


def test_intervals_of_concatenations_have_two_keys() -> None:
    body = elements(element(b"abcd", nest(10, attribute(1, b"abzz"))), element(b"efgh"))
    expected = (SetElement(b"abcd", b"abzz"), SetElement(b"efgh", b"efgh"))
    assert parse_elements(body, 4, 4, (2, 2)) == FilterSet(4, expected, (2, 2))
    assert parse_elements(body, 0, 4, (2, 2)) == FilterSet(4, expected, ())


def native(number: int, value: int) -> bytes:
    return attribute(number, struct.pack("=I", value))


def routing(*parts: bytes, family: int = 2, tos: int = 0, action: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 24, 16, tos, 254, 0, 0, action, flags) + b"".join(parts)


MAIN = RoutingRule(4, 0, 254)
DST, SRC = attribute(1, parse_ip("10.2.0.0").packed), attribute(2, parse_ip("10.1.0.0").packed)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (routing(), MAIN),
        (routing(family=10), MAIN._replace(version=6)),
        (routing(native(6, 100)), MAIN._replace(priority=100)),
        (routing(native(15, 1000)), MAIN._replace(table=1000)),
        (routing(DST), MAIN._replace(destination=parse_cidr("10.2.0.0/24"))),
        (routing(SRC), MAIN._replace(source=parse_cidr("10.1.0.0/16"))),
        (routing(text(3, "eth0")), MAIN._replace(incoming="eth0")),
        (routing(text(17, "eth0")), MAIN._replace(outgoing="eth0")),
        (routing(native(10, 5), native(16, 7)), MAIN._replace(mark=5, mask=7)),
        (routing(native(14, 0xFFFFFFFF), attribute(21, b"\3")), MAIN),
        (routing(native(14, 0)), MAIN._replace(understood=False)),
        (routing(native(22, 0)), MAIN._replace(understood=False)),
        (routing(tos=4), MAIN._replace(understood=False)),
        (routing(action=6), MAIN._replace(understood=False)),
        (routing(flags=2), MAIN._replace(inverted=True)),
        (routing(flags=1), MAIN),
    ],
)
def test_routing_rules(body: bytes, expected: RoutingRule) -> None:
    assert parse_routing_rule(body) == expected
