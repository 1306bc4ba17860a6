"""How a packet travels, in docs/cluster.md: each arrow of the pictures is held against what passes the interface there.

An arrow of a picture is a hop, and says the addresses that a packet has on it:

    node1->>node2: 10.240.1.3 → 10.240.2.3
    node1->>router: 192.168.11.11 → 192.168.12.11 (10.240.1.3 → 10.240.2.3)

The second one is carried by a vxlan; the packet that is carried stands in parentheses. A port stands behind an address
where it says something. Without dashed arrows (-->>) the answer has the same hops, turned round.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.cluster.capture import Packet, captured, read
from tests.cluster.fabric import run_in
from tests.cluster.probe import Seen, Target, ask, listening
from tests.cluster.services import Service, nftables_rules
from tests.cluster.sources import Overlay
from tests.cluster.worlds import NODES, OUTSIDERS, Parts, World, open_world, place_behind_router
from tests.conftest import ROOT

pytestmark = pytest.mark.kernel

DOCUMENT = (ROOT / "docs" / "cluster.md").read_text("utf-8")
ARROW = re.compile(r"^ +(\w+)(-?->>)(\w+): (\S+) → (\S+?)(?: \((\S+) → (\S+)\))?$", re.MULTILINE)
# The addresses of the page. In these tests a pod may have another one, since other tests have had pods before.
PODS = {"pod1a": "10.240.1.3", "pod1b": "10.240.1.4", "web": "10.240.1.5", "pod2a": "10.240.2.3"}
NODE1, NODE2, OUTSIDE = "192.168.1.11", "192.168.1.12", "198.51.100.100"
FAR_NODE2 = "192.168.12.11"
DATABASE = Target("10.103.132.104", 3306)
NODE_PORT, HOST_PORT = 30306, 8081


class Case(NamedTuple):
    """A picture: its heading, who connects to what, and who answers."""

    heading: str
    client: str
    target: Target
    server: str
    port: int = 80  # of the server


ONE_LINK = (
    Case("Two pods of one node", "pod1a", Target(PODS["pod1b"], 80), "pod1b"),
    Case("Two pods of different nodes, by route", "pod1a", Target(PODS["pod2a"], 80), "pod2a"),
    Case("From a node to its own pod", "node1", Target(PODS["pod1a"], 80), "pod1a"),
    Case("From a node to another node's pod", "node1", Target(PODS["pod2a"], 80), "pod2a"),
    Case("From a pod to another node", "pod1a", Target(NODE2, 80), "node2"),
    Case("From a pod to the outside", "pod1a", Target(OUTSIDE, 80), "outside"),
    Case("From the outside to a host port", "outside", Target(NODE1, HOST_PORT), "web"),
    Case("A service, from a pod of the same node", "pod1b", DATABASE, "pod1a", 3306),
    Case("A node port", "outside", Target(NODE2, NODE_PORT), "pod1a", 3306),
    Case("A pod that reaches itself through its service", "pod1a", DATABASE, "pod1a", 3306),
)
ROUTED = (
    Case("Two pods of different nodes, over vxlan", "pod1a", Target(PODS["pod2a"], 80), "pod2a"),
    Case("From a node to another node's pod, over vxlan", "node1", Target(PODS["pod2a"], 80), "pod2a"),
    Case("From a pod to another node, beside the vxlan", "pod1a", Target(FAR_NODE2, 80), "node2"),
)


@pytest.fixture(scope="module")
def one_link(world: World) -> Iterator[World]:
    """The cluster of all tests with a host port, and with a service as kube-proxy has it."""
    mapping = {"protocol": "TCP", "container_port": 80, "host_port": HOST_PORT}
    found = world.cluster.run_pod("node1", "published", port_mappings=[mapping])
    world.cluster.pods["web"], before = found._replace(name="web"), world.cluster.pods.get("web")
    service = Service("database", *DATABASE, NODE_PORT, (world.machine("pod1a").address(4),), DATABASE.port)
    for node in NODES:
        run_in(world.machine(node).netns, "nft", "-f", "-", input=nftables_rules([service]))
    yield world
    for node in NODES:
        run_in(world.machine(node).netns, "nft", "delete", "table", "ip", "kube-proxy")
    del world.cluster.pods["web"]
    world.cluster.pods |= {"web": before} if before else {}
    world.cluster.remove_pod("node1", "published")


@pytest.fixture(scope="module")
def routed(parts: Parts) -> Iterator[World]:
    """Two nodes with a router between them and a pod on each."""
    with open_world(parts, [place_behind_router(number) for number in (1, 2)], overlay=Overlay(4)) as made:
        for number in (1, 2):
            made.cluster.run_pod(f"node{number}", f"pod{number}a")
        yield made


@pytest.mark.parametrize("case", ONE_LINK, ids=lambda case: case.heading)
def test_on_one_link_packets_travel_as_drawn(one_link: World, case: Case) -> None:
    check(one_link, case)


@pytest.mark.parametrize("case", ROUTED, ids=lambda case: case.heading)
def test_over_vxlan_packets_travel_as_drawn(routed: World, case: Case) -> None:
    check(routed, case)


@pytest.mark.parametrize("value", [1, 2])
def test_strict_filtering_drops_what_goes_beside_the_vxlan(routed: World, value: int) -> None:
    """As the page says among the limits."""
    node = routed.machine("node2")
    run_in(node.netns, "sysctl", "-qw", f"net.ipv4.conf.eth0.rp_filter={value}")
    with listening(80, node) as servers:
        seen = ask(routed.machine("pod1a"), Target(FAR_NODE2, 80), servers, bound=1)
    run_in(node.netns, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=0")
    assert seen == (None if value == 1 else Seen("node2", routed.machine("pod1a").address(4)))


def test_every_picture_of_packets_is_tested() -> None:
    drawn = [heading for heading, body in sections().items() if "sequenceDiagram" in body]
    assert sorted(drawn) == sorted(case.heading for case in (*ONE_LINK, *ROUTED))


def sections() -> dict[str, str]:
    """The parts of the page that have a heading of their own, by that."""
    _, *parts = re.split(r"^#+ (.*)\n", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def check(world: World, case: Case) -> None:
    """Compare what is drawn with what passes, at each place that an arrow names."""
    drawn: dict[str, set[str]] = {}
    for one, other, text in arrows_of(sections()[case.heading]):
        for place in places_of(one, other):
            drawn.setdefault(place, set()).add(text)
    assert drawn, "no arrows"
    pods = world.cluster.pods
    names = {pods[name].address(4): documented for name, documented in PODS.items() if name in pods}
    actual = {documented: address for address, documented in names.items()}
    target = Target(actual.get(case.target.address, case.target.address), case.target.port)
    machines = [world.machine(place) for place in drawn]
    server = world.machine(case.server)
    with listening(case.port, server) as servers, captured([(each.netns, "eth0") for each in machines]) as ears:
        seen = ask(world.machine(case.client), target, servers)
        heard = [read(ear) for ear in ears]
    assert seen is not None
    for place, packets in zip(drawn, heard, strict=True):
        ports = {int(port) for text in drawn[place] for port in re.findall(r":(\d+)", text)}
        assert {write(packet, names, ports) for packet in packets} == drawn[place], place


def arrows_of(section: str) -> Iterator[tuple[str, str, str]]:
    """The hops of a packet and of its answer: from whom, to whom, and the addresses. An answer may be left undrawn."""
    drawn = ARROW.findall(section)
    for one, way, other, *ends in drawn:
        yield one, other, join(ends)
        if way == "->>" and not any(each[1] == "-->>" for each in drawn):
            yield other, one, join([ends[1], ends[0], ends[3], ends[2]])


def join(ends: Sequence[str]) -> str:
    """Addresses as an arrow has them: source and destination, and the same of what is carried."""
    text = f"{ends[0]} → {ends[1]}"
    return f"{text} ({ends[2]} → {ends[3]})" if ends[2] else text


def places_of(one: str, other: str) -> list[str]:
    """Those ends of an arrow whose eth0 the packet passes; between a node and its own pods that is the pod's alone."""
    ends = ((one, other), (other, one))
    return [end for end, far in ends if end in (*PODS, *OUTSIDERS) or (end in NODES and far not in PODS)]


def write(packet: Packet, names: Mapping[str, str], ports: set[int]) -> str:
    """A packet as an arrow has it, with the ports that are worth it."""
    ends = []
    for end in packet[:2]:
        address = names.get(end.address, end.address)
        ends.append(f"{address}:{end.port}" if end.port in ports else address)
    return join([*packet.carrier, *ends]) if packet.carrier else join([*ends, "", ""])
