"""How much goes from pod to pod across nodes. For scripts/cluster, which names this file.

On one link the measure is the same by hand: a bridge, a namespace behind it and a route on each of the same two nodes.
That packets cross two bridges more than from node to node costs processor time here, where no wire is the narrow part.
Two processes hold the ends of a connection, as two machines would; windows of both kinds alternate, so what else the
machine does meets both, and each is compared with its neighbour.
"""

import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from tests.cluster.fabric import Machine, run_in
from tests.cluster.installation import Overlay
from tests.cluster.probe import BOUND
from tests.cluster.worlds import PORT, Parts, World, open_world, place_behind_router
from tests.runtimes.node import entered

pytestmark = pytest.mark.kernel

WINDOW = 0.4  # seconds
WINDOWS = 15  # of each kind
PLAIN = 0.95  # the least that is accepted, of what goes by hand
VXLAN = 0.6  # the least, of what goes from node to node
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


@pytest.fixture(scope="module")
def routed(parts: Parts) -> Iterator[World]:
    """Two nodes with a router between, and a pod on each."""
    with open_world(parts, [place_behind_router(number) for number in (1, 2)], Overlay(4)) as made:
        for number in (1, 2):
            made.cluster.run_pod(f"node{number}", f"pod{number}a")
        yield made


def test_pods_on_one_link(world: World, record_property: Note) -> None:
    by_hand = [connect_by_hand(world, number) for number in (1, 2)]
    pairs = {"nodes": machines(world, "node"), "by hand": by_hand, "pods": machines(world, "pod")}
    compare("on one link", pairs, "by hand", PLAIN, record_property)


def test_pods_over_vxlan(routed: World, record_property: Note) -> None:
    pairs = {"nodes": machines(routed, "node"), "pods": machines(routed, "pod")}
    compare("over vxlan", pairs, "nodes", VXLAN, record_property)


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


def compare(what: str, pairs: Mapping[str, Sequence[Machine]], beside: str, least: float, note: Note) -> None:
    """Whether pods have enough of what something else has: the median of the windows' ratios to their neighbours.

    When that is not so, the machine may have been busy elsewhere: then more windows are added, twice.
    """
    rates: dict[str, list[float]] = {kind: [] for kind in pairs}
    ratio, rounds = 0.0, 0
    while ratio < least and rounds < 3 * WINDOWS:
        for _ in range(WINDOWS):
            for kind, (client, server) in pairs.items():
                rates[kind].append(transfer(client, server))
        ratio = statistics.median(one / other for one, other in zip(rates["pods"], rates[beside], strict=True))
        rounds += WINDOWS
    shown = ", ".join(f"{kind} {statistics.median(found) / 1e6:.0f} MB/s" for kind, found in rates.items())
    text = f"{shown}; pods / {beside}: {ratio:.2f}, at least {least}"
    note("measured", [what, text, ratio >= least])
    assert ratio >= least, text


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
