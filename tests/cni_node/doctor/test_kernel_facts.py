"""What the kernel's messages say, from their bytes."""

import struct
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel.attributes import LINK, LINK_DATA, NDA, RTA, attribute
from cni_kernel.netlink import NetlinkError
from cni_node.doctor import kernel_facts
from cni_node.doctor.facts import Link, Neighbour, Route
from cni_node.host.peer_routes import mac_of
from cni_protocol.address import parse_cidr, parse_ip

UP, RUNNING = 0x1, 0x40
MAC = "02:00:00:00:00:07"


@pytest.fixture
def socket(mocker: MockerFixture) -> Any:
    """A netlink socket that answers as it is told."""
    return mocker.patch.object(kernel_facts, "NetlinkSocket").return_value.__enter__.return_value


def of_link(*attributes: Any, flags: int = 0, more: bytes = b"") -> bytes:
    return struct.pack("=BxHiII", 0, 1, 7, flags, 0) + LINK.pack([("IFLA_IFNAME", "x"), *attributes]) + more


def info(kind: str, data: bytes = b"", port: Any = ()) -> Any:
    slave = [("IFLA_INFO_SLAVE_DATA", port)] if port else []
    return ("IFLA_LINKINFO", [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data), *slave])


def vxlan(**values: Any) -> bytes:
    return LINK_DATA["vxlan"].pack([(f"IFLA_VXLAN_{name}", value) for name, value in values.items()])


BARE = Link(7, "x", mtu=0, up=False, running=False, peer_known=False)
PLAIN = [("IFLA_ADDRESS", MAC), ("IFLA_MTU", 1450), ("IFLA_LINK", 3), ("IFLA_MASTER", 4), ("IFLA_IFALIAS", "a")]
PORT = [("IFLA_BRPORT_STATE", 3), ("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]
COUNTS = attribute(23, struct.pack("=QQQQ", 5, 6, 7, 8))  # IFLA_STATS64: packets received and sent
PEER = attribute(37, (0).to_bytes(4, "little"))  # IFLA_LINK_NETNSID


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(of_link(), BARE, id="bare"),
        pytest.param(of_link(flags=UP), BARE._replace(up=True), id="up"),
        pytest.param(of_link(flags=RUNNING), BARE._replace(running=True), id="running"),
        pytest.param(of_link(*PLAIN), BARE._replace(mac=MAC, mtu=1450, lower=3, master=4, alias="a"), id="plain"),
        pytest.param(
            of_link(info("veth", port=PORT), more=COUNTS + PEER),
            BARE._replace(kind="veth", state=3, hairpin=True, isolated=True, received=5, sent=6, peer_known=True),
            id="port",
        ),
        pytest.param(of_link(more=attribute(23, bytes(8))), BARE, id="counts that are cut off"),
        pytest.param(
            of_link(info("vxlan", vxlan(LOCAL=parse_ip("192.0.2.1"), LINK=5)), ("IFLA_LINK", 3)),
            BARE._replace(kind="vxlan", lower=5, derived=mac_of(parse_ip("192.0.2.1"))),
            id="overlay",
        ),
        pytest.param(
            of_link(info("vxlan", vxlan(LOCAL6=parse_ip("fd00::1")))),
            BARE._replace(kind="vxlan", derived=mac_of(parse_ip("fd00::1")), underlay_version=6),
            id="overlay over IPv6",
        ),
        pytest.param(of_link(info("dummy", vxlan(LINK=5))), BARE._replace(kind="dummy"), id="another's data"),
    ],
)
def test_links(socket: Any, body: bytes, expected: Link) -> None:
    socket.dump.return_value = [body]
    assert kernel_facts.read_links() == [expected]
    socket.dump.assert_called_once_with(18, bytes(16))  # RTM_GETLINK, struct ifinfomsg


def of_route(
    kind: int = 1, *attributes: Any, family: int = 2, prefix: int = 24, flags: int = 0, table: int = 254
) -> bytes:
    return struct.pack("=BBBBBBBBI", family, prefix, 0, 0, table, 80, 0, kind, flags) + RTA.pack(attributes)


def hop(ifindex: int, gateway: str) -> bytes:
    gw = RTA.pack([("RTA_GATEWAY", parse_ip(gateway))])
    return struct.pack("=HBBi", 8 + len(gw), 0, 0, ifindex) + gw


DST, GW = ("RTA_DST", parse_ip("10.2.0.0")), ("RTA_GATEWAY", parse_ip("192.0.2.2"))
ROUTE = Route(parse_cidr("10.2.0.0/24"), 2, parse_ip("192.0.2.2"), 80, 0, 254)
FULL = [DST, GW, ("RTA_OIF", 2)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(of_route(1, *FULL), [ROUTE], id="plain"),
        pytest.param(of_route(1, *FULL, ("RTA_PRIORITY", 9)), [ROUTE._replace(metric=9)], id="metric"),
        pytest.param(of_route(1, *FULL, ("RTA_TABLE", 1000)), [ROUTE._replace(table=1000)], id="a table of many"),
        pytest.param(of_route(1, *FULL, table=7), [ROUTE._replace(table=7)], id="another table"),
        pytest.param(
            of_route(1, *FULL, ("RTA_PREFSRC", parse_ip("10.1.0.1"))),
            [ROUTE._replace(source=parse_ip("10.1.0.1"))],
            id="source",
        ),
        *(
            pytest.param(of_route(kind, DST), [ROUTE._replace(ifindex=0, gw=None, refuses=True)], id=f"refuses, {kind}")
            for kind in (6, 7, 8)
        ),
        pytest.param(of_route(3, *FULL), [], id="broadcast"),
        pytest.param(of_route(1, *FULL, flags=1), [], id="dead"),
        pytest.param(
            of_route(1, ("RTA_OIF", 2), prefix=0),
            [ROUTE._replace(dst=parse_cidr("0.0.0.0/0"), gw=None)],
            id="default",
        ),
        pytest.param(
            of_route(1, ("RTA_OIF", 2), prefix=0, family=10),
            [ROUTE._replace(dst=parse_cidr("::/0"), gw=None)],
            id="default of IPv6",
        ),
        pytest.param(
            of_route(1, DST, ("RTA_MULTIPATH", hop(2, "192.0.2.2") + hop(3, "192.0.2.3"))),
            [ROUTE, ROUTE._replace(ifindex=3, gw=parse_ip("192.0.2.3"))],
            id="two ways",
        ),
    ],
)
def test_routes(socket: Any, body: bytes, expected: list[Route]) -> None:
    socket.dump.side_effect = [[body], []]
    assert kernel_facts.read_routes() == expected
    assert [call.args for call in socket.dump.call_args_list] == [
        (26, bytes([family]) + bytes(11)) for family in (2, 10)
    ]


def test_routes_to_the_node_itself_are_for_who_asks(socket: Any) -> None:
    for local in (False, True):
        socket.dump.side_effect = [[of_route(2, *FULL), of_route(1, *FULL)], []]
        expected = [ROUTE._replace(local=True), ROUTE] if local else [ROUTE]
        assert kernel_facts.read_routes(local=local) == expected


def of_neighbour(state: int, family: int = 2, *attributes: Any) -> bytes:
    return struct.pack("=BxxxiHBB", family, 7, state, 0, 0) + NDA.pack(attributes)


WHO, WHERE = ("NDA_DST", parse_ip("10.2.0.0")), ("NDA_LLADDR", MAC)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(of_neighbour(0x02, 2, WHO, WHERE), Neighbour(7, WHO[1], MAC), id="reachable"),
        pytest.param(of_neighbour(0x20, 2, WHO), Neighbour(7, WHO[1], "", failed=True), id="failed"),
        pytest.param(of_neighbour(0x80, 2, WHO, WHERE), Neighbour(7, WHO[1], MAC, permanent=True), id="permanent"),
        pytest.param(of_neighbour(0x40, 10, WHERE), Neighbour(7, None, MAC, permanent=True), id="without resolution"),
        pytest.param(
            of_neighbour(0x80, 7, WHO, WHERE),
            Neighbour(7, WHO[1], MAC, permanent=True, forwarding=True),
            id="forwarding",
        ),
    ],
)
def test_neighbours(socket: Any, body: bytes, expected: Neighbour) -> None:
    socket.dump.side_effect = [[body], [], []]
    assert kernel_facts.read_neighbours() == [expected]
    heads = [(30, bytes([family]) + bytes(11)) for family in (2, 10, 7)]
    assert [call.args for call in socket.dump.call_args_list] == heads


def text(number: int, value: str) -> bytes:
    return attribute(number, value.encode() + b"\0")


def expression(name: str, data: bytes = b"") -> bytes:
    return attribute(1 | 0x8000, text(1, name) + attribute(2 | 0x8000, data))  # NFTA_LIST_ELEM


def verdict(code: int, chain: str = "") -> bytes:
    target = text(2, chain) if chain else b""
    inner = attribute(1, code.to_bytes(4, "big", signed=True)) + target  # NFTA_VERDICT_CODE, _CHAIN
    return expression("immediate", attribute(2 | 0x8000, attribute(2 | 0x8000, inner)))  # NFTA_IMMEDIATE_DATA


def of_chain(name: str, hook: int | None, policy: int | None, family: int = 2, table: str = "filter") -> bytes:
    at = attribute(4 | 0x8000, attribute(1, hook.to_bytes(4, "big"))) if hook is not None else b""
    falls = attribute(5, policy.to_bytes(4, "big")) if policy is not None else b""
    return bytes([family, 0, 0, 0]) + text(1, table) + text(3, name) + at + falls


def of_rule(*expressions: bytes) -> bytes:
    return bytes([2, 0, 0, 0]) + text(1, "filter") + text(2, "FORWARD") + attribute(4 | 0x8000, b"".join(expressions))


NEUTRAL = [expression(name) for name in ("counter", "log", "limit")]
CASES = {
    "accepts all": ([*NEUTRAL, verdict(1)], ("accept", "", False, False)),
    "drops": ([expression("cmp"), verdict(0)], ("drop", "", True, False)),
    "jumps": ([verdict(-3, "KUBE")], ("jump", "KUBE", False, False)),
    "goes": ([verdict(-4, "KUBE")], ("jump", "KUBE", False, False)),
    "returns": ([verdict(-5)], ("", "", False, False)),
    "rejects": ([expression("meta"), expression("reject")], ("reject", "", True, False)),
    "says nothing": ([expression("counter")], ("", "", False, False)),
    **{
        name: ([expression(name), verdict(1)], ("accept", "", True, True))
        for name in ("lookup", "match", "target", "xfrm", "objref")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_rules(socket: Any, case: str) -> None:
    parts, expected = CASES[case]
    table = bytes([2, 0, 0, 0]) + text(1, "filter")
    socket.dump.side_effect = [[table], [of_chain("FORWARD", 2, 0)], [of_rule(*parts)]]
    [chain], tables = kernel_facts.read_filter()
    assert (set(tables), chain[:3]) == ({("ip", "filter")}, ("ip filter", "FORWARD", True))
    [rule] = chain.rules
    assert (rule.chain, rule.verdict, rule.target, rule.matches, rule.opaque) == ("FORWARD", *expected)
    assert rule.data == b"".join(parts)
    assert [call.args for call in socket.dump.call_args_list] == [
        (10 << 8 | 1, bytes(4)),
        (10 << 8 | 4, bytes(4)),
        (10 << 8 | 7, bytes([2, 0, 0, 0]) + text(1, "filter")),
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (of_chain("c", 2, 1, 1), ("inet filter", "c", False, ())),
        (of_chain("c", 2, None, 10), ("ip6 filter", "c", False, ())),
        (of_chain("c", 2, 0, 1, "pycni_policy"), ("inet pycni_policy", "c", True, ())),
        (of_chain("c", 1, 0), None),
        (of_chain("c", None, None), None),
        (of_chain("c", 2, 0, 7), None),
    ],
)
def test_chains(socket: Any, body: bytes, expected: Any) -> None:
    answers = [[bytes([7, 0, 0, 0]) + text(1, "other")], [body]]
    socket.dump.side_effect = [*answers, []] if expected and "policy" not in expected[0] else answers
    chains, tables = kernel_facts.read_filter()
    assert (list(map(tuple, chains)), tables) == ([expected] if expected else [], frozenset())


def test_what_is_not_there_is_nothing_and_other_refusals_are_told(socket: Any) -> None:
    socket.dump.side_effect = NetlinkError(2, "", 0)
    assert kernel_facts.dump_filter(socket, 7, 2, b"") == []
    socket.dump.side_effect = NetlinkError(1, "", 0)
    with pytest.raises(NetlinkError):
        kernel_facts.dump_filter(socket, 7, 2, b"")
