"""Network policies at ADD: the agent is asked before a packet can pass, and required ones are no option."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_node.policy.compiler import Compiler
from cni_node.policy.model import Cluster
from cni_node.policy.table import PolicyTable
from tests.cni_node.policy.texts import pod, policy
from tests.kit.runtime import Runtime, without_bookkeeping
from tests.system.networks import address, mapped, network, refused, sysctl

pytestmark = pytest.mark.kernel

POD = {"args": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"}


class Agent:
    """Says that policies are in force, or what it is to say, and looks at the host meanwhile."""

    def __init__(self, path: Path, look: Callable[[], Any], state: str = "in force") -> None:
        self.path, self.seen, self._state = str(path), None, state
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
            caller.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps({"state": self._state}).encode())

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


def filtering(bridge: Runtime) -> None:
    """Packets between containers of one bridge pass nftables."""
    sysctl(bridge.host, "bridge/bridge-nf-call-iptables", 1)
    sysctl(bridge.host, "bridge/bridge-nf-call-ip6tables", 1)


@pytest.mark.parametrize("table", ["none", "flushed", "the agent's"])
def test_a_pod_whose_required_policies_nobody_puts_in_force_is_held_back(
    bridge: Runtime, tmp_path: Path, table: str
) -> None:
    filtering(bridge)
    config = network(1, agent=str(tmp_path / "none.sock"), requirePolicies=True)
    free = bridge.add("c2", network(1))
    if table != "none":
        put_state(bridge, Cluster((), (), {}, {}))
    if table == "flushed":
        bridge.host.run("nft", "flush", "table", "inet", "pycni_policy")
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", config, **POD)
    assert outcome.status == 0
    assert "pod shop/web-1 is held back, nothing passes: the agent at " in outcome.stderr
    held = outcome.document
    assert not bridge.host.ping(address(held, 4), "c2")
    assert not bridge.host.ping(address(free, 6), "c1")
    judged = pod("shop/web-1", address(held, 4), address(held, 6), node="node1")
    put_state(bridge, Cluster((), (), {}, {}))  # an agent that has not heard of the pod
    assert not bridge.host.ping(address(free), "c1")
    put_state(bridge, Cluster((), (judged,), {}, {}))
    assert bridge.host.ping(address(held), "c2")
    assert bridge.host.ping(address(free, 6), "c1")


def put_state(bridge: Runtime, state: Cluster) -> None:
    """What an agent that begins does with the table."""
    with bridge.host.entered():
        table = PolicyTable()
    table.ensure(Compiler("node1").compile(state))
    table.close()


def test_required_policies_of_an_agent_that_does_not_care_for_them_are_an_error(
    bridge: Runtime, snapshot: Callable[[], Any], tmp_path: Path
) -> None:
    agent = Agent(tmp_path / "agent.sock", lambda: None, "off")
    config = network(1, agent=agent.path, requirePolicies=True, ipMasq=True)
    bridge.host.add_container("c1")
    before = snapshot()
    error = refused(bridge, "ADD", "c1", config, **POD)
    assert error["code"] == 11
    assert "policies of pod shop/web-1 are required and not in force" in error["msg"]
    assert without_bookkeeping(snapshot()) == without_bookkeeping(before)
    agent.close()


LOOKING = """#!/bin/sh
nft list ruleset > {seen} 2>&1
exec {ipam}
"""


def test_a_pods_elements_are_gone_before_its_address_is_free(bridge: Runtime, bin_dir: str, tmp_path: Path) -> None:
    """The address plugin, which frees it, looks."""
    filtering(bridge)
    seen, looking = tmp_path / "seen", tmp_path / "looking-ipam"
    looking.write_text(LOOKING.format(seen=seen, ipam=f"{bin_dir}/cni-ipam"))
    looking.chmod(0o755)
    config = network(1, agent=str(tmp_path / "none.sock"), requirePolicies=True)
    config["ipam"]["type"] = "looking-ipam"
    bridge.path = (str(tmp_path), *bridge.path)
    stays, goes = bridge.add("c1", config, **POD), bridge.add("c2", config, **POD)
    both = [pod(f"shop/{i}", address(each, 4), address(each, 6)) for i, each in enumerate((stays, goes))]
    deny = policy("shop", "deny", podSelector={})
    put_state(bridge, Cluster((deny,), tuple(both), {}, {}))
    bridge.delete("c2", config, **POD)
    table = seen.read_text()
    for version in (4, 6):
        assert f"{address(stays, version)} : jump i_" in table
        assert address(goes, version) not in table


def test_the_agent_is_told_of_a_pod_that_goes(bridge: Runtime, tmp_path: Path) -> None:
    result = bridge.add("c1", network(1))
    agent = Agent(tmp_path / "agent.sock", bridge.host.link_names, "gone")
    bridge.delete("c1", network(1, agent=agent.path), **POD)
    agent.close()
    assert agent.asked == {
        "namespace": "shop",
        "name": "web-1",
        "uid": "",
        "addresses": [address(result, 4), address(result, 6)],
        "containerId": "c1",
        "ifname": "eth0",
        "gone": True,
    }
    assert agent.seen == ["br1"]  # its interface went first


def test_a_failed_add_holds_nothing_back(bridge: Runtime, tmp_path: Path) -> None:
    taken = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    config = mapped(network(1, agent=str(tmp_path / "none.sock"), requirePolicies=True), taken)
    bridge.add("c1", mapped(network(1), taken))
    bridge.host.add_container("c2")
    assert refused(bridge, "ADD", "c2", config, **POD)["code"] == 102
    assert "jump pending" not in json.dumps(bridge.host.nft())
    assert '"pending"' not in json.dumps([entry for entry in bridge.host.nft() if "map" in entry])


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_an_address_of_a_pod_that_went_while_held_back_is_good_for_the_next_container(
    bridge: Runtime, tmp_path: Path, command: str
) -> None:
    filtering(bridge)
    config = network(1, agent=str(tmp_path / "none.sock"), requirePolicies=True)
    config["ipam"]["ranges"] = [[{"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.2"}]]
    bridge.add("c1", config, **POD)
    gone = config if command == "DEL" else {**config, "cni.dev/valid-attachments": []}
    assert bridge.call(command, "c1", gone, **POD).status == 0  # without prevResult
    bridge.add("c2", config)
    far = network(2)
    bridge.add("c3", far)
    assert bridge.host.ping("10.1.0.2", "c3")


def test_a_pod_that_requires_none_starts_with_a_warning(bridge: Runtime, tmp_path: Path) -> None:
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", network(1, agent=str(tmp_path / "none.sock")), **POD)
    assert outcome.status == 0
    assert "policies of pod shop/web-1 may come late" in outcome.stderr
