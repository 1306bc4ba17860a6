"""pycni why as a command: what it prints, its exit status, nodes that are half broken; and it changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_node.agent.report import Report
from cni_node.agent.server import Page, serve
from cni_node.policy.compiler import Compiler
from cni_node.policy.evaluator import Connection, Evaluator, Verdict
from cni_node.policy.model import Cluster, Policy
from cni_node.policy.table import PolicyTable
from cni_protocol.address import IP, parse_ip
from cni_protocol.attachment import Attachment
from tests.cni_node.inspect.nodes import Node
from tests.cni_node.policy.texts import namespaces, pod, policy
from tests.conftest import ROOT
from tests.kit.host import Host, wait_until
from tests.kit.runtime import connect_outside

pytestmark = pytest.mark.kernel
ADDRESSES = {"web": "10.1.0.2", "db": "10.1.0.3"}


@pytest.fixture
def node(host: Host, tmp_path: Path, bin_dir: str) -> Node:
    connect_outside(host)
    made = Node(host, bin_dir, tmp_path)
    for number, name in enumerate(ADDRESSES):
        made.add(name, 8080 + number)
    return made


def why(node: Node, *words: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = (*before, sys.executable, "-m", "cni_node", "why", "--results", str(node.cache))
    command += ("--socket", str(node.cache / "agent.sock"), *words)
    return node.host.run(*command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)


def document(node: Node, *words: str) -> Any:
    return json.loads(why(node, "--json", *words).stdout)


def test_each_hop_is_shown_and_nothing_is_changed(node: Node) -> None:
    before = node.dump()
    done = why(node, "shop/db-pod", "192.0.2.1", "8080/tcp")
    assert node.dump() == before
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert lines[0].startswith("shop/db-pod -> ")
    translated = next(line for line in lines if "destination translated" in line)
    assert f"10.1.0.3:40000 to {ADDRESSES['web']}:80 (inet pycni portmap_prerouting rule 3)" in translated
    assert lines[-1] == "stopped at shop/web-pod: no process waits at tcp port 80"


@pytest.mark.parametrize(
    ("words", "status", "last"),
    [
        (("shop/web-pod", "shop/db-pod"), 0, "passes"),
        (("web", "10.1.0.9"), 1, "stopped at node: nobody on cni0 has the address 10.1.0.9"),
    ],
)
def test_the_exit_status_tells(node: Node, words: tuple[str, ...], status: int, last: str) -> None:
    done = why(node, *words)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (status, last, "")


def test_what_makes_no_sense_is_said(node: Node) -> None:
    for words, what in ((("shop/none", "web"), "shop/none is no pod"), (("web", "db", "http"), "PORT/PROTOCOL")):
        done = why(node, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr


def test_without_rights_it_cannot_tell_and_says_why(node: Node) -> None:
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = why(node, "node", "192.0.2.1", before=without)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("cannot tell: the packet filter cannot be read: ")


def test_a_pod_whose_namespace_is_gone_is_named(node: Node) -> None:
    node.host.remove_container("db")
    found = document(node, "shop/db-pod", "shop/web-pod")
    assert (found["verdict"], found["kind"]) == ("stopped", "namespace-gone"), found
    name = Attachment("mynet", "db", "eth0").host_name
    assert wait_until(lambda: name not in node.host.link_names())  # it goes a moment later
    assert document(node, "shop/web-pod", "shop/db-pod")["kind"] == "no-interface"


class Asked:
    """What an agent says of policies."""

    def __init__(self, cluster: Cluster) -> None:
        self._evaluator = Evaluator(cluster, "node1")

    def judge(self, asked: Connection) -> Verdict:
        return self._evaluator.allowed(asked)


def put(node: Node, *policies: Policy) -> Cluster:
    """Policies in force in the kernel."""
    pods = [pod(f"x/{name}", address) for name, address in ADDRESSES.items()]
    nodes: dict[str, tuple[IP, ...]] = {"node1": (parse_ip("10.1.0.1"),)}
    cluster = Cluster(policies, tuple(pods), namespaces("x"), nodes)
    with node.host.entered():
        table = PolicyTable()
        table.ensure(Compiler("node1").compile(cluster))
        table.close()
    node.host.run("sh", "-c", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables")
    return cluster


def test_the_agent_names_the_policy_that_stops_it_and_the_rule_that_lets_it_through(node: Node) -> None:
    only_web = {"from": [{"podSelector": {"matchLabels": {"pod": "web"}}}]}
    cluster = put(
        node,
        policy("x", "deny", podSelector={"matchLabels": {"pod": "db"}}, ingress=[only_web]),
        policy("x", "closed", podSelector={"matchLabels": {"pod": "web"}}, ingress=[]),
    )
    denied = document(node, "db", "web")
    assert (denied["verdict"], denied["kind"]) == ("stopped", "policy")
    assert denied["notes"] == ["which policy that is only the agent knows, and it does not answer"]
    serve(Page(Report, lambda: True, Asked(cluster)), node.cache / "agent.sock", 0)  # type: ignore[arg-type]
    denied = document(node, "db", "web")
    assert denied["notes"][-1].startswith("ingress: x/web is isolated for ingress"), denied
    assert denied["notes"][-1].endswith("(x/closed)")
    assert document(node, "web", "db")["notes"][-1] == "ingress: x/deny ingress[0] allows it"
