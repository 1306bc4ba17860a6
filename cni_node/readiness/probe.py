"""Pings the peers' gateway addresses from our gateway address, to find out whether they have a route to our pods.

An answer arrives only if the peer has a route to this node's pod range. So nodes need no protocol of their own.
Must not: take long, or decide what follows from a silent peer.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterable

from cni_node.snapshot import Node
from cni_protocol.address import CIDR, IP

BOUND = 5.0  # seconds; a peer's agent needs at most one to add its route
_ROUND = 0.5  # seconds until silent peers are pinged again
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}  # of ICMP and ICMPv6
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_HEAD = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_PACE = 0.0005  # seconds between two packets, so that no buffer overflows with thousands of peers
_ICMP6_FILTER, _PASS_REPLIES = 1, struct.pack("=8I", *(0xFFFFFFFF & ~(2 if i == 4 else 0) for i in range(8)))
_SOL_ICMPV6 = 58


def targets_of(peers: Iterable[Node]) -> dict[IP, str]:
    """The gateway addresses of the peers' pod ranges, each with the peer's name."""
    return {IP(pods.version, pods.first.value + 1): peer.name for peer in peers for pods in peer.pods}


def find_silent(gateways: Iterable[CIDR], targets: dict[IP, str], bound: float = BOUND) -> list[str]:
    """Ping all targets. Returns the names of the peers of which one did not answer within `bound` seconds.

    Targets of a family in which this node has no gateway are left out. Raises OSError when a raw socket cannot be
    opened.
    """
    sockets = {gateway.version: _open(gateway.ip) for gateway in gateways}
    waiting = {ip: name for ip, name in targets.items() if ip.version in sockets}
    identifier = os.getpid() & 0xFFFF
    deadline = time.monotonic() + bound
    try:
        while waiting and (now := time.monotonic()) < deadline:
            for ip in list(waiting):
                _ask(sockets[ip.version], ip, identifier)
                _collect(sockets, waiting, identifier, time.monotonic() + _PACE)
            _collect(sockets, waiting, identifier, min(now + _ROUND, deadline))
    finally:
        for sock in sockets.values():
            sock.close()
    return sorted(set(waiting.values()))


def _open(own: IP) -> socket.socket:
    sock = socket.socket(
        own.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _PROTOCOL[own.version]
    )
    try:
        sock.bind((str(own), 0))
        if own.version == 6:
            sock.setsockopt(_SOL_ICMPV6, _ICMP6_FILTER, _PASS_REPLIES)
    except OSError:
        sock.close()
        raise
    return sock


def _ask(sock: socket.socket, ip: IP, identifier: int) -> None:
    head = _HEAD.pack(_REQUEST[ip.version], 0, 0, identifier, 1)
    if ip.version == 4:  # for IPv6 the kernel does it
        head = _HEAD.pack(_REQUEST[4], 0, checksum(head), identifier, 1)
    try:
        sock.sendto(head, (str(ip), 0))
    except OSError:  # no route, or an ICMP error for an earlier packet: it counts as silent
        return


def _collect(sockets: dict[int, socket.socket], waiting: dict[IP, str], identifier: int, until: float) -> None:
    """Read answers until a moment of the monotonic clock."""
    while waiting:
        ready = select.select(list(sockets.values()), [], [], max(until - time.monotonic(), 0))[0]
        if not ready:
            return
        for sock in ready:
            try:
                data, sender = sock.recvfrom(2048)
            except OSError:
                continue
            version = 4 if sock.family == socket.AF_INET else 6
            body = data[(data[0] & 0xF) * 4 :] if version == 4 else data  # IPv4 comes with its header
            if len(body) < _HEAD.size:
                continue
            kind, _, _, answered, _ = _HEAD.unpack_from(body)
            if (kind, answered) == (_REPLY[version], identifier):
                packed = socket.inet_pton(sock.family, sender[0].partition("%")[0])
                waiting.pop(IP(version, int.from_bytes(packed, "big")), None)


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
