"""What a new container tells its neighbours, and what it does not listen to."""

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.frames import ARP, IPV6, SILENCE, Wire, ethernet, icmpv6
from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime
from tests.system.networks import address, layer_2, mac_of, network, sysctl

pytestmark = pytest.mark.kernel

NETWORK = network(1)
_ADVERTISEMENT, _ROUTER_ADVERTISEMENT = 136, 134
_OVERRIDE, _SOLICITED, _ROUTER = 1 << 29, 1 << 30, 1 << 31


def parse_arp(frame: bytes) -> tuple[str, int, bytes, str, str]:
    """Destination MAC, operation, sender's MAC, sender's and target's address of an ARP frame of IPv4."""
    _, _, _, _, operation = struct.unpack("!HHBBH", frame[14:22])
    return frame[:6].hex(), operation, frame[22:28], socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42])


def is_gratuitous_arp(frame: bytes, own: str) -> bool:
    if frame[12:14] != struct.pack("!H", ARP):
        return False
    _, _, _, sender, target = parse_arp(frame)
    return sender == target == own


def is_advertisement(frame: bytes, own: str) -> bool:
    """Whether this is a neighbour advertisement for an address (RFC 4861, section 4.4)."""
    if frame[12:14] != struct.pack("!H", IPV6) or frame[20] != socket.IPPROTO_ICMPV6:
        return False
    return frame[54] == _ADVERTISEMENT and frame[62:78] == socket.inet_pton(socket.AF_INET6, own)


def test_gratuitous_arp_arrives_at_another_container(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    with Wire(bridge.host, "c1") as wire:
        result = bridge.add("c2", NETWORK)
        own = address(result)
        frame = wire.find(lambda frame: is_gratuitous_arp(frame, own))
    assert frame is not None
    destination, operation, sender, _, _ = parse_arp(frame)
    assert destination == "ff" * 6
    assert operation in (1, 2)  # RFC 5227 recommends the request
    assert sender.hex(":") == frame[6:12].hex(":") == mac_of(result)


def test_unsolicited_advertisement_arrives_at_another_container(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    with Wire(bridge.host, "c1") as wire:
        result = bridge.add("c2", NETWORK)
        own = address(result, 6)
        frame = wire.find(lambda frame: is_advertisement(frame, own))
    assert frame is not None
    (flags,) = struct.unpack("!I", frame[58:62])
    assert flags & _OVERRIDE
    assert not flags & (_SOLICITED | _ROUTER)
    assert frame[:6].hex() == "333300000001"
    assert frame[21] == 255  # hop limit: others are not believed
    assert socket.inet_ntop(socket.AF_INET6, frame[22:38]) == own
    assert socket.inet_ntop(socket.AF_INET6, frame[38:54]) == "ff02::1"
    assert frame[78:86] == b"\x02\x01" + bytes.fromhex(mac_of(result).replace(":", ""))
    assert frame == ethernet(
        "33:33:00:00:00:01", mac_of(result), IPV6, icmpv6(own, "ff02::1", _ADVERTISEMENT, frame[58:86])
    ), "the checksum is right"


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_neighbour_learns_the_new_mac_of_an_address(bridge: Runtime, version: int) -> None:
    # the kernel takes an announcement for a neighbour that it has already talked to
    host, config = bridge.host, network(1)
    bridge.add("c1", config)
    second = bridge.add("c2", config)
    own = address(second, version)
    assert host.ping(own, "c1")
    bridge.delete("c2", config)
    host.remove_container("c2")
    again = bridge.add("c3", {**config, "runtimeConfig": {"ips": [own]}})
    assert address(again, version) == own
    assert mac_of(again) != mac_of(second)

    def knows() -> bool:
        entries = host.ip(f"-{version}", "neighbour", "show", own, container="c1")
        return [entry.get("lladdr") for entry in entries] == [mac_of(again)]

    assert wait_until(knows)


def test_a_container_announces_its_address_once_and_nothing_else(bridge: Runtime) -> None:
    # what goes to all is copied to every port of the bridge, within ADD
    config = {**network(1), "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16"}}
    bridge.add("c1", config)
    with Wire(bridge.host, "c1") as wire:
        own = address(bridge.add("c2", config))
        seen: list[bytes] = []
        wire.find(lambda frame: seen.append(frame), SILENCE)
    assert [is_gratuitous_arp(frame, own) for frame in seen if frame[12:14] == struct.pack("!H", ARP)] == [True]
    assert [frame for frame in seen if frame[12:14] == struct.pack("!H", IPV6) and frame[54] == _ADVERTISEMENT] == []


def test_layer_2_announces_nothing(bridge: Runtime) -> None:
    bridge.add("c1", layer_2())
    with Wire(bridge.host, "c1") as wire:
        bridge.add("c2", layer_2())
        assert wire.find(lambda frame: frame[12:14] == struct.pack("!H", ARP), SILENCE) is None


def test_layer_2_has_the_names_of_its_configuration(bridge: Runtime) -> None:
    names = {"nameservers": ["192.0.2.53"], "search": ["example"]}
    assert bridge.add("c1", layer_2(dns=names))["dns"] == names


def router_advertisement(mac: str, router: str, prefix: str) -> bytes:
    """A router that offers a prefix to make addresses from (RFC 4861, sections 4.2 and 4.6.2)."""
    head = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, prefix)
    return ethernet("33:33:00:00:00:01", mac, IPV6, icmpv6(router, "ff02::1", _ROUTER_ADVERTISEMENT, head + option))


def add_router(host: Host, bridge_name: str) -> Wire:
    """A machine of somebody else's on the bridge."""
    host.add_container("router")
    host.run(
        "ip", "link", "add", "theirs", "master", bridge_name, "type", "veth", "peer", "name", "eth0", "netns", "router"
    )
    host.run("ip", "link", "set", "theirs", "up")
    host.run("ip", "link", "set", "eth0", "up", container="router")
    assert wait_until(lambda: host.ip("link", "show", "dev", "theirs")[0]["operstate"] == "UP")
    return Wire(host, "router")


def is_tentative(host: Host, container: str) -> bool:
    """Whether the kernel is still looking for duplicates of an address of eth0."""
    entries = host.ip("-6", "address", "show", "dev", "eth0", container=container)[0]["addr_info"]
    return any(entry.get("tentative") for entry in entries)


def all_addresses(host: Host, container: str | None, ifname: str) -> list[str]:
    return [entry["local"] for entry in host.ip("address", "show", "dev", ifname, container=container)[0]["addr_info"]]


@pytest.mark.parametrize("make", [network, layer_2], ids=["with-addresses", "layer-2"])
def test_router_advertisement_gives_no_address(bridge: Runtime, make: Callable[[], dict[str, Any]]) -> None:
    host, config = bridge.host, make()
    name = config["bridge"]
    for container in ("c1", "c2"):
        bridge.add(container, config)
    assert sysctl(host, "ipv6/conf/eth0/accept_ra", container="c1") == "0"
    assert sysctl(host, f"ipv6/conf/{name}/accept_ra") == "0"
    sysctl(host, "ipv6/conf/eth0/accept_ra", 2, container="c2")  # one that listens, to see that the frame is good

    def learnt(container: str | None, ifname: str = "eth0") -> bool:
        return any(entry.startswith("2001:db8:5:") for entry in all_addresses(host, container, ifname))

    # it is heard from a link-local address that has been found unique
    assert wait_until(lambda: not is_tentative(host, "c2"))
    with add_router(host, name) as router:
        frame = router_advertisement("02:00:00:00:00:aa", "fe80::aa", "2001:db8:5::")

        def offer() -> bool:
            router.send(frame)
            return learnt("c2")

        assert wait_until(offer)
    assert not learnt("c1")
    assert not learnt(None, name)


def test_container_listens_to_no_router_while_it_comes_up(bridge: Runtime) -> None:
    # a listener in the moment between link-up and a later sysctl would have an address from it
    host = bridge.host
    bridge.add("c1", NETWORK)
    with add_router(host, "br1") as router, Wire(host, "c1") as wire:
        frame = router_advertisement("02:00:00:00:00:aa", "fe80::aa", "2001:db8:5::")
        host.add_container("c2")
        for _ in range(3):
            router.send(frame)
        bridge.add("c2", NETWORK)
        router.send(frame)
        assert wire.find(lambda seen: seen == frame) == frame
        # the kernel asks for routers only where it listens to them (RFC 4861, section 6.3.7)
        solicitation = wire.find(
            lambda seen: seen[12:14] == b"\x86\xdd" and seen[20] == 58 and seen[54] == 133, SILENCE
        )
    assert solicitation is None
    assert not any(entry.startswith("2001:db8:5:") for entry in all_addresses(host, "c2", "eth0"))
