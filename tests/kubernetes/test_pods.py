"""Pods on the nodes of a real cluster: their addresses, and who reaches whom, as whom."""

import json
from collections.abc import Sequence
from functools import partial

import pytest

from tests.cluster.fabric import ip_in
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.kubectl import Pod
from tests.kubernetes.conftest import Record
from tests.kubernetes.probes import Prober, http, serving

pytestmark = pytest.mark.kernel

PORT = 8000  # of servers that are no pods
SOON = 90.0  # seconds


def web_pods(web: Kubernetes) -> list[Pod]:
    return web.kubectl.pods("app=web")


def gateway(cluster: Kubernetes, node: str) -> str:
    """The first address of a node's range: the node as its own pods see it."""
    return cluster.cidr(node).removesuffix("0/24") + "1"


def test_every_node_is_ready_and_knows_no_problem(web: Kubernetes) -> None:
    for node in web.kubectl.get("nodes"):
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        assert conditions.pop("Ready") == "True"
        assert set(conditions.values()) == {"False"}
    assert {node["metadata"]["name"] for node in web.kubectl.get("nodes")} == set(web.nodes)


def test_every_pod_has_an_address_of_its_own_in_its_nodes_range(web: Kubernetes) -> None:
    addresses = {name: addresses_of(web, name) for name in web.nodes}
    assert all(len(own) >= 2 for own in addresses.values())
    assert len({address for own in addresses.values() for address in own}) == sum(map(len, addresses.values()))
    for name, own in addresses.items():
        assert {address.rpartition(".")[0] for address in own} == {web.cidr(name).rpartition(".")[0]}


def test_pods_reach_each_other_on_one_node_and_across_and_keep_their_address(prober: Prober, record: Record) -> None:
    pods = web_pods(prober.cluster)
    for node in prober.cluster.nodes:
        client = prober.client(node)
        answers = prober.from_pod(client.name, *(http(pod.address) for pod in pods))
        for pod, seen in zip(pods, answers, strict=True):
            record("pod to pod", f"pod on {node}", f"pod on {pod.node}", seen.get("source", str(seen)))
            assert (seen.get("by"), seen.get("source")) == (pod.name, client.address), (client.name, pod.name, seen)


def test_pods_reach_each_other_by_udp(prober: Prober) -> None:
    pods = web_pods(prober.cluster)
    for node in prober.cluster.nodes:
        client = prober.client(node)
        answers = prober.from_pod(client.name, *(["udp", pod.address, 80] for pod in pods))
        assert answers == [{"by": pod.name, "source": client.address} for pod in pods]


def test_nodes_reach_all_pods_as_themselves(prober: Prober, record: Record) -> None:
    pods = web_pods(prober.cluster)
    for name, node in prober.cluster.nodes.items():
        answers = prober.from_node(name, *(http(pod.address) for pod in pods))
        for pod, seen in zip(pods, answers, strict=True):
            expected = gateway(prober.cluster, name) if pod.node == name else node.address
            record("node to pod", name, f"pod on {pod.node}", seen.get("source", str(seen)))
            assert (seen.get("by"), seen.get("source")) == (pod.name, expected)


def test_pods_reach_nodes_as_themselves_and_the_world_as_their_node(prober: Prober, record: Record) -> None:
    cluster = prober.cluster
    places = {name: (node.netns, node.address) for name, node in cluster.nodes.items()}
    places["outside"] = (cluster.outside.netns, cluster.outside.address(4))
    with serving(PORT, *(netns for netns, _ in places.values())):
        for name, node in cluster.nodes.items():
            client = prober.client(name)
            answers = prober.from_pod(client.name, *(http(address, PORT) for _, address in places.values()))
            for place, seen in zip(places, answers, strict=True):
                record("pod to nodes and the world", f"pod on {name}", place, seen.get("source", str(seen)))
                assert seen.get("source") == (node.address if place == "outside" else client.address), seen


def test_nodes_hold_what_the_api_tells(web: Kubernetes) -> None:
    assert_nodes_hold_what_the_api_tells(web)


def assert_nodes_hold_what_the_api_tells(cluster: Kubernetes) -> None:
    """A reservation and a port of the bridge for each pod, and no others; the kubelet deletes a pod before that."""
    for name in cluster.nodes:
        await_value(f"{name} has no more and no less than its pods", partial(holds_its_pods, cluster, name), SOON)


def holds_its_pods(cluster: Kubernetes, name: str) -> bool:
    """Whether that is so."""
    node, pods = cluster.nodes[name], addresses_of(cluster, name)
    ports = ip_in(node.netns, "link", "show", "master", "cni0")
    return sorted(node.reservations()) == sorted(pods) and len(ports) == len(pods)


def addresses_of(cluster: Kubernetes, node: str) -> Sequence[str]:
    """Of the pods on a node, those of the host's network left out."""
    pods = cluster.kubectl.get("pods", namespace="", field=f"spec.nodeName={node}")
    return [each["status"]["podIP"] for each in pods if not each["spec"].get("hostNetwork")]


def test_exec_logs_and_port_forward_work_through_the_api_server(prober: Prober) -> None:
    for pod in web_pods(prober.cluster):
        assert prober.kubectl.execute(pod.name, "hostname").strip() == pod.name
        assert prober.kubectl("logs", pod.name) == ""
    answer = json.loads(
        prober.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{web_pods(prober.cluster)[0].name}:80/proxy/")
    )
    assert answer["by"] == web_pods(prober.cluster)[0].name
