"""A cluster that does not stay as it is: a node restarts, another joins, one leaves."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import ip_in, run_in
from tests.cluster.installation import CONFLIST
from tests.cluster.sources import FileSource
from tests.cluster.worlds import Parts, World, open_world, place_on_lan
from tests.kit.host import wait_until

pytestmark = pytest.mark.kernel

PODS = {"one": "node1", "two": "node2", "three": "node3"}


@pytest.fixture(scope="module")
def changing(parts: Parts) -> Iterator[World]:
    """Three nodes with a pod each."""
    with open_world(parts, [place_on_lan(number) for number in (1, 2, 3)]) as made:
        for pod, node in PODS.items():
            made.cluster.run_pod(node, pod)
        yield made


@pytest.fixture
def fourth(changing: World) -> Iterator[str]:
    """A fourth node with a pod, four, that joined after the others had pods."""
    try:
        changing.cluster.join(place_on_lan(4))
        changing.cluster.run_pod("node4", "four")
        yield "four"
    finally:
        if "node4" in changing.cluster.nodes:
            changing.cluster.leave("node4")


def routes_of(world: World, node: str) -> dict[str, str]:
    """Where a node sends what: ranges, and the gateways to them."""
    return {route["dst"]: route["gateway"] for route in ip_in(world.machine(node).netns, "route") if "gateway" in route}


def test_a_rebooted_node_comes_back_with_no_leaked_address(changing: World, record: Record) -> None:
    cluster = changing.cluster
    cluster.run_pod("node3", "extra")
    old = list(cluster.runtimes["node3"].pods.values())
    before = cluster.nodes["node3"].reservations()
    assert before == sorted(address for pod in old for address in pod.addresses)
    cluster.halt("node3")
    cluster.boot("node3")
    assert [link["ifname"] for link in ip_in(changing.machine("node3").netns, "link")] == ["lo", "eth0", "cni0"]
    assert routes_of(changing, "node3")["10.240.1.0/24"] == "192.168.1.11"  # before there is any pod
    assert cluster.nodes["node3"].reservations() == before  # its disk was kept
    again = {"name": "three", "uid": "uid-of-three", "namespace": "default", "attempt": 1}
    new = cluster.run_pod("node3", "three", metadata=again)
    assert cluster.nodes["node3"].reservations() == list(new.addresses)
    for pod in old:  # what the kubelet does about pods that it finds dead
        cluster.runtimes["node3"].remove(pod)
    assert cluster.nodes["node3"].reservations() == list(new.addresses)
    for client, server in (("one", "three"), ("three", "one"), ("node3", "three"), ("node1", "three")):
        seen = changing.ask(client, server)
        record("after a reboot of node3", client, server, seen)
        assert seen == changing.expected(client, server)


@pytest.mark.parametrize("old", PODS)
def test_a_fourth_node_joins_and_reaches_the_old_pods_both_ways(
    changing: World, fourth: str, record: Record, old: str
) -> None:
    assert changing.machine("node4").address(4) == "192.168.1.14"
    assert changing.machine(fourth).address(4).startswith("10.240.4.")
    for client, server in ((old, fourth), (fourth, old), (PODS[old], fourth), ("node4", old), (fourth, PODS[old])):
        seen = changing.ask(client, server)
        record("node4 has joined", client, server, seen)
        assert seen == changing.expected(client, server)


def test_when_a_node_leaves_its_route_goes_and_the_others_stay(changing: World, fourth: str, record: Record) -> None:
    assert routes_of(changing, "node1").get("10.240.4.0/24") == "192.168.1.14"
    changing.cluster.leave("node4")
    kept = {"default": "192.168.1.1", "10.240.2.0/24": "192.168.1.12", "10.240.3.0/24": "192.168.1.13"}
    assert routes_of(changing, "node1") == kept
    for client, server in (("one", "two"), ("two", "one"), ("three", "one")):
        seen = changing.ask(client, server)
        record("node4 has left", client, server, seen)
        assert seen == changing.expected(client, server)


def test_with_its_last_peer_the_last_route_of_a_node_goes(changing: World) -> None:
    cluster, source = changing.cluster, changing.cluster.source
    assert isinstance(source, FileSource)
    source.tell_one(cluster.nodes["node1"], [cluster.places["node1"]])
    assert wait_until(lambda: routes_of(changing, "node1") == {"default": "192.168.1.1"})
    cluster.configure()
    assert sorted(routes_of(changing, "node1")) == ["10.240.2.0/24", "10.240.3.0/24", "default"]


def test_told_the_same_again_a_node_changes_nothing(changing: World) -> None:
    def look() -> list[Any]:
        netns = changing.machine("node1").netns
        conflist = changing.cluster.nodes["node1"].path(CONFLIST)
        links = [(link["ifindex"], link["ifname"], link["mtu"], link["flags"]) for link in ip_in(netns, "link")]
        return [ip_in(netns, "route"), links, conflist.read_text(), conflist.stat().st_ino]

    before = look()
    changing.cluster.configure()
    assert look() == before


def test_routes_of_others_are_not_touched(changing: World) -> None:
    netns = changing.machine("node1").netns
    run_in(netns, "ip", "route", "add", "203.0.113.0/24", "via", "192.168.1.12")
    changing.cluster.configure()
    changing.cluster.run_pod("node1", "passing")
    changing.cluster.remove_pod("node1", "passing")
    assert routes_of(changing, "node1")["203.0.113.0/24"] == "192.168.1.12"
