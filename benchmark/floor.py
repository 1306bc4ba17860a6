"""The floor under an attachment: what the kernel takes for it, asked by a process that is there already.

One request makes a veth pair, its host's end up and in a bridge, its peer in the container's namespace; three more,
sent together, switch the peer on and give it an address and a default route. A last one removes the pair. All bytes are
prepared, so that next to nothing but the kernel is measured (netlink(7), rtnetlink(7)).
"""

import os
import socket
import struct
import time
from collections.abc import Mapping

from suites import sandbox

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24  # RTM_*
_REQUEST, _ACK, _MAKE = 0x1, 0x4, 0x600  # NLM_F_*; the last is CREATE | EXCL
_IFNAME, _MASTER, _LINKINFO, _NET_NS_FD = 3, 10, 18, 28  # IFLA_*
_KIND, _DATA, _PEER = 1, 2, 1  # IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER
_ADDRESS, _LOCAL, _GATEWAY = 1, 2, 5  # IFA_ADDRESS, IFA_LOCAL, RTA_GATEWAY
_UP = 1  # IFF_UP
_MAIN, _BOOT, _UNICAST = 254, 3, 1  # RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST
_PREFIX = 16
_INDEX = 1_000_000  # of both ends: one that is chosen need not be asked for
_REPLY_BOUND = 10.0  # seconds
_REPLY_BYTES = 1 << 16


class Floor:
    """A netlink socket on the host, one in a container, and the bytes to send."""

    def __init__(self, bridge: str, container: str) -> None:
        self._descriptor = os.open(container, os.O_RDONLY | os.O_CLOEXEC)
        self._outside = _open_socket()
        with sandbox.entered(container):
            self._inside = _open_socket()
        self._pair = _message(_NEWLINK, _MAKE, _veth(socket.if_nametoindex(bridge), self._descriptor))
        self._up = _message(_NEWLINK, 0, _link(_UP))  # not with the pair: a veth does not open before it has its peer
        self._address = _message(_NEWADDR, _MAKE, _addresses("10.99.0.2"))
        self._route = _message(_NEWROUTE, _MAKE, _default_route("10.99.0.1"))
        self._removal = _message(_DELLINK, 0, _link(0))

    def attach(self) -> Mapping[str, float]:
        """Make the attachment and take it away. Returns the seconds of both, named ADD and DEL."""
        began = time.perf_counter()
        _send(self._outside, self._pair)
        _send(self._inside, self._up, self._address, self._route)
        middle = time.perf_counter()
        _send(self._outside, self._removal)
        return {"ADD": middle - began, "DEL": time.perf_counter() - middle}


def open_floor(name: str) -> Floor:
    """A floor with a bridge and a container of its own, both of that name."""
    container = sandbox.add_container(name)
    sandbox.run("ip", "link", "add", name, "up", "type", "bridge")
    return Floor(name, container)


def _open_socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # NETLINK_ROUTE
    opened.bind((0, 0))
    opened.settimeout(_REPLY_BOUND)
    return opened


def _send(where: socket.socket, *messages: bytes) -> None:
    """Send requests in one system call; each is to be acknowledged."""
    where.send(b"".join(messages))
    for _ in messages:
        number = -struct.unpack_from("=i", where.recv(_REPLY_BYTES), 16)[0]
        if number:
            raise OSError(number, f"the kernel refused: {os.strerror(number)}")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _link(flags: int) -> bytes:
    """The ifinfomsg of either end."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _INDEX, flags, flags)


def _veth(bridge: int, container: int) -> bytes:
    peer = _link(0) + _attribute(_IFNAME, b"eth0\0") + _attribute(_NET_NS_FD, struct.pack("=i", container))
    info = _attribute(_KIND, b"veth\0") + _attribute(_DATA, _attribute(_PEER, peer))
    names = _attribute(_IFNAME, b"floor0\0") + _attribute(_MASTER, struct.pack("=i", bridge))
    return _link(_UP) + names + _attribute(_LINKINFO, info)


def _addresses(text: str) -> bytes:
    packed = socket.inet_aton(text)
    head = struct.pack("=BBBBi", socket.AF_INET, _PREFIX, 0, 0, _INDEX)
    return head + _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed)


def _default_route(gateway: str) -> bytes:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _MAIN, _BOOT, 0, _UNICAST, 0)
    return head + _attribute(_GATEWAY, socket.inet_aton(gateway))
