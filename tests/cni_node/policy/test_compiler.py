"""The compiled tables against the evaluator, on clusters by chance; and what their size depends on."""

import subprocess
import sys
from pathlib import Path

import pytest

from cni_node.policy.compiler import Compiler
from cni_node.policy.desired import Desired
from cni_node.policy.evaluator import Evaluator
from cni_node.policy.model import Cluster, Pod
from tests.cni_node.policy.interpreter import is_let_through
from tests.cni_node.policy.texts import cluster, ips, namespaces, pod, policy, selector
from tests.cni_node.policy.worlds import OUTSIDE, Chance

ROOT = Path(__file__).resolve().parents[3]
NODES = {"node1": ips("10.0.0.1"), "node2": ips("10.0.0.2", "fd00::2")}


def some_pods(chance: Chance) -> list[Pod]:
    found = []
    for i, ns in enumerate("xyz", 1):
        for j, name in enumerate("abc", 1):
            addresses = [f"10.0.{i}.{j}", f"fd00::{i}:{j}"][: chance.one_of([1, 2, 2])]
            labels = {"pod": name, **({"role": "client"} if chance.often(0.5) else {})}
            ports = [
                each for each in ("TCP/http/80", "TCP/http/81", "UDP/http/80", "TCP/alt/8080") if chance.often(0.5)
            ]
            status = {"phase": "Failed"} if chance.often(0.1) else {}
            node = chance.one_of(["node1", "node2"])
            more = {"metadata": {"labels": labels}, "status": status, "node": node, "ports": ports}
            found.append(pod(f"{ns}/{name}", *addresses, **more))
    if chance.often(0.3):
        found.append(pod("x/again", "10.0.1.1", node=found[0].node, metadata={"creationTimestamp": "2026"}))
    return [*found, pod("y/host", "10.0.0.2", node="node2", spec={"hostNetwork": True})]


@pytest.mark.parametrize("seed", range(60))
def test_tables_and_evaluator_agree_on_clusters_by_chance(seed: int) -> None:
    chance = Chance(seed)
    state = chance.cluster(some_pods(chance), NODES, policies=chance.one_of([1, 3, 6]))
    evaluator = Evaluator(state)
    tables = {node: Compiler(node).compile(state) for node in NODES}
    ends = [*OUTSIDE, *(ip for each in state.pods for ip in each.addresses)]
    for _ in range(150):
        asked = chance.connection(ends)
        forwarding = [
            table for node, table in tables.items() if not {asked.source, asked.destination} & set(NODES[node])
        ]
        if len(forwarding) < len(tables) and {asked.source, asked.destination} <= set(NODES["node2"]):
            continue  # the node with itself
        assert all(is_let_through(table, asked) for table in forwarding) == evaluator.allowed(asked).allowed, asked


def test_what_a_compiler_keeps_is_never_out_of_date() -> None:
    """Policies, pods and namespaces change in turn; one that has seen all of it says what a new one says."""
    chance = Chance(7)
    state = chance.cluster(some_pods(chance), NODES, policies=6)
    compiler = Compiler("node1")
    for step in range(120):
        change = step % 4
        if change == 0:
            state = state._replace(policies=(*state.policies[1:], chance.policy(f"p{step}")))
        elif change == 1:
            state = state._replace(pods=tuple(some_pods(chance)))
        elif change == 2:
            state = state._replace(
                namespaces={**state.namespaces, **namespaces("x", x=chance.one_of(["", "tier=back"]))}
            )
        else:
            state = state._replace(pods=(*state.pods[:3], *some_pods(chance)[3:]))
        assert compiler.compile(state) == Compiler("node1").compile(state), step


def test_one_changed_policy_of_many_leaves_the_rest_as_it_was() -> None:
    pods = [pod(f"x/{name}", f"10.0.1.{i}", metadata={"labels": {"pod": name}}) for i, name in enumerate("abcdef")]
    policies = [
        policy("x", name, podSelector=selector(f"pod={name}"), ingress=[{"from": [{"podSelector": selector("pod=b")}]}])
        for name in "abcdef"
    ]
    state = Cluster(tuple(policies), tuple(pods), namespaces("x"), NODES)
    compiler = Compiler("node1")
    first = compiler.compile(state)
    second = compiler.compile(state._replace(policies=(policy("x", "a", podSelector=selector("pod=a")), *policies[1:])))
    shared = [name for name in second.sets if name.startswith(("s4_", "s6_"))]
    assert len(shared) == 2  # of the one selector that all policies have
    assert all(second.sets[name] is first.sets[name] for name in shared)
    assert all(second.chains[name] is first.chains[name] for name in second.chains.keys() & first.chains.keys())
    assert len(second.chains.keys() - first.chains.keys()) == 1


def test_the_questions_by_chance_are_answered_in_both_ways() -> None:
    answers = []
    for seed in range(20):
        chance = Chance(seed)
        state = chance.cluster(some_pods(chance), NODES, policies=6)
        evaluator = Evaluator(state)
        ends = [ip for each in state.pods for ip in each.addresses]
        answers += [evaluator.allowed(chance.connection(ends)).allowed for _ in range(50)]
    assert 0.2 < sum(answers) / len(answers) < 0.8


def chains_of(table: Desired, direction: str = "ingress") -> dict[str, str]:
    return {".".join(map(str, key)): str(name) for key, name in table.sets[f"{direction}4"].elements.items()}


def test_pods_of_the_same_policies_share_a_chain_and_rules_of_the_same_peers_a_set() -> None:
    peers = [{"from": [{"namespaceSelector": selector("ns=y")}]}]
    policies = [policy("x", "p", ingress=peers), policy("z", "q", ingress=peers)]
    table = Compiler("node1").compile(cluster(policies))
    assert set(chains_of(table)) == {f"10.0.{i}.{j}" for i in (1, 3) for j in (1, 2, 3)}
    assert len(table.chains) == 2  # of IPv4, of IPv6
    assert len([name for name in table.sets if name.startswith("s4_")]) == 1
    assert len(Compiler("node1", log=True).compile(cluster(policies)).chains) == 4


@pytest.mark.parametrize(
    ("ports", "sets"),
    [([{"port": 80}], 0), ([{"port": 80, "endPort": 90}, {"port": 91}], 0), ([{"port": 80}, {"port": 82}], 1)],
    ids=["one", "one range", "two"],
)
def test_one_range_of_ports_is_compared_in_the_rule_itself(ports: list[dict[str, int]], sets: int) -> None:
    table = Compiler("node1").compile(cluster([policy("x", "p", ingress=[{"ports": ports}])]))
    assert len([name for name in table.sets if name.startswith("p_")]) == sets
    assert all((allow.port is None) == bool(sets) for chain in table.chains.values() for allow in chain.allows)


@pytest.mark.slow
def test_ten_thousand_peers_are_one_rule_of_each_family() -> None:
    peers = [{"ipBlock": {"cidr": f"10.{i // 256}.{i % 256}.0/25"}} for i in range(10_000)]
    peers += [{"podSelector": selector(f"n=v{i}")} for i in range(10_000)]
    table = Compiler("node1").compile(cluster([policy("x", "p", ingress=[{"from": peers}])]))
    chains = {str(name): table.chains[str(name)] for name in table.sets["ingress4"].elements.values()}
    assert [len(chain.allows) for chain in chains.values()] == [2]  # addresses of pods, and networks
    assert len(table.chains) == 2
    assert sum(len(each.elements) for name, each in table.sets.items() if name.startswith("b4_")) == 10_000


def test_names_are_the_same_in_every_process_whatever_the_order() -> None:
    code = (
        "from tests.cni_node.policy.test_compiler import some_table\n"
        "print(sorted([*some_table(False).chains, *some_table(False).sets]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{sorted([*some_table(True).chains, *some_table(True).sets])}\n"}


def some_table(backwards: bool) -> Desired:
    chance = Chance(7)
    state = chance.cluster(some_pods(chance), NODES, policies=9)
    return Compiler("node1").compile(state._replace(policies=state.policies[:: -1 if backwards else 1]))


def test_pods_of_which_nothing_is_known_let_nothing_through() -> None:
    state = Cluster((), (pod("x/a", "10.0.1.1"),), namespaces("x"), {})
    table = Compiler("node1").compile(state, pending=ips("10.0.1.1", "10.0.1.2", "fd00::9"))
    assert chains_of(table) == chains_of(table, "egress") == {"10.0.1.2": "pending"}
    assert table.sets["self6"].elements == {(ips("fd00::9")[0].packed * 2): b""}
