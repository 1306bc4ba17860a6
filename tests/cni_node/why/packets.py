"""Real packets between the places of a host: who gets an answer. Sockets are made by the test's own process."""

import select
import socket
import struct
import time
from contextlib import suppress
from typing import NamedTuple

from tests.cni_node.why.hosts import GATEWAYS, NODE, OUTSIDE, WhyHost

TCP, UDP = (80, 8080), (53,)
BOUND = 10.0  # seconds in which an answer comes that should
GRACE = 0.25  # seconds more in which one may come that should not
_ECHO = {4: (8, 0), 6: (128, 129)}


class Asked(NamedTuple):
    """A question by the addresses and places of its ends (None: the host itself)."""

    source: str
    place: str | None
    destination: str
    service: str


class Listeners:
    """Whoever answers: at every address of the host's places."""

    def __init__(self, host: WhyHost) -> None:
        self.host = host
        self.places: dict[str, str | None] = {}
        for name, addresses in [*host.addresses.items(), ("outside", OUTSIDE)]:
            self.places.update(dict.fromkeys(addresses, name))
        self.places.update(dict.fromkeys((*NODE, *GATEWAYS)))
        self._sockets: list[socket.socket] = []
        self._number = 100
        for address, place in self.places.items():
            with host.host.entered(place):
                self._listen(address)

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()

    def _listen(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, ports in ((socket.SOCK_STREAM, TCP[:1]), (socket.SOCK_DGRAM, UDP)):
            for port in ports:
                listener = socket.socket(family, kind)
                listener.bind((address, port))
                self._sockets.append(listener)
                if kind == socket.SOCK_STREAM:
                    listener.listen(1000)

    def answered(self, asked: list[Asked], expected: set[int]) -> set[int]:
        """Send all at once. Returns the numbers of those that got an answer."""
        clients: dict[int, tuple[int, socket.socket, int]] = {}
        try:
            for number, each in enumerate(asked):
                with self.host.host.entered(each.place):
                    client, token = self._send(each)
                clients[client.fileno()] = (number, client, token)
            return self._collect(clients, asked, expected)
        finally:
            for _, client, _ in clients.values():
                client.close()

    def _send(self, asked: Asked) -> tuple[socket.socket, int]:
        self._number += 1
        version = 6 if ":" in asked.destination else 4
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        port, _, protocol = asked.service.partition("/")
        if protocol:
            client = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
            where = (asked.destination, int(port))
        else:
            client = socket.socket(family, socket.SOCK_RAW, 58 if version == 6 else 1)
            where = (asked.destination, 0)
        client.setblocking(False)
        with suppress(OSError):  # no route: there will be no answer
            client.bind((asked.source, 0))
            if not protocol:
                message = struct.pack("!BBHHH", _ECHO[version][0], 0, 0, self._number, 1)
                client.sendto(message[:2] + _checksum(message) + message[4:], where)
                return client, self._number
            client.connect(where)
            client.send(b"word")
        return client, self._number

    def _collect(
        self, clients: dict[int, tuple[int, socket.socket, int]], asked: list[Asked], expected: set[int]
    ) -> set[int]:
        found: set[int] = set()
        poller = select.poll()
        servers = {each.fileno(): each for each in self._sockets if each.type == socket.SOCK_DGRAM}
        for number in servers:
            poller.register(number, select.POLLIN)
        for number, (index, _, _) in clients.items():
            poller.register(number, select.POLLOUT if asked[index].service.endswith("tcp") else select.POLLIN)
        deadline, graced = time.monotonic() + BOUND, False
        while (left := deadline - time.monotonic()) > 0:
            if expected <= found and not graced:
                graced, left = True, GRACE
                deadline = time.monotonic() + GRACE
            for number, _ in poller.poll(left * 1000):
                if number in servers:
                    with suppress(OSError):  # an error of an answer before, or no way to answer
                        data, sender = servers[number].recvfrom(64)
                        servers[number].sendto(data, sender)
                    continue
                index, client, token = clients[number]
                if _has_answer(client, asked[index], token):
                    found.add(index)
                if asked[index].service.endswith("tcp"):
                    poller.unregister(number)
        return found


def _has_answer(client: socket.socket, asked: Asked, token: int) -> bool:
    if asked.service.endswith("tcp"):
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _is_connected(client)
    try:
        data, sender = client.recvfrom(2048)
    except OSError:
        return False
    if asked.service != "icmp":
        return data == b"word"
    version = 6 if ":" in asked.destination else 4
    body = data[(data[0] & 15) * 4 :] if version == 4 else data
    kind, _, _, number, _ = struct.unpack_from("!BBHHH", body)
    return (kind, number, sender[0]) == (_ECHO[version][1], token, asked.destination)


def _is_connected(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def _checksum(message: bytes) -> bytes:
    total: int = sum(struct.unpack("!4H", message))
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
