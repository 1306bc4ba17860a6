"""podman with its CNI backend on a node, with storage of its own."""

import json
from pathlib import Path
from typing import Any

from tests.kit import image
from tests.kit.node import CONF_DIR, PLUGIN_DIR, Node

_CONFIG = f"""
[network]
network_backend = "cni"
cni_plugin_dirs = ["{PLUGIN_DIR}"]
network_config_dir = "{CONF_DIR}"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"""
# Above the limits of the machine that the tests run on, podman's own defaults fail without CAP_SYS_RESOURCE.
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


class Podman:
    """The client; podman has no daemon, but a monitor beside each container."""

    def __init__(self, node: Node, rootfs: Path) -> None:
        self.node = node
        self._rootfs = rootfs
        node.path("/run/containers.conf").write_text(_CONFIG)
        self._variables = {"CONTAINERS_CONF": "/run/containers.conf", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def run_container(self, name: str, *options: str) -> int:
        """Start a container that waits. Returns the id of its process."""
        root = ("--rootfs", f"{self._rootfs}:O")
        limits = (*_LIMITS, "--cgroup-parent", self.node.cgroup)
        self._podman("run", "--detach", "--name", name, *limits, *options, *root, *image.COMMAND)
        return int(self.inspect(name)["State"]["Pid"])

    def inspect(self, name: str) -> Any:
        """What podman says of a container."""
        return json.loads(self._podman("inspect", name))[0]

    def remove(self, name: str) -> None:
        """Stop a container at once and remove it."""
        self._podman("rm", "--force", "--time", "0", name)

    def reload_network(self, name: str) -> None:
        """Have podman take the container's network down and up again, as after a firewall was flushed."""
        self._podman("network", "reload", name)

    def _podman(self, *arguments: str) -> str:
        state = ("--root", "/run/podman/root", "--runroot", "/run/podman/run", "--tmpdir", "/run/podman/tmp")
        # The monitor keeps the streams that podman was given: with pipes the caller would wait for its end too.
        log = self.node.path("/run/podman.log")
        with log.open("w+") as errors, self.node.path("/run/podman.out").open("w+") as output:
            command = ("podman", *state, "--storage-driver", "overlay", *arguments)
            streams: dict[str, Any] = {"capture_output": False, "stdout": output, "stderr": errors}
            result = self.node.host.run(*command, env=self._variables, check=False, **streams)
            output.seek(0)
            assert result.returncode == 0, f"podman {' '.join(arguments)}: {log.read_text()}"
            return output.read()
