"""How fast it is, for scripts/cluster, which names this file: throughput across nodes, and VERSION from the bundle.

Everything is compared with something else that is measured in turns with it, window by window, so that what else the
machine does meets both. The number of windows is fixed. PASS and FAIL are about the medians. A throughput's FAIL counts
for the exit status when it cannot be chance: when so few rounds reach the target that a sign test, at 1 %, rules out
that half of them would.

Throughput is TCP in one connection, client and server a process each. On one link pods are compared with two things:
- the same stack by hand: on the same two nodes another bridge, a namespace behind it, and a route to the other's. That
  is what plain routing costs.
- the nodes themselves. No wire is the narrow part here, only the processor; and a packet from pod to pod passes two
  network namespaces, two bridges and two veth pairs more than one from node to node, whoever has set them up. So this
  ratio says more about the kernel than about pycni, and does not count for the exit status.
"""

import random
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fabric import Machine, run_in
from tests.cluster.probe import BOUND
from tests.cluster.sources import Overlay
from tests.cluster.worlds import PORT, Parts, World, open_world, place_behind_router
from tests.kit.node import entered

pytestmark = pytest.mark.kernel

WINDOW = 0.4  # seconds
WINDOWS = 24  # of each kind
FEWEST = 6  # rounds: with less of 24, chance is ruled out at 1 % (binomial: five or less come once in 300 times)
PLAIN = 0.95  # the least that is accepted
VXLAN = 0.6
CALLS = 60  # of each kind
BUNDLE = 1.2  # the most
Item = TypeVar("Item")
Note = Callable[[str, object], None]  # record_property
_SEND = """
import socket, sys, time
with socket.socket(fileno=int(sys.argv[1])) as connection:
    block, end = bytes(1 << 18), time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        connection.sendall(block)
"""
_RECEIVE = """
import socket, sys, time
with socket.socket(fileno=int(sys.argv[1])) as connection:
    buffer, received, begin = bytearray(1 << 18), 0, time.monotonic()
    while count := connection.recv_into(buffer):
        received += count
    print(received / (time.monotonic() - begin))
"""
# Calls the executable that it is given for every line that it reads, and prints the seconds that each call took.
_CALLER = """
import os, sys, time
silence = os.open("/dev/null", os.O_RDWR)
actions = [(os.POSIX_SPAWN_DUP2, silence, 0), (os.POSIX_SPAWN_DUP2, silence, 1)]
for _ in sys.stdin:
    begin = time.perf_counter()
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], {"CNI_COMMAND": "VERSION"}, file_actions=actions)
    _, status = os.waitpid(child, 0)
    assert status == 0
    print(time.perf_counter() - begin, flush=True)
"""


@pytest.fixture(scope="module")
def routed(parts: Parts) -> Iterator[World]:
    """Two nodes with a router between, and a pod on each."""
    with open_world(parts, [place_behind_router(number) for number in (1, 2)], overlay=Overlay(4)) as made:
        for number in (1, 2):
            made.cluster.run_pod(f"node{number}", f"pod{number}a")
        yield made


def test_pods_on_one_link(world: World, record_property: Note) -> None:
    by_hand = [connect_by_hand(world, number) for number in (1, 2)]
    pairs = {"pods": machines(world, "pod"), "by hand": by_hand, "nodes": machines(world, "node")}
    rates = measure_throughput(pairs)
    passed = note_throughput("one link", "by hand", rates, PLAIN, record_property)
    note_throughput("one link", "nodes", rates, PLAIN, record_property, counts=False)
    assert passed


def test_pods_over_vxlan(routed: World, record_property: Note) -> None:
    pairs = {"pods": machines(routed, "pod"), "nodes": machines(routed, "node")}
    assert note_throughput("vxlan", "nodes", measure_throughput(pairs), VXLAN, record_property)


@pytest.mark.parametrize("plugin", ["cni-bridge", "cni-ipam"])
def test_version_from_the_bundle(world: World, bin_dir: str, plugin: str, record_property: Note) -> None:
    with ExitStack() as stack:
        node = stack.enter_context(start_caller(world.cluster, f"/opt/cni/bin/{plugin}"))
        host = stack.enter_context(start_process([sys.executable, "-ISc", _CALLER, f"{bin_dir}/{plugin}"]))
        seconds: dict[str, list[float]] = {"node": [], "host": []}
        for _ in range(CALLS + 1):
            for kind, caller in shuffled({"node": node, "host": host}):
                seconds[kind].append(call_once(caller))
        for caller in (node, host):
            assert caller.stdin is not None
            caller.stdin.close()
    ours, installed = (1000 * statistics.median(found[1:]) for found in (seconds["node"], seconds["host"]))
    passed = ours / installed <= BUNDLE
    text = f"{ours / installed:.2f} ({ours:.1f} / {installed:.1f} ms, medians of {CALLS} calls); target <= {BUNDLE}"
    record_property("measured", [f"VERSION of {plugin}, bundle on a node / installed on the host", text, passed])
    assert passed


def machines(world: World, kind: str) -> list[Machine]:
    """A node or a pod on either side."""
    return [world.machine(f"{kind}{number}{'a' if kind == 'pod' else ''}") for number in (1, 2)]


def connect_by_hand(world: World, number: int) -> Machine:
    """What a node with one container is without pycni."""
    name, node, other = f"hand{number}", world.machine(f"node{number}").netns, 3 - number
    world.fabric.host.add_container(name)
    netns = world.fabric.netns_of(name)
    for arguments in (
        ["link", "add", "hand0", "type", "bridge"],
        ["link", "add", "hand1", "master", "hand0", "type", "veth", "peer", "name", "eth0", "netns", netns],
        ["address", "add", f"10.250.{number}.1/24", "dev", "hand0"],
        ["link", "set", "hand0", "up"],
        ["link", "set", "hand1", "up"],
        ["route", "add", f"10.250.{other}.0/24", "via", world.machine(f"node{other}").address(4)],
    ):
        run_in(node, "ip", *arguments)
    run_in(netns, "ip", "address", "add", f"10.250.{number}.2/24", "dev", "eth0")
    run_in(netns, "ip", "link", "set", "eth0", "up")
    run_in(netns, "ip", "route", "add", "default", "via", f"10.250.{number}.1")
    return Machine(name, netns, (f"10.250.{number}.2",))


def shuffled(kinds: Mapping[str, Item]) -> list[tuple[str, Item]]:
    """One turn of each, in an order of its own: nobody always comes after the same other."""
    return random.sample(list(kinds.items()), len(kinds))


def measure_throughput(pairs: Mapping[str, Sequence[Machine]]) -> dict[str, list[float]]:
    """The windows of each kind, in bytes per second, round by round."""
    rates: dict[str, list[float]] = {kind: [] for kind in pairs}
    for _ in range(WINDOWS):
        for kind, (client, server) in shuffled(pairs):
            rates[kind].append(transfer(client, server))
    return rates


def note_throughput(
    what: str, beside: str, rates: Mapping[str, Sequence[float]], least: float, note: Note, *, counts: bool = True
) -> bool:
    """Compare pods with something else. Returns False when they do not have enough of it, beyond chance."""
    pods, other = (statistics.median(rates[kind]) for kind in ("pods", beside))
    rounds = sum(one >= least * two for one, two in zip(rates["pods"], rates[beside], strict=True))
    text = f"{pods / other:.2f} ({pods / 1e6:.0f} / {other / 1e6:.0f} MB/s, medians of {WINDOWS} windows of {WINDOW} s)"
    text += f"; target >= {least}, reached in {rounds} rounds of {WINDOWS}"
    text += "" if counts else "; does not count: the way is longer, by hand too"
    names = {"by hand": "the same stack by hand", "nodes": "node to node"}
    note("measured", [f"throughput, {what}: pod to pod across nodes / {names[beside]}", text, pods / other >= least])
    return rounds >= FEWEST


def transfer(client: Machine, server: Machine) -> float:
    """Send for one window. Returns bytes per second, as received."""
    with entered(server.netns):
        listener = socket.create_server(("", PORT))
    with listener:
        with entered(client.netns):
            sender = socket.create_connection((server.address(4), PORT), timeout=BOUND)
        receiver, _ = listener.accept()
    with sender, receiver:
        sender.setblocking(True)
        into = start(_RECEIVE, receiver)
        out_of = start(_SEND, sender, str(WINDOW))
    received, _ = into.communicate(timeout=WINDOW + 30)
    assert out_of.wait(timeout=BOUND) == 0
    return float(received)


def start(program: str, connection: socket.socket, *arguments: str) -> "subprocess.Popen[str]":
    """A process that goes on with a connection of this one."""
    command = [sys.executable, "-ISc", program, str(connection.fileno()), *arguments]
    return subprocess.Popen(command, pass_fds=[connection.fileno()], stdout=subprocess.PIPE, text=True)


def start_caller(cluster: Cluster, executable: str) -> "subprocess.Popen[str]":
    """A caller on the first node, which has no Python but the bundle's."""
    node = cluster.nodes["node1"]
    (python,) = node.path("/opt/cni/lib/pycni").glob("*/bin/python3")
    return start_process(node.argv(f"/opt/cni/lib/pycni/{python.parts[-3]}/bin/python3", "-ISc", _CALLER, executable))


def start_process(command: Sequence[str]) -> "subprocess.Popen[str]":
    """A process to talk to, line by line."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def call_once(caller: "subprocess.Popen[str]") -> float:
    """The seconds of one call."""
    assert caller.stdin is not None
    assert caller.stdout is not None
    caller.stdin.write("\n")
    caller.stdin.flush()
    return float(caller.stdout.readline())
