"""What happens over time: changes, pods that come and go, agents that die, an API that is away. By numbers of cases."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cni_kernel.nft_tables import TableSocket
from cni_node.policy.announced import GONE, IN_FORCE, PENDING, Announced
from cni_node.policy.change import Change, Difference
from cni_node.policy.compiler import Compiler
from cni_node.policy.desired import Desired
from cni_node.policy.enforcer import GATHER, Enforcer
from cni_node.policy.model import Cluster
from cni_node.policy.rules import TABLE, TYPES, Ruleset
from cni_node.policy.table import PolicyTable
from cni_protocol.address import parse_ip
from tests.cni_node.policy.cases import DENY_IN, block, let_in, spaces
from tests.cni_node.policy.kernel import A4, B4, PODS, passes, state_of
from tests.cni_node.policy.live import DENY, pod_item, put_policy, running
from tests.cni_node.policy.texts import pod
from tests.conftest import ROOT
from tests.kit.api_server import ApiServer
from tests.kit.host import wait_until
from tests.kit.pod_network import PodNetwork

pytestmark = pytest.mark.kernel

YA4 = parse_ip("10.0.2.1")
BOUND = 30.0  # seconds; far less is usual


def from_spaces(**labels: str) -> dict[str, Any]:
    return {**DENY, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": labels}}]}]}


def become(network: PodNetwork, expected: bool) -> bool:
    """Whether it comes to pass that y/a reaches x/a, or not."""
    return wait_until(lambda: passes(network, YA4, A4) == expected, BOUND)


def test_labels_of_namespaces_peers_and_targets_count_as_they_are_now(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    """78, 79, 80, 83."""
    put_policy(api, "x", "p", from_spaces(tier="front"))
    assert become(network, False)
    api.put({"metadata": {"name": "y", "labels": {"tier": "front"}}}, "namespaces")
    assert become(network, True)
    peers = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "client"}}}]
    put_policy(api, "x", "p", {**DENY, "ingress": [{"from": peers}]})
    assert become(network, False)
    api.put(pod_item("y-a", *PODS["y-a"], labels={"role": "client"}), "pods")
    assert become(network, True)
    put_policy(api, "x", "p", {**DENY, "podSelector": {"matchLabels": {"target": "yes"}}})
    assert wait_until(lambda: enforcer.state.isolated == 0, BOUND)
    api.put(pod_item("x-a", *PODS["x-a"], labels={"target": "yes"}), "pods")
    assert become(network, False)


def test_an_address_that_is_given_again_has_nothing_of_the_pod_before(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    """86. The API tells of the old pod all the while, as it does of one that ends."""
    put_policy(api, "x", "deny", DENY)
    put_policy(api, "y", "p", {**DENY, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}]}]})
    assert wait_until(lambda: enforcer.state.isolated == 12, BOUND)
    assert not passes(network, B4, A4) and passes(network, A4, YA4)
    assert enforcer.admit(Announced("x", "a", "", (A4,), gone=True), BOUND) == GONE
    listed = network.host.run("nft", "list", "table", "inet", "pycni_policy").stdout
    assert "10.0.1.2 : jump" in listed
    assert "10.0.1.1," not in listed and "10.0.1.1 " not in listed
    assert not passes(network, A4, YA4)  # as nobody's it is no peer either
    api.put(pod_item("z-new"), "pods")
    assert wait_until(lambda: enforcer.admit(Announced("z", "new", "", (A4,)), BOUND) == IN_FORCE, BOUND)
    assert passes(network, B4, A4)
    assert not passes(network, A4, YA4)


KILLED = """
import sys
from cni_node.policy.compiler import Compiler
from cni_node.policy.rules import TABLE, TYPES, Ruleset
from cni_node.policy.table import PolicyTable
from tests.cni_node.policy.test_time import states
table = PolicyTable()
wanted = [Compiler("node1").compile(state) for state in states()]
print("begun", flush=True)
while True:
    for each in wanted:
        table.ensure(each)
"""


def many() -> tuple[Any, ...]:
    """Pods elsewhere, so many that the kernel is busy for a while."""
    return tuple(pod(f"y/p{i}", f"10.9.{i // 250}.{i % 250}", node="node2") for i in range(3000))


def states() -> list[Cluster]:
    """Two that differ in everything; y/a reaches x/a in neither."""
    first = state_of(let_in(block("10.9.0.0/16")), DENY_IN)
    second = state_of(let_in(spaces("ns=y"), ports=[{"port": 9}]))
    return [first, second._replace(pods=(*second.pods, *many()))]


def test_an_agent_that_is_killed_in_the_middle_of_a_change_leaves_the_old_rules_or_the_new(
    network: PodNetwork, table: PolicyTable
) -> None:
    """87."""
    [first, second] = [Compiler("node1").compile(state) for state in states()]
    table.ensure(first)
    chance = random.Random(87)
    for _ in range(5):
        child = network.host.start(
            sys.executable, "-c", KILLED, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0.0, 0.2))  # where in its work it is
        child.kill()
        child.wait(BOUND)
        child.stdout.close()
        with network.host.entered():
            assert stands(first) or stands(second)
        assert not passes(network, YA4, A4)


def stands(desired: Desired) -> bool:
    """Whether the table is this, to the last element."""
    socket = TableSocket(TABLE)
    found = socket.read(TYPES)
    socket.close()
    return found is not None and Difference(Ruleset(desired, {}), found, desired.judged).change == Change()


def test_an_agent_that_begins_takes_nothing_away_before_it_knows_everything(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork, tmp_path: Path
) -> None:
    """88. Meanwhile one policy is replaced by another, and both deny."""
    put_policy(api, "x", "old", DENY)
    assert wait_until(lambda: enforcer.state.isolated == 6, BOUND)
    enforcer.close()
    api.delete("old", "networkpolicies", "x")
    put_policy(api, "x", "new", from_spaces(ns="z"))
    api.deaf_until.clear()
    with running(network.host, api.url, tmp_path) as later:
        assert wait_until(lambda: len(api.asked) > 0, BOUND)
        assert not passes(network, YA4, A4)
        assert not later.state.ready
        api.deaf_until.set()
        opened = []
        while not later.state.ready:
            opened.append(passes(network, YA4, A4))
        assert not any(opened)
        assert wait_until(lambda: passes(network, parse_ip("10.0.3.1"), A4), BOUND)
        assert not passes(network, YA4, A4)


def test_a_pod_whose_address_the_api_does_not_have_yet_stays_closed_when_an_agent_begins(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork, tmp_path: Path
) -> None:
    """88. Only the agent before was told of the address, at ADD."""
    api.put(pod_item("x-a"), "pods")
    put_policy(api, "x", "deny", from_spaces(ns="z"))
    assert wait_until(lambda: enforcer.state.isolated == 4, BOUND)
    assert enforcer.admit(Announced("x", "a", "", (A4,)), BOUND) == IN_FORCE
    enforcer.close()
    with running(network.host, api.url, tmp_path) as later:
        assert wait_until(lambda: later.state.ready, BOUND)
        assert not passes(network, YA4, A4)
        api.put(pod_item("x-a", *PODS["x-a"]), "pods")
        assert wait_until(lambda: passes(network, parse_ip("10.0.3.1"), A4), BOUND)
        assert not passes(network, YA4, A4)


def test_while_the_api_is_away_all_stays_and_pods_start_by_what_is_known(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    """89."""
    api.put(pod_item("x-a"), "pods")  # scheduled, and without an address yet
    put_policy(api, "x", "deny", DENY)
    assert wait_until(lambda: enforcer.state.isolated == 4, BOUND)
    api.deaf_until.clear()
    api.cut()
    assert enforcer.admit(Announced("x", "a", "", (A4,)), BOUND) == IN_FORCE
    assert not passes(network, YA4, A4) and passes(network, A4, YA4)
    unknown = parse_ip("10.0.3.3")
    assert enforcer.admit(Announced("x", "unknown", "", (unknown,)), 0.2) == PENDING
    assert not passes(network, unknown, YA4)
    api.deaf_until.set()


def test_a_thousand_pods_at_once_are_few_transactions(api: ApiServer, enforcer: Enforcer, network: PodNetwork) -> None:
    """92."""
    put_policy(api, "x", "p", from_spaces(ns="y"))
    assert wait_until(lambda: enforcer.state.isolated == 6, BOUND)
    assert wait_until(lambda: any(watch.scope.namespace == "y" for watch in api.watches), BOUND)
    before, begun = enforcer.state.changes, time.monotonic()
    for number in range(1000):
        item = pod_item(f"y-p{number}", f"10.9.{number // 250}.{number % 250}")
        api.put({**item, "spec": {"nodeName": "node2"}}, "pods")
    assert wait_until(lambda: "10.9.3.249" in elements(network), BOUND)
    assert elements(network).count("10.9.") == 1000
    changes = enforcer.state.changes - before
    assert changes <= (time.monotonic() - begun) / GATHER + 1
    assert changes < 500


def elements(network: PodNetwork) -> str:
    return network.host.run("nft", "list", "table", "inet", "pycni_policy").stdout


def test_the_table_of_kube_proxy_may_come_and_go(api: ApiServer, enforcer: Enforcer, network: PodNetwork) -> None:
    """93."""
    put_policy(api, "x", "deny", DENY)
    assert wait_until(lambda: enforcer.state.isolated == 6, BOUND)
    before = enforcer.state.changes
    chain = "ip kube-proxy services"
    for _ in range(5):
        network.host.run("nft", f"add table ip kube-proxy; add chain {chain}; add rule {chain} accept")
        assert not passes(network, YA4, A4)
        network.host.run("nft", "delete table ip kube-proxy")
    assert enforcer.state.changes == before
