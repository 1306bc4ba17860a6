"""What the node follows of the cluster: no peer is missing while it turns from some namespaces to all, and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_node.policy.model import Pod
from cni_node.policy.needs import FEW, MANY
from cni_node.policy.pods import parse_pod
from cni_node.policy.watch import ClusterWatch, Collection, Known
from cni_node.sources.kubernetes import KubernetesSettings
from tests.cni_node.policy.live import DENY, pod_item, put_policy, settings_of
from tests.kit.api_server import ApiServer
from tests.kit.host import wait_until


@pytest.fixture
def server(soon: None) -> Iterator[ApiServer]:
    """Pods of MANY namespaces of a team are let in to x/web; there is one namespace more."""
    with ApiServer() as api:
        for number in range(MANY + 1):
            put_namespace(api, number, team=number < MANY)
            api.put({**pod_item(f"n{number}-peer", f"10.9.0.{number}"), "spec": {"nodeName": "node2"}}, "pods")
        api.put({"metadata": {"name": "x"}}, "namespaces")
        api.put(pod_item("x-web", "10.0.1.1"), "pods")
        put_policy(
            api, "x", "p", {**DENY, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}
        )
        yield api


def put_namespace(api: ApiServer, number: int, *, team: bool) -> None:
    api.put({"metadata": {"name": f"n{number}", "labels": {"team": "a"} if team else {}}}, "namespaces")


@pytest.fixture
def settings(server: ApiServer, tmp_path: Path) -> KubernetesSettings:
    return settings_of(server.url, tmp_path)


@pytest.fixture
def watch(settings: KubernetesSettings) -> Iterator[ClusterWatch]:
    opened = ClusterWatch(settings, lambda: None)
    yield opened
    opened.close()


def peers(known: Known) -> set[str]:
    return {pod.namespace for pod in known.pods} - {"x"}


@pytest.mark.slow
def test_no_peer_is_missing_while_other_watches_begin(server: ApiServer, watch: ClusterWatch) -> None:
    team = {f"n{number}" for number in range(MANY)}
    assert wait_until(lambda: peers(watch.look()) == team and watch.look().complete)
    server.deaf_until.clear()  # what is listed anew is not answered
    put_namespace(server, MANY, team=True)
    assert wait_until(lambda: not watch.look().complete)
    assert peers(watch.look()) == team
    server.deaf_until.set()
    assert wait_until(lambda: watch.look().complete and peers(watch.look()) == team | {f"n{MANY}"})


def test_the_watch_of_all_pods_stays_until_the_namespaces_are_few_and_have_been_listed(
    server: ApiServer, watch: ClusterWatch
) -> None:
    put_namespace(server, MANY, team=True)
    assert wait_until(lambda: watch.look().complete and len(peers(watch.look())) == MANY + 1)
    for number in range(FEW + 1, MANY + 1):
        put_namespace(server, number, team=False)
    assert wait_until(
        lambda: len([labels for labels in watch.look().namespaces.values() if ("team", "a") in labels]) == FEW + 1
    )
    assert watch.look().complete and len(peers(watch.look())) == MANY + 1
    server.deaf_until.clear()
    put_namespace(server, FEW, team=False)
    assert wait_until(lambda: not watch.look().complete)
    assert len(peers(watch.look())) == MANY + 1
    server.deaf_until.set()
    assert wait_until(lambda: watch.look().complete and peers(watch.look()) == {f"n{number}" for number in range(FEW)})


GOOD = pod_item("x-p", "10.0.1.1")
BAD = {**GOOD, "status": {"podIP": "nonsense"}}
SENTENCE = "pod x/p is left as it was: 'nonsense' is no IP address"


@pytest.fixture
def collection() -> Collection[tuple[str, str], Pod]:
    return Collection("pod", lambda item: (("x", item["metadata"]["name"]), parse_pod(item)), lambda: None)


@pytest.mark.parametrize("kind", ["MODIFIED", "DELETED"])
def test_a_problem_of_an_object_is_over_when_the_object_is_right_or_gone(
    collection: Collection[tuple[str, str], Pod], kind: str
) -> None:
    collection.replace(iter([GOOD]))
    collection.apply("MODIFIED", BAD)
    assert collection.problems == [SENTENCE]
    assert set(collection.objects) == {("x", "p")}
    collection.apply(kind, GOOD if kind == "MODIFIED" else BAD)
    assert collection.problems == []
    assert len(collection.objects) == (kind == "MODIFIED")


def test_the_last_valid_version_of_an_object_stays_also_when_all_is_listed_anew(
    collection: Collection[tuple[str, str], Pod],
) -> None:
    collection.replace(iter([GOOD]))
    before = collection.objects
    collection.replace(iter([BAD, pod_item("x-q")]))
    assert collection.objects["x", "p"] is before["x", "p"]
    assert collection.problems == [SENTENCE]
    collection.replace(iter([pod_item("x-q")]))
    assert (set(collection.objects), collection.problems) == ({("x", "q")}, [])
