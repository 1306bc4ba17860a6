"""Pods that come and go in numbers: a rolling update while clients ask, and a hundred pods and back."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.images import PODS
from tests.kubernetes.conftest import Record
from tests.kubernetes.probes import Prober, http
from tests.kubernetes.test_pods import assert_nodes_hold_what_the_api_tells
from tests.kubernetes.test_services import cluster_ip
from tests.kubernetes.workloads import workload

pytestmark = pytest.mark.kernel

HERD = 100
HERD_BOUND = 180.0  # seconds
LOAD = 20  # seconds
# What busybox serves from there has the name of the pod in it.
_SERVE_NAME = {"name": "name", "image": PODS, "command": ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]}


def test_a_rolling_update_loses_no_request(prober: Prober, record: Record) -> None:
    """From every node, by the service's address, while every pod is replaced."""
    question = ["load", [f"http://{cluster_ip(prober.cluster, 'web')}:8080/"], LOAD]
    before = prober.kubectl.pods("app=web")
    clients = [prober.client(node) for node in prober.cluster.nodes]
    with ThreadPoolExecutor(len(clients)) as pool:
        loads = [pool.submit(prober.from_pod, client.name, question) for client in clients]
        prober.kubectl("set", "env", "deployment/web", f"OF={before[0].name}")
        prober.kubectl.roll_out("deployment/web")
        for client, load in zip(clients, loads, strict=True):
            (told,) = load.result()
            record(
                "a rolling update", f"pod on {client.node}", "ClusterIP", f"{told['answered']} of {told['answered']}"
            )
            assert told["failures"] == []
            assert told["answered"] > LOAD
    after = prober.kubectl.pods("app=web")
    assert not {pod.name for pod in before} & {pod.name for pod in after}


def test_a_hundred_pods_come_each_with_an_address_and_leave_nothing(prober: Prober) -> None:
    prober.kubectl.apply(workload("Deployment", "herd", [_SERVE_NAME], replicas=HERD))
    try:
        prober.kubectl.roll_out("deployment/herd", seconds=HERD_BOUND)
        pods = prober.kubectl.pods("app=herd")
        assert len({pod.address for pod in pods}) == HERD
        for node in prober.cluster.nodes:
            client = prober.client(node)
            answers = prober.from_pod(client.name, *(http(pod.address, path="/hostname") for pod in pods))
            assert [answer.strip() for answer in answers] == [pod.name for pod in pods]
    finally:
        prober.kubectl("scale", "deployment/herd", "--replicas=0")
        gone = lambda: not prober.kubectl.get("pods", selector="app=herd")  # noqa: E731
        await_value("the herd is gone", gone, HERD_BOUND)
        prober.kubectl("delete", "deployment", "herd")
    assert_nodes_hold_what_the_api_tells(prober.cluster)
