"""When a route comes or goes on several machines, by the kernel's own notifications: nobody is asked again."""

import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Self

from tests.cluster.fabric import Machine
from tests.kit.node import entered

_GROUP = 0x40  # RTMGRP_IPV4_ROUTE, rtnetlink(7)
_NEW, _DELETED = 24, 25  # RTM_NEWROUTE, RTM_DELROUTE
_HEAD = struct.Struct("=IHHII")  # nlmsghdr, netlink(7)
_BUFFER = 1 << 20


class RouteMonitor:
    """Ears on machines for the route to one IPv4 network. A context manager."""

    def __init__(self, machines: Sequence[Machine], network: str) -> None:
        self._network = socket.inet_aton(network.partition("/")[0])
        self._sockets: list[socket.socket] = []
        for machine in machines:
            with entered(machine.netns):
                ear = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            ear.bind((0, _GROUP))
            self._sockets.append(ear)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for ear in self._sockets:
            ear.close()

    def await_all(self, *, added: bool, bound: float = 30.0) -> float:
        """Wait until the route has come, or gone, on each of the machines. Returns when the last one did, monotonic."""
        waiting, deadline = set(self._sockets), time.monotonic() + bound
        while waiting:
            ready = select.select(list(waiting), [], [], max(deadline - time.monotonic(), 0))[0]
            assert ready, f"not within {bound} s on {len(waiting)} of {len(self._sockets)}"
            for ear in ready:
                if self._is_it(ear.recv(1 << 16), _NEW if added else _DELETED):
                    waiting.discard(ear)
        return time.monotonic()

    def _is_it(self, data: bytes, wanted: int) -> bool:
        while len(data) >= _HEAD.size:
            length, kind, *_ = _HEAD.unpack_from(data)
            if kind == wanted and self._network in data[_HEAD.size : length]:
                return True
            data = data[(length + 3) & ~3 :]
        return False
