"""Who can ask what: clients in pods by kubectl exec, on nodes and outside by this machine's Python in their network.

A client goes on until all is over: a kubectl, an exec and a Python for each question would take half of the time.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.kit.kubernetes import pods
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.kubectl import Pod
from tests.kubernetes.sessions import Session
from tests.kubernetes.workloads import NODE_PORT, STICKY_PORT

Question = Sequence[Any]  # see pods/ask.py
_ASK, _SERVE = (Path(pods.__file__).with_name(name) for name in ("ask.py", "serve.py"))
_START_BOUND, _ANSWER_BOUND = 10.0, 60.0  # seconds
_IN_POD = ("python3", "-IBS", "/pods/ask.py")


class Prober:
    """Asks, from anywhere. Close it."""

    def __init__(self, cluster: Kubernetes) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self._sessions: dict[tuple[str, ...], Session] = {}
        self._lock = threading.Lock()

    def client(self, node: str) -> Pod:
        """The client pod of a node."""
        (found,) = [pod for pod in self.kubectl.pods("app=client") if pod.node == node]
        return found

    def from_pod(self, pod: str, *questions: Question, namespace: str = "default", seconds: float = 60.0) -> list[Any]:
        """The answers to questions that are asked in a pod."""
        command = self.kubectl.argv("exec", "-i", f"--namespace={namespace}", pod, "--", *_IN_POD)
        # a node that was switched off ends no connection, so its clients would be waited for
        boots = [str(node.pid) for node in self.cluster.nodes.values()]
        return self._session((namespace, pod, *boots), command).ask(questions, seconds)

    def from_node(self, node: str, *questions: Question) -> list[Any]:
        """The same on a node; names are not resolved there."""
        return self._from(self.cluster.nodes[node].netns, questions)

    def from_outside(self, *questions: Question) -> list[Any]:
        """The same on a host behind a router."""
        return self._from(self.cluster.outside.netns, questions)

    def reaches_services(self, node: str) -> bool:
        """Whether those of workloads.py lead somewhere from a node, and from its client by name."""
        address = self.cluster.nodes[node].address
        answers = self.from_node(node, *(http(address, port) for port in (NODE_PORT, STICKY_PORT)))
        answers += self.from_pod(self.client(node).name, http("web", 8080), http("member"))
        return all("by" in answer for answer in answers)

    def close(self) -> None:
        """End the clients."""
        for session in self._sessions.values():
            session.close()

    def _from(self, netns: str, questions: Sequence[Question]) -> list[Any]:
        return self._session((netns,), _asking_in(netns)).ask(questions, _ANSWER_BOUND)

    def _session(self, key: tuple[str, ...], command: Sequence[str]) -> Session:
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(command)
            return self._sessions[key]


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
    with closing(Session(_asking_in(netns))) as session:
        return session.ask(questions, _START_BOUND)


def _asking_in(netns: str) -> Sequence[str]:
    """The command of a client in a network namespace."""
    return ("/usr/bin/nsenter", f"--net={netns}", "--", sys.executable, "-IBS", str(_ASK))
