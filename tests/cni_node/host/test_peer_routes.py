"""What leads to a peer, and what a change of peers means for the kernel."""

import pytest

from cni_node.host.peer_routes import METRIC, Forward, Neighbour, PeerRoute, Place, Wanted, entries_to, mac_of
from cni_node.snapshot import Node
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip

NODE4, NODE6 = parse_ip("192.168.1.12"), parse_ip("fd00:a::12")
PODS4, PODS6 = parse_cidr("10.240.2.0/24"), parse_cidr("fd00:2::/64")
OWN = parse_ip("10.240.1.1")
BOTH = Node("node2", (PODS4, PODS6), (NODE4, NODE6))
OVERLAY = Place(overlay=7, underlay=4, sources=(OWN,))


def near(pods: CIDR, gateway: IP) -> PeerRoute:
    return PeerRoute(pods, gateway, 0, None, METRIC)


def far(pods: CIDR, node: IP, source: IP | None) -> list[object]:
    mac = mac_of(node)
    return [Forward(mac, node), Neighbour(pods.first, mac), PeerRoute(pods, pods.first, 7, source, METRIC)]


@pytest.mark.parametrize(
    ("place", "peer", "entries"),
    [
        pytest.param(Place(), BOTH, [near(PODS4, NODE4), near(PODS6, NODE6)], id="by its addresses"),
        pytest.param(OVERLAY, BOTH, [*far(PODS4, NODE4, OWN), *far(PODS6, NODE4, None)], id="over the overlay"),
        pytest.param(
            OVERLAY._replace(underlay=6), BOTH, [*far(PODS4, NODE6, OWN), *far(PODS6, NODE6, None)], id="over IPv6"
        ),
        pytest.param(
            OVERLAY._replace(links=(parse_cidr("192.168.1.0/24"),)),
            BOTH,
            [near(PODS4, NODE4), *far(PODS6, NODE4, None)],
            id="direct for the family of the link",
        ),
    ],
)
def test_what_leads_to_a_peer(place: Place, peer: Node, entries: list[object]) -> None:
    assert entries_to(peer, place) == (entries, [])


@pytest.mark.parametrize(
    ("place", "peer", "problem"),
    [
        pytest.param(
            Place(own=frozenset({NODE4})), BOTH, "has an address of this node, 192.168.1.12", id="our address"
        ),
        pytest.param(Place(), BOTH._replace(addresses=(NODE4,)), "no IPv6 address, so no route", id="one family"),
        pytest.param(OVERLAY, BOTH._replace(addresses=(NODE6,)), "no IPv4 address, which the overlay", id="underlay"),
    ],
)
def test_what_cannot_lead_there_is_said(place: Place, peer: Node, problem: str) -> None:
    _, problems = entries_to(peer, place)
    assert problems
    assert all(problem in sentence for sentence in problems)


def test_two_nodes_with_one_address_share_what_leads_there() -> None:
    other = Node("node3", (parse_cidr("10.240.3.0/24"),), (NODE4,))
    one, two = (entries_to(peer, OVERLAY)[0] for peer in (BOTH._replace(pods=(PODS4,)), other))
    wanted = Wanted()
    wanted.change((), [*one, *two])
    assert wanted.routes == 2
    difference = wanted.change(two, ())
    assert difference.missing == []
    assert set(difference.surplus) == set(two) - set(one)
    assert wanted.change(one, ()).surplus[-1] == Forward(mac_of(NODE4), NODE4)
    assert (wanted.routes, wanted.find_mac(PODS4.first)) == (0, "")


def test_what_changes_is_replaced_and_not_taken_away() -> None:
    wanted = Wanted()
    before, after = near(PODS4, NODE4), near(PODS4, parse_ip("192.168.1.99"))
    wanted.change((), [before])
    assert wanted.change([before], [after]) == ([after], [])
    assert wanted.compare([before]) == ([after], [])
    assert wanted.compare([after, near(PODS6, NODE6)]) == ([], [near(PODS6, NODE6)])


def test_a_route_comes_after_what_it_leads_over_and_goes_before_it() -> None:
    entries = far(PODS4, NODE4, OWN)
    wanted = Wanted()
    assert wanted.change((), entries[::-1]).missing == entries  # type: ignore[arg-type]
    assert wanted.change(entries, ()).surplus == entries[::-1]  # type: ignore[arg-type]
