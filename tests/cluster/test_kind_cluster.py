"""install.sh --kind on emulated nodes, whole: then pods that the CRI makes reach each other across nodes.

kind itself does not run here. The script is the one that users call; kind, docker and kubectl are stand-ins that reach
nodes without Python, with containerd in them, and have the containers of conf/pycni.yaml run there.
"""

from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import Port
from tests.cluster.kind import LINK, KindCluster, kind_place
from tests.cluster.traffic import flowing
from tests.cluster.tree import find_python
from tests.cluster.worlds import Parts, World, open_site

pytestmark = pytest.mark.kernel

NODES = ("pycni-control-plane", "pycni-worker", "pycni-worker2")
FOURTH = "pycni-worker3"
RESTARTED = NODES[2]


@pytest.fixture(scope="module")
def kind(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three nodes with a pod each; the pod is named after its node."""
    with open_site(parts, {LINK}, KindCluster, directory=tmp_path_factory.mktemp("standins")) as made:
        made.cluster.join(*map(kind_place, range(3)))
        for node in NODES:
            made.cluster.run_pod(node, pod_of(node))
        yield made


def pod_of(node: str) -> str:
    return f"pod on {node.removeprefix('pycni-')}"


def note_reached(world: World, record: Record, when: str) -> None:
    """All pods each other, both ways, and each its node and another one."""
    nodes = list(world.cluster.nodes)
    pairs = [*permutations(map(pod_of, nodes), 2)]
    pairs += [(node, pod_of(other)) for node in nodes for other in nodes]
    pairs += [(pod_of(node), other) for node in nodes for other in nodes]
    for client, server in pairs:
        seen = world.ask(client, server)
        record(f"install.sh --kind, {when}", client, server, seen)
        assert seen == world.expected(client, server)


def test_pods_reach_each_other_after_one_run(kind: World, record: Record) -> None:
    assert isinstance(kind.cluster, KindCluster)
    assert [line for line in kind.cluster.said.splitlines() if line.endswith("condition met")] == [
        f"node/{name} condition met" for name in NODES
    ]
    for index, node in enumerate(NODES):
        assert kind.machine(pod_of(node)).address(4).startswith(f"10.244.{index}.")
        assert find_python(kind.cluster.nodes[node].path("/usr")) == []
    note_reached(kind, record, "once")


def test_a_fourth_node_needs_no_more_than_the_image(kind: World, record: Record) -> None:
    cluster = kind.cluster
    before = {name: cluster.agents[name].report()["pid"] for name in NODES}
    cluster.power_on(kind_place(3))
    assert isinstance(cluster, KindCluster)
    cluster.start_pod(FOURTH)
    cluster.settle()
    cluster.start_runtimes([FOURTH])
    cluster.run_pod(FOURTH, pod_of(FOURTH))
    assert {name: cluster.agents[name].report()["pid"] for name in NODES} == before
    note_reached(kind, record, "with a fourth node that came later")


def test_run_again_nothing_is_lost(kind: World, record: Record) -> None:
    machines = [kind.machine(pod_of(node)) for node in NODES]
    with flowing(permutations(machines, 2)) as traffic:
        kind.cluster.configure()
        assert traffic.lost() == {}


def test_a_node_that_restarts_with_another_address_is_found(kind: World, record: Record) -> None:
    cluster = kind.cluster
    old = list(cluster.runtimes[RESTARTED].pods.values())
    assert cluster.nodes[RESTARTED].reservations() == [address for pod in old for address in pod.addresses]
    cluster.halt(RESTARTED)
    cluster.move(RESTARTED, Port(LINK, ("172.18.0.99/16",), ("172.18.0.1",)))
    cluster.boot(RESTARTED)
    again = {"name": "again", "uid": "uid-of-again", "namespace": "default", "attempt": 1}
    new = cluster.run_pod(RESTARTED, pod_of(RESTARTED), metadata=again)
    for pod in old:  # the kernel is the same, so these are for the kubelet to take away
        assert set(pod.addresses) <= set(cluster.nodes[RESTARTED].reservations())
        cluster.runtimes[RESTARTED].remove(pod)
    assert cluster.nodes[RESTARTED].reservations() == list(new.addresses)
    note_reached(kind, record, "after a restart with another address")
