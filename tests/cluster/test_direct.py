"""Two nodes on one link and a third behind a router: the overlay leads to the third alone."""

from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import Port, ip_in
from tests.cluster.sources import Overlay, Place
from tests.cluster.worlds import Parts, World, open_world

pytestmark = pytest.mark.kernel

PODS = {"one": "node1", "two": "node2", "three": "node3"}


@pytest.fixture(scope="module")
def mixed(parts: Parts) -> Iterator[World]:
    """A pod on each."""
    places = [place_on("lan1", 11, number) if number < 3 else place_on("lan2", 12, number) for number in (1, 2, 3)]
    with open_world(parts, places, overlay=Overlay(0, direct=True)) as made:
        for pod, node in PODS.items():
            made.cluster.run_pod(node, pod)
        yield made


def place_on(link: str, net: int, number: int) -> Place:
    addresses = (f"192.168.{net}.{10 + number}/24", f"fd00:{net}::{10 + number}/64")
    port = Port(link, addresses, (f"192.168.{net}.1", f"fd00:{net}::1"))
    return Place(f"node{number}", port, (f"10.240.{number}.0/24", f"fd00:240:{number}::/64"))


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("node", "direct"), [("node1", "node2"), ("node2", "node1"), ("node3", None)])
def test_routes_go_by_the_link_where_there_is_one(mixed: World, node: str, direct: str | None, version: int) -> None:
    shown = ip_in(mixed.machine(node).netns, f"-{version}", "route", "show", "proto", "80")
    devices = {route["dst"]: route["dev"] for route in shown}
    names = {cidr: place.name for place in mixed.cluster.places.values() for cidr in place.pod_cidrs}
    assert {names[dst]: device for dst, device in devices.items()} == {
        other: "eth0" if other == direct else "vxlan.1" for other in mixed.cluster.nodes if other != node
    }


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("client", "server"), [pytest.param(*pair, id=" -> ".join(pair)) for pair in permutations(PODS, 2)]
)
def test_pods_reach_each_other(mixed: World, record: Record, client: str, server: str, version: int) -> None:
    seen = mixed.ask(client, server, version)
    record(f"direct where there is a link, pods' IPv{version}", client, server, seen)
    assert seen == mixed.expected(client, server, version)
