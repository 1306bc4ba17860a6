"""Tests of cni_ipam: a network whose reservations lie in a directory of the test's own, and its lock."""

import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_ipam.__main__ import PLUGIN
from cni_ipam.index import NAME as INDEX
from cni_ipam.origin import NAME as ORIGIN
from cni_ipam.store import Store, open_store
from cni_protocol.address import IP, parse_ip
from cni_protocol.errors import NO_ADDRESS, CNIError
from tests.kit.calls import make_request

CALLS = ("open", "read", "pread", "write", "pwrite", "link", "unlink", "stat", "fstat", "utime", "ftruncate", "scandir")

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Network:
    """The network `mynet` with its reservations in a directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "mynet"
        self.finish: Callable[[], None] = lambda: None

    def call(
        self,
        command: str,
        ipam: Any,
        container_id: str = "c1",
        *,
        ifname: str = "eth0",
        cni_args: str = "",
        **keys: Any,
    ) -> Any:
        document = {"ipam": {"type": "cni-ipam", "dataDir": str(self.data_dir), **ipam}, **keys}
        request = make_request(document, command, container_id=container_id, ifname=ifname, args=cni_args)
        return PLUGIN.commands[command](request._replace(finish_uninterrupted=self.finish))

    def add(self, ipam: Any, container_id: str = "c1", **options: Any) -> list[str]:
        """The addresses that an ADD gives."""
        return [entry["address"] for entry in self.call("ADD", ipam, container_id, **options)["ips"]]

    def refusal(self, command: str, ipam: Any, container_id: str = "c1", **options: Any) -> CNIError:
        with pytest.raises(CNIError) as caught:
            self.call(command, ipam, container_id, **options)
        return caught.value

    def exhaust(self, ipam: Any) -> list[str]:
        """The addresses that ADDs of new containers get until there is none left."""
        given: list[str] = []
        while True:
            try:
                given += [entry.partition("/")[0] for entry in self.add(ipam, f"exhausting{len(given)}")]
            except CNIError as error:
                assert error.code == NO_ADDRESS, error.msg
                assert len(given) == len(set(given))
                return given

    def put(self, address: str, content: str) -> None:
        """A reservation file that somebody else wrote."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / address).write_bytes(content.encode())

    def fill(self, count: int, first: str = "10.1.0.2") -> list[str]:
        """Reservations of other plugins for containers other0, other1 ..., made quickly. Returns the addresses."""
        self.directory.mkdir(parents=True, exist_ok=True)
        addresses = [str(IP(4, parse_ip(first).value + i)) for i in range(count)]
        for i, address in enumerate(addresses):
            (self.directory / address).write_bytes(f"other{i}\r\neth0".encode())
        return addresses

    def reserved(self) -> dict[str, str]:
        """Every reservation file with its content."""
        rest = ("lock", "last_reserved_ip.")
        files = [path for path in self.directory.iterdir() if not path.name.startswith(rest)]
        return {path.name: path.read_bytes().decode() for path in files}

    def records(self) -> set[str]:
        """The names of this boot's records."""
        boots = (self.data_dir / ".pycni" / "mynet").iterdir()
        found = {path.name for boot in boots if boot.name != "previous" for path in boot.iterdir()}
        return found - {INDEX, ORIGIN}

    @property
    def index(self) -> Path:
        """The index of this boot, which there is."""
        (path,) = (self.data_dir / ".pycni" / "mynet").glob(f"*/{INDEX}")
        return path

    def collect(self, valid: Any, **keys: Any) -> None:
        """GC with a list of valid attachments."""
        entries = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
        assert self.call("GC", {}, cniVersion="1.1.0", **{"cni.dev/valid-attachments": entries, **keys}) is None


def snapshot(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is below a directory: type and mode, inode number and content of each file."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(top))] = status.st_mode, status.st_ino, content
    return found


def age(network: Network, name: str) -> None:
    """Make the records of now those of the version before."""
    (directory,) = (network.data_dir / ".pycni" / "mynet").iterdir()
    (directory / ORIGIN).unlink()
    for path in directory.glob("*,mynet,*"):
        address, _, rest = path.name.partition(",mynet,")
        container_id, _, ifname = rest.partition(",")
        content = path.read_bytes().decode().partition("\r\n")[0]
        path.rename(directory / f"{address},{content or container_id},{ifname}")
    directory.rename(directory.with_name(name))


def restore(source: Path, target: Path, *, links: bool = True) -> None:
    """Put a copy in the place of a directory, with or without its hard links, the times kept."""
    shutil.rmtree(target, ignore_errors=True)
    kept = "all" if links else "mode,timestamps,ownership"
    subprocess.run(["cp", "--recursive", f"--preserve={kept}", source, target], check=True, timeout=60)


@contextmanager
def opened(data_dir: Path, *, create: bool = True) -> Iterator[Store]:
    with open_store(str(data_dir), "mynet", create=create) as store:
        assert store is not None
        yield store


@contextmanager
def held_elsewhere(data_dir: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the lock until its stdin is closed."""
    with opened(data_dir):
        pass
    command = [sys.executable, "-c", HOLDER, str(data_dir / "mynet" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often functions of os are called in a block."""
    counts: Counter[str] = Counter()

    def count(name: str, real: Any) -> Any:
        def stand_in(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return real(*args, **options)

        return stand_in

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, count(name, getattr(os, name)))
        yield counts


def looks(network: Network) -> bool:
    """Whether the next command reads the directory."""
    with counted() as counts:
        network.call("DEL", {}, "nobody")
    return counts["scandir"] > 0
