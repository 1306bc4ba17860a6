"""Network policies at ADD: the agent is asked before a packet can pass, and required ones are no option."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.runtime import Runtime, without_bookkeeping
from tests.system.networks import address, network, refused

pytestmark = pytest.mark.kernel

POD = {"args": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"}


class Agent:
    """Says that policies are in force, and looks at the asking pod meanwhile."""

    def __init__(self, path: Path, look: Callable[[], Any]) -> None:
        self.path, self.seen = str(path), None
        self.asked: dict[str, Any] = {}
        self._look = look
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        caller, _ = self._listener.accept()
        with caller:
            heard = b""
            while not heard.endswith(b"}"):
                heard += caller.recv(4096)
            self.asked = json.loads(heard.partition(b"\r\n\r\n")[2])
            self.seen = self._look()
            caller.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"state": "in force"}')

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def agent(bridge: Runtime, tmp_path: Path) -> Iterator[Agent]:
    def flags() -> Any:
        return bridge.host.ip("link", "show", "dev", "eth0", container="c1")[0]["flags"]

    opened = Agent(tmp_path / "agent.sock", flags)
    yield opened
    opened.close()


def test_the_agent_is_asked_while_the_containers_interface_is_down(bridge: Runtime, agent: Agent) -> None:
    result = bridge.add("c1", network(1, agent=agent.path, requirePolicies=True), **POD)
    assert agent.asked["addresses"] == [address(result, 4), address(result, 6)]
    assert agent.seen is not None
    assert "UP" not in agent.seen
    assert bridge.host.ping("10.1.0.1", "c1")


def test_a_pod_whose_required_policies_nobody_puts_in_force_leaves_nothing(
    bridge: Runtime, snapshot: Callable[[], Any], tmp_path: Path
) -> None:
    config = network(1, agent=str(tmp_path / "none.sock"), requirePolicies=True, ipMasq=True)
    bridge.host.add_container("c1")
    before = snapshot()
    error = refused(bridge, "ADD", "c1", config, **POD)
    assert error["code"] == 11
    assert "policies of pod shop/web-1 are required and not in force" in error["msg"]
    assert without_bookkeeping(snapshot()) == without_bookkeeping(before)


def test_a_pod_that_requires_none_starts_with_a_warning(bridge: Runtime, tmp_path: Path) -> None:
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", network(1, agent=str(tmp_path / "none.sock")), **POD)
    assert outcome.status == 0
    assert "policies of pod shop/web-1 may come late" in outcome.stderr
