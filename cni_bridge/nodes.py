"""The ways to the pods of other nodes: what the kernel should hold, computed from the list of peers alone. Pure.

Nodes on one link: a route to each peer's pods through its address. Behind an overlay: one vxlan device per network, a
route to the pods through an address that stands for the peer on that device, a neighbour entry that gives this address
a MAC, and a forwarding entry that says at which node frames for that MAC are delivered. Nothing is learned and nothing
is asked for: every node derives the MAC of every other from its address.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import Collection, Iterable, Mapping, NamedTuple, sha256

PROTOCOL = 80  # of our routes (rtnetlink(7), rtm_protocol), which no routing daemon in the kernel's list uses
_FIRST_METRIC = 1 << 16  # above what people write by hand: a route of theirs goes before ours


class Peer(NamedTuple):
    """Another node: the range of its pods, and its address."""

    pods: CIDR
    node: IP


class Overlay(NamedTuple):
    """A vxlan network between the nodes: its number, its UDP port, the interface that it goes out by ("": any)."""

    vni: int
    port: int
    device: str

    @property
    def name(self) -> str:
        """The name of the vxlan device."""
        return f"vxlan.{self.vni}"


class NodeRoute(NamedTuple):
    """A route to a peer's pods. `device` is an interface index, 0 where the gateway's network decides.

    `source` is the address that the host itself speaks from; `metric` tells the networks apart.
    """

    dst: CIDR
    gw: IP
    device: int
    source: IP | None
    metric: int

    def __str__(self) -> str:
        return f"route {self.dst} via {self.gw} proto {PROTOCOL} metric {self.metric}"


class Neighbour(NamedTuple):
    """The MAC of an address on the vxlan device."""

    ip: IP
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.ip} lladdr {self.mac}"


class Forward(NamedTuple):
    """The node at which frames for a MAC are delivered."""

    mac: str
    node: IP

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} dst {self.node}"


class Source(NamedTuple):
    """The host's own address on the vxlan device: without one the kernel drops what comes in there (rp_filter)."""

    address: CIDR

    def __str__(self) -> str:
        return f"address {self.address} of the vxlan device"


Entry = Source | NodeRoute | Neighbour | Forward


class Ways(NamedTuple):
    """All that leads to other nodes' pods."""

    sources: frozenset[Source] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    routes: frozenset[NodeRoute] = frozenset()

    def in_order(self) -> list[Entry]:
        """All entries; a route comes after what it leads over."""
        return [*self.sources, *self.neighbours, *self.forwards, *self.routes]


def make_ways(network: str, peers: Iterable[Peer], device: int, sources: Mapping[int, IP]) -> Ways:
    """The ways to peers: through the vxlan device with that index, or with 0 directly.

    `sources` has the host's own address among the pods, by IP version.
    """
    metric = metric_of(network)
    if not device:
        return Ways(routes=frozenset(NodeRoute(peer.pods, peer.node, 0, None, metric) for peer in peers))
    peers = list(peers)
    return Ways(
        sources=frozenset(Source(CIDR(ip, ip.bits)) for ip in sources.values() if ip.version == 4),
        routes=frozenset(
            NodeRoute(peer.pods, peer.pods.first, device, sources.get(peer.pods.version), metric) for peer in peers
        ),
        neighbours=frozenset(Neighbour(peer.pods.first, mac_of(peer.node)) for peer in peers),
        forwards=frozenset(Forward(mac_of(peer.node), peer.node) for peer in peers),
    )


def list_others(peers: Iterable[Peer], own: Collection[IP]) -> list[Peer]:
    """The peers that are not this node itself: the same list may stand on all of them."""
    return [peer for peer in peers if peer.node not in own]


def list_untranslated(peers: Iterable[Peer]) -> list[CIDR]:
    """The networks that NAT has nothing to do with: the peers' pods and the peers themselves."""
    found = [network for peer in peers for network in (peer.pods, CIDR(peer.node, peer.node.bits))]
    return list(dict.fromkeys(found))


def metric_of(network: str) -> int:
    """The metric of a network's routes, by which they are told from those of another network."""
    return _FIRST_METRIC + int.from_bytes(sha256(network.encode()).digest()[:3], "big")


def mac_of(node: IP) -> str:
    """The MAC of a node's vxlan device: locally administered, unicast (IEEE 802), and known to all by the address."""
    return "0a:" + sha256(f"vxlan {node}".encode()).digest()[:5].hex(":")
