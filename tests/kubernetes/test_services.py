"""Services by the real kube-proxy over the pod network: from pods, nodes and outside; and pods behind their own."""

import json
from typing import Any

import pytest

from tests.cluster.installation import PROGRAM
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.control_plane import API
from tests.kit.kubernetes.kubectl import names_of
from tests.kubernetes import workloads
from tests.kubernetes.conftest import SOON, Record
from tests.kubernetes.probes import Prober, Question, http
from tests.kubernetes.workloads import NODE_PORT, STICKY_PORT

pytestmark = pytest.mark.kernel

TRIES = 24  # of four pods one is missed by accident once in 250


def cluster_ip(cluster: Kubernetes, name: str) -> str:
    address: str = cluster.kubectl.get("service", name)["spec"]["clusterIP"]
    return address


def questions(address: str, port: int = 8080) -> list[Question]:
    return [http(address, port)] * TRIES


def test_a_cluster_ip_leads_to_all_pods_from_every_node_and_keeps_the_source(prober: Prober, record: Record) -> None:
    address, pods = cluster_ip(prober.cluster, "web"), names_of(prober.kubectl.pods("app=web"))
    seen_by = set()
    for node in prober.cluster.nodes:
        client = prober.client(node)
        answers = prober.from_pod(client.name, *questions(address))
        assert {answer.get("source") for answer in answers} == {client.address}, answers
        seen_by |= {answer["by"] for answer in answers}
        record("services", f"pod on {node}", "ClusterIP", client.address)
    assert seen_by == pods


def test_the_doctor_finds_nothing_on_a_node_beside_kube_proxy(prober: Prober) -> None:
    for node in prober.cluster.nodes.values():
        said = node.run(PROGRAM, "doctor", "--json", check=False)
        assert said.returncode == 0, said.stdout + said.stderr
        assert json.loads(said.stdout) == {"findings": [], "unreadable": []}


def test_a_cluster_ip_leads_there_by_udp_too(prober: Prober) -> None:
    address = cluster_ip(prober.cluster, "web")
    for node in prober.cluster.nodes:
        client = prober.client(node)
        answers = prober.from_pod(client.name, *[["udp", address, 8080]] * 4)
        assert {answer.get("source") for answer in answers} == {client.address}, answers


def test_a_cluster_ip_leads_there_from_the_nodes(prober: Prober, record: Record) -> None:
    address, pods = cluster_ip(prober.cluster, "web"), names_of(prober.kubectl.pods("app=web"))
    for node in prober.cluster.nodes:
        answers = prober.from_node(node, *questions(address))
        assert {answer.get("by") for answer in answers} <= pods, answers
        record("services", node, "ClusterIP", "reached")


def test_a_node_port_of_every_node_leads_there_from_pods_nodes_and_outside(prober: Prober, record: Record) -> None:
    nodes, pods = prober.cluster.nodes, names_of(prober.kubectl.pods("app=web"))
    asked = [http(node.address, NODE_PORT) for node in nodes.values() for _ in range(4)]
    for node in nodes:
        for who, answers in (
            (f"pod on {node}", prober.from_pod(prober.client(node).name, *asked)),
            (node, prober.from_node(node, *asked)),
        ):
            record("services", who, "NodePort", "reached" if all("by" in each for each in answers) else str(answers))
            assert {answer.get("by") for answer in answers} <= pods, answers
    answers = prober.from_outside(*asked)
    record("services", "outside", "NodePort", "reached" if all("by" in each for each in answers) else str(answers))
    assert {answer.get("by") for answer in answers} <= pods, answers


def test_with_affinity_a_client_stays_with_its_pod(prober: Prober) -> None:
    """Its first question decides, so that one goes before the others, which are asked at once."""
    address = cluster_ip(prober.cluster, "web-sticky")
    node = next(iter(prober.cluster.nodes.values()))
    asked, outside = questions(address), questions(node.address, STICKY_PORT)
    for name in prober.cluster.nodes:
        client = prober.client(name).name
        assert_one_answers([*prober.from_pod(client, asked[0]), *prober.from_pod(client, *asked)])
    assert_one_answers([*prober.from_outside(outside[0]), *prober.from_outside(*outside)])


def assert_one_answers(answers: list[Any]) -> None:
    assert len({answer.get("by") for answer in answers}) == 1, answers


def test_a_pod_reaches_itself_through_its_service(prober: Prober, record: Record) -> None:
    """It is among the answers of its own questions, and is seen there as its node's bridge, since it was rewritten."""
    address = cluster_ip(prober.cluster, "web")
    for pod in prober.kubectl.pods("app=web"):
        answers = prober.from_pod(pod.name, *questions(address), *questions(address))
        assert all("by" in answer for answer in answers), answers
        own = [answer["source"] for answer in answers if answer["by"] == pod.name]
        assert set(own) == {prober.cluster.cidr(pod.node).removesuffix("0/24") + "1"}
        record("services", f"pod on {pod.node}", "itself by ClusterIP", own[0])


def test_the_api_server_is_reached_by_its_service(prober: Prober) -> None:
    for node in prober.cluster.nodes:
        (answer,) = prober.from_pod(prober.client(node).name, ["https", API, "kubernetes", 443])
        assert answer.get("status") in (401, 403), answer


def test_a_service_without_pods_refuses_and_has_them_when_they_come(prober: Prober) -> None:
    objects = workloads.service("nobody", "nobody", ports=[{"port": 80}])
    prober.kubectl.apply(objects)
    client = prober.client(next(iter(prober.cluster.nodes)))
    address = cluster_ip(prober.cluster, "nobody")
    try:
        await_value("nobody is refused", lambda: refused(prober.from_pod(client.name, http(address))), SOON)
        prober.kubectl.apply({**objects, "spec": {**objects["spec"], "selector": {"app": "web"}}})
        await_value("somebody answers", lambda: "by" in prober.from_pod(client.name, http(address))[0], SOON)
    finally:
        prober.kubectl.delete("service/nobody")


def refused(answers: list[Any]) -> list[Any]:
    """The answers, if each is a refusal and no silence."""
    return answers if all("refused" in answer.get("error", "") for answer in answers) else []
