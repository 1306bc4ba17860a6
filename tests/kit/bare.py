"""A bare node: a root file system with glibc, a shell and nothing else, in mount and network namespaces of its own.

There is no Python in it, which is looked at, not believed. Its root is read-only, but for /opt/cni, /var/lib/cni and
/run (and /etc/cni, where a test asks for it), which are on disk below the directory that it is made in.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kit.calls import PATH, call_environment
from tests.kit.host import RUN_BOUND, Host, Outcome

GLIBC = ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2")
MULTIARCH = Path("/lib/x86_64-linux-gnu")
APPLETS = ("cat", "chmod", "env", "find", "ls", "mkdir", "mount", "rm", "sh", "sleep", "tar", "tee", "test", "umount")
MOUNT_POINTS = ("proc", "sys", "dev", "run", "old", "opt/cni", "var/lib/cni", "etc/cni", "tmp")
WRITABLE = ("opt/cni", "var/lib/cni")

# pivot_root and not chroot: who enters the namespaces from outside then has the node's root, too.
_SET_UP = """
set -e
tree=$1
shift
mount --make-rprivate /
mount --bind $tree/root $tree/root
mount -t proc proc $tree/root/proc
mount -t sysfs sysfs $tree/root/sys
mount --rbind /dev $tree/root/dev
mount -t tmpfs run $tree/root/run
for name in "$@"; do mount --bind $tree/disk/$name $tree/root/$name; done
mount -o remount,bind,ro $tree/root
cd $tree/root
pivot_root . old
cd /
/bin/umount -l /old
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready
exec /bin/sleep 3600
"""


class BareNode(Host):
    """A node without Python. `host` commands run on the machine's tools, in the node's network alone."""

    def __init__(self, holder: "subprocess.Popen[str]", disk: Path) -> None:
        super().__init__(holder)
        self.disk = disk
        self._containers: list[subprocess.Popen[str]] = []

    def argv(self, *command: str, container: str | None = None) -> list[str]:
        """The command line that runs a command of the machine in the node's network, or in a container's."""
        pid = container or str(self.pid)
        return ["/usr/bin/nsenter", "-t", pid, "-n", "--", *command]

    def inside(self) -> list[str]:
        """What goes in front of a command that the node itself runs, with its own files."""
        return ["/usr/bin/nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-i", "--"]

    def call(self, *command: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Outcome:
        """Run a command of the node itself."""
        variables = {"PATH": PATH, **(env or {})}
        result = subprocess.run(
            [*self.inside(), *command], input=stdin, env=variables, capture_output=True, timeout=RUN_BOUND, check=False
        )
        stdout = result.stdout.decode()
        try:
            document = json.loads(stdout)
        except ValueError:
            document = None
        return Outcome(result.returncode, document, stdout, result.stderr.decode())

    def plugin(self, command: str, config: Mapping[str, Any], *, container: str = "", name: str = "c1") -> Outcome:
        """Call a plugin as the node's runtime does. `container` is what start_container returned."""
        netns = f"/proc/{container}/ns/net" if container else ""
        env = call_environment(command, name, netns, path=["/opt/cni/bin"])
        return self.call(f"/opt/cni/bin/{config['type']}", env=env, stdin=json.dumps(config).encode())

    def start_container(self) -> str:
        """A process in a network namespace of its own. Returns its pid, which names the container here."""
        script = "ip link set lo up && echo ready && exec sleep 3600"
        command = self.argv("unshare", "--net", "sh", "-c", script)
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "ready"
        self._containers.append(holder)
        return str(holder.pid)

    def close(self) -> None:
        """End the containers and the node."""
        for holder in self._containers:
            holder.kill()
            holder.wait(timeout=RUN_BOUND)
        super().close()


def make_tree(target: Path) -> None:
    """A root file system without Python at TARGET/root, and what it may write to at TARGET/disk."""
    root = target / "root"
    for name in (*MOUNT_POINTS, "bin", "sbin", "usr/bin", "etc", "lib64", str(MULTIARCH)[1:]):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("opt/cni", "var/lib/cni", "etc/cni"):
        (target / "disk" / name).mkdir(parents=True)
    for name in GLIBC:
        shutil.copy(MULTIARCH / name, root / str(MULTIARCH)[1:] / name)
    (root / "lib64" / "ld-linux-x86-64.so.2").symlink_to(MULTIARCH / "ld-linux-x86-64.so.2")
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    assert not [path for path in target.rglob("*") if "python" in path.name.lower()]


def open_bare_node(target: Path, writable: Sequence[str] = WRITABLE) -> BareNode:
    """Start a node on a tree of make_tree; the caller closes it."""
    namespaces = ["-n", "-m", "-u", "-i", "--propagation", "private"]
    command = ["/usr/bin/unshare", *namespaces, "/bin/sh", "-c", _SET_UP, "sh", str(target), *writable]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]})
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "ready", "the bare node could not be set up (root is needed)"
    node = BareNode(holder, target / "disk")
    node.run("ip", "link", "set", "lo", "up")
    return node
