"""pycni doctor on a node of Kubernetes with an agent: what the agent says, and what other programs take from it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_node.agent.status import fetch
from cni_node.readiness.runtime import CONFIGURATION
from tests.cni_node.doctor.faults import BOUND, resolve_by_a_stub, start_networkd
from tests.cni_node.doctor.patients import PEER, Patient
from tests.cni_node.policy.live import DENY, pod_item, put_policy
from tests.conftest import ROOT
from tests.kit.api_server import KUBECONFIG, ApiServer, node
from tests.kit.host import RUN_BOUND, Host, wait_until
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE

pytestmark = pytest.mark.kernel

PODS, PEER_PODS, PEER_GATEWAY = "10.244.1.0/24", "10.244.2.0/24", "10.244.2.1"
PROXY = "add table ip kube-proxy"
# a program that takes away what is not its own, again and again; its end ends the loop
RIVAL = """while read -r -t 0.01 word; [ $? -gt 128 ]; do
ip route flush proto 80; nft delete table inet pycni_policy 2>/dev/null
done"""


class Node:
    """A patient whose network is made by an agent, beside an API server. Use open_node."""

    def __init__(self, patient: Patient, api: ApiServer, directory: Path) -> None:
        self.patient, self.api, self._directory = patient, api, directory

    @contextmanager
    def agent(self, bin_dir: str) -> Iterator["subprocess.Popen[str]"]:
        """Run the agent, as root of the patient's files."""
        (self._directory / "kubeconfig").write_text(KUBECONFIG.format(server=self.api.url))
        options = [f"--root={self.patient.root}", f"--bin-dir={bin_dir}", f"--socket={self.patient.socket}"]
        options += ["--source=kubernetes", "--node-name=node1", f"--kubeconfig={self._directory}/kubeconfig"]
        command = [sys.executable, "-m", "cni_node", "agent", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (
            open(self._directory / "log", "w") as log,
            self.patient.host.start(*command, stderr=log, env=environment) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def report(self) -> dict[str, Any]:
        """What the agent says; nothing while it does not answer."""
        try:
            return dict(json.loads(fetch(self.patient.socket, "/status")))
        except (OSError, ValueError):
            return {}

    def await_report(self, **wanted: Any) -> None:
        """Until the agent says so."""
        seen: dict[str, Any] = {}

        def said() -> bool:
            seen.update(self.report())
            return bool(seen) and all(seen[key] == value for key, value in wanted.items())

        assert wait_until(said, BOUND), (wanted, seen, (self._directory / "log").read_text())

    def found(self) -> set[str]:
        """The kinds of what is found, while somebody changes what the doctor reads."""
        return {finding["kind"] for finding in json.loads(self.patient.doctor("--json").stdout)["findings"]}


@pytest.fixture
def cluster(host: Host, tmp_path: Path, bin_dir: str) -> Iterator[Node]:
    """A host, a machine outside that is its peer, and the API of both."""
    root = tmp_path / "root"
    root.mkdir()
    patient = Patient(host, root, bin_dir)
    patient.sh(f"""
    ip -n {OUTSIDE} address add {PEER_GATEWAY}/32 dev lo
    ip -n {OUTSIDE} route add {PODS} via {HOST_ADDRESSES[4]}
    nft {PROXY}
    """)
    (patient.conf_dir / "10-mynet.conflist").unlink()
    with host.entered():
        api = ApiServer()
    with api:
        api.put(node("node1", PODS, HOST_ADDRESSES[4]))
        api.put(node("node2", PEER_PODS, PEER))
        api.put({"metadata": {"name": "x", "labels": {}}}, "namespaces")
        yield Node(patient, api, tmp_path)


def isolate_a_pod(cluster: Node) -> None:
    """A pod that a policy is about."""
    cluster.patient.take_configuration(CONFIGURATION)
    result = cluster.patient.add("c1", args="IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=web")
    put_policy(cluster.api, "x", "deny", DENY)
    cluster.api.put(pod_item("x-web", result["ips"][0]["address"].partition("/")[0]), "pods")
    assert wait_until(lambda: cluster.report()["policies"]["isolated"] == 1, BOUND)


def test_what_an_agent_says_and_what_is_taken_from_it_is_found(cluster: Node, bin_dir: str) -> None:
    patient, api = cluster.patient, cluster.api
    api.deaf_until.clear()
    with cluster.agent(bin_dir) as agent:
        assert wait_until(cluster.report, BOUND)
        assert patient.kinds() == {"agent-not-ready"}
        api.deaf_until.set()
        cluster.await_report(state="ready", routes=1)
        isolate_a_pod(cluster)
        assert patient.kinds() == set()
        patient.sh("nft delete table ip kube-proxy")
        api.put(node("node1", PODS, "192.0.2.77"))
        api.put(node("node3", PEER_PODS, "192.0.2.3"))
        start_networkd(patient)
        resolve_by_a_stub(patient)
        cluster.await_report(state="ready, with problems", addresses=["192.0.2.77"])
        lasting = {"no-service-proxy", "node-address", "agent-problem", "networkd-routes", "stub-resolver"}
        assert patient.kinds() == lasting
        with patient.host.start("bash", "-c", RIVAL, stdin=subprocess.PIPE) as rival:
            assert wait_until(lambda: cluster.found() >= lasting | {"routes-missing", "policies-missing"}, BOUND)
            rival.communicate("")
        agent.kill()
        agent.wait(RUN_BOUND)
        assert patient.kinds() - {"networkd-routes"} == {"agent-away", "stub-resolver"}
