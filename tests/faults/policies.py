"""Faults of the agent while policies change: killed at every request to the kernel, its table damaged under it.

What must never come to pass is that a connection is open which both the old policies and the new ones deny; and what a
new agent makes of what it finds must be what the policies say, to the last element.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from cni_kernel.nft_tables import TableSocket
from cni_node.agent.watch import POLICIES, View, Watcher
from cni_node.host.peer_routes import Wanted
from cni_node.policy.change import Change, Difference
from cni_node.policy.compiler import Compiler
from cni_node.policy.desired import Desired
from cni_node.policy.model import Cluster
from cni_node.policy.rules import TABLE, TYPES, Ruleset
from cni_node.policy.table import PolicyTable
from tests.cni_node.policy.cases import DENY_IN, block, let_in, spaces
from tests.cni_node.policy.kernel import A4, B4, PODS, passes, state_of
from tests.cni_node.policy.live import running
from tests.faults.handovers import BOUND, HANDOVERS, Struck, hand_over, is_in_force, open_api, streaming
from tests.kit.host import wait_until
from tests.kit.pod_network import PodNetwork, open_network

ROOT = Path(__file__).resolve().parents[2]
CALLS = "sendto,sendmsg"  # by which everything in the kernel is changed
# One turn of an agent: what stands is read, the table is changed, and connections are looked at.
AGENT = """
import sys
from cni_kernel.flows import Flows
from cni_node.policy.compiler import Compiler
from cni_node.policy.evaluator import Evaluator
from cni_node.policy.recheck import recheck
from cni_node.policy.table import PolicyTable
from tests.faults.policies import states
state = states()[int(sys.argv[1])]
PolicyTable().ensure(Compiler("node1").compile(state))
recheck(Flows(), Evaluator(state))
"""
# What others may do to the table, and with it to what protects.
DAMAGES = {
    "ruleset flushed": "flush ruleset",
    "table deleted": "delete table inet pycni_policy",
    "base chain without rules": "flush chain inet pycni_policy forward",
    "nobody isolated": "flush map inet pycni_policy ingress4",
    "a rule in front": "insert rule inet pycni_policy forward accept",
}


def states() -> list[Cluster]:
    """Two clusters that differ in everything; in both, x/b does not reach x/a."""
    return [state_of(let_in(block("10.9.0.0/16")), DENY_IN), state_of(let_in(spaces("ns=y"), ports=[{"port": 9}]))]


class Site:
    """Pods of a node, and both tables that it may have."""

    def __init__(self, network: PodNetwork) -> None:
        self.network = network
        self.wanted = [Compiler("node1").compile(state) for state in states()]

    def put(self, index: int) -> None:
        """Have the table of one of the two states."""
        with self.network.host.entered():
            table = PolicyTable()
        table.ensure(self.wanted[index])
        table.close()

    def stands(self, desired: Desired) -> bool:
        """Whether the table is this, to the last element."""
        with self.network.host.entered():
            socket = TableSocket(TABLE)
        found = socket.read(TYPES)
        socket.close()
        return found is not None and Difference(Ruleset(desired, {}), found, desired.judged).change == Change()

    def turn(self, index: int, *strace: str) -> int:
        """Run one turn of an agent, under strace with options. Returns its status, negative for a signal."""
        command = ("strace", "-f", "-qq", "-e", f"trace={CALLS}", *strace, sys.executable, "-c", AGENT, str(index))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        return self.network.host.run(*command, env=environment, check=False, timeout=BOUND).returncode


def count_requests(site: Site, directory: Path) -> int:
    """How many requests a turn makes that changes everything."""
    site.put(0)
    log = directory / "requests"
    assert site.turn(1, "-o", str(log)) == 0
    return sum("send" in line for line in log.read_text().splitlines())


def kill_at(site: Site, number: int) -> Struck:
    """Kill an agent at its `number`th request, while packets flow; then another one begins."""
    name = f"killed at request {number}"
    site.put(0)
    with streaming(site.network) as streams:
        status = site.turn(1, "-o", "/dev/null", "-e", f"inject={CALLS}:signal=KILL:when={number}")
        problem = streams.problem()  # both states deny the one stream, and let the other one through
    if status == 0:
        return Struck(name, "it was not struck")
    if problem:
        return Struck(name, problem)
    if not any(map(site.stands, site.wanted)):
        return Struck(name, "the table is neither the old one nor the new one")
    site.put(1)
    return Struck(name, "" if site.stands(site.wanted[1]) else "the next agent does not make it right")


@contextmanager
def watched(network: PodNetwork, directory: Path) -> Iterator[Callable[[], bool]]:
    """An agent's loop of policies, told of what others do to the table; yields whether x/b is kept from x/a."""
    with open_api() as api, running(network.host, api.url, directory) as enforcer:
        view = View(frozenset({enforcer.port}), frozenset(), Wanted)
        with network.host.entered():
            watcher = Watcher(view, lambda found: enforcer.disturb() if found.stage == POLICIES else None)
        Thread(target=watcher.run, daemon=True).start()
        assert is_in_force(enforcer)
        yield lambda: not passes(network, B4, A4)


def damage(network: PodNetwork, is_closed: Callable[[], bool], name: str) -> Struck:
    """Damage the table; the agent that lives mends it."""
    network.host.run("nft", DAMAGES[name])
    begun = time.monotonic()
    mended = wait_until(is_closed, BOUND)
    return Struck(name, "" if mended else "x/b reaches x/a for good", time.monotonic() - begun)


def strike_all(directory: Path, tell: Callable[[Struck], None], step: int = 1) -> list[Struck]:
    """Every fault, or of the kills each `step`th. `directory` is for what they need."""
    found = []
    with open_network(PODS, (80,)) as network:
        site = Site(network)
        for number in range(1, count_requests(site, directory) + 1, step):
            found.append(kill_at(site, number))
            tell(found[-1])
        network.host.run("nft", "flush", "ruleset")
        with watched(network, directory) as is_closed:
            for name in DAMAGES:
                found.append(damage(network, is_closed, name))
                tell(found[-1])
        for name in HANDOVERS:
            found.append(hand_over(network, directory, name))
            tell(found[-1])
    return found
