"""Computes the routes, neighbours and forwarding entries (together: entries) to the pods of other nodes. Pure.

A peer on a link of this node needs one route: to its pods, via its address. A peer behind the overlay needs three
entries: a route to its pods via an address on the vxlan device (the first of the pod range), a neighbour entry with the
MAC of that address, and a forwarding entry with the node that frames for that MAC are sent to. The kernel learns
nothing and asks for nothing: every node computes the MAC of every other node's device from that node's address.

Must not: know what is in the kernel.
"""

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from cni_node.snapshot import Node
from cni_protocol.address import CIDR, IP

PROTOCOL = 80  # marks our routes (rtnetlink(7), rtm_protocol); the kernel's list gives it to no routing daemon
NETWORK = "pycni"
_FIRST_METRIC = 1 << 16  # larger than metrics that people set by hand, so that their routes take precedence


class PeerRoute(NamedTuple):
    """A route to a peer's pods. `device` is the index of the vxlan device; 0: the kernel finds the gateway's interface.

    `source` is the source address of packets that this node itself sends there, None for the kernel's choice.
    """

    dst: CIDR
    gw: IP
    device: int
    source: IP | None
    metric: int

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies it to the kernel: adding a route with the same key replaces it."""
        return (self.dst, self.metric)

    def __str__(self) -> str:
        return f"route {self.dst} via {self.gw}"


class Neighbour(NamedTuple):
    """A neighbour entry: the MAC of an address on the vxlan device."""

    ip: IP
    mac: str

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies it to the kernel."""
        return ("neighbour", self.ip)

    def __str__(self) -> str:
        return f"neighbour {self.ip} lladdr {self.mac}"


class Forward(NamedTuple):
    """A forwarding entry: the address of the node to which the vxlan device sends frames for a MAC."""

    mac: str
    node: IP

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies it to the kernel."""
        return ("forward", self.mac)

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} dst {self.node}"


Entry = PeerRoute | Neighbour | Forward


class Place(NamedTuple):
    """The facts about this node that the entries to a peer depend on.

    `own` are the addresses of this node. `overlay` is the index of the vxlan device, 0 without one, and `underlay` the
    IP version of its outer packets. `sources` are this node's gateway addresses. A peer with an address in one of the
    networks `links` is reached without the overlay.
    """

    own: frozenset[IP] = frozenset()
    overlay: int = 0
    underlay: int = 4
    sources: tuple[IP, ...] = ()
    links: tuple[CIDR, ...] = ()


def entries_to(peer: Node, place: Place) -> tuple[list[Entry], list[str]]:
    """The entries to a peer's pods, and as sentences why some of its pods cannot be reached."""
    if own := place.own.intersection(peer.addresses):
        return [], [f"node {peer.name} has an address of this node, {min(own)}: no routes lead there"]
    addresses = {ip.version: ip for ip in reversed(peer.addresses)}
    entries: list[Entry] = []
    problems = []
    for pods in peer.pods:
        near = addresses.get(pods.version)
        if near is not None and (not place.overlay or any(near in link for link in place.links)):
            entries.append(PeerRoute(pods, near, 0, None, METRIC))
        elif not place.overlay:
            problems.append(f"node {peer.name} has no IPv{pods.version} address, so no route leads to {pods}")
        elif (far := addresses.get(place.underlay)) is None:
            problems.append(
                f"node {peer.name} has no IPv{place.underlay} address, which the overlay needs to reach {pods}"
            )
        else:
            source = next((ip for ip in place.sources if ip.version == pods.version), None)
            mac = mac_of(far)
            entries += [Forward(mac, far), Neighbour(pods.first, mac)]
            entries.append(PeerRoute(pods, pods.first, place.overlay, source, METRIC))
    return entries, problems


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order in which to add them: a route comes after the entries that it depends on."""
    order = {Forward: 0, Neighbour: 1, PeerRoute: 2}
    return sorted(entries, key=lambda entry: order[type(entry)])


class Difference(NamedTuple):
    """Entries to add, which replaces those with the same key; then entries to remove. Both are in order."""

    missing: list[Entry]
    surplus: list[Entry]


class Wanted:
    """The wanted entries of all peers. A change of one peer takes the same time however many there are.

    Each entry is counted: two nodes with the same address share a forwarding entry, and it stays as long as one of them
    does.
    """

    def __init__(self) -> None:
        self._counts: Counter[Entry] = Counter()
        self._macs: dict[IP, str] = {}  # of the neighbours
        self.routes = 0

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._counts

    def find_mac(self, ip: IP) -> str:
        """The wanted MAC of an address on the vxlan device, "" when there is no such neighbour."""
        return self._macs.get(ip, "")

    def change(self, gone: Iterable[Entry], come: Iterable[Entry]) -> Difference:
        """Remove the entries of some peers and add those of others. Returns the changes to make in the kernel."""
        change = Counter(come)
        change.subtract(gone)
        missing, surplus = [], []
        for entry, number in change.items():
            before = self._counts[entry]
            self._counts[entry] = before + number
            if before + number <= 0:
                del self._counts[entry]
                if before > 0:
                    surplus.append(entry)
            elif before <= 0:
                missing.append(entry)
        self._note(missing, surplus)
        return _replacing(missing, surplus)

    def _note(self, missing: list[Entry], surplus: list[Entry]) -> None:
        for entry in surplus:
            self.routes -= isinstance(entry, PeerRoute)
            if isinstance(entry, Neighbour):
                del self._macs[entry.ip]
        for entry in missing:
            self.routes += isinstance(entry, PeerRoute)
            if isinstance(entry, Neighbour):
                self._macs[entry.ip] = entry.mac

    def compare(self, there: Iterable[Entry]) -> Difference:
        """Compare with the entries in the kernel. Returns the changes to make there."""
        there = set(there)
        return _replacing([entry for entry in self._counts if entry not in there], there - self._counts.keys())


def _replacing(missing: Iterable[Entry], surplus: Iterable[Entry]) -> Difference:
    missing = in_order(missing)
    replaced = {entry.key for entry in missing}
    return Difference(missing, in_order(entry for entry in surplus if entry.key not in replaced)[::-1])


def mac_of(node: IP) -> str:
    """The MAC of a node's vxlan device, computed from the node's address. Locally administered, unicast (IEEE 802)."""
    return "0a:" + sha256(f"vxlan {node}".encode()).digest()[:5].hex(":")


def metric_of(network: str) -> int:
    """The metric of a network's routes."""
    return _FIRST_METRIC + int.from_bytes(sha256(network.encode()).digest()[:3], "big")


METRIC = metric_of(NETWORK)
