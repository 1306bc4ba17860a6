"""What policies allow: the cases, by the evaluator and by what the compiler makes of them."""

import pytest

from cni_node.policy.compiler import Compiler
from cni_node.policy.evaluator import Connection, Evaluator, allowed
from cni_node.policy.model import Cluster
from tests.cni_node.policy.cases import CASES, DENY_ALL, Case, let_in, pods, port, spaces
from tests.cni_node.policy.interpreter import is_let_through
from tests.cni_node.policy.texts import address_of, cluster, pod


def questions(case: Case) -> list[tuple[str, Connection, bool]]:
    """The lines of a case."""
    found = []
    for line in case.expected.split("; "):
        text, _, answer = line.rpartition(": ")
        source, _, destination, *more = text.split()
        version = 6 if more[-1:] == ["6"] or ":" in source + destination else 4
        protocol, number = more[:2] if len(more) >= 2 else ("TCP", "80")
        ends = address_of(case.state, source, version), address_of(case.state, destination, version)
        found.append((line, Connection(*ends, protocol, int(number)), {"yes": True, "no": False}[answer]))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_evaluator(case: Case) -> None:
    evaluator = Evaluator(case.state)
    assert {line: evaluator.allowed(asked).allowed for line, asked, _ in questions(case)} == {
        line: answer for line, _, answer in questions(case)
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tables_of_all_nodes_together(case: Case) -> None:
    """A node's own traffic never meets its table."""
    tables = {node: Compiler(node).compile(case.state) for node in case.state.nodes}
    for line, asked, answer in questions(case):
        forwarding = [node for node in tables if not is_of_node(case.state, node, asked)]
        assert all(is_let_through(tables[node], asked) for node in forwarding) == answer, line


def is_of_node(state: Cluster, node: str, asked: Connection) -> bool:
    return bool({asked.source, asked.destination} & set(state.nodes[node]))


def test_a_verdict_names_the_policy_and_the_rule() -> None:
    state = cluster([let_in(pods("pod=c"), spaces("ns=y"), ports=[port(81)]), DENY_ALL])
    asked = Connection(address_of(state, "y/b"), address_of(state, "x/a"), "TCP", 81)
    verdict = allowed(state, asked)
    assert (verdict.allowed, verdict.decisive.policy, verdict.decisive.rule) == (True, "x/in", "ingress[0]")
    denied = allowed(state, asked._replace(port=80)).decisive
    assert (denied.allowed, denied.policy, denied.rule) == (False, "x/deny, x/in", "")
    assert denied.reason == "x/a is isolated for ingress, and no rule allows it"
    neither = allowed(state, Connection(address_of(state, "8.8.8.8"), address_of(state, "1.1.1.1"), "TCP", 80))
    assert (neither.allowed, neither.decisive.reason) == (True, "neither end is a pod")
    free = allowed(state, Connection(address_of(state, "y/b"), address_of(state, "z/a"), "TCP", 80))
    assert free.decisive.reason == "no policy isolates y/b for egress"


def test_a_node_judges_its_own_pods_alone() -> None:
    state = cluster([DENY_ALL])
    asked = Connection(address_of(state, "y/b"), address_of(state, "x/a"), "TCP", 80)
    assert not Evaluator(state, "node1").allowed(asked).allowed
    assert Evaluator(state, "node2").allowed(asked).allowed


def test_of_two_pods_of_one_address_the_one_that_stays_counts() -> None:
    old = pod("x/old", "10.0.1.9", metadata={"creationTimestamp": "2026-01-02", "deletionTimestamp": "2026-01-03"})
    new = pod("y/new", "10.0.1.9", metadata={"creationTimestamp": "2026-01-01"})
    later = pod("z/later", "10.0.1.9", metadata={"creationTimestamp": "2026-01-04"})
    asked = Connection(address_of(cluster([]), "x/a"), old.addresses[0], "TCP", 80)
    deny = DENY_ALL._replace(egress=None)
    assert not allowed(cluster([deny], old), asked).allowed
    assert allowed(cluster([deny], old, new), asked).allowed
    assert allowed(cluster([deny], new, old), asked).allowed
    assert not allowed(cluster([deny._replace(namespace="z")], later, new), asked).allowed


def test_a_pod_has_its_address_at_its_own_node_also_where_another_node_has_the_address_too() -> None:
    own = pod("x/own", "10.0.1.9", metadata={"creationTimestamp": "2026-01-01", "deletionTimestamp": "2026-01-03"})
    other = pod("y/other", "10.0.1.9", node="node2", metadata={"creationTimestamp": "2026-01-02"})
    state = cluster([DENY_ALL], own, other)
    asked = Connection(address_of(state, "y/b"), own.addresses[0], "TCP", 80)
    for node, answer in (("node1", False), ("node2", True)):
        assert Evaluator(state, node).allowed(asked).allowed == answer
        assert is_let_through(Compiler(node).compile(state), asked) == answer
