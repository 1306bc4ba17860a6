"""A throw-away host made fit for a real runtime: its own /etc/cni, /opt/cni/bin, /run, /dev/shm and cgroup.

What a runtime starts is found by the mount namespace of the host and by the cgroup, so that nothing outlives a test,
and a test can say that nothing is left.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.conftest import REFERENCE_DIR
from tests.kit.host import Host, wait_until

CONF_DIR = "/etc/cni/net.d"  # both are where `ctr run --cni` looks, and nowhere else
PLUGIN_DIR = "/opt/cni/bin"
OUTSIDE = "outside"  # the machine on the other end of the host's uplink
HOST_ADDRESS = "192.0.2.1"
DEBIAN_PLUGINS = ("loopback", "portmap")  # containerd wants the first in every pod
CONNECT_BOUND = 3.0  # seconds
CGROUPS = Path("/sys/fs/cgroup")
# The layers keep what a runtime's set-up writes below /etc and /opt (containerd makes /opt/containerd) off the machine.
_SET_UP = f"""
set -e
for top in etc opt; do
    mkdir -p /run/layers/$top/upper /run/layers/$top/work
    mount -t overlay -o lowerdir=/$top,upperdir=/run/layers/$top/upper,workdir=/run/layers/$top/work $top /$top
done
mkdir -p {CONF_DIR} {PLUGIN_DIR} /run/lock
for own in {CONF_DIR} {PLUGIN_DIR} /dev/shm; do mount -t tmpfs own $own; done
"""


class Node:
    """The host, the plugins on it, and the containers of whatever runtime is started. Close it before the host."""

    def __init__(self, host: Host, bin_dir: str) -> None:
        self.host = host
        self.root = Path(f"/proc/{host.pid}/root")  # the host's files as this process sees them
        self.cgroup = f"/pycni-{uuid.uuid4().hex[:12]}"
        host.run("sh", "-c", _SET_UP)
        plugins = [Path(bin_dir, name) for name in ("cni-bridge", "cni-ipam")]
        plugins += [Path(REFERENCE_DIR, name) for name in DEBIAN_PLUGINS]
        for plugin in plugins:
            shutil.copy(plugin, self.path(PLUGIN_DIR))

    def path(self, name: str) -> Path:
        """A file of the host, as this process reaches it."""
        return self.root / name.lstrip("/")

    def configure(self, network: Mapping[str, Any]) -> None:
        """Make a network configuration list the only one of the host."""
        self.path(f"{CONF_DIR}/10-{network['name']}.conflist").write_text(json.dumps(network))

    def connect_outside(self) -> None:
        """Put a machine on a wire to the host; it has no route to the containers."""
        run = self.host.run
        self.host.add_container(OUTSIDE)
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE)
        run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", "uplink")
        run("ip", "-n", OUTSIDE, "address", "add", "192.0.2.2/24", "dev", "eth0")
        run("ip", "link", "set", "uplink", "up")
        run("ip", "-n", OUTSIDE, "link", "set", "eth0", "up")

    @property
    def outside(self) -> str:
        """The network namespace of the machine on the wire."""
        return str(self.path(f"/run/netns/{OUTSIDE}"))

    def processes(self) -> dict[int, str]:
        """All that runs on the host or in its containers, but what holds the host: process ids and command lines."""
        here = os.stat(f"/proc/{self.host.pid}/ns/mnt").st_ino
        ids = {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _mount_namespace(entry) == here}
        for top in self._cgroup_directories():
            for listing in top.rglob("cgroup.procs"):
                with suppress(OSError):  # the cgroup has gone in the meantime
                    ids.update(int(line) for line in listing.read_text().split())
        return {pid: _command_line(pid) for pid in ids - {self.host.pid}}

    def find_leftovers(self, network: Mapping[str, Any], *, links: Sequence[str]) -> dict[str, Any]:
        """What is there of a network, of links other than those given, and of our rules; empty when all is gone."""
        found = {
            "reservations": self.host.reservations(network["name"]),
            "links": sorted(set(self.host.link_names()) - set(links)),
            "rules": [entry for entry in self.host.nft() if "pycni" in json.dumps(entry)],
            "namespaces": sorted(set(os.listdir(self.path("/run/netns"))) - {OUTSIDE}),
        }
        return {kind: seen for kind, seen in found.items() if seen}

    def close(self) -> None:
        """End what a failed test has left running, and take the cgroup away."""
        for pid in self.processes():
            kill(pid)
        wait_until(lambda: not self.processes(), 10)
        for top in self._cgroup_directories():
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)

    def _cgroup_directories(self) -> list[Path]:
        """Where the cgroup is: one directory with version 2, one for each controller with version 1."""
        name = self.cgroup.lstrip("/")
        return [path for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if path.is_dir()]


def end(process: "subprocess.Popen[str]", bound: float = 10) -> None:
    """Ask a process to end, and make it when it does not."""
    process.terminate()
    try:
        process.wait(timeout=bound)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=bound)


def kill(pid: int) -> None:
    """End one process at once; one that has ended already is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def netns_of(pid: int) -> str:
    """The network namespace of a process."""
    return f"/proc/{pid}/ns/net"


def run_inside(netns: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a network namespace, whatever its exit status."""
    argv = ["/usr/bin/nsenter", f"--net={netns}", "--", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def ping(netns: str, address: str) -> bool:
    """Whether an address answers."""
    family = "ping6" if ":" in address else "ping"
    return run_inside(netns, "busybox", family, "-c", "1", "-W", "2", address).returncode == 0


def eth0(netns: str) -> dict[str, Any]:
    """What `ip -j` says of a container's interface."""
    shown: dict[str, Any] = json.loads(run_inside(netns, "ip", "-j", "address", "show", "dev", "eth0").stdout)[0]
    return shown


def addresses(netns: str) -> list[str]:
    """The global addresses of a container's interface, without prefix lengths."""
    return [entry["local"] for entry in eth0(netns)["addr_info"] if entry["scope"] == "global"]


@contextmanager
def held(*namespaces: str) -> Iterator[None]:
    """Keep network namespaces alive for a block.

    With its last user a namespace takes its interfaces along, and would hide that nobody removed them.
    """
    descriptors = [os.open(netns, os.O_RDONLY) for netns in namespaces]
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@contextmanager
def serving(netns: str, port: int) -> Iterator[socket.socket]:
    """A TCP listener of this process in a container, for both families, for a block."""
    with entered(netns):
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    listener.settimeout(CONNECT_BOUND)
    with listener:
        yield listener


def reaches(listener: socket.socket, client: str, target: tuple[str, int]) -> bool:
    """Whether a connection from a network namespace to a target comes out at the listener, and carries data back."""
    try:
        with entered(client):
            asking = socket.create_connection(target, timeout=CONNECT_BOUND)
        with asking, listener.accept()[0] as answering:
            answering.sendall(b"here")
            return asking.recv(8) == b"here"
    except OSError:
        return False


@contextmanager
def entered(netns: str) -> Iterator[None]:
    """Have this thread in a network namespace for a block; sockets keep the one that they were made in."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(netns, os.O_RDONLY)
    try:
        assert libc.setns(there, 0) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, 0) == 0
        os.close(home)
        os.close(there)


def _mount_namespace(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""
