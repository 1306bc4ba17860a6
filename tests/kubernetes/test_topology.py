"""Nodes that join a cluster that runs, and leave it."""

from collections.abc import Iterator

import pytest

from tests.cluster.fabric import ip_in
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.command import await_value
from tests.kubernetes.probes import Prober, http

pytestmark = pytest.mark.kernel

SOON, BOUND = 60.0, 120.0  # seconds


@pytest.fixture(scope="module")
def joined(prober: Prober) -> Iterator[str]:
    """A new node."""
    name = f"node{len(prober.cluster.nodes) + 1}"
    prober.cluster.add_node(name)
    yield name
    if name in prober.cluster.nodes:
        prober.cluster.remove_node(name)


def routes(cluster: Kubernetes) -> dict[str, set[str]]:
    """Where each node sends what is for other nodes' pods."""
    return {
        name: {
            route["dst"]
            for route in ip_in(node.netns, "route")
            if route["dst"].startswith("10.244.") and "gateway" in route
        }
        for name, node in cluster.nodes.items()
    }


def test_pods_of_a_node_that_joined_reach_the_others_and_are_reached(prober: Prober, joined: str) -> None:
    await_value("it has a client", lambda: joined in {pod.node for pod in prober.kubectl.pods("app=client")}, BOUND)
    prober.kubectl.roll_out("daemonset/client")
    pods = prober.kubectl.pods("app=web")
    new = prober.client(joined)
    await_value("services are in force there", lambda: prober.reaches_services(joined), BOUND)
    answers = prober.from_pod(new.name, *(http(pod.address) for pod in pods), http("web", 8080))
    assert {answer.get("source") for answer in answers} == {new.address}, answers
    for node in prober.cluster.nodes:
        assert "1 packets received" in prober.kubectl.execute(
            prober.client(node).name, "ping", "-c1", "-W2", new.address
        )


def test_a_node_that_was_drained_and_deleted_leaves_pods_elsewhere_and_no_routes(prober: Prober, joined: str) -> None:
    range_ = prober.cluster.cidr(joined)
    assert all(range_ in known for name, known in routes(prober.cluster).items() if name != joined)
    prober.kubectl("scale", "deployment/web", "--replicas=8")
    prober.kubectl.roll_out("deployment/web")
    assert joined in {pod.node for pod in prober.kubectl.pods("app=web")}
    prober.cluster.remove_node(joined)
    prober.kubectl.roll_out("deployment/web", "daemonset/client")
    pods = prober.kubectl.pods("app=web")
    assert len(pods) == 8
    assert {pod.node for pod in pods} <= set(prober.cluster.nodes)
    gone = lambda: not any(range_ in known for known in routes(prober.cluster).values())  # noqa: E731
    await_value("nobody has a route to the node's range", gone, SOON)
    for node in prober.cluster.nodes:
        answers = prober.from_pod(prober.client(node).name, *(http(pod.address) for pod in pods))
        assert {answer.get("by") for answer in answers} == {pod.name for pod in pods}
    prober.kubectl("scale", "deployment/web", "--replicas=4")
    prober.kubectl.roll_out("deployment/web")
