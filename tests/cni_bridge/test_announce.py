"""Announcements: the frames taken apart by hand, and seen on a wire."""

import socket
import struct

import pytest

from cni_bridge.announce import advertisement, announce, arp_announcement
from cni_protocol.address import parse_ip
from tests.cni_bridge import open_container
from tests.host import Host

MAC = bytes.fromhex("0a580af40002")
V4, V6 = parse_ip("10.244.0.2"), parse_ip("fd00:244::2")


def one_complement_sum(data: bytes) -> int:
    """RFC 1071, the slow way: 0xffff over data that carries its checksum."""
    total = 0
    for offset in range(0, len(data), 2):
        total += data[offset] << 8 | data[offset + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_an_arp_announcement_asks_everybody_for_its_own_address() -> None:
    frame = arp_announcement(MAC, V4)
    assert (frame[:6], frame[6:12], frame[12:14]) == (b"\xff" * 6, MAC, b"\x08\x06")
    hardware, protocol, hardware_size, protocol_size, operation = struct.unpack("!HHBBH", frame[14:22])
    assert (hardware, protocol, hardware_size, protocol_size, operation) == (1, 0x0800, 6, 4, 1)
    sender_mac, sender, target_mac, target = frame[22:28], frame[28:32], frame[32:38], frame[38:42]
    assert (sender_mac, socket.inet_ntoa(sender)) == (MAC, "10.244.0.2")
    assert (target_mac, socket.inet_ntoa(target)) == (bytes(6), "10.244.0.2")
    assert len(frame) == 42


def test_a_neighbour_advertisement_tells_all_nodes_of_the_new_mac() -> None:
    frame = advertisement(MAC, V6)
    assert (frame[:6], frame[6:12], frame[12:14]) == (bytes.fromhex("333300000001"), MAC, b"\x86\xdd")
    first, length, next_header, hop_limit = struct.unpack("!IHBB", frame[14:22])
    source, destination, message = frame[22:38], frame[38:54], frame[54:]
    assert (first >> 28, next_header, hop_limit) == (6, 58, 255)  # RFC 4861: other hop limits are discarded
    assert length == len(message)
    assert socket.inet_ntop(socket.AF_INET6, source) == "fd00:244::2"
    assert socket.inet_ntop(socket.AF_INET6, destination) == "ff02::1"
    kind, code, _, flags = struct.unpack("!BBHI", message[:8])
    assert (kind, code, flags) == (136, 0, 0x20000000)  # override, neither router nor solicited
    assert socket.inet_ntop(socket.AF_INET6, message[8:24]) == "fd00:244::2"
    assert message[24:] == b"\x02\x01" + MAC
    assert one_complement_sum(source + destination + struct.pack("!II", length, 58) + message) == 0xFFFF


@pytest.mark.parametrize("address", ["fd00::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "::1", "fd00::fffe"])
def test_the_checksum_holds_for_any_address(address: str) -> None:
    frame = advertisement(b"\xfe\xff\xff\xff\xff\xff", parse_ip(address))
    message = frame[54:]
    assert one_complement_sum(frame[22:54] + struct.pack("!II", len(message), 58) + message) == 0xFFFF


@pytest.mark.kernel
def test_a_neighbour_learns_the_new_mac_at_once(host: Host) -> None:
    host.add_container("c1")
    host.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "c1")
    host.run("ip", "link", "set", "v0", "up")
    host.run("ip", "-n", "c1", "link", "set", "eth0", "up")
    for address, options in (("10.244.0.1/24", ()), ("fd00:244::1/64", ("nodad",))):
        host.run("ip", "address", "add", address, "dev", "v0", *options)
    for address in ("10.244.0.2", "fd00:244::2"):
        host.run("ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:99", "dev", "v0", "nud", "stale")
    with open_container(host, "c1") as namespace, namespace.entered():
        announce("eth0", "0a:58:0a:f4:00:02", [V4, V6])
    known = {entry["dst"]: entry["lladdr"] for entry in host.ip("neigh", "show", "dev", "v0")}
    assert {known["10.244.0.2"], known["fd00:244::2"]} == {"0a:58:0a:f4:00:02"}


@pytest.mark.kernel
def test_an_interface_that_is_not_there_is_an_oserror(host: Host) -> None:
    host.add_container("c1")
    with open_container(host, "c1") as namespace, namespace.entered(), pytest.raises(OSError):
        announce("eth9", "0a:58:0a:f4:00:02", [V4])
