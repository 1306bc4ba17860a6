"""Telling the neighbours at once which MAC an address has now: gratuitous ARP and its IPv6 twin.

Source: RFC 5227 section 3 (ARP announcement), RFC 4861 section 7.2.6 (unsolicited neighbour advertisement).
"""

import struct

from cni_protocol.address import IP
from cni_protocol.lean import Sequence, socket

_ARP, _IPV6 = 0x0806, 0x86DD  # EtherTypes
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ICMPV6, _ADVERTISEMENT, _OVERRIDE = 58, 136, 0x20000000


def announce(ifname: str, mac: str, addresses: Sequence[IP]) -> None:
    """Send one announcement for each address out of an interface of the namespace that the process is in.

    Raises OSError. Nobody waits for these frames: without them the neighbours learn a little later.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    try:
        packets.bind((ifname, 0))
        for address in addresses:
            frame = arp_announcement if address.version == 4 else advertisement
            packets.send(frame(hardware, address))
    finally:
        packets.close()


def arp_announcement(mac: bytes, address: IP) -> bytes:
    """The Ethernet frame of an ARP request for one's own address."""
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address.packed + bytes(6) + address.packed
    return _BROADCAST + mac + struct.pack("!H", _ARP) + arp


def advertisement(mac: bytes, address: IP) -> bytes:
    """The Ethernet frame of an unsolicited neighbour advertisement to all nodes of the link."""
    target = address.packed
    body = struct.pack("!I", _OVERRIDE) + target + b"\x02\x01" + mac  # option: target link-layer address
    header = struct.pack("!BBH", _ADVERTISEMENT, 0, 0)
    pseudo = target + _ALL_NODES + struct.pack("!II", len(header + body), _ICMPV6)
    checksum = _internet_checksum(pseudo + header + body)
    message = struct.pack("!BBH", _ADVERTISEMENT, 0, checksum) + body
    ip = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + target + _ALL_NODES
    return _ALL_NODES_MAC + mac + struct.pack("!H", _IPV6) + ip + message


def _internet_checksum(data: bytes) -> int:
    """The checksum of RFC 1071 over an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
