"""Who reaches whom, and as whom: TCP between two network namespaces, both ends held by this process.

The nodes have no Python and the pods have nothing at all, so neither is asked: a socket belongs to the network
namespace that it was made in, wherever the process is afterwards.
"""

import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from tests.cluster.fabric import Machine, run_in
from tests.kit.node import entered

BOUND = 3.0  # seconds for a connection, and for what goes over it
_PAYLOAD = b"x" * 20_000  # several packets of the largest size


class Seen(NamedTuple):
    """Who accepted a connection, and the address that it came from."""

    by: str
    source: str


class Target(NamedTuple):
    """Where a connection goes."""

    address: str
    port: int


@contextmanager
def listening(port: int, *machines: Machine) -> Iterator[Mapping[str, socket.socket]]:
    """Have servers on machines for a block, for both IP versions. Yields them by the machines' names."""
    with ExitStack() as stack:
        servers = {}
        for machine in machines:
            with entered(machine.netns):
                server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            servers[machine.name] = stack.enter_context(server)
        yield servers


def ask(client: Machine, target: Target, servers: Mapping[str, socket.socket], bound: float = BOUND) -> Seen | None:
    """Connect, send something both ways, and tell which server it was and what it saw. None when nothing came of it."""
    with suppress(OSError), ExitStack() as stack:
        with entered(client.netns):
            asking = stack.enter_context(socket.create_connection((target.address, target.port), timeout=bound))
        ready, _, _ = select.select(list(servers.values()), [], [], bound)
        for name, server in servers.items():
            if server in ready:
                answering, peer = server.accept()
                stack.enter_context(answering)
                answering.settimeout(bound)
                if _passes(asking, answering) and _passes(answering, asking):
                    return Seen(name, peer[0].removeprefix("::ffff:"))
    return None


def ping(client: Machine, address: str, *options: str) -> bool:
    """Whether an address answers."""
    program = "ping6" if ":" in address else "ping"
    done = run_in(client.netns, "busybox", program, "-c", "1", "-W", "2", *options, address, check=False)
    return done.returncode == 0


def _passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether what is sent arrives whole. It fits into the buffers, so no other thread has to read."""
    sender.sendall(_PAYLOAD)
    received = 0
    while received < len(_PAYLOAD):
        piece = receiver.recv(len(_PAYLOAD) - received)
        if not piece:
            return False
        received += len(piece)
    return True
