"""Expressions and extensions on one packet, each beside what the kernel has it do."""

import struct
import sys
from typing import Any

import pytest

from cni_node.why import extensions
from cni_node.why.machine import Machine, Outcome, Scene, is_echo, kind_of
from cni_node.why.packets import Packet
from cni_node.why.tracking import Attached, Connection
from cni_node.why.values import NODE, Filter, FilterSet, SetElement
from cni_protocol.address import parse_cidr, parse_ip
from tests.cni_node.why.stacks import route, world

KEY = ("ip", "t", "c")
SET = FilterSet(
    4,
    (
        SetElement(b"\x0a\1\0\2", b"\x0a\1\0\2", data=b"\0\x50\0\0"),
        SetElement(b"\x0a\3\0\0", b"\x0a\3\xff\xff", verdict=(-3, "there")),
    ),
)
STACK = world(
    filter=Filter(sets={("ip", "t", "s"): SET}),
    routes=(*world().stacks[NODE].routes, route("10.9.0.0/16", 0, refuses=True), route("fd00:1::/64", 2)),
).stacks[NODE]
SCENE = Scene(STACK, "cni0", "uplink")
PACKET = Packet(parse_ip("10.1.0.2"), parse_ip("192.0.2.9"), 6, 40000, 80, mark=5)
PACKET6 = Packet(parse_ip("fd00::2"), parse_ip("fd00::9"), 17, 4000, 53)
ECHO = Packet(parse_ip("10.1.0.2"), parse_ip("192.0.2.9"), 1, 7, 7)


def native(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def machine_of(packet: Packet = PACKET, scene: Scene = SCENE, known: Connection | None = None, **more: Any) -> Machine:
    return Machine(scene, packet, Attached(packet, known, **more), lambda number, _: number - 1)


def data(value: bytes) -> dict[str, bytes]:
    return {"NFTA_DATA_VALUE": value}


@pytest.mark.parametrize(
    ("name", "values", "packet", "expected"),
    [
        ("immediate", {"DATA": data(b"abcdef")}, PACKET, b"abcdef"),
        ("meta", {}, PACKET, native(84)),
        ("meta", {"KEY": 1}, PACKET, b"\x08\x00"),
        ("meta", {"KEY": 1}, PACKET6, b"\x86\xdd"),
        ("meta", {"KEY": 3}, PACKET, native(5)),
        ("meta", {"KEY": 4}, PACKET, native(3)),
        ("meta", {"KEY": 5}, PACKET, native(2)),
        ("meta", {"KEY": 6}, PACKET, b"cni0".ljust(16, b"\0")),
        ("meta", {"KEY": 7}, PACKET, b"uplink".ljust(16, b"\0")),
        ("meta", {"KEY": 15}, PACKET, b"\x02"),
        ("meta", {"KEY": 15}, PACKET6, b"\x0a"),
        ("meta", {"KEY": 16}, PACKET, b"\x06"),
        ("meta", {"KEY": 19}, PACKET, b"\0"),
        ("ct", {}, PACKET, native(8)),
        ("ct", {"KEY": 1}, PACKET, b"\0"),
        ("ct", {"KEY": 2}, PACKET, native(0)),
        ("ct", {"KEY": 3}, PACKET, native(0)),
        ("ct", {"KEY": 7}, PACKET, b"\x02"),
        ("ct", {"KEY": 10}, PACKET, b"\x06"),
        ("ct", {"KEY": 8}, PACKET, b"\x0a\1\0\2"),
        ("ct", {"KEY": 9}, PACKET, b"\xc0\0\2\x09"),
        ("ct", {"KEY": 8, "DIRECTION": 1}, PACKET, b"\xc0\0\2\x09"),
        ("ct", {"KEY": 19}, PACKET, b"\x0a\1\0\2"),
        ("ct", {"KEY": 20, "DIRECTION": 0}, PACKET, b"\xc0\0\2\x09"),
        ("ct", {"KEY": 21}, PACKET6, parse_ip("fd00::2").packed),
        ("ct", {"KEY": 22}, PACKET6, parse_ip("fd00::9").packed),
        ("ct", {"KEY": 11}, PACKET, (40000).to_bytes(2, "big")),
        ("ct", {"KEY": 12}, PACKET, b"\0\x50"),
        ("ct", {"KEY": 12, "DIRECTION": 1}, PACKET, (40000).to_bytes(2, "big")),
        ("payload", {"BASE": 0, "OFFSET": 12, "LEN": 2}, PACKET, b"\x08\0"),
        ("payload", {"LEN": 6}, PACKET._replace(target_mac="02:00:00:00:00:07"), b"\x02\0\0\0\0\x07"),
        ("payload", {"OFFSET": 6, "LEN": 6}, PACKET._replace(source_mac="02:00:00:00:00:08"), b"\x02\0\0\0\0\x08"),
        ("payload", {"LEN": 6}, PACKET._replace(target_mac=""), bytes(6)),
        ("payload", {"BASE": 1, "LEN": 12}, PACKET, b"\x45\0\0\x54\0\0\x40\0\x40\x06\0\0"),
        ("payload", {"BASE": 1, "OFFSET": 12, "LEN": 4}, PACKET, b"\x0a\1\0\2"),
        ("payload", {"BASE": 1, "OFFSET": 16, "LEN": 4}, PACKET, b"\xc0\0\2\x09"),
        ("payload", {"BASE": 1, "LEN": 8}, PACKET6, b"\x60\0\0\0\0\x2c\x11\x40"),
        ("payload", {"BASE": 1, "OFFSET": 24, "LEN": 16}, PACKET6, parse_ip("fd00::9").packed),
        ("payload", {"BASE": 2, "LEN": 4}, PACKET, (40000).to_bytes(2, "big") + b"\0\x50"),
        ("payload", {"BASE": 2, "OFFSET": 12, "LEN": 2}, PACKET, b"\x50\x02"),
        ("payload", {"BASE": 2, "OFFSET": 13, "LEN": 1}, PACKET.back(), b"\x12"),
        ("payload", {"BASE": 2, "LEN": 8}, ECHO, b"\x08\0\0\0\0\x07\0\1"),
        ("payload", {"BASE": 2, "LEN": 1}, ECHO.back(), b"\0"),
        ("payload", {"BASE": 2, "LEN": 1}, ECHO._replace(protocol=58), b"\x80"),
        ("payload", {"BASE": 2, "LEN": 1}, ECHO.back()._replace(protocol=58), b"\x81"),
        ("payload", {"BASE": 2, "LEN": 1}, ECHO._replace(protocol=58, message=135), b"\x87"),
        ("numgen", {"MODULUS": 3}, PACKET, native(2)),
        ("numgen", {"MODULUS": 3, "OFFSET": 7}, PACKET, native(9)),
        ("fib", {"FLAGS": 2, "RESULT": 3}, PACKET, native(1)),
        ("fib", {"FLAGS": 2, "RESULT": 3}, PACKET._replace(destination=parse_ip("10.1.0.1")), native(2)),
        ("fib", {"FLAGS": 1, "RESULT": 1}, PACKET, native(3)),
        ("fib", {"FLAGS": 2, "RESULT": 1}, PACKET, native(2)),
        ("fib", {"FLAGS": 2, "RESULT": 2}, PACKET, b"uplink".ljust(16, b"\0")),
        ("fib", {"FLAGS": 2 | 8, "RESULT": 2}, PACKET, bytes(16)),
        ("fib", {"FLAGS": 1 | 8, "RESULT": 1}, PACKET, native(3)),
        ("fib", {"FLAGS": 2 | 8, "RESULT": 1}, PACKET, native(0)),
        ("fib", {"FLAGS": 1 | 32}, PACKET, b"\1"),
        ("fib", {"FLAGS": 2 | 32}, PACKET._replace(destination=parse_ip("10.9.0.1")), b"\0"),
        ("fib", {"FLAGS": 2 | 32}, PACKET._replace(destination=parse_ip("10.1.0.1")), b"\0"),
        ("fib", {"FLAGS": 1 | 8, "RESULT": 2}, PACKET6._replace(source=parse_ip("fe80::1")), b"cni0".ljust(16, b"\0")),
        ("lookup", {"SET": "s", "SREG": 2}, PACKET, b"\0\x50\0\0"),
        (
            "bitwise",
            {"SREG": 2, "LEN": 4, "MASK": data(b"\xff\xff\0\0"), "XOR": data(b"\0\0\0\1")},
            PACKET,
            b"\x0a\1\0\1",
        ),
        ("byteorder", {"SREG": 2, "LEN": 4, "SIZE": 2}, PACKET, b"\1\x0a\2\0" if sys.byteorder == "little" else b""),
    ],
)
def test_what_is_loaded(name: str, values: dict[str, Any], packet: Packet, expected: bytes) -> None:
    machine = machine_of(packet)
    machine.store(2, b"\x0a\1\0\2")
    assert machine.run(name, {"DREG": 1, **values}, KEY) is True
    assert machine.load(1, len(expected)) == expected


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("immediate", {"DATA": {"NFTA_DATA_VERDICT": {"NFTA_VERDICT_CODE": -3, "NFTA_VERDICT_CHAIN": "x"}}}, (-3, "x")),
        ("immediate", {"DATA": {"NFTA_DATA_VERDICT": {}}}, (0, "")),
        ("lookup", {"SET": "s", "SREG": 2}, True),
        ("lookup", {"SET": "s", "SREG": 3}, False),
        ("lookup", {"SET": "s", "SREG": 2, "FLAGS": 1}, False),
        ("lookup", {"SET": "s", "SREG": 3, "FLAGS": 1}, True),
        ("lookup", {"SET": "s", "SREG": 4, "DREG": 0}, (-3, "there")),
        ("lookup", {"SET": "s", "SREG": 3, "DREG": 0}, False),
        ("lookup", {"SET": "none", "SREG": 2}, None),
        ("payload", {"BASE": 3, "LEN": 1, "DREG": 1}, None),
        ("payload", {"BASE": 1, "OFFSET": 17, "LEN": 4, "DREG": 1}, False),
        ("payload", {"BASE": 1, "OFFSET": 14, "LEN": 4, "SREG": 2}, None),
        ("payload", {"BASE": 2, "OFFSET": 12, "LEN": 4, "SREG": 2}, None),
        ("payload", {"BASE": 1, "OFFSET": 12, "LEN": 2, "SREG": 2}, None),
        ("bitwise", {"OP": 1}, None),
        ("meta", {"KEY": 99, "DREG": 1}, None),
        ("meta", {"KEY": 2, "SREG": 2}, True),
        ("ct", {"KEY": 99, "DREG": 1}, None),
        ("fib", {"FLAGS": 64, "DREG": 1}, None),
        ("socket", {}, None),
        *(
            ("cmp", {"SREG": 2, "OP": op, "DATA": data(b"\x0a\1\0\2")}, yes)
            for op, yes in enumerate((1, 0, 0, 1, 0, 1))
        ),
        *(
            ("cmp", {"SREG": 2, "OP": op, "DATA": data(b"\x0a\1\0\1")}, yes)
            for op, yes in enumerate((0, 1, 0, 0, 1, 1))
        ),
        *(
            ("cmp", {"SREG": 2, "OP": op, "DATA": data(b"\x0a\1\0\3")}, yes)
            for op, yes in enumerate((0, 1, 1, 1, 0, 0))
        ),
        ("cmp", {"SREG": 2, "DATA": data(b"\x0a\1\0\2")}, True),
        ("range", {"SREG": 2, "FROM": data(b"\x0a\1\0\2"), "TO": data(b"\x0a\1\0\2")}, True),
        ("range", {"SREG": 2, "FROM": data(b"\x0a\1\0\3"), "TO": data(b"\x0a\1\0\4")}, False),
        ("range", {"SREG": 2, "FROM": data(b"\x0a\1\0\0"), "TO": data(b"\x0a\1\0\1")}, False),
        ("range", {"SREG": 2, "OP": 1, "FROM": data(b"\x0a\1\0\0"), "TO": data(b"\x0a\1\0\1")}, True),
    ],
)
def test_what_is_decided(name: str, values: dict[str, Any], expected: Outcome) -> None:
    machine = machine_of()
    machine.store(2, b"\x0a\1\0\2")
    machine.store(3, b"\x0a\2\0\2")
    machine.store(4, b"\x0a\3\0\2")
    assert machine.run(name, values, KEY) == expected


def test_registers_of_four_bytes_lie_in_those_of_sixteen() -> None:
    machine = machine_of()
    machine.store(1, bytes(range(16)))
    assert [machine.load(number, 4) for number in (8, 11)] == [bytes(range(4)), bytes(range(12, 16))]
    machine.store(12, b"x")
    assert machine.load(2, 5) == b"x\0\0\0\0"
    machine.store(9, b"y")
    assert machine.load(1, 9) == bytes(range(4)) + b"y\0\0\0\x08"


def test_an_interface_that_there_is_none_of_cannot_be_told() -> None:
    machine = machine_of(scene=Scene(STACK))
    assert [machine.run("meta", {"KEY": key, "DREG": 1}, KEY) for key in (4, 5, 6)] == [None, None, True]


@pytest.mark.parametrize(
    ("packet", "offset", "changed"),
    [
        (PACKET, 12, {"source": parse_ip("10.1.0.7")}),
        (PACKET, 16, {"destination": parse_ip("10.1.0.7")}),
        (PACKET6, 8, {"source": parse_ip("fd00::7")}),
        (PACKET6, 24, {"destination": parse_ip("fd00::7")}),
    ],
)
def test_addresses_can_be_written(packet: Packet, offset: int, changed: dict[str, Any]) -> None:
    machine = machine_of(packet)
    [ip] = changed.values()
    machine.store(1, ip.packed)
    assert machine.run("payload", {"BASE": 1, "OFFSET": offset, "LEN": ip.bits // 8, "SREG": 1}, KEY) is True
    assert machine.packet == packet._replace(**changed)


def test_marks_can_be_written() -> None:
    machine = machine_of()
    machine.store(1, native(258))
    assert machine.run("meta", {"KEY": 3, "SREG": 1}, KEY) is True
    assert machine.run("ct", {"KEY": 3, "SREG": 1}, KEY) is True
    assert machine.run("ct", {"KEY": 1, "SREG": 1}, KEY) is True
    assert (machine.packet.mark, machine.attached.connection.mark) == (258, 258)
    assert machine.run("ct", {"KEY": 3, "DREG": 2}, KEY) is True
    assert machine.load(2, 4) == native(258)


def known_connection(**translated: bool) -> Connection:
    known = Connection(PACKET)
    known.translated.update(translated)
    return known


@pytest.mark.parametrize(
    ("packet", "more", "state", "status"),
    [
        (PACKET, {}, 8, 0),
        (PACKET, {"tracked": False}, 64, None),
        (PACKET.back(), {}, 1, None),  # an answer that nobody asked for
        (PACKET6.back(), {}, 8, 0),  # any packet of UDP begins a connection
        (PACKET.back(), {"known": known_connection()}, 2, 2 | 8),
        (PACKET.back(), {"known": known_connection(source=True)}, 2, 2 | 8 | 16),
        (PACKET.back(), {"known": known_connection(destination=True)}, 2, 2 | 8 | 32),
    ],
)
def test_states_of_connections(packet: Packet, more: dict[str, Any], state: int, status: int | None) -> None:
    machine = machine_of(packet, **more)
    assert machine.run("ct", {"DREG": 1}, KEY) is True
    assert machine.load(1, 4) == native(state)
    assert machine.run("ct", {"KEY": 2, "DREG": 1}, KEY) is (status is not None)
    if status is not None:
        assert machine.load(1, 4) == native(status)


@pytest.mark.parametrize(
    ("packet", "hook", "changed"),
    [
        (PACKET, 0, {}),
        (PACKET.back(), 0, {"destination": PACKET.source, "port": PACKET.source_port}),
        (PACKET.back(), 3, {"destination": PACKET.source, "port": PACKET.source_port}),
        (PACKET.back(), 1, {"source": PACKET.destination, "source_port": PACKET.port}),
        (PACKET.back(), 4, {"source": PACKET.destination, "source_port": PACKET.port}),
        (PACKET.back(), 2, {}),
    ],
)
def test_answers_are_translated_back(packet: Packet, hook: int, changed: dict[str, Any]) -> None:
    known = Connection(PACKET)
    known.translate_source(PACKET, parse_ip("192.0.2.1"))
    known.translate_destination(PACKET, PACKET._replace(destination=parse_ip("10.1.0.3"), port=8080))
    assert known.there.ends == (parse_ip("192.0.2.1"), 40000, parse_ip("10.1.0.3"), 8080)
    came = known.there.back() if packet.answer else packet
    assert Attached(came, known).untranslate(came, hook) == came._replace(**changed)


@pytest.mark.parametrize("number", [4, 6])
def test_what_is_redirected_goes_to_the_interface(number: int) -> None:
    packet = PACKET if number == 4 else PACKET6
    there = machine_of(packet).redirected()
    assert there == (parse_ip("10.1.0.1") if number == 4 else parse_ip("::1"))
    assert machine_of(packet, Scene(STACK)).redirected() == parse_ip("127.0.0.1" if number == 4 else "::1")


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        *(("224.0.0.1", 5), ("239.255.255.255", 5), ("ff02::1", 5), ("10.1.0.1", 2), ("192.0.2.1", 2)),
        *(("10.1.255.255", 3), ("192.0.2.255", 3), ("255.255.255.255", 3), ("8.8.8.8", 1), ("10.1.0.77", 1)),
        *(("10.9.0.1", 0), ("fd00:1::1", 1), ("fd00:2::1", 0), ("e000::1", 0)),
    ],
)
def test_what_an_address_is_to_the_node(address: str, kind: int) -> None:
    assert kind_of(STACK, parse_ip(address)) == kind


def test_a_link_of_two_addresses_has_no_broadcast() -> None:
    there = world(addresses=(world().stacks[NODE].addresses[0]._replace(cidr=parse_cidr("192.0.2.0/31")),))
    assert kind_of(there.stacks[NODE], parse_ip("192.0.2.1")) == 2
    assert kind_of(there.stacks[NODE]._replace(routes=()), parse_ip("192.0.2.1")) == 0


def test_who_has_no_ports() -> None:
    assert [is_echo(number) for number in (1, 58, 6, 17)] == [True, True, False, False]


def tcp(*ports: int, option: int = 0, mask: int = 0, wanted: int = 0, inverted: int = 0) -> bytes:
    return struct.pack("=HHHHBBBB", *ports, option, mask, wanted, inverted)


def conntrack(flags: int, states: int, inverted: int = 0) -> bytes:
    return bytes(146) + struct.pack("=HHHH", flags, inverted, states, 0)


def multiport(kind: int, *ports: int, ranges: tuple[int, ...] = (), inverted: int = 0) -> bytes:
    flags = bytes(int(number in ranges) for number in range(15))
    return bytes([kind, len(ports)]) + struct.pack("=15H", *ports, *[0] * (15 - len(ports))) + flags + bytes([inverted])


ALL = (0, 65535)


@pytest.mark.parametrize(
    ("name", "info", "packet", "expected"),
    [
        ("comment", b"", PACKET, True),
        ("statistic", b"", PACKET, True),
        ("string", b"", PACKET, None),
        ("tcp", tcp(*ALL, 80, 80), PACKET, True),
        ("tcp", tcp(*ALL, 81, 90), PACKET, False),
        ("tcp", tcp(*ALL, 70, 79), PACKET, False),
        ("tcp", tcp(40000, 40000, *ALL), PACKET, True),
        ("tcp", tcp(40001, 40002, *ALL), PACKET, False),
        ("tcp", tcp(*ALL, 80, 80, inverted=2), PACKET, False),
        ("tcp", tcp(40000, 40000, *ALL, inverted=1), PACKET, False),
        ("tcp", tcp(*ALL, *ALL, mask=0x17, wanted=2), PACKET, True),
        ("tcp", tcp(*ALL, *ALL, mask=0x17, wanted=2), PACKET.back(), False),
        ("tcp", tcp(*ALL, *ALL, mask=0x17, wanted=2, inverted=4), PACKET, False),
        ("tcp", tcp(*ALL, *ALL, option=1), PACKET, None),
        ("tcp", tcp(*ALL, *ALL), PACKET6, False),
        ("udp", struct.pack("=HHHHB", *ALL, 53, 53, 0), PACKET6, True),
        ("udp", struct.pack("=HHHHB", *ALL, 54, 60, 0), PACKET6, False),
        ("udp", struct.pack("=HHHHB", 4000, 4000, *ALL, 0), PACKET6, True),
        ("udp", struct.pack("=HHHHB", 4001, 4002, *ALL, 0), PACKET6, False),
        ("udp", struct.pack("=HHHHB", 4000, 4000, *ALL, 1), PACKET6, False),
        ("udp", struct.pack("=HHHHB", *ALL, 53, 53, 2), PACKET6, False),
        ("udp", struct.pack("=HHHHB", *ALL, *ALL, 0), PACKET, False),
        ("conntrack", conntrack(1, 8), PACKET, True),
        ("conntrack", conntrack(1, 2), PACKET, False),
        ("conntrack", conntrack(1, 2, inverted=1), PACKET, True),
        ("conntrack", conntrack(1 | 1 << 13, 8), PACKET, True),
        ("conntrack", conntrack(3, 8), PACKET, None),
        ("conntrack", conntrack(1, 1), PACKET.back(), True),
        ("addrtype", struct.pack("=HHI", 0, 1 << 1, 0), PACKET, True),
        ("addrtype", struct.pack("=HHI", 0, 1 << 2, 0), PACKET, False),
        ("addrtype", struct.pack("=HHI", 0, 1 << 2, 2), PACKET, True),
        ("addrtype", struct.pack("=HHI", 1 << 2, 0, 0), PACKET, False),
        ("addrtype", struct.pack("=HHI", 1 << 2, 0, 1), PACKET, True),
        ("addrtype", struct.pack("=HHI", 1 << 1, 1 << 2, 2), PACKET, True),
        ("addrtype", struct.pack("=HHI", 0, 1 << 1, 4), PACKET, None),
        ("mark", struct.pack("=IIB", 5, 0xFF, 0), PACKET, True),
        ("mark", struct.pack("=IIB", 4, 0xFC, 0), PACKET, True),
        ("mark", struct.pack("=IIB", 4, 0xFF, 0), PACKET, False),
        ("mark", struct.pack("=IIB", 5, 0xFF, 1), PACKET, False),
        ("mark", struct.pack("=IIB", 0xFF, 0xFF, 0), PACKET, False),
        ("multiport", multiport(0, 40000), PACKET, True),
        ("multiport", multiport(0, 80), PACKET, False),
        ("multiport", multiport(1, 79, 80), PACKET, True),
        ("multiport", multiport(1, 40000), PACKET, False),
        ("multiport", multiport(2, 80), PACKET, True),
        ("multiport", multiport(2, 40000), PACKET, True),
        ("multiport", multiport(3, 80), PACKET, None),
        ("multiport", multiport(1, 80), ECHO, False),
        ("multiport", multiport(1, 70, 90, 1000, ranges=(0,)), PACKET, True),
        ("multiport", multiport(1, 70, 90, 80, ranges=(0,), inverted=1), PACKET, False),
        ("multiport", multiport(1, 1, 2, 80, ranges=(0,)), PACKET, True),
        ("multiport", multiport(1, 1, 80), PACKET, True),
        ("multiport", multiport(1, 70, 90), PACKET, False),
    ],
)
def test_matches(name: str, info: bytes, packet: Packet, expected: bool | None) -> None:
    assert extensions.match(name, info, machine_of(packet)) is expected


@pytest.mark.parametrize("side", ["source", "destination"])
def test_translations_are_states_for_iptables(side: str) -> None:
    own, other = (1 << 6, 1 << 7) if side == "source" else (1 << 7, 1 << 6)
    machine = machine_of(PACKET.back(), known=known_connection(**{side: True}))
    found = [extensions.match("conntrack", conntrack(1, states), machine) for states in (own, other, own | other)]
    assert found == [True, False, True]


def test_untracked_has_another_number_for_iptables() -> None:
    machine = machine_of(tracked=False)
    assert [extensions.match("conntrack", conntrack(1, 1 << bit), machine) for bit in (6, 8)] == [False, True]


def of_range(flags: int, first: str, port: int, last: str = "", last_port: int = 0, *, old: bool = False) -> bytes:
    ends = [parse_ip(text).packed.ljust(4 if old else 16, b"\0") for text in (first, last or first)]
    ports = [number.to_bytes(2, "big") for number in (port, last_port or port)]
    return (native(1) if old else b"") + native(flags) + b"".join(ends) + b"".join(ports)


@pytest.mark.parametrize(
    ("name", "revision", "info", "packet", "expected"),
    [
        *((name, 0, b"", PACKET, True) for name in ("LOG", "NFLOG", "TCPMSS", "CHECKSUM", "TRACE", "CLASSIFY")),
        *((name, 0, b"", PACKET, True) for name in ("TOS", "DSCP", "CONNMARK")),
        ("REJECT", 0, b"", PACKET, (0, "")),
        ("ACCEPT", 0, b"", PACKET, (1, "")),
        ("MASQUERADE", 0, b"", PACKET, (None, 0, True)),
        ("TPROXY", 0, b"", PACKET, None),
        ("MARK", 1, struct.pack("=II", 1, 1), PACKET, None),
        ("DNAT", 0, of_range(3, "10.1.0.3", 8080, old=True), PACKET, (parse_ip("10.1.0.3"), 8080, False)),
        ("DNAT", 2, of_range(3, "10.1.0.3", 8080), PACKET, (parse_ip("10.1.0.3"), 8080, False)),
        ("DNAT", 0, of_range(3, "fd00::3", 53), PACKET6, (parse_ip("fd00::3"), 53, False)),
        ("DNAT", 2, of_range(1, "10.1.0.3", 8080), PACKET, (parse_ip("10.1.0.3"), 0, False)),
        ("DNAT", 2, of_range(2, "10.1.0.3", 8080), PACKET, (None, 8080, False)),
        ("DNAT", 2, of_range(3, "10.1.0.3", 80, "10.1.0.4"), PACKET, None),
        ("DNAT", 2, of_range(3, "10.1.0.3", 80, last_port=81), PACKET, None),
        ("SNAT", 0, of_range(1, "192.0.2.1", 0, old=True), PACKET, (parse_ip("192.0.2.1"), 0, True)),
    ],
)
def test_targets(name: str, revision: int, info: bytes, packet: Packet, expected: object) -> None:
    assert extensions.target(name, revision, info, machine_of(packet)) == expected


@pytest.mark.parametrize(
    ("mark", "mask", "expected"), [(0x4000, 0x4000, 0x4005), (0, 0xFFFFFFFF, 0), (7, 0xFF, 7), (1, 0, 4), (0, 4, 1)]
)
def test_a_mark_is_set_in_part(mark: int, mask: int, expected: int) -> None:
    machine = machine_of()
    assert extensions.target("MARK", 2, struct.pack("=II", mark, mask), machine) is True
    assert machine.packet == PACKET._replace(mark=expected)


def test_chance_is_asked_for_one_of_so_many() -> None:
    asked: list[tuple[int, str]] = []

    def choose(number: int, why: str) -> int:
        asked.append((number, why))
        return 0

    machine = Machine(SCENE, PACKET, Attached(PACKET, None), choose)
    assert extensions.match("statistic", b"", machine) is False
    assert machine.run("numgen", {"MODULUS": 5, "DREG": 1}, KEY) is True
    assert (asked, machine.load(1, 4)) == ([(2, "one by chance"), (5, "one by chance")], native(0))
