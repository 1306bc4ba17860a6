"""How the kit asks, by itself: sessions that go on, paths of the API, and when a workload is rolled out."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.kubernetes import pods
from tests.kit.kubernetes.api import is_rolled_out, path_of, plural
from tests.kubernetes.sessions import Session

BOUND = 60.0  # seconds
ASK = str(Path(pods.__file__).with_name("ask.py"))
# Each client says its own number, and as its first line what is no answer; it ends when it is asked to.
COUNTING = """
import os, sys
print("one moment", flush=True)
for line in sys.stdin:
    if "end" in line:
        sys.exit("ended")
    print(f"[{os.getpid()}]", flush=True)
"""


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session([sys.executable, "-IBSc", COUNTING])
    yield made
    made.close()


def test_a_client_is_started_once_and_asked_many_times(session: Session) -> None:
    assert session.ask(["who?"], BOUND) == session.ask(["who?"], BOUND)


def test_a_client_that_ended_meanwhile_is_started_anew(session: Session) -> None:
    (first,) = session.ask(["who?"], BOUND)
    assert session._process is not None
    session._process.kill()
    assert session.ask(["who?"], BOUND) not in ([first], [])


def test_a_client_that_ends_instead_of_an_answer_is_named_with_what_it_said(session: Session) -> None:
    with pytest.raises(AssertionError, match=r"(?s)did not answer within 60 s: one moment\nended"):
        session.ask(["end"], BOUND)
    assert len(session.ask(["who?"], BOUND)) == 1


def test_a_client_that_is_silent_is_ended() -> None:
    silent = Session(["sh", "-c", "sleep 60; exit"])  # a child of the shell has its stdout too
    with pytest.raises(AssertionError, match="did not answer within 1 s"):
        silent.ask([], 1.0)


def test_the_client_of_pods_answers_line_by_line() -> None:
    asking = Session([sys.executable, "-IBS", ASK])
    try:
        assert asking.ask([], BOUND) == []
        (answer,) = asking.ask([["http", "http://127.0.0.1:1/"]], BOUND)
    finally:
        asking.close()
    assert "refused" in answer["error"]


@pytest.mark.parametrize(
    ("kind", "further", "expected"),
    [
        pytest.param("pod", {"namespace": "a"}, "/api/v1/namespaces/a/pods", id="core"),
        pytest.param("Pods", {}, "/api/v1/pods", id="all namespaces"),
        pytest.param("node", {"namespace": "a"}, "/api/v1/nodes", id="of no namespace"),
        pytest.param("deployment", {"namespace": "a"}, "/apis/apps/v1/namespaces/a/deployments", id="a group"),
        pytest.param(
            "IngressClass", {"namespace": "a", "group": "g/v1"}, "/apis/g/v1/ingressclasses", id="another group"
        ),
        pytest.param(
            "pod",
            {"selector": "a=b", "field": "c=d"},
            "/api/v1/pods?labelSelector=a%3Db&fieldSelector=c%3Dd",
            id="chosen",
        ),
    ],
)
def test_kinds_have_paths(kind: str, further: dict[str, Any], expected: str) -> None:
    assert path_of(plural(kind), **further) == expected


DEPLOYMENT = {
    "metadata": {"generation": 2},
    "spec": {"replicas": 3},
    "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
}
DAEMONSET = {
    "metadata": {"generation": 1},
    "spec": {},
    "status": {
        **dict.fromkeys(("observedGeneration", "desiredNumberScheduled", "currentNumberScheduled", "numberReady"), 1),
        "updatedNumberScheduled": 1,
    },
}


@pytest.mark.parametrize(
    ("workload", "change", "expected"),
    [
        pytest.param(DEPLOYMENT, {}, True, id="all are there"),
        pytest.param(DEPLOYMENT, {"observedGeneration": 1}, False, id="a change was not seen yet"),
        pytest.param(DEPLOYMENT, {"replicas": 4}, False, id="an old one is left"),
        pytest.param(DEPLOYMENT, {"updatedReplicas": 2}, False, id="one is of an old form"),
        pytest.param(DEPLOYMENT, {"readyReplicas": 2}, False, id="one is not ready"),
        pytest.param(DAEMONSET, {}, True, id="one on each node"),
        pytest.param(DAEMONSET, {"desiredNumberScheduled": 2}, False, id="none on a node"),
        pytest.param(DAEMONSET, {"numberReady": 0}, False, id="none is ready"),
    ],
)
def test_a_workload_is_rolled_out_when_all_is_new_and_ready(
    workload: dict[str, Any], change: dict[str, int], *, expected: bool
) -> None:
    changed = json.loads(json.dumps(workload))
    changed["status"].update(change)
    assert is_rolled_out(changed) == expected
