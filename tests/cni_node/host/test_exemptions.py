"""The sets of exempt networks in the kernel: what nft and packets find there while nodes come and go."""

import json
import sys
from collections.abc import Iterator

import pytest

from cni_node.host.exempt import FEW, Exempt
from cni_node.host.exemptions import Exemptions
from cni_node.snapshot import Node
from cni_protocol.address import CIDR, IP, parse_ip
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

PODS = {4: parse_ip("10.0.0.0").value, 6: parse_ip("fd00::").value}
NODES = {4: parse_ip("192.168.0.0").value, 6: parse_ip("fd00:a::").value}
PREFIX = {4: 24, 6: 64}
MANY = FEW  # peers: of two networks each
# Sends to port 9 of an address, as fast as it can, for ever.
_SENDER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((sys.argv[1], 9))
    while True:
        sock.send(b"")
"""


def peer(number: int, version: int = 4) -> Node:
    bits = IP(version, 0).bits
    pods = IP(version, PODS[version] + (number << bits - PREFIX[version]))
    return Node(f"node{number}", (CIDR(pods, PREFIX[version]),), (IP(version, NODES[version] + number),))


@pytest.fixture
def sets(host: Host) -> Iterator[Exemptions]:
    with host.entered():
        made = Exemptions()
        yield made
        made.close()


def listed(host: Host, version: int = 4) -> list[str]:
    """The elements as nft shows them, with their comments."""
    text = host.run("nft", "list", "set", "inet", "pycni", f"exempt{version}").stdout
    _, _, elements = text.partition("elements = {")
    return [" ".join(element.split()) for element in elements.partition("}")[0].split(",") if element.strip()]


def has(host: Host, address: str, version: int = 4) -> bool:
    """Whether the kernel finds an address in the set."""
    command = ("nft", "get", "element", "inet", "pycni", f"exempt{version}", f"{{ {address} }}")
    return host.run(*command, check=False).returncode == 0


def test_few_networks_have_the_names_of_their_nodes(host: Host, sets: Exemptions) -> None:
    exempt = Exempt()
    sets.change(exempt.change([], map(peer, range(FEW // 2))))
    found = listed(host)
    assert (len(found), found[0], found[-1]) == (
        FEW,
        '10.0.0.0/24 comment "node0"',
        f'192.168.0.{FEW // 2 - 1} comment "node{FEW // 2 - 1}"',
    )


@pytest.mark.parametrize(
    ("version", "whole", "split", "left", "neighbour"),
    [
        pytest.param(
            4,
            ["10.0.0.0/16", "192.168.0.0/24"],
            [
                "10.0.0.0-10.0.99.255",
                "10.0.101.0-10.0.255.255",
                "192.168.0.0-192.168.0.99",
                "192.168.0.101-192.168.0.255",
            ],
            "10.0.100.7",
            "10.0.101.0",
            id="IPv4",
        ),
        pytest.param(
            6,
            ["fd00::/56", "fd00:a::/120"],
            [
                "fd00::-fd00::63:ffff:ffff:ffff:ffff",
                "fd00:0:0:65::-fd00::ff:ffff:ffff:ffff:ffff",
                "fd00:a::-fd00:a::63",
                "fd00:a::65-fd00:a::ff",
            ],
            "fd00:0:0:64::7",
            "fd00:0:0:65::",
            id="IPv6",
        ),
    ],
)
def test_many_neighbours_are_one_element_and_a_node_that_leaves_splits_it(
    host: Host, sets: Exemptions, version: int, whole: list[str], split: list[str], left: str, neighbour: str
) -> None:
    exempt, peers = Exempt(), [peer(number, version) for number in range(MANY)]
    sets.change(exempt.change([], peers))
    assert listed(host, version) == whole
    sets.change(exempt.change([peers[100]], []))
    assert listed(host, version) == split
    assert (has(host, left, version), has(host, neighbour, version)) == (False, True)
    assert sets.ensure(exempt.intervals) == ([], [])
    sets.change(exempt.change([], [peers[100]]))
    assert listed(host, version) == whole


def test_what_others_change_of_an_interval_is_put_right(host: Host, sets: Exemptions) -> None:
    exempt = Exempt()
    exempt.change([], map(peer, range(MANY)))
    sets.ensure(exempt.intervals)
    host.run("nft", "delete element inet pycni exempt4 { 10.0.0.0/16 }; add element inet pycni exempt4 { 10.0.3.0/24 }")
    assert [len(part) for part in sets.ensure(exempt.intervals)] == [1, 1]
    assert listed(host) == ["10.0.0.0/16", "192.168.0.0/24"]
    host.run("nft", "flush", "set", "inet", "pycni", "exempt4")
    assert [len(part) for part in sets.ensure(exempt.intervals)] == [2, 0]
    assert listed(host) == ["10.0.0.0/16", "192.168.0.0/24"]


def test_a_restart_finds_what_an_earlier_version_left(host: Host, sets: Exemptions) -> None:
    """Each network by itself, thousands: one transaction makes one interval of them."""
    apart = [interval for number in range(1500) for interval in Exempt().change([], [peer(number)]).missing]
    assert len(sets.ensure(apart).missing) == len(listed(host)) == 3000
    exempt = Exempt()
    exempt.change([], map(peer, range(1500)))
    assert [len(part) for part in sets.ensure(exempt.intervals)] == [2, 3000]
    assert listed(host) == ["10.0.0.0-10.5.219.255", "192.168.0.0-192.168.5.219"]


def test_no_packet_misses_the_set_while_others_come_and_go(host: Host, sets: Exemptions) -> None:
    """A node that stays is in the same intervals as those that come and go, few and many of them."""
    exempt, peers = Exempt(), [peer(number) for number in range(2, MANY)]
    host.run("ip", "link", "add", "far", "type", "veth", "peer", "name", "end")
    for name in ("far", "end"):
        host.run("ip", "link", "set", name, "up")
    host.run("ip", "route", "add", "10.0.100.7", "dev", "far")
    host.run("ip", "neighbour", "add", "10.0.100.7", "lladdr", "02:00:00:00:00:01", "dev", "far")
    sets.change(exempt.change([], peers))
    host.run("nft", "add chain inet pycni judge { type filter hook output priority 0; }")
    rule = "add rule inet pycni judge ip daddr 10.0.100.7"
    host.run("nft", f"{rule} ip daddr @exempt4 counter; {rule} ip daddr != @exempt4 counter")
    sender = host.start(sys.executable, "-c", _SENDER, "10.0.100.7")
    try:
        assert wait_until(lambda: counted(host)[0] > 0)
        for turn in range(60):
            number = 99 + 2 * (turn % 2)  # on either side of the one that stays
            gone = [one for one in peers if one.name in (f"node{number - 2}", f"node{number}")]
            sets.change(exempt.change(gone, []))
            sets.change(exempt.change([], gone))
        others = [one for one in peers if one.name != "node100"][FEW // 2 - 1 :]  # the rest has FEW networks
        for _ in range(5):
            sets.change(exempt.change(others, []))
            assert len(exempt.intervals) == FEW
            sets.change(exempt.change([], others))
        found, missed = counted(host)
    finally:
        sender.kill()
        sender.wait()
    assert (found > 100, missed) == (True, 0)


def counted(host: Host) -> tuple[int, int]:
    """Packets that were found in the set, and that were not."""
    entries = json.loads(host.run("nft", "-j", "list", "chain", "inet", "pycni", "judge").stdout)["nftables"]
    expressions = [part for entry in entries if "rule" in entry for part in entry["rule"]["expr"]]
    found, missed = [part["counter"]["packets"] for part in expressions if "counter" in part]
    return found, missed
