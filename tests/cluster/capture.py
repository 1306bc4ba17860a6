"""What passes an interface: from where to where TCP goes there, within a vxlan too."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from tests.kit.node import entered

_ALL = 0x0003  # ETH_P_ALL, linux/if_ether.h
_IPV4, _TCP, _UDP = 0x0800, 6, 17
_VXLAN_PORT = 4789
_BEFORE_INNER = 8 + 8 + 14  # bytes: UDP, vxlan, and the Ethernet header that is carried along
_BUFFER = 1 << 20


class End(NamedTuple):
    """An address and a port."""

    address: str
    port: int


class Packet(NamedTuple):
    """From where to where a packet goes; what carries it, where that is a vxlan."""

    source: End
    destination: End
    carrier: tuple[str, str] | None = None


@contextmanager
def captured(interfaces: Sequence[tuple[str, str]]) -> Iterator[list[socket.socket]]:
    """Have ears on interfaces, given as network namespace and name, for a block. read() has what they heard."""
    with ExitStack() as stack:
        ears = []
        for netns, ifname in interfaces:
            with entered(netns):
                ear = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)))
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            ear.bind((ifname, _ALL))
            ear.setblocking(False)
            ears.append(ear)
        yield ears


def read(ear: socket.socket) -> set[Packet]:
    """All that has passed so far, of TCP over IPv4."""
    packets = set()
    with suppress(BlockingIOError):
        while True:
            data, (_, protocol, *_) = ear.recvfrom(1 << 16)
            if protocol == _IPV4 and (packet := _parse(data)):
                packets.add(packet)
    return packets


def _parse(data: bytes) -> Packet | None:
    source, destination = (socket.inet_ntoa(data[start : start + 4]) for start in (12, 16))
    body = data[4 * (data[0] & 15) :]
    ports = struct.unpack_from("!HH", body)
    if data[9] == _TCP:
        return Packet(End(source, ports[0]), End(destination, ports[1]))
    if data[9] == _UDP and ports[1] == _VXLAN_PORT:
        inner = _parse(body[_BEFORE_INNER:])
        return inner and inner._replace(carrier=(source, destination))
    return None
