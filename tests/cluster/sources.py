"""How the nodes of a test's cluster learn of each other: a file on each, etcd, or the API of Kubernetes.

etcd and the API server are on a machine of their own, on the link of the nodes.
"""

import base64
import http.client
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.cluster.fabric import Fabric, Machine, Port, bare, version_of
from tests.cluster.node import Node
from tests.kit.api_server import ApiServer
from tests.kit.api_server import node as describe
from tests.kit.certificates import Pair, make_ca, sign
from tests.kit.etcd import EtcdCluster
from tests.kit.node import entered

NODES_FILE = "/etc/pycni/nodes"
KUBECONFIG = "/etc/pycni/kubeconfig"
STORE = Port("lan", ("192.168.1.2/24",))
PREFIX = "/pycni"
ETCD_PORT = 2379
TOKEN = "secret"
BOUND = 10.0  # seconds for an answer
_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: only
contexts:
- name: only
  context:
    cluster: only
    user: only
clusters:
- name: only
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: only
  user:
    token: {token}
"""


class Place(NamedTuple):
    """A node to be: where it is plugged in, and the ranges of its pods, none where etcd says them, or has no pods."""

    name: str
    port: Port
    pod_cidrs: tuple[str, ...] = ()

    def gateway(self, version: int) -> str:
        """The address of the pods' gateway: the first of the range."""
        (found,) = [cidr for cidr in self.pod_cidrs if version_of(cidr) == version]
        return found.partition("/")[0].removesuffix("0" if version == 4 else "") + "1"


class Overlay(NamedTuple):
    """A network over the network, for nodes that are not on one link. `version` is the only IP version in which nodes
    know each other then, 0 for both; with `direct` it is left out among nodes on one link.
    """

    version: int
    direct: bool = False


class Source(Protocol):
    """Who tells a cluster's nodes of each other."""

    gives_ranges: bool  # to every node; otherwise places have them

    def options(self, place: Place) -> list[str]:
        """The options of a node's agent."""

    def tell(self, places: Collection[Place], nodes: Mapping[str, Node]) -> None:
        """Have these be the nodes of the cluster; `nodes` are those that run, by name."""

    def forget(self, name: str) -> None:
        """A node is no longer part of the cluster."""

    def close(self) -> None:
        """Nobody asks any more."""


class FileSource:
    """A file with all nodes, on every one of them."""

    gives_ranges = False

    def __init__(self, version: int = 0) -> None:
        self._version = version  # the only one in which nodes have addresses there, 0 for both

    def options(self, place: Place) -> list[str]:
        """See Source."""
        return [f"--nodes-file={NODES_FILE}", *(f"--node-ip={address}" for address in self._addresses(place))]

    def tell(self, places: Collection[Place], nodes: Mapping[str, Node]) -> None:
        """See Source."""
        for node in nodes.values():
            self.tell_one(node, places)

    def tell_one(self, node: Node, places: Collection[Place]) -> None:
        """Tell one node alone. Replaced in one step, as an operator should."""
        lines = [f"{','.join(p.pod_cidrs)} {','.join(self._addresses(p))} {p.name}\n" for p in places if p.pod_cidrs]
        path = node.path(NODES_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".nodes")
        new.write_text("".join(lines))
        new.rename(path)

    def forget(self, name: str) -> None:
        """See Source: the file of the others says it."""

    def close(self) -> None:
        """See Source."""

    def _addresses(self, place: Place) -> list[str]:
        return [each for each in bare(place.port.addresses) if self._version in (0, version_of(each))]


class EtcdSource:
    """A real etcd. It gives the nodes their ranges."""

    gives_ranges = True

    def __init__(self, fabric: Fabric, lease: int = 0) -> None:
        self._machine = fabric.add_machine("store", STORE)
        self._lease = lease  # seconds, 0 for what is usual
        self.etcd = EtcdCluster(fabric.host, place=("store", self._machine.address(4), ETCD_PORT))

    def options(self, place: Place) -> list[str]:
        """See Source."""
        lease = [f"--lease={self._lease}"] if self._lease else []
        return ["--source=etcd", f"--etcd={self.etcd.urls[0]}", f"--node-name={place.name}", *lease]

    def tell(self, places: Collection[Place], nodes: Mapping[str, Node]) -> None:
        """See Source: they tell each other."""

    def forget(self, name: str) -> None:
        """See Source."""
        self.etcd.ctl("del", f"{PREFIX}/nodes/{name}")

    def put(self, name: str, value: str) -> None:
        """Have an entry of a node that is none, at once: without another process."""
        key, text = (base64.b64encode(each.encode()).decode() for each in (f"{PREFIX}/nodes/{name}", value))
        with entered(self._machine.netns):
            connection = http.client.HTTPConnection(self._machine.address(4), ETCD_PORT, timeout=BOUND)
            connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": text}))
            assert connection.getresponse().status == 200
            connection.close()

    def stop(self) -> None:
        """End etcd; its data stays."""
        self.etcd.members[0].kill()

    def resume(self) -> None:
        """Have it back."""
        self.etcd.members[0].start()
        self.etcd.wait_until_it_serves()

    def close(self) -> None:
        """It ends with the fabric."""


class ApiSource:
    """An API server with Nodes, over TLS, for who has the token."""

    gives_ranges = False

    def __init__(self, fabric: Fabric, directory: Path, port: Port = STORE, machine: str = "store") -> None:
        self._machine: Machine = fabric.add_machine(machine, port)
        self.ca = make_ca(directory).certificate
        self._pair = sign(Pair(self.ca, self.ca.with_suffix(".key")), "server", hosts=f"IP:{self._machine.address(4)}")
        self._places: dict[str, Place] = {}
        self._start(0)

    def options(self, place: Place) -> list[str]:
        """See Source."""
        return ["--source=kubernetes", f"--kubeconfig={KUBECONFIG}", f"--node-name={place.name}"]

    def tell(self, places: Collection[Place], nodes: Mapping[str, Node]) -> None:
        """See Source: what the API does not have yet, or otherwise."""
        ca = base64.b64encode(self.ca.read_bytes()).decode()
        for node in nodes.values():
            path = node.path(KUBECONFIG)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_KUBECONFIG.format(server=self.server.url, ca=ca, token=TOKEN))
        for place in places:
            if self._places.get(place.name) != place:
                self._places[place.name] = place
                self._put(place)

    def forget(self, name: str) -> None:
        """See Source."""
        if self._places.pop(name, None):
            self.server.delete(name)

    def stop(self) -> None:
        """End the API server."""
        self.server.__exit__()

    def resume(self) -> None:
        """Have it back at the same address, with the same nodes and a history of its own."""
        self._start(self.where[1])
        for place in self._places.values():
            self._put(place)

    def close(self) -> None:
        """End it for good."""
        self.stop()

    @property
    def where(self) -> tuple[str, int]:
        """Its address and port."""
        return self._machine.address(4), self.server.port

    def _start(self, port: int) -> None:
        with entered(self._machine.netns):
            self.server = ApiServer(self._pair, where=(self._machine.address(4), port))
        self.server.tokens = {TOKEN}
        self.server.__enter__()

    def _put(self, place: Place) -> None:
        self.server.put(describe(place.name, ",".join(place.pod_cidrs), ",".join(bare(place.port.addresses))))
