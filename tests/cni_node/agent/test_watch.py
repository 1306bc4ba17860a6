"""Which announcements of the kernel are our business, judged by their bytes."""

import socket
import struct

import pytest
from pyroute2.netlink import rtnl
from pytest_mock import MockerFixture

from cni_kernel.attributes import LINK, NDA
from cni_node.agent.keeper import EXEMPT, LOCAL, ROUTES, RULES
from cni_node.agent.watch import (
    POLICIES,
    Disturbance,
    View,
    Watcher,
    describe_generation,
    describe_port,
    judge_nft_message,
    judge_route_messages,
)
from cni_node.host.peer_routes import METRIC, Forward, Neighbour, PeerRoute, Wanted
from cni_protocol.address import parse_cidr, parse_ip

OUR_PORT, OVERLAY, UPLINK = 4711, 7, 2
NODE, POD = parse_ip("192.168.1.12"), parse_ip("10.2.0.0")
MAC, OTHER_MAC = "0a:00:00:00:00:01", "02:00:00:00:00:02"
UP = 0x1 | 0x10000


def view() -> View:
    wanted = Wanted()
    route = PeerRoute(parse_cidr("10.2.0.0/24"), POD, OVERLAY, None, METRIC)
    wanted.change((), [Forward(MAC, NODE), Neighbour(POD, MAC), route])
    made = View(frozenset({OUR_PORT}), frozenset({"cni0", "vxlan.1"}), lambda: wanted)
    made.overlay, made.interfaces = OVERLAY, frozenset({UPLINK})
    made.has_turned(UPLINK, UP)
    return made


def message(kind: int, body: bytes, port: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, port) + body + b"\0" * (-len(body) % 4)


def route(protocol: int) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, protocol, 0, 1, 0)


def link(ifindex: int, name: str, flags: int = UP, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 1, ifindex, flags, 0) + LINK.pack([("IFLA_IFNAME", name)])


def neighbour(family: int, mac: str, ifindex: int = OVERLAY) -> bytes:
    target = NODE if family == 7 else POD
    attributes = [("NDA_DST", target), *([("NDA_LLADDR", mac)] if mac else [])]
    return struct.pack("=BxxxiHBB", family, ifindex, 0x80, 0, 0) + NDA.pack(attributes)


def address(scope: int) -> bytes:
    return struct.pack("=BBBBI", 2, 24, 0, scope, UPLINK)


@pytest.mark.parametrize(
    ("data", "stages"),
    [
        pytest.param(message(25, route(80)), [ROUTES], id="our route goes"),
        pytest.param(message(24, route(80), 5), [ROUTES], id="a route of ours comes"),
        pytest.param(message(25, route(80), OUR_PORT), [], id="we did it"),
        pytest.param(message(25, route(3)), [], id="another's route"),
        pytest.param(message(20, address(0)), [LOCAL, ROUTES], id="address"),
        pytest.param(message(21, address(253)), [], id="link-local address"),
        pytest.param(message(17, link(9, "cni0")), [LOCAL], id="bridge"),
        pytest.param(message(16, link(OVERLAY, "renamed")), [LOCAL], id="overlay renamed"),
        pytest.param(message(16, link(9, "cni0", family=7)), [], id="a port of the bridge"),
        pytest.param(message(16, link(12, "veth1")), [], id="a pod"),
        pytest.param(message(16, link(UPLINK, "eth0", 0x1)), [LOCAL, ROUTES], id="the cable is pulled"),
        pytest.param(message(16, link(UPLINK, "eth0")), [], id="nothing turned"),
        pytest.param(message(29, neighbour(7, MAC)), [ROUTES], id="our forwarding entry goes"),
        pytest.param(message(29, neighbour(7, OTHER_MAC)), [], id="another goes"),
        pytest.param(message(28, neighbour(7, MAC)), [], id="ours comes"),
        pytest.param(message(28, neighbour(7, OTHER_MAC)), [ROUTES], id="another comes"),
        pytest.param(message(29, neighbour(2, "")), [ROUTES], id="our neighbour goes"),
        pytest.param(message(28, neighbour(2, OTHER_MAC)), [ROUTES], id="our neighbour moves"),
        pytest.param(message(28, neighbour(2, MAC)), [], id="our neighbour is as it should be"),
        pytest.param(message(29, neighbour(2, MAC, ifindex=9)), [], id="on another interface"),
        pytest.param(message(25, route(3)) + message(25, route(80)), [ROUTES], id="the second of two"),
    ],
)
def test_whose_business_it_is(data: bytes, stages: list[str]) -> None:
    assert [found.stage for found in judge_route_messages(data, view())] == stages


@pytest.mark.parametrize(
    ("kind", "body", "stages"),
    [
        pytest.param(2, b"pycni\0", {EXEMPT, RULES}, id="our table"),
        pytest.param(2, b"filter\0", set(), id="another table"),
        pytest.param(14, b"pycni\0exempt4\0", {EXEMPT}, id="an element of ours"),
        pytest.param(12, b"pycni\0exempt4\0", {EXEMPT}, id="an element that comes"),
        pytest.param(11, b"pycni\0exempt4\0", {EXEMPT}, id="our set"),
        pytest.param(9, b"pycni\0exempt4\0", set(), id="our set, said to be there"),
        pytest.param(14, b"pycni\0masquerade4\0", set(), id="another element"),
        pytest.param(8, b"pycni\0postrouting\0", {RULES}, id="a rule that goes"),
        pytest.param(8, b"filter\0forward\0", set(), id="another rule that goes"),
        pytest.param(6, b"pycni\0postrouting\0", set(), id="a rule that comes"),
        pytest.param(6, b"pycni_policy\0forward\0", {POLICIES}, id="a rule that comes among policies"),
        pytest.param(2, b"pycni_policy\0", {POLICIES}, id="the table of policies"),
    ],
)
def test_which_changes_of_rules_concern_us(kind: int, body: bytes, stages: set[str]) -> None:
    assert judge_nft_message(10 << 8 | kind, body) == stages


def test_who_did_it() -> None:
    attributes = struct.pack("=HHI", 8, 1, 5) + struct.pack("=HH", 8, 2) + (321).to_bytes(4, "big")
    body = bytes(4) + attributes + struct.pack("=HH", 8, 3) + b"nft\0"
    assert describe_generation(body) == "nft pid 321"
    assert describe_port(0) == "the kernel"
    assert describe_port(4_000_000_000) == "netlink port 4000000000"
    assert Disturbance(EXEMPT, "x").by == "x"


def test_both_sockets_hear_all_that_is_judged(mocker: MockerFixture) -> None:
    opened = mocker.patch.object(socket, "socket")
    groups = rtnl.RTMGRP_LINK | rtnl.RTMGRP_NEIGH
    groups |= rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_IFADDR | rtnl.RTMGRP_IPV6_ROUTE
    Watcher(view(), lambda _: None)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    assert [call.args for call in opened.call_args_list] == [(socket.AF_NETLINK, kind, number) for number in (0, 12)]
    assert [call.args for call in opened.return_value.bind.call_args_list] == [((0, groups),), ((0, 0),)]
    room = (socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    assert [call.args for call in opened.return_value.setsockopt.call_args_list] == [room, room, (270, 1, 7)]


def test_who_may_not_have_more_room_takes_what_there_is(mocker: MockerFixture) -> None:
    opened = mocker.patch.object(socket, "socket").return_value
    asked = []

    def refuse(*option: int) -> None:
        asked.append(option)
        if option[1] == 33:
            raise PermissionError

    opened.setsockopt.side_effect = refuse
    Watcher(view(), lambda _: None)
    assert asked[:2] == [(socket.SOL_SOCKET, 33, 4 << 20), (socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)]
    opened.bind.side_effect = OSError
    with pytest.raises(OSError):
        Watcher(view(), lambda _: None)
    opened.close.assert_called_once_with()
