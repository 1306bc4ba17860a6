"""Entries to other nodes as messages, by their bytes; test_agent.py and others have the kernel take them."""

import errno
import struct
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel.attributes import NDA, RTA
from cni_kernel.errors import KernelError
from cni_kernel.netlink import Message, NetlinkError
from cni_node.host import entries
from cni_node.host.entries import Entries, Observed
from cni_node.host.peer_routes import Difference, Entry, Forward, Neighbour, PeerRoute
from cni_protocol.address import parse_cidr, parse_ip

OVERLAY, UPLINK = 7, 2
MAC = "0a:00:00:00:00:01"
POD, NODE, OWN = parse_ip("10.2.0.0"), parse_ip("192.168.1.12"), parse_ip("10.1.0.1")
ROUTE = PeerRoute(parse_cidr("10.2.0.0/24"), POD, OVERLAY, OWN, 65600)
DIRECT = PeerRoute(parse_cidr("10.3.0.0/24"), parse_ip("192.168.1.13"), 0, None, 65600)
ROUTE6 = PeerRoute(parse_cidr("fd00:2::/64"), parse_ip("fd00:a::2"), 0, None, 65600)
ACK, REPLACE, CREATE = 0x4, 0x100, 0x400  # NLM_F_*


@pytest.fixture
def socket(mocker: MockerFixture) -> Any:
    """A netlink socket that answers as it is told."""
    return mocker.patch.object(entries, "NetlinkSocket").return_value


def route_head(family: int, prefix: int, protocol: int = 80, kind: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, prefix, 0, 0, 254, protocol, 0, kind, flags)


def neighbour_head(family: int, ifindex: int = OVERLAY, state: int = 0x80, flags: int = 0) -> bytes:
    return struct.pack("=BBHiHBB", family, 0, 0, ifindex, state, flags, 0)


def packed_route(route: PeerRoute, out: int, **more: Any) -> bytes:
    attributes = [
        ("RTA_DST", route.dst.ip),
        ("RTA_OIF", out),
        ("RTA_GATEWAY", route.gw),
        ("RTA_PRIORITY", route.metric),
    ]
    source = [("RTA_PREFSRC", route.source)] if route.source is not None else []
    head = route_head(2 if route.dst.version == 4 else 10, route.dst.prefix, **more)
    return head + RTA.pack([*attributes, *source])


def near(ifindex: int = OVERLAY, state: int = 0x80, *, mac: bool = True) -> bytes:
    attributes = [("NDA_DST", POD), *([("NDA_LLADDR", MAC)] if mac else [])]
    return neighbour_head(2, ifindex, state) + NDA.pack(attributes)


def far(ifindex: int = OVERLAY, *, node: bool = True) -> bytes:
    return neighbour_head(7, ifindex) + NDA.pack([("NDA_LLADDR", MAC), *([("NDA_DST", NODE)] if node else [])])


def test_routes_with_our_protocol_are_ours(socket: Any) -> None:
    bare = route_head(2, 0)
    foreign = packed_route(DIRECT, UPLINK, protocol=3)
    socket.dump.side_effect = [[packed_route(DIRECT, UPLINK), foreign, bare], [packed_route(ROUTE6, 5)]]
    none = PeerRoute(parse_cidr("0.0.0.0/0"), parse_ip("0.0.0.0"), 0, None, 0)
    assert Entries().observe(0) == Observed([DIRECT, none, ROUTE6], frozenset({UPLINK, 0, 5}))
    heads = [route_head(family, 0, kind=0) for family in (2, 10)]
    assert [call.args for call in socket.dump.call_args_list] == [(26, head) for head in heads]


def test_what_is_on_the_overlay_is_ours(socket: Any) -> None:
    routes = [packed_route(ROUTE, OVERLAY), packed_route(DIRECT, UPLINK)]
    neighbours = [near(), near(UPLINK), near(state=0x02), near(mac=False)]
    socket.dump.side_effect = [routes, [], neighbours, [far(), far(UPLINK), far(node=False)]]
    found = Entries().observe(OVERLAY)
    assert found == Observed([ROUTE, DIRECT, Neighbour(POD, MAC), Forward(MAC, NODE)], frozenset({OVERLAY, UPLINK}))
    of_device = neighbour_head(0, 0, 0) + NDA.pack([("NDA_IFINDEX", OVERLAY)])
    queries = [(30, of_device), (30, neighbour_head(7, OVERLAY, 0))]
    assert [call.args for call in socket.dump.call_args_list][2:] == queries


@pytest.mark.parametrize("failing", range(4))
def test_what_cannot_be_read_is_told(socket: Any, failing: int) -> None:
    socket.dump.side_effect = [*([[]] * failing), NetlinkError(errno.EPERM, "", 0)]
    what = "routes to other nodes" if failing < 2 else "neighbours on the vxlan device"
    with pytest.raises(KernelError, match=f"{what} cannot be read: Operation not permitted"):
        Entries().observe(OVERLAY)


def attributes(*pairs: Any) -> bytes:
    return RTA.pack(pairs)


ADDED = {
    ROUTE: Message(
        24,
        ACK | REPLACE | CREATE,
        route_head(2, 24, flags=4)
        + attributes(
            *(
                ("RTA_DST", POD),
                ("RTA_PRIORITY", 65600),
                ("RTA_GATEWAY", POD),
                ("RTA_OIF", OVERLAY),
                ("RTA_PREFSRC", OWN),
            )
        ),
    ),
    DIRECT: Message(
        24,
        ACK | REPLACE | CREATE,
        route_head(2, 24) + attributes(("RTA_DST", DIRECT.dst.ip), ("RTA_PRIORITY", 65600), ("RTA_GATEWAY", DIRECT.gw)),
    ),
    ROUTE6: Message(
        24,
        ACK | REPLACE | CREATE,
        route_head(10, 64)
        + attributes(("RTA_DST", ROUTE6.dst.ip), ("RTA_PRIORITY", 65600), ("RTA_GATEWAY", ROUTE6.gw)),
    ),
    Neighbour(POD, MAC): Message(28, ACK | REPLACE | CREATE, near()),
    Forward(MAC, NODE): Message(
        28,
        ACK | REPLACE | CREATE,
        neighbour_head(7, flags=2) + NDA.pack([("NDA_DST", NODE), ("NDA_LLADDR", MAC)]),
    ),
}
GONE = {
    ROUTE: Message(25, ACK, route_head(2, 24, kind=0, flags=4) + attributes(("RTA_DST", POD), ("RTA_PRIORITY", 65600))),
    Neighbour(POD, MAC): Message(29, ACK, near()),
    Forward(MAC, NODE): Message(29, ACK, ADDED[Forward(MAC, NODE)].body),
}


@pytest.mark.parametrize("entry", ADDED, ids=str)
def test_what_is_missing_is_asked_for(socket: Any, entry: Entry) -> None:
    assert Entries().apply(Difference([entry], []), OVERLAY) == {}
    socket.send.assert_called_once_with([ADDED[entry]])


@pytest.mark.parametrize("entry", GONE, ids=str)
def test_what_is_surplus_is_removed(socket: Any, entry: Entry) -> None:
    assert Entries().apply(Difference([], [entry]), OVERLAY) == {}
    socket.send.assert_called_once_with([GONE[entry]])


def test_a_hundred_go_at_once(socket: Any) -> None:
    many: list[Entry] = [DIRECT._replace(metric=number) for number in range(250)]
    assert Entries().apply(Difference(many, many[:1]), 0) == {}
    assert [len(call.args[0]) for call in socket.send.call_args_list] == [100, 100, 50, 1]


def refusing(socket: Any, number: int) -> None:
    """Whatever has a metric of 7 is refused."""

    def send(messages: list[Message]) -> None:
        if any(attributes(("RTA_PRIORITY", 7)) in message.body for message in messages):
            raise NetlinkError(number, "", 0)

    socket.send.side_effect = send


ODD = DIRECT._replace(metric=7)


@pytest.mark.parametrize(
    ("entry", "number", "said"),
    [
        (ODD, errno.ENETUNREACH, "route 10.3.0.0/24 via 192.168.1.13 cannot be made: 192.168.1.13 is on no network "),
        (ODD, errno.EHOSTUNREACH, "route 10.3.0.0/24 via 192.168.1.13 cannot be made: 192.168.1.13 is on no network "),
        (ODD, errno.EPERM, "route 10.3.0.0/24 via 192.168.1.13 cannot be made or removed: Operation not permitted"),
        (
            ROUTE._replace(metric=7),
            errno.ENETUNREACH,
            "route 10.2.0.0/24 via 10.2.0.0 cannot be made or removed: Network",
        ),
    ],
)
def test_what_is_refused_is_named_and_the_others_go(socket: Any, entry: PeerRoute, number: int, said: str) -> None:
    refusing(socket, number)
    refused = Entries().apply(Difference([DIRECT, entry, ROUTE6], []), OVERLAY)
    assert list(refused) == [entry]
    assert refused[entry].startswith(said)
    assert [len(call.args[0]) for call in socket.send.call_args_list] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        *((number, False) for number in (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)),
        (errno.EPERM, True),
    ],
)
def test_what_is_gone_already_is_gone(socket: Any, number: int, *, told: bool) -> None:
    refusing(socket, number)
    assert bool(Entries().apply(Difference([], [ODD]), OVERLAY)) is told
    assert ODD in Entries().apply(Difference([ODD], []), OVERLAY)


def test_a_socket_has_a_port_and_is_closed(socket: Any, mocker: MockerFixture) -> None:
    made = Entries()
    assert made.port is socket.port
    made.close()
    socket.close.assert_called_once_with()
    mocker.patch.object(entries, "NetlinkSocket", side_effect=PermissionError(errno.EPERM, "Operation not permitted"))
    with pytest.raises(KernelError, match="netlink cannot be used"):
        Entries()
