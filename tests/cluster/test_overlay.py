"""Nodes on links of their own with a router between them that knows no pod: the pods' packets travel in vxlan."""

import json
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from tests.cluster.conftest import Record, run_pods
from tests.cluster.fabric import ip_in, run_in
from tests.cluster.probe import Seen
from tests.cluster.sources import Overlay
from tests.cluster.worlds import NODES, PODS, Parts, World, open_world, place_behind_router
from tests.kit.node import eth0

pytestmark = pytest.mark.kernel

FIRST_PODS = [pod for pod in PODS if pod.endswith("a")]
PAIRS = [pair for pair in permutations((*NODES, *FIRST_PODS), 2) if not {*pair} <= {*NODES}]
OVERHEAD = {4: 50, 6: 70}  # bytes: an IP header, UDP, vxlan, and the Ethernet header that is carried along


@pytest.fixture(scope="module", params=[4, 6], ids=["over IPv4", "over IPv6"])
def routed(parts: Parts, request: pytest.FixtureRequest) -> Iterator[World]:
    with open_world(
        parts, [place_behind_router(number) for number in (1, 2, 3)], overlay=Overlay(request.param)
    ) as made:
        run_pods(made)
        yield made


def test_the_underlay_has_no_route_to_a_pod(routed: World) -> None:
    """Or these tests would pass without an overlay."""
    router = routed.fabric.netns_of("router")
    known = [route["dst"] for family in ("-4", "-6") for route in ip_in(router, family, "route")]
    assert known
    assert [dst for dst in known if dst.startswith(("10.", "fd00:240")) or dst == "default"] == []


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("client", "server"), [pytest.param(*pair, id=" -> ".join(pair)) for pair in PAIRS])
def test_pods_and_nodes_reach_each_other_without_nat(
    routed: World, record: Record, client: str, server: str, version: int
) -> None:
    seen = routed.ask(client, server, version)
    record(path_of(routed, version), client, server, seen)
    if client in NODES and routed.cluster.node_of(server) != client:  # it has an address on each of its interfaces
        assert seen is not None
        assert seen.by == server
        assert seen.source in own_addresses(routed, client)
    elif server in NODES and server != routed.cluster.node_of(client) and version != underlay_of(routed):
        # the list of peers has one address of each node; any other is as good as one outside
        assert seen == Seen(server, routed.machine(routed.cluster.node_of(client)).address(version))
    else:
        assert seen == routed.expected(client, server, version)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("pod", FIRST_PODS)
def test_an_outside_host_sees_the_address_of_the_node(routed: World, record: Record, pod: str, version: int) -> None:
    seen = routed.ask(pod, "outside", version)
    record(path_of(routed, version), pod, "outside", seen)
    assert seen == Seen("outside", routed.machine(PODS[pod]).address(version))


@pytest.mark.parametrize("pod", FIRST_PODS)
def test_pods_leave_room_for_the_header(routed: World, pod: str) -> None:
    assert routed.cluster.overlay is not None
    assert eth0(routed.machine(pod).netns)["mtu"] == 1500 - OVERHEAD[routed.cluster.overlay.version]


@pytest.mark.parametrize("node", NODES)
def test_nodes_know_each_other_from_the_list_of_peers_alone(routed: World, node: str) -> None:
    """Nothing is learned and nobody is asked: each peer has a forwarding entry with the MAC that it really has."""
    (device,) = vxlan_devices(routed, node)
    assert device["linkinfo"]["info_data"].get("learning") is not True
    assert "group" not in device["linkinfo"]["info_data"]
    netns = routed.machine(node).netns
    entries = json.loads(run_in(netns, "bridge", "-j", "fdb", "show", "dev", str(device["ifname"])).stdout)
    others = {vxlan_devices(routed, other)[0]["address"]: underlay(routed, other) for other in NODES if other != node}
    assert {entry["mac"]: entry["dst"] for entry in entries if "dst" in entry} == others
    assert [entry for entry in entries if "permanent" not in entry.get("state", "permanent")] == []


def underlay_of(world: World) -> int:
    """The IP version of what carries the overlay."""
    assert world.cluster.overlay is not None
    return world.cluster.overlay.version


def path_of(world: World, version: int) -> str:
    return f"vxlan over IPv{underlay_of(world)}, pods' IPv{version}"


def own_addresses(world: World, node: str) -> list[str]:
    return [entry["local"] for link in ip_in(world.machine(node).netns, "address") for entry in link["addr_info"]]


def vxlan_devices(world: World, node: str) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = ip_in(world.machine(node).netns, "link", "show", "type", "vxlan")
    return shown


def underlay(world: World, node: str) -> str:
    """The address of a node that the overlay uses."""
    assert world.cluster.overlay is not None
    return world.machine(node).address(world.cluster.overlay.version)
