"""Messages of rtnetlink: the bytes of what is sent, and what a reply's bytes mean."""

import socket
import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni_kernel.rtnetlink import (
    address_body,
    gone_index,
    link_info,
    link_message,
    parse_address,
    parse_link,
    parse_routes,
    port_info,
    route_body,
)
from cni_kernel.values import Address, Link, PortVlan, Route
from cni_kernel.vlans import parse_vlans, vlan_message, vlan_query
from cni_protocol.address import parse_cidr, parse_ip

AF_BRIDGE = 7
LINK = Link(7, "eth0", "veth", "", 1500, True, True, False, 0, 6, "", False, False, False, False)


def body_of(message: Any) -> bytes:
    """The body of a message as pyroute2 encodes it: another hand than ours."""
    message.encode()
    return bytes(message.data[16:])


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message by their number, read by hand (struct nlattr)."""
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


@pytest.mark.parametrize(
    ("options", "flags", "changed"),
    [
        ({}, 0, 0),
        ({"up": True}, 0x1, 0x1),
        ({"up": False}, 0, 0x1),
        ({"promisc": True}, 0x100, 0x100),
        ({"promisc": False}, 0, 0x100),
        ({"up": True, "promisc": True}, 0x101, 0x101),
        ({"up": False, "promisc": True}, 0x100, 0x101),
    ],
    ids=["none", "up", "down", "promisc", "not promisc", "both", "down and promisc"],
)
def test_a_link_message_changes_no_other_flag(options: dict[str, bool], flags: int, changed: int) -> None:
    message = link_message(16, 4, [("IFLA_IFNAME", "br0")], ifindex=9, **options)
    family, _, index, set_flags, change = struct.unpack_from("=BxHiII", message.body)
    assert (message.kind, message.flags, family) == (16, 4, 0)
    assert (index, set_flags, change) == (9, flags, changed)
    assert attributes(message.body[16:]) == {3: b"br0\0"}


def test_the_kind_of_a_link_is_nested() -> None:
    info = attributes(link_message(16, 0, [link_info("bridge")]).body[16:])[18]
    assert attributes(info)[1].rstrip(b"\0") == b"bridge"


@pytest.mark.parametrize("on", [True, False])
def test_the_settings_of_a_bridge_are_nested_beside_its_kind(on: bool) -> None:
    message = link_message(16, 0, [link_info("bridge", [("IFLA_BR_VLAN_FILTERING", int(on))])])
    data = attributes(attributes(attributes(message.body[16:])[18])[2])
    assert data == {7: bytes([on])}


def test_the_settings_of_a_port_are_nested_beside_the_kind_of_its_bridge() -> None:
    message = link_message(16, 0, [port_info([("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0)])])
    info = attributes(attributes(message.body[16:])[18])
    assert info[4].rstrip(b"\0") == b"bridge"
    assert attributes(info[5]) == {4: b"\1", 33: b"\0"}


@pytest.mark.parametrize(
    ("vlan", "flags"),
    [
        (PortVlan(5), 0),
        (PortVlan(5, pvid=True), 2),
        (PortVlan(5, untagged=True), 4),
        (PortVlan(4094, pvid=True, untagged=True), 6),
    ],
    ids=["tagged", "pvid", "untagged", "both"],
)
def test_a_vlan_message(vlan: PortVlan, flags: int) -> None:
    message = vlan_message(19, 4, 9, [vlan])
    family, _, index = struct.unpack_from("=BxHi", message.body)
    assert (message.kind, message.flags, family, index) == (19, 4, AF_BRIDGE, 9)
    [info] = attributes(attributes(message.body[16:])[26]).items()
    assert info == (2, struct.pack("=HH", flags, vlan.vid))
    assert parse_vlans(message.body) == (9, [vlan])


def test_a_port_without_vlans_has_none() -> None:
    assert parse_vlans(link_reply(IFNAME="eth0")) == (7, [])


def test_vlans_are_asked_for_with_their_filter() -> None:
    body = vlan_query()
    assert body[0] == AF_BRIDGE
    assert attributes(body[16:]) == {29: struct.pack("=I", 4)}


@pytest.mark.parametrize(("detect", "expected"), [(False, struct.pack("=I", 2)), (True, None)])
def test_duplicates_of_an_ipv6_address_are_looked_for_only_when_asked_for(detect: bool, expected: bytes | None) -> None:
    body = address_body(7, parse_cidr("fd00::5/64"), detect_duplicates=detect)
    assert attributes(body[8:]).get(8) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        *((0x40, (True, False, False, 5)), (0x08, (False, True, False, 5)), (0x48, (True, True, False, 5))),
        *((0x82, (False, False, True, 5)), (0x100, (False, False, False, 5))),
    ],
    ids=["tentative", "duplicate", "both", "settled", "lent by a router"],
)
def test_the_state_of_an_address_is_read(flags: int, expected: tuple[bool, bool, bool, int]) -> None:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = socket.AF_INET6, 64, 5
    message["attrs"] = [("IFA_ADDRESS", "fd00::5"), ("IFA_FLAGS", flags)]
    assert parse_address(body_of(message)) == Address(parse_cidr("fd00::5/64"), *expected)


@pytest.mark.parametrize(
    ("text", "family", "extra"),
    [
        ("10.1.0.5/16", socket.AF_INET, {4: "10.1.255.255"}),
        ("10.1.0.4/31", socket.AF_INET, {}),
        ("10.1.0.4/32", socket.AF_INET, {}),
        ("fd00::5/64", socket.AF_INET6, {8: 0x02}),
    ],
    ids=["IPv4 has a broadcast address", "none in a /31", "none in a /32", "IPv6 is usable at once"],
)
def test_an_address_message(text: str, family: int, extra: dict[int, Any]) -> None:
    address = parse_cidr(text)
    body = address_body(7, address)
    assert struct.unpack_from("=BBBBI", body) == (family, address.prefix, 0, 0, 7)
    expected = {1: address.ip.packed, 2: address.ip.packed}
    for kind, value in extra.items():
        expected[kind] = parse_ip(value).packed if isinstance(value, str) else struct.pack("=I", value)
    assert attributes(body[8:]) == expected
    assert parse_address(body) == Address(address, False, False, False, 7)


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (
            Route(parse_cidr("0.0.0.0/0"), parse_ip("10.1.0.1"), table=254, scope=0),
            {5: parse_ip("10.1.0.1").packed, 15: struct.pack("=I", 254)},
        ),
        (
            Route(parse_cidr("10.9.0.0/16"), None, table=1000, scope=253),
            {1: parse_ip("10.9.0.0").packed, 15: struct.pack("=I", 1000)},
        ),
        (
            Route(parse_cidr("fd00:9::/64"), parse_ip("fd00::1"), priority=5, table=254, scope=0),
            {
                1: parse_ip("fd00:9::").packed,
                5: parse_ip("fd00::1").packed,
                6: struct.pack("=I", 5),
                15: struct.pack("=I", 254),
            },
        ),
    ],
    ids=["default", "link scope in a large table", "IPv6 with a priority"],
)
def test_a_route_message(route: Route, expected: dict[int, bytes]) -> None:
    body = route_body(LINK, route)
    family, dst_len, src_len, tos, _, protocol, scope, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
    assert (family, dst_len, src_len, tos) == (route.dst.ip.family, route.dst.prefix, 0, 0)
    assert (protocol, scope, kind) == (3, route.scope, 1)
    assert attributes(body[12:]) == {4: struct.pack("=I", 7), **expected}
    assert parse_routes(body) == [(LINK.ifindex, route)]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"mtu": 1400}, {2: 1400}),
        ({"advmss": 1360}, {8: 1360}),
        ({"mtu": 1400, "advmss": 1360}, {2: 1400, 8: 1360}),
    ],
    ids=["mtu", "advmss", "both"],
)
def test_the_metrics_of_a_route(numbers: dict[str, int], expected: dict[int, int]) -> None:
    route = Route(parse_cidr("10.9.0.0/16"), parse_ip("10.1.0.1"), table=254, scope=0, **numbers)
    body = route_body(LINK, route)
    metrics = attributes(attributes(body[12:])[8])
    assert {kind: struct.unpack("=I", value)[0] for kind, value in metrics.items()} == expected
    assert parse_routes(body) == [(LINK.ifindex, route)]


def link_reply(**attributes_given: Any) -> bytes:
    message = ifinfmsg()
    message["index"] = 7
    message["flags"] = attributes_given.pop("flags", 0)
    message["attrs"] = [(f"IFLA_{key}", value) for key, value in attributes_given.items()]
    return body_of(message)


def port_reply(state: int, hairpin: int, isolated: int = 0) -> dict[str, Any]:
    data = [("IFLA_BRPORT_STATE", state), ("IFLA_BRPORT_MODE", hairpin), ("IFLA_BRPORT_ISOLATED", isolated)]
    kinds: list[tuple[str, Any]] = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_SLAVE_KIND", "bridge")]
    return {"attrs": [*kinds, ("IFLA_INFO_SLAVE_DATA", {"attrs": data})]}


def bridge_reply(vlan_filtering: int) -> dict[str, Any]:
    data = {"attrs": [("IFLA_BR_VLAN_FILTERING", vlan_filtering)]}
    return {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}


BARE = Link(7, "eth0", "", "", 0, False, False, False, 0, 0, "", False, False, False, False)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({}, {}),
        ({"flags": 0x1}, {"up": True}),
        ({"flags": 0x10101}, {"up": True, "running": True, "promisc": True}),
        ({"MTU": 1400, "ADDRESS": "0a:58:0a:f4:00:02"}, {"mtu": 1400, "mac": "0a:58:0a:f4:00:02"}),
        ({"MASTER": 5, "LINK": 6, "IFALIAS": "mynet,c1,eth0"}, {"master": 5, "peer": 6, "alias": "mynet,c1,eth0"}),
        ({"LINKINFO": {"attrs": [("IFLA_INFO_KIND", "bridge")]}}, {"kind": "bridge"}),
        ({"LINKINFO": port_reply(0, 0)}, {"kind": "veth"}),
        ({"LINKINFO": port_reply(3, 0)}, {"kind": "veth", "forwarding": True}),
        ({"LINKINFO": port_reply(0, 1)}, {"kind": "veth", "hairpin": True}),
        ({"LINKINFO": port_reply(0, 0, 1)}, {"kind": "veth", "isolated": True}),
        ({"LINKINFO": bridge_reply(1)}, {"kind": "bridge", "vlan_filtering": True}),
        ({"LINKINFO": bridge_reply(0)}, {"kind": "bridge"}),
    ],
    ids=[
        "bare",
        "up",
        "promiscuous",
        "mtu and MAC",
        "places",
        "bridge",
        "disabled port",
        "port",
        "hairpin port",
        "isolated port",
        "bridge with VLANs",
        "bridge without VLANs",
    ],
)
def test_a_link_is_read(reply: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse_link(link_reply(IFNAME="eth0", **reply)) == BARE._replace(**expected)


@pytest.mark.parametrize(("kind", "oif", "there"), [(1, 7, True), (1, None, False), (2, 7, False), (7, None, False)])
def test_only_unicast_routes_over_an_interface_are_read(kind: int, oif: int | None, there: bool) -> None:
    message = rtmsg()
    message["family"], message["type"], message["table"] = socket.AF_INET, kind, 254
    message["attrs"] = [("RTA_OIF", oif)] if oif else []
    expected = [(7, Route(parse_cidr("0.0.0.0/0"), table=254, scope=0))]
    assert parse_routes(body_of(message)) == (expected if there else [])


def test_a_route_of_several_next_hops_is_several_routes() -> None:
    message = rtmsg()
    message["family"], message["type"], message["table"] = socket.AF_INET6, 1, 254
    hops = [
        {"oif": 7, "hops": 0, "flags": 0, "attrs": [("RTA_GATEWAY", "fd00:1::1")]},
        {"oif": 9, "hops": 3, "flags": 4, "attrs": [("RTA_GATEWAY", "fd00:2::1")]},
        {"oif": 11, "hops": 0, "flags": 0},
    ]
    message["attrs"] = [("RTA_PRIORITY", 1024), ("RTA_MULTIPATH", hops)]
    route = Route(parse_cidr("::/0"), priority=1024, table=254, scope=0)
    assert parse_routes(body_of(message)) == [
        (7, route._replace(gw=parse_ip("fd00:1::1"))),
        (9, route._replace(gw=parse_ip("fd00:2::1"))),
        (11, route),
    ]


def test_the_address_of_a_point_to_point_link_is_the_local_one() -> None:
    message = ifaddrmsg()
    message["family"], message["prefixlen"] = socket.AF_INET, 32
    message["attrs"] = [("IFA_ADDRESS", "10.1.0.9"), ("IFA_LOCAL", "10.1.0.5")]
    assert parse_address(body_of(message)).cidr == parse_cidr("10.1.0.5/32")


@pytest.mark.parametrize(
    ("kind", "family", "index"),
    [(17, 0, 9), (17, AF_BRIDGE, 0), (16, 0, 0)],
    ids=["an interface is gone", "a port left its bridge", "an interface changed"],
)
def test_an_interface_that_is_gone_is_told_from_other_news(kind: int, family: int, index: int) -> None:
    message = ifinfmsg()
    message["family"], message["index"] = family, 9
    assert gone_index(kind, body_of(message)) == index
