"""Types, padding and expressions of nftables: numbers against the kernel's headers and nft(8)."""

import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cni_kernel import connections, expressions
from cni_kernel.expressions import DataType, Expression
from cni_protocol.address import parse_cidr


def attributes_of(expression: Expression) -> tuple[str, dict[str, Any]]:
    """The name of an expression and its attributes."""
    name, attributes = expression
    return name, dict(attributes)


def bytes_of(value: Any) -> bytes:
    return bytes(dict(value)["NFTA_DATA_VALUE"])


@pytest.mark.parametrize(
    ("types", "number", "length"),
    [
        ((expressions.IPV4_ADDR,), 7, 4),
        ((expressions.INET_PROTO, expressions.INET_SERVICE), 12 << 6 | 13, 8),
        ((expressions.IPV4_ADDR, expressions.INET_SERVICE), 7 << 6 | 13, 8),
        ((expressions.IPV4_ADDR, expressions.INET_PROTO, expressions.INET_SERVICE), 7 << 12 | 12 << 6 | 13, 12),
        ((expressions.IPV6_ADDR, expressions.INET_PROTO, expressions.INET_SERVICE), 8 << 12 | 12 << 6 | 13, 24),
        ((expressions.IFNAME, expressions.ETHER_ADDR), 41 << 6 | 9, 24),
    ],
    ids=["one", "service", "target", "IPv4 and service", "IPv6 and service", "port and MAC"],
)
def test_a_concatenation_takes_whole_words_per_part(types: tuple[DataType, ...], number: int, length: int) -> None:
    assert expressions.concatenated(*types) == (number, length)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"\x01",), b"\x01\0\0\0"),
        ((b"\x0a\1\0\5", b"\x06", b"\x1f\x90"), b"\x0a\1\0\5\x06\0\0\0\x1f\x90\0\0"),
        ((b"123456", b"1234"), b"123456\0\x001234"),
        ((), b""),
    ],
    ids=["a byte", "address, protocol, port", "a MAC", "nothing"],
)
def test_the_parts_of_a_key_are_padded_each(parts: tuple[bytes, ...], expected: bytes) -> None:
    assert expressions.pad(*parts) == expected


@pytest.mark.parametrize(("version", "nfproto", "length"), [(4, 2, 4), (6, 10, 16)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("load", "name", "place"),
    [
        (expressions.load_destination, None, {4: 16, 6: 24}),
        (expressions.load_sender, 6, {4: 12, 6: 8}),
        (expressions.load_receiver, 7, {4: 16, 6: 24}),
    ],
    ids=["destination", "where from", "where to"],
)
def test_an_address_is_loaded_from_its_header(
    version: int, nfproto: int, length: int, load: Callable[[int], list[Expression]], name: int | None, place: Any
) -> None:
    meta, compare, *between, payload = [attributes_of(entry) for entry in load(version)]
    assert meta == ("meta", {"NFTA_META_KEY": 15, "NFTA_META_DREG": 8})
    assert compare[0] == "cmp"
    assert (compare[1]["NFTA_CMP_OP"], bytes_of(compare[1]["NFTA_CMP_DATA"])) == (0, bytes([nfproto]))
    # an interface's name takes four registers of 32 bits
    assert between == ([] if name is None else [("meta", {"NFTA_META_KEY": name, "NFTA_META_DREG": 8})])
    assert payload == (
        "payload",
        {
            "NFTA_PAYLOAD_DREG": 8 if name is None else 12,
            "NFTA_PAYLOAD_BASE": 1,
            "NFTA_PAYLOAD_OFFSET": place[version],
            "NFTA_PAYLOAD_LEN": length,
        },
    )


@pytest.mark.parametrize(
    ("network", "mask", "value"),
    [
        ("10.1.0.8/30", "fffffffc", "0a010008"),
        ("10.1.0.9/30", "fffffffc", "0a010008"),
        ("10.1.0.9/1", "80000000", "00000000"),
        ("fd00::8000/113", "f" * 28 + "8000", "fd00" + "0" * 24 + "8000"),
    ],
)
def test_a_network_is_a_mask_and_its_first_address(network: str, mask: str, value: str) -> None:
    cidr = parse_cidr(network)
    *_, load, (name, bitwise), (_, compare) = [
        attributes_of(entry) for entry in expressions.match_network(cidr, expressions.SOURCE)
    ]
    size = len(value) // 2
    assert load[1]["NFTA_PAYLOAD_LEN"] == size
    assert load[1]["NFTA_PAYLOAD_OFFSET"] == expressions.SOURCE[cidr.version]
    assert (name, bitwise["NFTA_BITWISE_LEN"]) == ("bitwise", size)
    assert bytes_of(bitwise["NFTA_BITWISE_MASK"]).hex() == mask
    assert bytes_of(bitwise["NFTA_BITWISE_XOR"]) == bytes(size)
    assert (compare["NFTA_CMP_OP"], bytes_of(compare["NFTA_CMP_DATA"]).hex()) == (0, value)


@pytest.mark.parametrize(
    ("network", "value"),
    [
        ("10.1.0.0/16", "0a01"),
        ("10.1.2.3/8", "0a"),
        ("10.1.0.9/32", "0a010009"),
        ("fd00:1::/64", "fd00000100000000"),
        ("ff00::/8", "ff"),
        ("::1/128", "0" * 31 + "1"),
    ],
)
def test_a_network_of_whole_bytes_is_these_bytes(network: str, value: str) -> None:
    cidr = parse_cidr(network)
    found = [attributes_of(entry) for entry in expressions.match_network(cidr, expressions.DESTINATION)]
    *version, (_, load), (_, compare) = found
    assert version == [attributes_of(entry) for entry in expressions.match_version(cidr.version)]
    assert (load["NFTA_PAYLOAD_OFFSET"], load["NFTA_PAYLOAD_LEN"]) == (
        expressions.DESTINATION[cidr.version],
        len(value) // 2,
    )
    assert (compare["NFTA_CMP_OP"], bytes_of(compare["NFTA_CMP_DATA"]).hex()) == (0, value)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_a_network_of_all_addresses_is_its_ip_version(network: str) -> None:
    cidr = parse_cidr(network)
    assert expressions.match_network(cidr, expressions.SOURCE) == expressions.match_version(cidr.version)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"verdict": True}, {"NFTA_LOOKUP_DREG": 0}),
        ({"data": True}, {"NFTA_LOOKUP_DREG": 8}),
        ({"inverted": True}, {"NFTA_LOOKUP_FLAGS": 1}),
    ],
    ids=["in a set", "verdict", "data", "not in a set"],
)
def test_a_look_up_leads_to_a_verdict_or_to_data(options: dict[str, bool], expected: dict[str, Any]) -> None:
    assert attributes_of(expressions.look_up("m", **options)) == (
        "lookup",
        {"NFTA_LOOKUP_SET": "m", "NFTA_LOOKUP_SREG": 8, **expected},
    )


@pytest.mark.parametrize(("version", "nfproto", "port"), [(4, 2, 9), (6, 10, 12)], ids=["IPv4", "IPv6"])
def test_the_port_of_a_translation_stands_behind_the_address(version: int, nfproto: int, port: int) -> None:
    assert attributes_of(connections.translate_destination(version)) == (
        "nat",
        {
            "NFTA_NAT_TYPE": 1,
            "NFTA_NAT_FAMILY": nfproto,
            "NFTA_NAT_REG_ADDR_MIN": 8,
            "NFTA_NAT_REG_PROTO_MIN": port,
        },
    )


def test_what_is_native_to_the_host_is_in_its_byte_order() -> None:
    local = attributes_of(expressions.match_local_destination()[1])[1]
    assert bytes_of(local["NFTA_CMP_DATA"]) == struct.pack("=I", 2)  # RTN_LOCAL
    status = attributes_of(connections.match_destination_nat()[1])[1]
    assert bytes_of(status["NFTA_BITWISE_MASK"]) == (32).to_bytes(4, sys.byteorder)  # IPS_DST_NAT


@pytest.mark.parametrize(
    ("expression", "code"), [(expressions.leave_chain(), -5), (expressions.drop(), 0)], ids=["return", "drop"]
)
def test_a_verdict_ends_a_rule(expression: Expression, code: int) -> None:
    name, given = attributes_of(expression)
    verdict = dict(dict(given["NFTA_IMMEDIATE_DATA"])["NFTA_DATA_VERDICT"])
    assert (name, given["NFTA_IMMEDIATE_DREG"], verdict) == ("immediate", 0, {"NFTA_VERDICT_CODE": code})
