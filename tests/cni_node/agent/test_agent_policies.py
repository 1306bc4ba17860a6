"""An agent that follows the API of Kubernetes: it is ready once the policies are in force, too."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_kernel.errors import KernelError
from cni_node.agent.report import Report
from cni_node.agent.server import Page, serve
from cni_node.agent.status import fetch
from cni_node.policy.watch import POLICIES
from tests.cni_node.agents import Agent
from tests.cni_node.policy.live import DENY, pod_item, put_policy
from tests.kit.api_server import ApiServer, node
from tests.kit.host import Host


class Follower(Agent):
    """An agent whose source is the API of Kubernetes."""

    def argv(self, *options: str) -> list[str]:
        places = ["--root", str(self.root), "--bin-dir", self.bin_dir, "--socket", str(self.socket)]
        source = ["--source=kubernetes", "--node-name=node1", f"--kubeconfig={self.root}/kubeconfig"]
        return [sys.executable, "-m", "cni_node", "agent", *places, *source, *options]


@pytest.fixture
def api(host: Host) -> Iterator[ApiServer]:
    """It knows the node, a pod and a policy, and does not show policies."""
    with host.entered():
        server = ApiServer()
    with server:
        server.forbidden.add(POLICIES)
        server.put(node("node1", "10.240.1.0/24", "192.168.1.11"))
        server.put({"metadata": {"name": "x"}}, "namespaces")
        server.put(pod_item("x-a", "10.240.1.9"), "pods")
        put_policy(server, "x", "deny", DENY)
        yield server


@pytest.fixture
def agent(host: Host, api: ApiServer, bin_dir: str, tmp_path: Path) -> Iterator[Follower]:
    config = {
        "current-context": "only",
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
        "clusters": [{"name": "only", "cluster": {"server": api.url}}],
        "users": [{"name": "only", "user": {"token": "secret"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "other")
    host.run("ip", "address", "add", "192.168.1.11/24", "dev", "uplink")
    host.run("ip", "link", "set", "uplink", "up")
    opened = Follower(host, tmp_path, bin_dir, 0)
    yield opened
    opened.stop()


@pytest.mark.kernel
def test_a_node_is_ready_when_its_policies_have_been_in_force(agent: Follower, api: ApiServer) -> None:
    agent.start()
    report = agent.await_report(lambda report: bool(report["configuration"]))
    assert not report["ready"]
    agent.await_report(lambda report: "policies have not been in force" in report["state"])
    with pytest.raises(ValueError, match="503"):
        fetch(agent.socket, "/readyz")
    api.forbidden.clear()
    assert agent.await_ready()["policies"]["isolated"] == 1
    assert fetch(agent.socket, "/readyz").startswith("ready")


def test_whether_the_loop_turns_is_answered_also_where_nothing_can_be_counted(tmp_path: Path) -> None:
    def refused() -> Report:
        raise KernelError(1, "the counters of policies cannot be read")

    serve(Page(refused, lambda: True), tmp_path / "agent.sock", 0)
    assert fetch(tmp_path / "agent.sock", "/healthz") == "ok\n"
