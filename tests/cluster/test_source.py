"""Nodes that learn of each other from etcd alone, or from the API alone: no peer is typed anywhere.

Whatever happens to nodes, agents and the source: between pods of nodes that stay no packet is lost.
"""

import re
from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import Fabric, Machine, Port, ip_in
from tests.cluster.installation import CONFLIST, OPTIONS, PROGRAM
from tests.cluster.probe import Seen
from tests.cluster.sources import ApiSource, EtcdSource, Place
from tests.cluster.traffic import flowing
from tests.cluster.worlds import NODES, Parts, World, open_world, place_on_lan
from tests.kit.host import wait_until

pytestmark = pytest.mark.kernel

PODS = {"one": "node1", "two": "node2", "three": "node3"}
LEASE = 10  # seconds, in place of the 40 that are usual
# Seconds: within one a route comes and goes, as scripts/cluster measures it; here the machine may be busy.
BUSY = 10.0


@pytest.fixture(scope="module", params=["etcd", "kubernetes"])
def told(parts: Parts, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three nodes with a pod each."""
    directory = tmp_path_factory.mktemp("source")

    def knows(fabric: Fabric) -> EtcdSource | ApiSource:
        return EtcdSource(fabric, LEASE) if request.param == "etcd" else ApiSource(fabric, directory)

    with open_world(parts, [place_for(request.param, number) for number in (1, 2, 3)], knows=knows) as made:
        for pod, node in PODS.items():
            made.cluster.run_pod(node, pod)
        yield made


def place_for(source: str, number: int) -> Place:
    """A node on the link; etcd says itself which pods it has."""
    place = place_on_lan(number)
    return place._replace(pod_cidrs=()) if source == "etcd" else place


@pytest.fixture
def fourth(told: World) -> Iterator[str]:
    """A fourth node with a pod, four."""
    try:
        told.cluster.join(place_for(kind_of(told), 4))
        told.cluster.run_pod("node4", "four")
        yield "four"
    finally:
        if "node4" in told.cluster.nodes:
            told.cluster.leave("node4")


def kind_of(world: World) -> str:
    return "etcd" if isinstance(world.cluster.source, EtcdSource) else "kubernetes"


def pairs(world: World, *pods: str) -> list[tuple[Machine, Machine]]:
    """Pods in pairs, both ways."""
    return [(world.machine(one), world.machine(other)) for one, other in permutations(pods or PODS, 2)]


def routes_of(world: World, node: str) -> dict[str, str]:
    """Our routes of a node: ranges, and the gateways to them."""
    return {
        route["dst"]: route["gateway"] for route in ip_in(world.machine(node).netns, "route", "show", "proto", "80")
    }


def await_routes(world: World, wanted: set[str], bound: float = BUSY) -> None:
    """Wait until each node has routes to these ranges but for its own."""
    for node in NODES:
        own = set(world.cluster.places[node].pod_cidrs)
        there = wait_until(lambda node=node, own=own: set(routes_of(world, node)) == wanted - own, bound)
        assert there, (node, routes_of(world, node), wanted)


def ranges(world: World) -> set[str]:
    return {cidr for place in world.cluster.places.values() for cidr in place.pod_cidrs}


def test_no_peer_is_typed_anywhere_and_pods_reach_each_other(told: World, record: Record) -> None:
    for node in NODES:
        assert "192.168.1.1" not in told.cluster.nodes[node].path(OPTIONS).read_text()
        assert not told.cluster.nodes[node].path("/etc/pycni/nodes").exists()
    assert len(ranges(told)) == 3
    names = [*NODES, *PODS]
    for client, server in permutations(names, 2):
        if not {client, server} <= {*NODES}:
            seen = told.ask(client, server)
            record(f"nodes that know each other from {kind_of(told)} alone", client, server, seen)
            assert seen == told.expected(client, server)


def test_a_node_joins_and_leaves_and_no_packet_is_lost(told: World, request: pytest.FixtureRequest) -> None:
    with flowing(pairs(told)) as traffic:
        fourth = request.getfixturevalue("fourth")
        with flowing(pairs(told, "one", fourth)) as more:
            assert more.lost() == {}
        told.cluster.leave("node4")
        assert traffic.lost() == {}


def test_a_joining_node_is_not_ready_before_its_peers_answer(told: World) -> None:
    cluster = told.cluster
    try:
        with cluster.agents["node1"].frozen():
            cluster.power_on(place_for(kind_of(told), 4))
            cluster.tell()
            cluster.agents["node4"].install(cluster.bundle, cluster.options_of("node4"))
            # the others have a route for it, and only then the time runs that silent peers are waited for
            assert wait_until(lambda: len(routes_of(told, "node4")) == 3 == len(routes_of(told, "node2")), BUSY)
            assert not cluster.nodes["node4"].path(CONFLIST).exists()
        assert cluster.agents["node4"].await_settled(3)["silent"] == []
        assert cluster.nodes["node4"].path(CONFLIST).exists()
    finally:
        cluster.leave("node4")


def test_the_route_to_a_deleted_node_goes(told: World, fourth: str) -> None:
    cluster = told.cluster
    (range4,) = cluster.places["node4"].pod_cidrs
    assert range4 in routes_of(told, "node1")
    cluster.halt("node4")
    cluster.source.forget("node4")
    await_routes(told, ranges(told) - {range4})


@pytest.mark.parametrize("told", ["etcd"], indirect=True)
def test_the_route_to_a_dead_node_goes_with_its_lease(told: World, fourth: str) -> None:
    (range4,) = told.cluster.places["node4"].pod_cidrs
    told.cluster.halt("node4")
    await_routes(told, ranges(told) - {range4}, LEASE + BUSY)


def test_without_the_source_traffic_and_new_pods_go_on(told: World) -> None:
    cluster, source = told.cluster, told.cluster.source
    assert isinstance(source, EtcdSource | ApiSource)
    before = {node: routes_of(told, node) for node in NODES}
    with flowing(pairs(told)) as traffic:
        source.stop()
        try:
            cluster.run_pod("node1", "new")
            cluster.agents["node2"].systemctl("restart")  # it finds nobody to ask
            report = cluster.agents["node2"].await_report(lambda report: bool(report["problems"]))
            assert report["state"] == "waiting for the source"
            cluster.run_pod("node2", "newer")
            for client, server in (("new", "three"), ("three", "new"), ("new", "newer"), ("newer", "one")):
                assert told.ask(client, server) == told.expected(client, server)
            assert {node: routes_of(told, node) for node in NODES} == before
        finally:
            source.resume()
        cluster.settle()
        assert traffic.lost() == {}
    assert {node: routes_of(told, node) for node in NODES} == before
    cluster.remove_pod("node1", "new")
    cluster.remove_pod("node2", "newer")


def test_agents_that_are_killed_lose_no_packet(told: World) -> None:
    with flowing(pairs(told)) as traffic:
        former = {agent: agent.kill() for agent in told.cluster.agents.values()}
        for agent, pid in former.items():
            assert agent.await_report(lambda report: bool(report["ready"]))["pid"] != pid
        assert traffic.lost() == {}


def test_an_agent_that_is_replaced_by_another_version_loses_no_packet(told: World) -> None:
    cluster, agent = told.cluster, told.cluster.agents["node1"]
    with flowing(pairs(told)) as traffic:
        agent.upgrade()
        report = agent.await_settled(2)
        assert "/upgraded-" in agent.node.run("readlink", f"/proc/{report['pid']}/exe").stdout
        cluster.run_pod("node1", "upgraded")
        assert told.ask("upgraded", "two") == told.expected("upgraded", "two")
        assert traffic.lost() == {}
    cluster.remove_pod("node1", "upgraded")


@pytest.mark.parametrize("told", ["kubernetes"], indirect=True)
def test_a_machine_without_pods_reaches_all_of_them(told: World, record: Record) -> None:
    """As control planes may be: it has routes, and no runtime is told anything."""
    cluster = told.cluster
    place = Place("control", Port("lan", ("192.168.1.15/24",), ("192.168.1.1",)))
    cluster.join(place)
    report = cluster.agents["control"].report()
    assert report["state"] == "routes only: this node has no pod range"
    for pod, node in PODS.items():
        seen = told.ask("control", pod)
        record("a control plane without pods", "control", pod, seen)
        assert seen == told.expected("control", pod)
        seen = told.ask(pod, "control")  # whether it has a way back, its peers cannot know
        record("a control plane without pods", pod, "control", seen)
        assert seen == Seen("control", told.machine(node).address(4))
    assert [link["ifname"] for link in ip_in(told.machine("control").netns, "link")] == ["lo", "eth0"]
    assert not cluster.nodes["control"].path(CONFLIST).exists()
    cluster.leave("control")


@pytest.mark.parametrize("told", ["kubernetes"], indirect=True)
def test_a_node_that_comes_back_with_another_range(told: World, record: Record) -> None:
    cluster, node = told.cluster, told.cluster.nodes["node3"]
    (old,) = cluster.places["node3"].pod_cidrs
    address = told.machine("three").address(4)
    cluster.source.forget("node3")
    cluster.places["node3"] = cluster.places["node3"]._replace(pod_cidrs=("10.240.33.0/24",))
    cluster.tell()
    cluster.agents["node3"].await_report(lambda report: report["pods"] == ["10.240.33.0/24"] and report["ready"])
    await_routes(told, ranges(told))
    assert old not in node.path(CONFLIST).read_text()
    status = node.run(PROGRAM, "status", check=False).stdout
    assert re.search(rf"^old address: +{address} \([0-9a-f]+\)$", status, re.MULTILINE), status
    cluster.run_pod("node3", "moved")
    assert told.machine("moved").address(4).startswith("10.240.33.")
    for client, server in (("moved", "one"), ("one", "moved"), ("node2", "moved"), ("moved", "node1")):
        seen = told.ask(client, server)
        record("node3 has come back with another range", client, server, seen)
        assert seen == told.expected(client, server)
    cluster.remove_pod("node3", "three")
    cluster.agents["node3"].await_report(lambda report: report["strangers"] == [], BUSY)
