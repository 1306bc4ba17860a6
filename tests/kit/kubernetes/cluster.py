"""The cluster whole: links, control plane, nodes, pycni on the nodes; and nodes that come, go and restart."""

import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.cluster.cluster import at_once
from tests.cluster.fabric import Fabric, Port, run_in
from tests.cluster.fabric import Machine as Outsider
from tests.conftest import ROOT
from tests.kit.kubernetes.api import is_ready, path_of
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.control_plane import ADDRESS, ControlPlane
from tests.kit.kubernetes.images import write_pods_image
from tests.kit.kubernetes.kubectl import Kubectl
from tests.kit.kubernetes.machine import await_ready
from tests.kit.kubernetes.names import objects as names_objects
from tests.kit.kubernetes.own import ensure_own_image
from tests.kit.kubernetes.programs import Say, ensure_programs
from tests.kit.kubernetes.tree import ensure_tree
from tests.kit.kubernetes.worker import Worker, remove_stale_cgroups

LINK, GATEWAY = "lan", "192.168.1.1"
MANIFEST = ROOT / "conf/pycni.yaml"
READY_BOUND = 180.0  # seconds from a node's start until it is Ready
_FAR = Port("far", ("198.51.100.100/24",), ("198.51.100.1",))  # RFC 5737
_ROUTER = (Port("far", ("198.51.100.1/24",)), Port(LINK, (f"{GATEWAY}/24",)))


class Parts(NamedTuple):
    """What a cluster is made of."""

    tree: Path
    programs: Path
    images: Callable[[], Sequence[Path]]  # what every node has from the start; waits until they are made


def gather_parts(directory: Path, say: Say) -> Parts:
    """All of it: what is cached is taken from there, or built; the rest is made in a directory. Raises SetupError."""
    with ThreadPoolExecutor(1) as pool:
        tree = pool.submit(ensure_tree, say)  # that is fetched for the most part, while the programs are compiled
        programs = ensure_programs(say)
    say("making the images of the pods, while machines boot")
    pool = ThreadPoolExecutor(2)
    made = pool.submit(ensure_own_image, say), pool.submit(write_pods_image, directory / "pods.tar")
    return Parts(tree.result(), programs, lambda: [each.result() for each in made])


class Kubernetes:
    """A cluster. Make it, start it, close it; whatever state it is in."""

    def __init__(self, parts: Parts, say: Say = print) -> None:
        self.nodes: dict[str, Worker] = {}
        self.parts = parts
        self.say = say
        self._stack = ExitStack()
        remove_stale_cgroups()
        self._directory = Path(tempfile.mkdtemp(prefix="pycni-kubernetes."))
        self._stack.callback(shutil.rmtree, self._directory)
        self.fabric = Fabric("infinity")
        self._stack.callback(self.fabric.close)
        self.fabric.add_machine("router", *_ROUTER, forwards=True)
        self.outside: Outsider = self.fabric.add_machine("outside", _FAR)
        port = Port(LINK, (f"{ADDRESS}/24",), (GATEWAY,))
        self.control = ControlPlane(self.fabric, parts.tree, parts.programs, "control", port)
        self._stack.callback(self.control.close)
        self.kubectl = Kubectl(self.control)

    def start(self, names: Sequence[str]) -> None:
        """From nothing to nodes that are Ready, with pycni and a DNS server. Raises SetupError or AssertionError."""
        self.control.boot()
        self.control.prepare(self._directory)
        self.control.start_api()
        self.power_on(*names)
        self.say("machines are up; starting Kubernetes")
        at_once(self._start_machine, [self.control.name, *names])
        self.kubectl("apply", "--filename=-", input=MANIFEST.read_text())
        self.kubectl.apply(*names_objects())
        self.settle()
        self.say("nodes are Ready")
        account = f"{path_of('serviceaccounts', 'default')}/default"
        await_value("there is a service account for pods", lambda: self.kubectl.api.get(account), READY_BOUND)

    def power_on(self, *names: str) -> None:
        """Boot new nodes, by the main thread: the kernel ends a node with the thread that booted it."""
        for name in names:
            number = int(name.removeprefix("node"))
            port = Port(LINK, (f"192.168.1.{10 + number}/24",), (GATEWAY,))
            node = Worker(self.fabric, self.parts.tree, self.parts.programs, name, port)
            self.nodes[name] = node
            self._stack.callback(node.close)
            node.boot()
            node.issue(self.control.authority)

    def add_node(self, name: str) -> None:
        """A new node, until it and the others are Ready."""
        self.power_on(name)
        self._start_node(name)
        self.settle()

    def remove_node(self, name: str) -> None:
        """Drain a node, switch it off for good, and delete it."""
        self.kubectl(
            "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s", seconds=90
        )
        self.nodes.pop(name).scrap()
        self.kubectl("delete", "node", name)
        # those of its DaemonSets; left to itself Kubernetes takes a minute to see that nobody runs them
        theirs = ("--all-namespaces", f"--field-selector=spec.nodeName={name}")
        self.kubectl("delete", "pods", *theirs, "--force", "--grace-period=0")
        self.settle()

    def reboot(self, name: str) -> None:
        """Pull a node's plug, boot it again, and start its daemons; nobody tells it anything."""
        node = self.nodes[name]
        node.halt()
        node.boot()
        node.start_runtime()
        node.start_kubernetes()

    def settle(self) -> None:
        """Wait until every node has its range and is Ready, by the agent that its DaemonSet runs there."""
        machines = (self.control, *self.nodes.values())
        for name, node in self.nodes.items():
            cidr = await_ready(f"{name} has a range", partial(self.cidr, name), READY_BOUND, *machines)
            # the API server reaches pods, and its machine is no node
            run_in(self.control.netns, "ip", "route", "replace", cidr, "via", node.address)
        await_ready(f"{', '.join(self.nodes)} are Ready", self._are_ready, READY_BOUND, *machines)

    def _are_ready(self) -> bool:
        return all(is_ready(self.kubectl.get("node", name)) for name in self.nodes)

    def cidr(self, name: str) -> str:
        """The range of a node's pods, as the API has it; "" while there is none."""
        node = self.kubectl.api.get(f"{path_of('nodes')}/{name}") or {"spec": {}}
        return str(node["spec"].get("podCIDR", ""))

    def commands(self) -> dict[str, str]:
        """What a shell on this machine types to reach kubectl and the nodes, by the name that they shall have there."""
        return {
            "kubectl": self.kubectl.command(),
            **{name: shlex.join(each.argv()) for name, each in self.nodes.items()},
        }

    def close(self) -> None:
        """Let all of it go."""
        self._stack.close()

    def _start_machine(self, name: str) -> None:
        if name == self.control.name:
            self.control.start_control_plane()
        else:
            self._start_node(name)

    def _start_node(self, name: str) -> None:
        node = self.nodes[name]
        node.start_runtime()
        node.start_kubernetes()
        for image in self.parts.images():
            node.import_image(image)
