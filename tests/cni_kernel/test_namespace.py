"""Namespaces: opening, entering, leaving again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cni_kernel.errors import KernelError
from cni_kernel.namespace import open_namespace, open_own_namespace
from tests.cni_bridge import netns_path, open_container
from tests.conftest import ROOT
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

OWN = "/proc/self/ns/net"


def inode() -> int:
    return os.stat(OWN).st_ino


def test_inside_is_the_container_and_afterwards_the_process_is_home(host: Host) -> None:
    host.add_container("c1")
    before = inode()
    with open_container(host, "c1") as namespace:
        with namespace.entered():
            assert inode() == os.stat(netns_path(host, "c1")).st_ino != before
        assert inode() == before


def test_an_exception_inside_leaves_the_process_at_home(host: Host) -> None:
    host.add_container("c1")
    before = inode()
    with open_container(host, "c1") as namespace, pytest.raises(ZeroDivisionError), namespace.entered():
        raise ZeroDivisionError
    assert inode() == before


def test_no_descriptor_is_left_open(host: Host) -> None:
    path = f"/proc/{os.getpid()}/fd"
    host.add_container("c1")
    before = len(os.listdir(path))
    with open_container(host, "c1") as namespace, namespace.entered():
        pass
    with pytest.raises(KernelError):
        open_namespace("/dev/null")
    assert len(os.listdir(path)) == before


def test_a_namespace_is_known_by_any_name(host: Host, tmp_path: Path) -> None:
    path = host.add_container("c1")
    host.add_container("c2")
    holder = host.start("sleep", "60", container="c1")
    (tmp_path / "link").symlink_to(netns_path(host, "c1"))
    try:
        with open_container(host, "c1") as namespace:
            assert namespace.is_at(netns_path(host, "c1"))
            assert namespace.is_at(str(tmp_path / "link"))
            assert wait_until(lambda: namespace.is_at(f"/proc/{holder.pid}/ns/net"))  # nsenter(1) enters it first
            for other in (netns_path(host, "c2"), "", "/", OWN, f"{path}-gone", "a\0b", f"/proc/{holder.pid}/ns/uts"):
                assert not namespace.is_at(other)
    finally:
        holder.kill()
        holder.wait()


def test_a_namespace_stays_while_it_is_held(host: Host) -> None:
    host.add_container("c1")
    with open_container(host, "c1") as namespace:
        host.remove_container("c1")
        with namespace.entered():
            names = os.listdir("/proc/self/net/dev_snmp6")
    assert names == ["lo"]


def test_a_regular_file_is_no_namespace(tmp_path: Path) -> None:
    file = tmp_path / "netns"
    file.write_text("")
    with pytest.raises(KernelError, match="is not a network namespace"):
        open_namespace(str(file))


def test_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = f"from cni_bridge.sandbox import find_sandbox; print(find_sandbox({str(tmp_path / 'pipe')!r}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout == "None\n"


def test_an_unmounted_namespace_file_is_refused(host: Host) -> None:
    host.add_container("c1")
    path = netns_path(host, "c1")
    host.run("umount", "/run/netns/c1")
    with pytest.raises(KernelError, match="is not a network namespace"):
        open_namespace(path)


def test_the_own_namespace_is_the_one_that_the_process_is_in(host: Host) -> None:
    host.add_container("c1")
    with host.entered("c1"), open_own_namespace() as own:
        assert os.fstat(own.descriptor).st_ino == os.stat(netns_path(host, "c1")).st_ino


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_waits_until_the_process_is_home(host: Host, number: signal.Signals) -> None:
    host.add_container("c1")
    home, seen = inode(), []
    before = signal.signal(number, lambda *_: seen.append(inode()))
    try:
        with open_container(host, "c1") as namespace, namespace.entered():
            signal.raise_signal(number)  # to this thread: a plugin has no other, the test's runner may
            assert seen == []
        assert seen == [home]
    finally:
        signal.signal(number, before)
