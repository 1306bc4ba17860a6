"""Frames and datagrams of the tests' own making, sent and captured inside a host's namespaces."""

import socket
import struct
import time
from collections.abc import Callable
from typing import Self

from tests.kit.host import Host

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD  # EtherTypes
ALL_FRAMES = 0x0003  # ETH_P_ALL
BROADCAST = "ff:ff:ff:ff:ff:ff"
ARRIVAL_BOUND = 3.0  # seconds that something may take to arrive
SILENCE = 0.4  # seconds after which nothing more is expected to arrive; it takes well below a millisecond


class Wire:
    """An interface of a namespace, as a packet socket sees it."""

    def __init__(self, host: Host, container: str | None, ifname: str = "eth0") -> None:
        with host.entered(container):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        self._socket.bind((ifname, ALL_FRAMES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def find(self, wanted: Callable[[bytes], object], seconds: float = ARRIVAL_BOUND) -> bytes | None:
        """The first frame that arrives and is wanted, None when none does in time. What was sent from here is left."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, origin = self._socket.recvfrom(65535)
            except TimeoutError:
                return None
            if origin[2] != socket.PACKET_OUTGOING and wanted(frame):
                return frame
        return None


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    return packed(destination) + packed(source) + struct.pack("!H", kind) + payload


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4_packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    checksum = struct.pack("!H", internet_checksum(head + ends))
    return head[:10] + checksum + ends + payload


def ipv6_packet(source: str, destination: str, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    ends = b"".join(socket.inet_pton(socket.AF_INET6, end) for end in (source, destination))
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def icmpv6(source: str, destination: str, kind: int, body: bytes) -> bytes:
    """An IPv6 packet with an ICMPv6 message; `body` is what follows type, code and checksum."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    ends = b"".join(socket.inet_pton(socket.AF_INET6, end) for end in (source, destination))
    checksum = internet_checksum(ends + struct.pack("!II", len(message), 58) + message)
    return ipv6_packet(source, destination, 58, message[:2] + struct.pack("!H", checksum) + body, hops=255)


def udp_packet(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """An IPv4 packet; a UDP checksum of 0 stands for none (RFC 768)."""
    body = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    return ipv4_packet(source[0], destination[0], 17, body)


def sctp_init(source_port: int, destination_port: int) -> bytes:
    """An SCTP packet with an INIT chunk (RFC 9260, sections 3.1 and 3.3.2)."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x01020304, 65536, 10, 10, 1)
    header = struct.pack("!HHI", source_port, destination_port, 0)
    checksum = struct.pack("<I", _crc32c(header + bytes(4) + chunk))
    return header + checksum + chunk


def _crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def open_udp(host: Host, container: str | None, listening: tuple[str, int]) -> socket.socket:
    """A bound UDP socket inside a container, or on the host."""
    family = socket.AF_INET6 if ":" in listening[0] else socket.AF_INET
    with host.entered(container):
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(ARRIVAL_BOUND)
    made.bind(listening)
    return made


def ask_over_udp(
    host: Host, client: str | None, server: str | None, listening: tuple[str, int], target: tuple[str, int]
) -> str:
    """Send a word over UDP and have an answer come back. Returns the client's address as the server sees it.

    The client's socket is connected, so that only an answer from the target's own address gets through.
    """
    any_address = "::" if ":" in target[0] else "0.0.0.0"
    with open_udp(host, server, listening) as answering, open_udp(host, client, (any_address, 0)) as asking:
        asking.connect(target)
        asking.send(b"hither")
        word, peer = answering.recvfrom(16)
        assert word == b"hither"
        answering.sendto(b"thither", peer)
        assert asking.recv(16) == b"thither"
    return str(peer[0])
