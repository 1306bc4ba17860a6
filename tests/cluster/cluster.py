"""Nodes that are one cluster: each has an agent that learns of the others, and pods."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.fabric import Fabric, Machine, Port
from tests.cluster.installation import Agent
from tests.cluster.node import Node
from tests.cluster.runtime import Daemon, Kit, Runtime
from tests.cluster.sources import FileSource, Overlay, Place, Source

Item = TypeVar("Item")


class Cluster:
    """The nodes by name, and the pods by name. Close it before the fabric."""

    nodes_reboot = True  # otherwise they are containers, which are restarted

    def __init__(
        self,
        fabric: Fabric,
        tree: Path,
        bundle: Path,
        kit: Kit,
        *,
        overlay: Overlay | None = None,
        source: Source | None = None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.agents: dict[str, Agent] = {}
        self.daemons: dict[str, Daemon] = {}  # those that nobody is a client of yet
        self.runtimes: dict[str, Runtime] = {}
        self.places: dict[str, Place] = {}
        self.pods: dict[str, Machine] = {}
        self.overlay = overlay
        self.source = source or FileSource(overlay.version if overlay else 0)
        self._fabric, self._tree, self.bundle, self.kit = fabric, tree, bundle, kit

    def join(self, *places: Place) -> None:
        """Boot new nodes, have all of them learn of each other, and have runtimes on the new ones."""
        self.power_on(*places)
        self.configure()
        self.start_runtimes([place.name for place in places])

    def power_on(self, *places: Place) -> None:
        """Boot new nodes; nobody has told them anything."""
        for place in places:
            self.places[place.name] = place
            node = Node(self._fabric, self._tree, place.name, place.port, reboots=self.nodes_reboot)
            self.nodes[place.name] = node
            self.agents[place.name] = Agent(node)
            node.boot()

    def start_runtimes(self, names: Sequence[str]) -> None:
        """Have containerd on nodes that are configured, where pods can be."""
        names = [name for name in names if self.places[name].pod_cidrs]
        started = at_once(lambda name: Runtime(self.nodes[name], self.kit, self.daemons.pop(name, None)), names)
        self.runtimes.update(zip(names, started, strict=True))

    def leave(self, name: str) -> None:
        """Switch a node off for good, and have the others learn it."""
        self.switch_off(name)
        self.source.forget(name)
        self.configure()

    def switch_off(self, name: str) -> None:
        """The same, and nobody is told."""
        self._end_runtime(name)
        del self.agents[name]
        self.nodes.pop(name).scrap()
        del self.places[name]

    def configure(self) -> None:
        """Have every node know of those that there are now."""
        self.tell()
        at_once(lambda name: self.agents[name].install(self.bundle, self.options_of(name)), list(self.nodes))
        self.settle()

    def tell(self) -> None:
        """Have the source say which nodes there are."""
        self.source.tell(self.places.values(), self.nodes)

    def settle(self) -> None:
        """Wait until each agent knows all others with pods and its node is ready; note the ranges of the pods."""
        serving = {place.name for place in self.places.values() if place.pod_cidrs or self.source.gives_ranges}
        for name, agent in self.agents.items():
            report = agent.await_settled(len(serving - {name}))
            self.places[name] = self.places[name]._replace(pod_cidrs=tuple(report["pods"]))

    def options_of(self, name: str) -> list[str]:
        """The options of a node's agent."""
        overlay = ["--overlay=vxlan", *(["--direct"] if self.overlay.direct else [])] if self.overlay else []
        return [*self.source.options(self.places[name]), *overlay]

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
        self.settle()
        self.start_runtimes([name])

    def close(self) -> None:
        """All nodes, whatever state they are in."""
        with ExitStack() as stack:
            for node in self.nodes.values():
                stack.callback(node.close)
            for runtime in self.runtimes.values():
                stack.callback(runtime.close)

    def _end_runtime(self, name: str) -> None:
        if name in self.runtimes:  # else it has not got that far
            for pod in self.runtimes[name].pods:
                del self.pods[pod]
            self.runtimes.pop(name).close()


def at_once(work: Callable[[str], Item], names: Sequence[str]) -> list[Item]:
    """Do the same for several at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, names))
