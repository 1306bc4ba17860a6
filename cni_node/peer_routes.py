"""What leads to the pods of other nodes: routes, neighbours and forwarding entries, for one peer at a time. Pure.

Nodes on one link: a route to each peer's pods through its address. Behind an overlay: a route to the pods through an
address that stands for the peer on the vxlan device, a neighbour entry that gives this address a MAC, and a forwarding
entry that says at which node frames for that MAC are delivered. Nothing is learned and nothing is asked for: every
node derives the MAC of every other from its address.

Must not: know what the kernel holds.
"""

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from cni_node.snapshot import Node
from cni_protocol.address import CIDR, IP

PROTOCOL = 80  # of our routes (rtnetlink(7), rtm_protocol), which no routing daemon in the kernel's list uses
NETWORK = "pycni"
_FIRST_METRIC = 1 << 16  # above what people write by hand: a route of theirs goes before ours


class PeerRoute(NamedTuple):
    """A route to a peer's pods. `device` is the index of the vxlan device, 0 where the gateway's network decides.

    `source` is the address that this node itself speaks from, None for the kernel's choice.
    """

    dst: CIDR
    gw: IP
    device: int
    source: IP | None
    metric: int

    @property
    def key(self) -> tuple[object, ...]:
        """What the kernel knows it by: another route with the same is replaced."""
        return (self.dst, self.metric)

    def __str__(self) -> str:
        return f"route {self.dst} via {self.gw}"


class Neighbour(NamedTuple):
    """The MAC of an address on the vxlan device."""

    ip: IP
    mac: str

    @property
    def key(self) -> tuple[object, ...]:
        """What the kernel knows it by."""
        return ("neighbour", self.ip)

    def __str__(self) -> str:
        return f"neighbour {self.ip} lladdr {self.mac}"


class Forward(NamedTuple):
    """The node at which frames for a MAC are delivered."""

    mac: str
    node: IP

    @property
    def key(self) -> tuple[object, ...]:
        """What the kernel knows it by."""
        return ("forward", self.mac)

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} dst {self.node}"


Entry = PeerRoute | Neighbour | Forward


class Place(NamedTuple):
    """Where this node stands: all of it that decides what leads to a peer.

    `own` are the addresses of this node. `overlay` is the index of the vxlan device, 0 without one, and `underlay` the
    IP version of its packets. `sources` are this node's own addresses among the pods. Who has an address in `links`
    is reached without the overlay.
    """

    own: frozenset[IP] = frozenset()
    overlay: int = 0
    underlay: int = 4
    sources: tuple[IP, ...] = ()
    links: tuple[CIDR, ...] = ()


def entries_to(peer: Node, place: Place) -> tuple[list[Entry], list[str]]:
    """What leads to a peer's pods, and in sentences what cannot."""
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
    """Entries in the order in which they are to be made: a route comes after what it leads over."""
    order = {Forward: 0, Neighbour: 1, PeerRoute: 2}
    return sorted(entries, key=lambda entry: order[type(entry)])


class Difference(NamedTuple):
    """What is to be made, by replacing what has the same key, and what is to be taken away after that, in order."""

    missing: list[Entry]
    surplus: list[Entry]


class Wanted:
    """The entries of all peers, counted, so that a change of one peer costs nothing for the others.

    Two nodes with one address share a forwarding entry; it is wanted as long as one of them is there.
    """

    def __init__(self) -> None:
        self._counts: Counter[Entry] = Counter()
        self._macs: dict[IP, str] = {}  # of the neighbours
        self.routes = 0

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._counts

    def find_mac(self, ip: IP) -> str:
        """The MAC that an address on the vxlan device should have, empty where none is wanted."""
        return self._macs.get(ip, "")

    def change(self, gone: Iterable[Entry], come: Iterable[Entry]) -> Difference:
        """Take the entries of some peers out and those of others in. Returns what that is for the kernel."""
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
        """What the kernel lacks, and what it has beside."""
        there = set(there)
        return _replacing([entry for entry in self._counts if entry not in there], there - self._counts.keys())


def _replacing(missing: Iterable[Entry], surplus: Iterable[Entry]) -> Difference:
    missing = in_order(missing)
    replaced = {entry.key for entry in missing}
    return Difference(missing, in_order(entry for entry in surplus if entry.key not in replaced)[::-1])


def mac_of(node: IP) -> str:
    """The MAC of a node's vxlan device: locally administered, unicast (IEEE 802), and known to all by the address."""
    return "0a:" + sha256(f"vxlan {node}".encode()).digest()[:5].hex(":")


def metric_of(network: str) -> int:
    """The metric of a network's routes."""
    return _FIRST_METRIC + int.from_bytes(sha256(network.encode()).digest()[:3], "big")


METRIC = metric_of(NETWORK)
