"""Who can ask what: clients in pods by kubectl exec, on nodes and outside by this machine's Python in their network."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.fabric import run_in
from tests.kit.kubernetes import pods
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.kubectl import Pod

Question = Sequence[Any]  # see pods/ask.py
_ASK, _SERVE = (Path(pods.__file__).with_name(name) for name in ("ask.py", "serve.py"))
_START_BOUND = 10.0  # seconds


class Prober:
    """Asks, from anywhere."""

    def __init__(self, cluster: Kubernetes) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl

    def client(self, node: str) -> Pod:
        """The client pod of a node."""
        (found,) = [pod for pod in self.kubectl.pods("app=client") if pod.node == node]
        return found

    def from_pod(self, pod: str, *questions: Question, namespace: str = "default", seconds: float = 60.0) -> list[Any]:
        """The answers to questions that are asked in a pod."""
        command = ("python3", "-IBS", "/pods/ask.py", json.dumps(questions))
        answers: list[Any] = json.loads(self.kubectl.execute(pod, *command, namespace=namespace, seconds=seconds))
        return answers

    def from_node(self, node: str, *questions: Question) -> list[Any]:
        """The same on a node; names are not resolved there."""
        return _ask(self.cluster.nodes[node].netns, questions)

    def from_outside(self, *questions: Question) -> list[Any]:
        """The same on a host behind a router."""
        return _ask(self.cluster.outside.netns, questions)


def http(address: str, port: int = 80, path: str = "/") -> Question:
    """A question to serve.py."""
    return ["http", f"http://{address}:{port}{path}"]


@contextmanager
def serving(port: int, *networks: str) -> Iterator[None]:
    """Have serve.py in network namespaces for a block."""
    with ExitStack() as stack:
        for netns in networks:
            argv = ["/usr/bin/nsenter", f"--net={netns}", "--", sys.executable, "-IBS", str(_SERVE), str(port)]
            server = stack.enter_context(subprocess.Popen(argv))
            stack.callback(server.terminate)
        for netns in networks:
            question = http("127.0.0.1", port)
            await_value("serve.py answers", partial(_answers, netns, question), _START_BOUND)
        yield


def _answers(netns: str, question: Question) -> bool:
    return "by" in _ask(netns, [question])[0]


def _ask(netns: str, questions: Sequence[Question]) -> list[Any]:
    done = run_in(netns, sys.executable, "-IBS", str(_ASK), json.dumps(questions))
    answers: list[Any] = json.loads(done.stdout)
    return answers
