"""containerd on a node, with the client that a kubelet would be, and the pods that it made."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tests.cluster.fabric import Machine
from tests.cluster.node import Node
from tests.kit.containerd import CONFIG, CRI, SOCKET, START_BOUND, Pod
from tests.kit.host import wait_until

_LOG = "/run/containerd.log"


class Kit(NamedTuple):
    """What every runtime needs."""

    archive: Path  # the pause image
    messages: ModuleType


class Daemon:
    """containerd, started."""

    def __init__(self, node: Node, archive: Path) -> None:
        self.cgroup = node.cgroup
        self._node = node
        self._archive = archive
        node.path("/etc/containerd/config.toml").write_text(CONFIG % {"root": "/var/lib/containerd"})
        with node.path(_LOG).open("w") as log:
            node.start("containerd", stdout=log, stderr=log)
        # The socket is there before the daemon serves; `ctr version` needs it to answer.
        ready = wait_until(lambda: node.run("ctr", "version", check=False).returncode == 0, START_BOUND)
        assert ready, f"containerd does not answer: {self.log()}"

    @property
    def socket(self) -> Path:
        """Where it listens, as this process reaches it."""
        return self._node.path(SOCKET)

    def load_image(self, namespace: str = "default") -> None:
        """Have the pause image in one of containerd's namespaces."""
        command = ("ctr", "--namespace", namespace, "images", "import", "-")
        with self._archive.open("rb") as image:
            self._node.run(*command, stdin=image)

    def log(self) -> str:
        """What the daemon has said so far."""
        return self._node.path(_LOG).read_text()


class Runtime:
    """The daemon, its client and its pods; for one boot of a node."""

    def __init__(self, node: Node, kit: Kit, daemon: Daemon | None = None) -> None:
        """`daemon` is one that runs already."""
        self.pods: dict[str, Pod] = {}
        self._node = node
        self._cri = CRI(daemon or Daemon(node, kit.archive), kit.messages, importlib.import_module("grpc"))

    def run_pod(self, name: str, **config: Any) -> Machine:
        """A pod, as it runs. `config` adds to the sandbox's configuration, with the names of the CRI."""
        pod = self.pods[name] = self._cri.run_pod(name, **config)
        # The process number is of the node's PID namespace, which only the node's own /proc knows.
        return Machine(name, str(self._node.path(pod.netns)), tuple(pod.addresses))

    def remove_pod(self, name: str) -> None:
        """As the kubelet does it."""
        self.remove(self.pods.pop(name))

    def remove(self, pod: Pod) -> None:
        """The same for a pod of an earlier boot."""
        self._cri.stop_pod(pod)
        self._cri.remove_pod(pod)

    def close(self) -> None:
        """Let the connection go; the daemon ends with the node."""
        self._cri.close()
