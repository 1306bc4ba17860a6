"""containerd on a node, and the part of the CRI client that a kubelet has."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from tests.kit import image
from tests.kit.host import wait_until
from tests.kit.node import CONF_DIR, PLUGIN_DIR, Node, end

SOCKET = "/run/containerd/containerd.sock"
_LOG = "/run/containerd.log"
START_BOUND = 30.0  # seconds
_CALL_BOUND = 60.0
_PROTO = Path(__file__).parent / "cri.proto"
CONFIG = f"""
version = 2
root = "%(root)s"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.NAME}"
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{PLUGIN_DIR}"
  conf_dir = "{CONF_DIR}"
"""


class Containerd:
    """The daemon. `networks` that it shall know stand in the node's configuration directory before it starts."""

    def __init__(self, node: Node, archive: Path) -> None:
        self.node = node
        self._archive = archive
        node.path("/run/containerd.toml").write_text(CONFIG % {"root": "/run/containerd-root"})
        with node.path(_LOG).open("w") as log:
            command = ("containerd", "--config", "/run/containerd.toml")
            self._process = node.host.start(*command, stdout=log, stderr=log)
        # The socket is there before the daemon serves; `ctr version` needs it to answer.
        ready = wait_until(lambda: node.host.run(*self.ctr("version"), check=False).returncode == 0, START_BOUND)
        assert ready, f"containerd does not answer: {self.log()}"

    @property
    def socket(self) -> Path:
        """Where it listens, as this process reaches it."""
        return self.node.path(SOCKET)

    @property
    def cgroup(self) -> str:
        """What its pods' cgroups shall be in."""
        return self.node.cgroup

    def ctr(self, *arguments: str, namespace: str = "default") -> tuple[str, ...]:
        """The command line of containerd's own client."""
        return ("ctr", "--address", SOCKET, "--namespace", namespace, *arguments)

    def load_image(self, namespace: str = "default") -> None:
        """Have the image in one of containerd's namespaces."""
        self.node.host.run(*self.ctr("images", "import", str(self._archive), namespace=namespace))

    def log(self) -> str:
        """What the daemon has said so far."""
        return self.node.path(_LOG).read_text()

    def close(self) -> None:
        """End the daemon; its containers go on, as with every restart of containerd."""
        end(self._process)


class Pod:
    """A sandbox that runs."""

    def __init__(self, identity: str, pid: int, addresses: list[str]) -> None:
        self.identity = identity
        self.pid = pid  # of the pause process
        self.addresses = addresses  # as the CRI tells them
        self.netns = f"/proc/{pid}/ns/net"


class Daemon(Protocol):
    """What the client has to know of a daemon, wherever that runs."""

    @property
    def socket(self) -> Path:
        """Where it listens, as this process reaches it."""

    @property
    def cgroup(self) -> str:
        """What its pods' cgroups shall be in."""

    def load_image(self, namespace: str = "default") -> None:
        """Have the pause image in one of containerd's namespaces."""

    def log(self) -> str:
        """What the daemon has said so far."""


class CRI:
    """What a kubelet asks of containerd. Errors are the RpcError of grpc."""

    def __init__(self, daemon: Daemon, messages: ModuleType, grpc: ModuleType) -> None:
        self._daemon = daemon
        self._messages = messages
        daemon.load_image("k8s.io")
        self._channel = grpc.insecure_channel(f"unix:{daemon.socket}")
        # The CRI learns of the image by an event, and of the network from a watcher.
        assert wait_until(self._is_ready, START_BOUND), daemon.log()

    def run_pod(self, name: str, **config: Any) -> Pod:
        """RunPodSandbox. `config` adds to the sandbox's configuration, with the names of the CRI."""
        whole = {
            "metadata": {"name": name, "uid": f"uid-of-{name}", "namespace": "default", "attempt": 0},
            "hostname": name,
            "log_directory": "/run/pod-logs",
            "linux": {"cgroup_parent": self._daemon.cgroup},
            **config,
        }
        identity = self._call("RunPodSandbox", config=whole).pod_sandbox_id
        answer = self._call("PodSandboxStatus", pod_sandbox_id=identity, verbose=True)
        network = answer.status.network
        pid = json.loads(answer.info["info"])["pid"]
        return Pod(identity, pid, [network.ip, *(entry.ip for entry in network.additional_ips)])

    def stop_pod(self, pod: Pod) -> None:
        """StopPodSandbox: the first time with the network, every further time without.

        Called again, as the kubelet does it, where containerd speaks to a shim that is just ending with its sandbox.
        """
        try:
            self._call("StopPodSandbox", pod_sandbox_id=pod.identity)
        except Exception as error:
            if "ttrpc: closed" not in str(error):
                raise
            self._call("StopPodSandbox", pod_sandbox_id=pod.identity)

    def remove_pod(self, pod: Pod) -> None:
        """RemovePodSandbox."""
        self._call("RemovePodSandbox", pod_sandbox_id=pod.identity)

    def list_pods(self) -> list[str]:
        """The sandboxes that containerd knows."""
        return [item.id for item in self._call("ListPodSandbox").items]

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def _is_ready(self) -> bool:
        conditions = self._call("Status").status.conditions
        found = self._call("ImageStatus", "ImageService", image={"image": image.NAME})
        return all(condition.status for condition in conditions) and found.HasField("image")

    def _call(self, method: str, service: str = "RuntimeService", **fields: Any) -> Any:
        request = getattr(self._messages, f"{method}Request")
        response = getattr(self._messages, f"{method}Response")
        remote = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return remote(request(**fields), timeout=_CALL_BOUND)


def load_messages(target: Path) -> ModuleType:
    """The messages of the CRI, compiled into a directory."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{_PROTO.parent}", f"--python_out={target}", _PROTO.name]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    spec = importlib.util.spec_from_file_location("cri_pb2", target / "cri_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
