"""Parts of the cluster that stop and start again while clients ask: what runs goes on, and new pods work afterwards."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.cluster.cluster import at_once
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.kubectl import Pod
from tests.kubernetes.conftest import Record
from tests.kubernetes.probes import Prober, http
from tests.kubernetes.test_pods import assert_nodes_hold_what_the_api_tells
from tests.kubernetes.test_services import cluster_ip
from tests.kubernetes.workloads import serving

pytestmark = pytest.mark.kernel

OUTAGE = 3.0  # seconds
LOAD = 12  # seconds
BOUND = 90.0  # seconds until a node is itself again


@contextmanager
def undisturbed(prober: Prober, record: Record, what: str, *further: str) -> Iterator[None]:
    """Have every node ask all pods, and further URLs, all the time: no request may be lost, and the pods stay."""
    pods = {pod.name: pod for pod in prober.kubectl.pods("app=web")}
    question = ["load", [*(f"http://{pod.address}/" for pod in pods.values()), *further], LOAD]
    nodes = list(prober.cluster.nodes)
    with ThreadPoolExecutor(len(nodes)) as pool:
        asking = [pool.submit(prober.from_node, node, question) for node in nodes]
        yield
        for node, each in zip(nodes, asking, strict=True):
            (told,) = each.result()
            lost = len(told["failures"])
            record(what, node, "pods", f"{told['answered']} of {told['answered'] + lost}")
            assert told["failures"] == []
            assert told["answered"] > LOAD
    for pod in prober.kubectl.pods("app=web"):
        assert (pod.address, pod.restarts) == (pods[pod.name].address, pods[pod.name].restarts)


def assert_a_new_pod_works(prober: Prober, node: str) -> None:
    """It gets an address, is reached from every node, and leaves nothing."""
    name = f"new-on-{node}"
    spec = {"nodeName": node, "containers": [serving(leave=False)], "terminationGracePeriodSeconds": 1}
    labels = {"app": name}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    account = ("get", "serviceaccount", "default", "--output=name")
    await_value("the API server answers", lambda: prober.kubectl(*account, check=False), BOUND)
    prober.kubectl.apply(pod)
    try:
        prober.kubectl.await_ready(name, BOUND)
        (made,) = prober.kubectl.pods(f"app={name}")
        for other in prober.cluster.nodes:
            (answer,) = prober.from_node(other, http(made.address))
            assert answer.get("by") == name, answer
    finally:
        prober.kubectl("delete", "pod", name, seconds=2 * BOUND)  # a kubelet that lost the API takes its time


def assert_new_pods_work(prober: Prober) -> None:
    """On every node, at once."""
    at_once(lambda node: assert_a_new_pod_works(prober, node), list(prober.cluster.nodes))


def restarts_of(prober: Prober) -> dict[str, int]:
    """How often the pods of each node have been started anew, all together."""
    counts = dict.fromkeys(prober.cluster.nodes, 0)
    for each in prober.kubectl.get("pods"):
        for status in each["status"].get("containerStatuses", []):
            counts[each["spec"]["nodeName"]] += status["restartCount"]
    return counts


def test_traffic_goes_on_while_the_control_plane_is_away(prober: Prober, record: Record) -> None:
    control = prober.cluster.control
    service = f"http://{cluster_ip(prober.cluster, 'web')}:8080/"
    with undisturbed(prober, record, "no control plane", service):
        control.end_control_plane()
        time.sleep(OUTAGE)  # nothing is awaited here: it is the time without an API server
        control.start_control_plane()
    assert_new_pods_work(prober)


@pytest.mark.parametrize("daemon", ["kubelet", "containerd"])
def test_traffic_goes_on_while_a_daemon_restarts_on_every_node(prober: Prober, record: Record, daemon: str) -> None:
    """Pods are asked, and no service: a kubelet that starts has not probed yet, and takes its pods out of services."""
    with undisturbed(prober, record, f"{daemon} restarts"):
        for node in prober.cluster.nodes.values():
            node.end_daemon(daemon)
            if daemon == "kubelet":
                node.start_kubelet()
            else:
                node.start_runtime()
    assert_new_pods_work(prober)


def reached(prober: Prober, node: str, pods: Sequence[Pod]) -> bool:
    """Whether a node's client reaches each of these pods."""
    answers = prober.from_pod(prober.client(node).name, *(http(pod.address) for pod in pods))
    return [answer.get("by") for answer in answers] == [pod.name for pod in pods]


def test_a_node_that_was_switched_off_comes_back_by_itself(prober: Prober) -> None:
    """Its pods run again under their names, nobody tells the node or the others anything, and nothing is left over."""
    node = list(prober.cluster.nodes)[-1]
    before = restarts_of(prober)
    names = {pod.name for pod in prober.kubectl.pods("app=web") if pod.node == node}
    prober.cluster.reboot(node)
    await_value("the pods run again", lambda: restarts_of(prober)[node] >= before[node] + len(names) + 1, BOUND)
    prober.kubectl.roll_out("deployment/web", "daemonset/client", "statefulset/member")
    pods = prober.kubectl.pods("app=web")
    assert names <= {pod.name for pod in pods if pod.node == node}
    for other in prober.cluster.nodes:
        await_value(f"all are reached from {other}", partial(reached, prober, other, pods), BOUND)
    assert_a_new_pod_works(prober, node)
    assert_nodes_hold_what_the_api_tells(prober.cluster)
