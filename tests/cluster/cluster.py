"""Nodes that are one cluster: each told of the others, with pods on them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.cluster.fabric import Fabric, Machine, Port, bare, version_of
from tests.cluster.installation import Overlay, Peer, install_node
from tests.cluster.node import Node
from tests.cluster.runtime import Kit, Runtime

Item = TypeVar("Item")


class Place(NamedTuple):
    """A node to be: where it is plugged in, and the ranges of its pods."""

    name: str
    port: Port
    pod_cidrs: tuple[str, ...]

    def gateway(self, version: int) -> str:
        """The address of the pods' gateway: the first of the range."""
        (found,) = [cidr for cidr in self.pod_cidrs if version_of(cidr) == version]
        return found.partition("/")[0].removesuffix("0" if version == 4 else "") + "1"


class Cluster:
    """The nodes by name, and the pods by name. Close it before the fabric."""

    def __init__(self, fabric: Fabric, tree: Path, bundle: Path, kit: Kit, overlay: Overlay | None = None) -> None:
        self.nodes: dict[str, Node] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.places: dict[str, Place] = {}
        self.pods: dict[str, Machine] = {}
        self.overlay = overlay
        self._fabric, self._tree, self.bundle, self._kit = fabric, tree, bundle, kit

    def join(self, *places: Place) -> None:
        """Boot new nodes, tell all of them of each other, and have runtimes on the new ones."""
        self.power_on(*places)
        self.configure()
        self.start_runtimes([place.name for place in places])

    def power_on(self, *places: Place) -> None:
        """Boot new nodes; nobody has told them anything."""
        for place in places:
            self.places[place.name] = place
            self.nodes[place.name] = Node(self._fabric, self._tree, place.name, place.port)
            self.nodes[place.name].boot()

    def start_runtimes(self, names: Sequence[str]) -> None:
        """Have containerd on nodes that are configured."""
        started = at_once(lambda name: Runtime(self.nodes[name], self._kit), names)
        self.runtimes.update(zip(names, started, strict=True))

    def leave(self, name: str) -> None:
        """Switch a node off for good, and tell the others."""
        self._end_runtime(name)
        self.nodes.pop(name).scrap()
        del self.places[name]
        self.configure()

    def configure(self) -> None:
        """Install every node, or install it again with the peers that there are now."""
        at_once(self._configure, list(self.nodes))

    def peers_of(self, name: str) -> list[Peer]:
        """What a node is told of the others: each of their ranges, behind an address of the same IP version.

        Over an overlay any address of the node will do, and it is the one of the underlay's version.
        """
        peers = []
        for place in self.places.values():
            for cidr in place.pod_cidrs if place.name != name else ():
                version = self.overlay.version if self.overlay else version_of(cidr)
                (address,) = [each for each in bare(place.port.addresses) if version_of(each) == version]
                peers.append(Peer(cidr, address))
        return peers

    def run_pod(self, node: str, name: str, **config: Any) -> Machine:
        """A pod on a node."""
        self.pods[name] = self.runtimes[node].run_pod(name, **config)
        return self.pods[name]

    def remove_pod(self, node: str, name: str) -> None:
        """Take a pod off its node."""
        self.runtimes[node].remove_pod(name)
        del self.pods[name]

    def machine(self, name: str) -> Machine:
        """A node or a pod."""
        return self.nodes[name].machine if name in self.nodes else self.pods[name]

    def node_of(self, pod: str) -> str:
        """The name of the node that a pod is on."""
        (found,) = [name for name, runtime in self.runtimes.items() if pod in runtime.pods]
        return found

    def halt(self, name: str) -> None:
        """Pull the plug of a node. Its pods are gone."""
        self._end_runtime(name)
        self.nodes[name].halt()

    def move(self, name: str, port: Port) -> None:
        """Have a node that is halted plugged in elsewhere, or under another address, when it boots."""
        self.places[name] = self.places[name]._replace(port=port)
        self.nodes[name].port = port

    def boot(self, name: str) -> None:
        """A node that was halted starts again, with the disk that it had."""
        self.nodes[name].boot()
        self.start_runtimes([name])

    def close(self) -> None:
        """All nodes, whatever state they are in."""
        with ExitStack() as stack:
            for node in self.nodes.values():
                stack.callback(node.close)
            for runtime in self.runtimes.values():
                stack.callback(runtime.close)

    def _configure(self, name: str) -> None:
        install_node(self.nodes[name], self.bundle, self.places[name].pod_cidrs, self.peers_of(name), self.overlay)

    def _end_runtime(self, name: str) -> None:
        if name in self.runtimes:  # else it has not got that far
            for pod in self.runtimes[name].pods:
                del self.pods[pod]
            self.runtimes.pop(name).close()


def at_once(work: Callable[[str], Item], names: Sequence[str]) -> list[Item]:
    """Do the same for several at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, names))
