"""Three nodes on one link: who reaches whom, and as whom."""

from itertools import permutations

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import ip_in
from tests.cluster.probe import Seen, Target, ask, listening, ping
from tests.cluster.tree import find_python
from tests.cluster.worlds import NODES, OUTSIDERS, PODS, PORT, World
from tests.kit.node import addresses

pytestmark = pytest.mark.kernel

PAIRS = [pair for pair in permutations((*NODES, *PODS), 2) if not {*pair} <= {*NODES}]


@pytest.mark.parametrize("node", NODES)
def test_a_node_has_no_python_but_that_of_the_bundle(world: World, node: str) -> None:
    found = find_python(world.cluster.nodes[node].path("/usr")) + find_python(world.cluster.nodes[node].path("/etc"))
    assert found == []
    assert world.cluster.nodes[node].run("sh", "-c", "command -v python3 python", check=False).returncode != 0


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_an_address_of_its_own_and_sees_itself_under_it(world: World, pod: str) -> None:
    machine = world.machine(pod)
    assert list(machine.addresses) == addresses(machine.netns)
    others = [address for name in PODS if name != pod for address in world.machine(name).addresses]
    assert machine.address(4) not in others
    assert machine.address(4).startswith(f"10.240.{PODS[pod][-1]}.")
    with listening(PORT, machine) as servers:
        assert ask(machine, Target(machine.address(4), PORT), servers) == Seen(pod, machine.address(4))


@pytest.mark.parametrize(("client", "server"), [pytest.param(*pair, id=" -> ".join(pair)) for pair in PAIRS])
def test_pods_and_nodes_reach_each_other_without_nat(world: World, record: Record, client: str, server: str) -> None:
    seen = world.ask(client, server)
    record("one link", client, server, seen)
    assert seen == world.expected(client, server)


@pytest.mark.parametrize(("client", "server"), [pytest.param(*pair, id=" -> ".join(pair)) for pair in PAIRS])
def test_pods_and_nodes_answer_a_ping(world: World, client: str, server: str) -> None:
    assert ping(world.machine(client), world.machine(server).address(4))


@pytest.mark.parametrize("outsider", OUTSIDERS)
@pytest.mark.parametrize("pod", PODS)
def test_an_outsider_sees_the_address_of_the_node(world: World, record: Record, pod: str, outsider: str) -> None:
    seen = world.ask(pod, outsider)
    record("one link", pod, outsider, seen)
    assert seen == Seen(outsider, world.machine(PODS[pod]).address(4))


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_an_outsider_has_no_way_to_a_pod(world: World, outsider: str) -> None:
    machine = world.machine(outsider)
    shown = ip_in(machine.netns, "route")
    assert [route["dst"] for route in shown if route["dst"].startswith("10.")] == []
    there = world.machine("pod1a")
    with listening(PORT, there) as servers:
        assert ask(machine, Target(there.address(4), PORT), servers, bound=0.5) is None


@pytest.mark.parametrize(
    "client",
    ["outside", "neighbour", "node1", "node2", "node3", "pod1a", "pod2a", "web"],
    ids=lambda name: f"from {name}",
)
def test_a_host_port_leads_to_its_pod(world: World, record: Record, web: str, client: str) -> None:
    pod = world.machine(web)
    with listening(PORT, pod) as servers:
        seen = ask(world.machine(client), Target(world.machine("node1").address(4), 8080), servers)
    record("host port of node1", client, web, seen)
    assert seen is not None
    assert seen.by == web
    if client in (*OUTSIDERS, "node2", "node3", "pod2a"):
        assert seen.source == world.machine(client).address(4)


@pytest.fixture(scope="module")
def web(world: World) -> str:
    """A pod with a host port on the first node, 8080 to 80."""
    mapping = {"protocol": "TCP", "container_port": PORT, "host_port": 8080}
    world.cluster.run_pod("node1", "web", port_mappings=[mapping])
    return "web"
