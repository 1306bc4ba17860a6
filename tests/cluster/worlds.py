"""The clusters of the tests, each in a fabric of its own: where nodes stand, their ranges, and who else is there."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.cluster import Cluster
from tests.cluster.fabric import Fabric, Machine, Port
from tests.cluster.probe import Seen, Target, ask, listening
from tests.cluster.runtime import Kit
from tests.cluster.sources import Place, Source

NODES = ("node1", "node2", "node3")
PODS = {f"pod{number}{letter}": f"node{number}" for number in (1, 2, 3) for letter in "ab"}  # and the node of each
PORT = 80
OUTSIDERS = ("neighbour", "outside")  # on the link of the nodes, and behind a router

# RFC 5737 and 3849 have the addresses for what is behind the router.
_OUTSIDE = Port("far", ("198.51.100.100/24", "2001:db8:100::100/64"), ("198.51.100.1", "2001:db8:100::1"))
_NEIGHBOUR = Port("lan", ("192.168.1.100/24", "fd00:1::100/64"))
_ROUTER = (
    Port("far", ("198.51.100.1/24", "2001:db8:100::1/64")),
    Port("lan", ("192.168.1.1/24", "fd00:1::1/64")),
    *(Port(f"lan{n}", (f"192.168.{10 + n}.1/24", f"fd00:{10 + n}::1/64")) for n in (1, 2, 3)),
)


class Parts(NamedTuple):
    """What all clusters are made of."""

    tree: Path
    bundle: Path
    kit: Kit


class World(NamedTuple):
    """A cluster, and what is around it."""

    cluster: Cluster
    fabric: Fabric
    outsiders: dict[str, Machine]

    def machine(self, name: str) -> Machine:
        """Anybody: a node, a pod, or an outsider."""
        return self.outsiders.get(name) or self.cluster.machine(name)

    def ask(self, client: str, server: str, version: int = 4) -> Seen | None:
        """Connect to a server at its own address."""
        there = self.machine(server)
        with listening(PORT, there) as servers:
            return ask(self.machine(client), Target(there.address(version), PORT), servers)

    def expected(self, client: str, server: str, version: int = 4) -> Seen:
        """What a server has to see: the client's own address, wherever both are in the cluster; else its node's."""
        cluster = self.cluster
        if server in OUTSIDERS:
            return Seen(server, cluster.nodes[cluster.node_of(client)].machine.address(version))
        if client in cluster.nodes and server in cluster.pods and client == cluster.node_of(server):
            return Seen(server, cluster.places[client].gateway(version))
        return Seen(server, self.machine(client).address(version))


def place_on_lan(number: int, *, dual: bool = False) -> Place:
    """A node on the one link: 192.168.1.11 is the first, with the pods of 10.240.1.0/24."""
    addresses, gateways, cidrs = [f"192.168.1.{10 + number}/24"], ["192.168.1.1"], [f"10.240.{number}.0/24"]
    if dual:
        addresses += [f"fd00:1::{10 + number}/64"]
        gateways += ["fd00:1::1"]
        cidrs += [f"fd00:240:{number}::/64"]
    return Place(f"node{number}", Port("lan", tuple(addresses), tuple(gateways)), tuple(cidrs))


def place_behind_router(number: int) -> Place:
    """A node on a link of its own, dual stack."""
    net = 10 + number
    port = Port(f"lan{number}", (f"192.168.{net}.11/24", f"fd00:{net}::11/64"), (f"192.168.{net}.1", f"fd00:{net}::1"))
    return Place(f"node{number}", port, (f"10.240.{number}.0/24", f"fd00:240:{number}::/64"))


@contextmanager
def open_world(parts: Parts, places: Sequence[Place], **options: Any) -> Iterator[World]:
    """A cluster that is ready for pods, for a block."""
    with open_site(parts, {place.port.link for place in places}, **options) as site:
        site.cluster.join(*places)
        yield site


@contextmanager
def open_site(
    parts: Parts,
    links: Collection[str],
    make: type[Cluster] = Cluster,
    *,
    knows: Callable[[Fabric], Source] | None = None,
    **options: Any,
) -> Iterator[World]:
    """Links with who is on them beside the nodes, and a cluster without nodes so far, for a block.

    `knows` makes who tells the nodes of each other; otherwise it is a file on each.
    """
    with ExitStack() as stack:
        fabric = Fabric()
        stack.callback(fabric.close)
        links = {_OUTSIDE.link, *links}
        fabric.add_machine("router", *(port for port in _ROUTER if port.link in links), forwards=True)
        ports = {"neighbour": _NEIGHBOUR, "outside": _OUTSIDE}
        outsiders = {name: fabric.add_machine(name, port) for name, port in ports.items() if port.link in links}
        if knows is not None:
            options["source"] = source = knows(fabric)
            stack.callback(source.close)
        cluster = make(fabric, parts.tree, parts.bundle, parts.kit, **options)
        stack.callback(cluster.close)
        yield World(cluster, fabric, outsiders)
