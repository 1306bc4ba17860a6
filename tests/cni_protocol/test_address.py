"""Addresses and networks: text to numbers and back."""

import socket

import pytest

from cni_protocol.address import ANY4, ANY6, CIDR, IP, any_network, parse_cidr, parse_ip, parse_ip_or_cidr


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        # RFC 5952, section 4.1 and 4.3: no leading zeros, lower case
        ("2001:0DB8:0000:0000:0000:0000:0000:00Aa", "2001:db8::aa"),
        # 4.2.2: a single field of zeros is not shortened
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        # 4.2.3: the longest run of zeros, the first of two that are as long
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        # what looks like IPv4 in IPv6: only ::ffff:0:0/96 is IPv4, all else is printed in hexadecimal, as Go does
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::FFFF:0a01:0203", "10.1.2.3"),
        ("::ffff:0.0.0.0", "0.0.0.0"),
        ("::10.1.2.3", "::a01:203"),
        ("::0.1.0.2", "::1:2"),
        ("::10.1.0.0", "::a01:0"),
        ("::0.0.1.2", "::102"),
        ("64:ff9b::10.1.2.3", "64:ff9b::a01:203"),
        ("::ffff:0:10.1.2.3", "::ffff:0:a01:203"),
        ("fe80::1:ffff:10.1.2.3", "fe80::1:ffff:a01:203"),
    ],
)
def test_text_is_written_as_rfc_5952_has_it(text: str, canonical: str) -> None:
    assert str(parse_ip(text)) == canonical
    assert parse_ip(canonical) == parse_ip(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10",
        "10.1.2",
        "10.1.2.3.4",
        "10.1.2.256",
        "10.1.2.-3",
        "010.1.2.3",
        "0x0a.1.2.3",
        "10.1.2.3 ",
        " 10.1.2.3",
        "10.1.2.3\n",
        "10.1.2.3\0",
        "10.1.2.3/24",
        "٣.1.2.3",
        "\ud800.1.2.3",
        ":",
        ":::",
        "1::2::3",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "g::",
        "::10.1.2",
        "fe80::1%eth0",
        "[::1]",
        "localhost",
        "lock",
        "last_reserved_ip.0",
    ],
)
def test_what_is_no_address_is_refused_and_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address") as caught:
        parse_ip(text)
    assert repr(text) in str(caught.value)


def test_version_bits_family_and_bytes_go_together() -> None:
    v4, v6 = parse_ip("10.1.2.3"), parse_ip("2001:db8::1")
    assert v4 == IP(4, 0x0A010203)
    assert (v4.bits, v4.family, v4.packed) == (32, socket.AF_INET, b"\x0a\x01\x02\x03")
    assert (v6.version, v6.value) == (6, 0x20010DB8000000000000000000000001)
    assert (v6.bits, v6.family, v6.packed) == (128, socket.AF_INET6, bytes.fromhex("20010db8" + "0" * 23 + "1"))


@pytest.mark.parametrize(
    ("text", "canonical", "network", "first", "last"),
    [
        ("10.1.2.3/16", "10.1.2.3/16", "10.1.0.0/16", "10.1.0.0", "10.1.255.255"),
        ("10.1.2.3/32", "10.1.2.3/32", "10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/31", "10.1.2.3/31", "10.1.2.2/31", "10.1.2.2", "10.1.2.3"),
        ("10.1.2.3/0", "10.1.2.3/0", "0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("2001:DB8::5/64", "2001:db8::5/64", "2001:db8::/64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::5/126", "2001:db8::5/126", "2001:db8::4/126", "2001:db8::4", "2001:db8::7"),
        ("::1/128", "::1/128", "::1/128", "::1", "::1"),
        ("::ffff:10.1.2.3/112", "10.1.2.3/16", "10.1.0.0/16", "10.1.0.0", "10.1.255.255"),
        ("::ffff:10.1.2.3/128", "10.1.2.3/32", "10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
    ],
)
def test_a_network_has_its_ends(text: str, canonical: str, network: str, first: str, last: str) -> None:
    cidr = parse_cidr(text)
    assert str(cidr) == canonical
    assert (str(cidr.network), str(cidr.first), str(cidr.last)) == (network, first, last)
    assert cidr.network.network == cidr.network
    assert cidr.version == cidr.ip.version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/24",
        "10.1.2.3",
        "10.1.2.3/",
        "10.1.2.3/33",
        "10.1.2.3/-1",
        "10.1.2.3/+1",
        "10.1.2.3/ 8",
        "10.1.2.3/8 ",
        "10.1.2.3/8/8",
        "10.1.2.3/x",
        "10.1.2.3/255.255.0.0",
        "10.1.2.3/٨",
        "10.1.2.3/²",
        "10.1.2.3/" + "9" * 5000,
        "10.1/16",
        "::1/129",
        "::1/0x40",
        # prefix lengths of the mapped form count in 128 bits; below 96 it is no IPv4 network
        "::ffff:10.1.2.3/24",
        "::ffff:10.1.2.3/95",
        "::ffff:10.1.2.3/129",
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        parse_cidr(text)


def test_a_network_contains_its_addresses_and_nothing_of_the_other_family() -> None:
    network = parse_cidr("10.1.0.0/16")
    inside = ["10.1.0.0", "10.1.0.1", "10.1.255.255"]
    outside = ["10.0.255.255", "10.2.0.0", "::a01:1", "2001:db8::1"]
    assert [text for text in inside + outside if parse_ip(text) in network] == inside
    assert network.__contains__("10.1.0.1") is False
    assert IP(6, parse_ip("10.1.0.1").value) not in ANY4
    assert parse_ip("10.1.0.1") not in ANY6


def test_the_whole_address_space_of_each_family() -> None:
    assert str(any_network(4)) == "0.0.0.0/0"
    assert str(any_network(6)) == "::/0"
    assert any_network(4) == CIDR(IP(4, 0), 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/16", "10.1.2.3"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:db8::5/64", "2001:db8::5"),
    ],
)
def test_a_prefix_length_behind_a_requested_address_may_be_there(text: str, address: str) -> None:
    assert str(parse_ip_or_cidr(text)) == address


@pytest.mark.parametrize("text", ["", "/", "10.1.2.3/", "10.1.2.3/99", "10.1.2"])
def test_a_requested_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        parse_ip_or_cidr(text)
