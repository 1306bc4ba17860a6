"""Pings between pods all the while something happens to their nodes, and which of them came to nothing.

One thread of this process sends and listens: a socket belongs to the network namespace that it was made in.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tests.cluster.fabric import Machine
from tests.kit.node import entered

PACE = 0.02  # seconds from one packet of a pair to the next
PATIENCE = 3.0  # seconds for the last answers
_HEAD = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence: RFC 792
_REQUEST, _REPLY = 8, 0
_SEQUENCES = 1 << 16


class Flow:
    """Pings of one machine to an address."""

    def __init__(self, client: Machine, server: Machine, number: int) -> None:
        self.name = f"{client.name} -> {server.name}"
        self.sent = 0
        self.refused: list[str] = []
        self._waiting: set[int] = set()
        self._address, self._number = server.address(4), number
        with entered(client.netns):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)

    def send(self) -> None:
        """One more."""
        sequence = self.sent % _SEQUENCES
        self.sent += 1
        checksum = ~_fold((_REQUEST << 8) + self._number + sequence) & 0xFFFF
        self._waiting.add(sequence)
        try:
            self.socket.sendto(_HEAD.pack(_REQUEST, 0, checksum, self._number, sequence), (self._address, 0))
        except OSError as error:  # no route, for one
            self.refused.append(str(error))

    def take(self) -> None:
        """An answer, or what else comes to a raw socket."""
        try:
            data = self.socket.recv(2048)
        except BlockingIOError:
            return
        kind, _, _, number, sequence = _HEAD.unpack_from(data, (data[0] & 0xF) * 4)
        if (kind, number) == (_REPLY, self._number):
            self._waiting.discard(sequence)

    @property
    def lost(self) -> int:
        """How many have not been answered."""
        return len(self._waiting)


class Traffic:
    """The flows of a block."""

    def __init__(self, flows: list[Flow]) -> None:
        self._flows = flows
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def lost(self) -> dict[str, str]:
        """End it, and wait for the last answers. What was lost of how many, by flow; nothing where all was answered."""
        self._ending.set()
        self._thread.join(PATIENCE + 10)
        assert not self._thread.is_alive()
        assert all(flow.sent for flow in self._flows)
        return {
            flow.name: f"{flow.lost} of {flow.sent} {flow.refused[:1]}"
            for flow in self._flows
            if flow.lost or flow.refused
        }

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            for flow in self._flows:
                flow.send()
            due = max(due + PACE, time.monotonic() - PACE)
            self._collect(due)
        deadline = time.monotonic() + PATIENCE
        while any(flow.lost for flow in self._flows) and time.monotonic() < deadline:
            self._collect(time.monotonic() + PACE)

    def _collect(self, until: float) -> None:
        flows = {flow.socket: flow for flow in self._flows}
        while (left := until - time.monotonic()) > 0:
            for ready in select.select(list(flows), [], [], left)[0]:
                flows[ready].take()


@contextmanager
def flowing(pairs: Iterable[tuple[Machine, Machine]]) -> Iterator[Traffic]:
    """Have pings between machines for a block; ask for what was lost at its end."""
    with ExitStack() as stack:
        flows = [Flow(*pair, number) for number, pair in enumerate(pairs, 1)]
        for flow in flows:
            stack.callback(flow.socket.close)
        traffic = Traffic(flows)
        yield traffic
        traffic.lost()


def _fold(total: int) -> int:
    """Ones' complement addition of 16-bit words (RFC 1071)."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
