"""The ways to other nodes, computed from the list of peers alone."""

import pytest

from cni_bridge import nodes
from cni_bridge.nodes import Forward, Neighbour, NodeRoute, Overlay, Peer, Source, Ways
from cni_protocol.address import parse_cidr, parse_ip

SECOND = Peer(parse_cidr("10.240.2.0/24"), parse_ip("192.168.1.12"))
SECOND6 = Peer(parse_cidr("fd00:2::/64"), parse_ip("192.168.1.12"))
THIRD = Peer(parse_cidr("10.240.3.0/24"), parse_ip("192.168.1.13"))
METRIC = nodes.metric_of("pods")
SOURCES = {4: parse_ip("10.240.1.1"), 6: parse_ip("fd00:1::1")}


def test_nodes_on_one_link_are_the_gateways_to_their_pods() -> None:
    ways = nodes.make_ways("pods", [SECOND, THIRD], 0, SOURCES)
    assert ways == Ways(
        routes=frozenset(
            {
                NodeRoute(SECOND.pods, SECOND.node, 0, None, METRIC),
                NodeRoute(THIRD.pods, THIRD.node, 0, None, METRIC),
            }
        )
    )


def test_behind_an_overlay_an_address_on_the_device_stands_for_the_node() -> None:
    mac = nodes.mac_of(SECOND.node)
    ways = nodes.make_ways("pods", [SECOND, SECOND6], 7, SOURCES)
    assert ways.sources == {Source(parse_cidr("10.240.1.1/32"))}
    assert ways.neighbours == {Neighbour(parse_ip("10.240.2.0"), mac), Neighbour(parse_ip("fd00:2::"), mac)}
    assert ways.forwards == {Forward(mac, SECOND.node)}
    assert ways.routes == {
        NodeRoute(SECOND.pods, parse_ip("10.240.2.0"), 7, SOURCES[4], METRIC),
        NodeRoute(SECOND6.pods, parse_ip("fd00:2::"), 7, SOURCES[6], METRIC),
    }


def test_a_route_comes_after_what_it_leads_over() -> None:
    kinds = [type(entry) for entry in nodes.make_ways("pods", [SECOND], 7, SOURCES).in_order()]
    assert kinds == [Source, Neighbour, Forward, NodeRoute]


def test_a_node_is_no_peer_of_its_own() -> None:
    assert nodes.list_others([SECOND, THIRD], {SECOND.node}) == [THIRD]


def test_neither_pods_nor_nodes_are_translated() -> None:
    networks = nodes.list_untranslated([SECOND, SECOND6])
    assert [str(entry) for entry in networks] == ["10.240.2.0/24", "192.168.1.12/32", "fd00:2::/64"]


@pytest.mark.parametrize("text", ["192.168.1.12", "fd00:a::12"])
def test_the_mac_of_a_node_is_unicast_and_locally_administered(text: str) -> None:
    mac = nodes.mac_of(parse_ip(text))
    assert mac == nodes.mac_of(parse_ip(text)) != nodes.mac_of(parse_ip("192.168.1.13"))
    assert (len(mac), int(mac[:2], 16) & 3) == (17, 2)


def test_networks_have_metrics_of_their_own_above_those_written_by_hand() -> None:
    assert 65536 <= METRIC != nodes.metric_of("other") < 1 << 32


@pytest.mark.parametrize("vni", [1, (1 << 24) - 1])
def test_the_name_of_a_device_fits(vni: int) -> None:
    assert len(Overlay(vni, 4789, "").name) <= 15
