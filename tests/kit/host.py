"""A host of the test's own: a network and a mount namespace that stand for a machine, containers beside them.

The machine that the tests run on keeps its network: everything happens inside, and goes when the host is closed.
The oracles are independent of the code under test: `ip -j`, `nft -j`, ping and TCP connections.
"""

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from tests.kit.calls import call_environment

# Private to the host: the namespaces that `ip netns` names, the reservations, and a runtime's own state.
_SET_UP = """
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mkdir -p /run/netns /var/lib/cni
mount -t tmpfs cni /var/lib/cni
ip link set lo up
echo ready
exec sleep "$1"
"""
RUN_BOUND = 60  # seconds for one command in a host


class Outcome(NamedTuple):
    """What a plugin call came to."""

    status: int
    document: Any  # the JSON on stdout, None when stdout is empty
    stdout: str
    stderr: str


class Host:
    """A throw-away host. Use open_host."""

    def __init__(self, holder: "subprocess.Popen[str]") -> None:
        self._holder = holder

    @property
    def pid(self) -> int:
        """The process that holds the host's namespaces."""
        return self._holder.pid

    def run(
        self,
        *command: str,
        container: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the host, or in a container on it. `env` replaces the environment where it is given."""
        options = {"capture_output": True, "text": True, "timeout": RUN_BOUND, **options}
        result = subprocess.run(self.argv(*command, container=container), env=env, check=False, **options)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)} failed ({result.returncode}): {result.stdout}{result.stderr}")
        return result

    def start(self, *command: str, container: str | None = None, **options: Any) -> "subprocess.Popen[str]":
        """Start a command in the host, or in a container on it, and leave it running."""
        options = {"text": True, **options}
        return subprocess.Popen(self.argv(*command, container=container), **options)

    def argv(self, *command: str, container: str | None = None) -> list[str]:
        """The command line that runs a command in the host, or in a container on it."""
        inside = ["/usr/bin/nsenter", f"--net=/run/netns/{container}", "--"] if container else []
        return ["/usr/bin/nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-i", "--", *inside, *command]

    def add_container(self, name: str) -> str:
        """A new network namespace with its loopback up. Returns its path as the host sees it."""
        self.run("ip", "netns", "add", name)
        self.run("ip", "-n", name, "link", "set", "lo", "up")
        return f"/run/netns/{name}"

    def remove_container(self, name: str) -> None:
        """Take a container's namespace away."""
        self.run("ip", "netns", "delete", name)

    def ip(self, *arguments: str, container: str | None = None) -> Any:
        """What `ip -j` says."""
        text = self.run("ip", "-j", "-d", *arguments, container=container).stdout
        return json.loads(text) if text.strip() else []

    def link_names(self, container: str | None = None) -> list[str]:
        """The names of all interfaces but the loopback."""
        return [link["ifname"] for link in self.ip("link", container=container) if link["ifname"] != "lo"]

    def addresses(self, ifname: str, container: str | None = None) -> list[str]:
        """The addresses of an interface with their prefix lengths, link-local ones left out."""
        entries = self.ip("address", "show", "dev", ifname, container=container)[0]["addr_info"]
        return [f"{entry['local']}/{entry['prefixlen']}" for entry in entries if entry["scope"] != "link"]

    def nft(self) -> list[dict[str, Any]]:
        """The objects of the whole rule set, the metainfo left out."""
        objects = json.loads(self.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
        return [entry for entry in objects if "metainfo" not in entry]

    def reservations(self, network: str, data_dir: str = "/var/lib/cni/networks") -> list[str]:
        """The reserved addresses of a network, as the names of their files."""
        listed = self.run("ls", f"{data_dir}/{network}", check=False).stdout.split()
        return sorted(name for name in listed if name != "lock" and not name.startswith("last_reserved_ip."))

    def ping(self, address: str, container: str | None = None) -> bool:
        """Whether an address answers."""
        family = "ping6" if ":" in address else "ping"
        command = ("busybox", family, "-c", "1", "-W", "2", address)
        return self.run(*command, container=container, check=False).returncode == 0

    def cni(
        self,
        command: str,
        config: Mapping[str, Any] | bytes,
        *,
        executable: str,
        container_id: str = "c1",
        netns: str = "",
        ifname: str = "eth0",
        path: Sequence[str] = (),
        args: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Call a plugin as a runtime does. `env` is added to (or, with the same key, replaces) the CNI variables."""
        variables = call_environment(command, container_id, netns, ifname, path=path, args=args) | dict(env or {})
        stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
        result = subprocess.run(
            self.argv(executable), input=stdin, env=variables, capture_output=True, timeout=RUN_BOUND, check=False
        )
        stdout = result.stdout.decode()
        document = json.loads(stdout) if stdout.strip() else None
        return Outcome(result.returncode, document, stdout, result.stderr.decode())

    @contextmanager
    def entered(self, container: str | None = None) -> Iterator[None]:
        """Have this very process in the network namespace of the host, or of a container, for a block."""
        path = f"/proc/{self.pid}/root/run/netns/{container}" if container else f"/proc/{self.pid}/ns/net"
        home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(path, os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            assert libc.setns(there, 0) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(home, 0) == 0
            os.close(home)
            os.close(there)

    def close(self) -> None:
        """End every process that still runs in the host's namespaces, and let these go."""
        with open(f"/proc/{self.pid}/ns/mnt", "rb") as held:  # or a new namespace would get its number on the way
            mine = os.fstat(held.fileno()).st_ino
            for entry in os.listdir("/proc"):
                if entry.isdigit() and _namespace_of(entry) == mine:
                    _kill(int(entry))
        self._holder.wait(timeout=RUN_BOUND)


def open_host(lifetime: str = "3600") -> Host:
    """Make a host; the caller closes it, or it goes after a time, in seconds or as sleep(1) has them."""
    command = ["/usr/bin/unshare", "-n", "-m", "-u", "-i", "--propagation", "private", "/bin/sh", "-c", _SET_UP, "sh"]
    holder = subprocess.Popen([*command, lifetime], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "ready", "the test's host could not be set up (root is needed)"
    return Host(holder)


def wait_until(condition: Any, seconds: float = 20.0) -> bool:
    """Whether a condition comes true within a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _namespace_of(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
