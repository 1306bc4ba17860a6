"""Namespaces: opening, entering, leaving again; the lock of the host's own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_bridge import namespace as subject
from cni_bridge.namespace import find_namespace, host_lock, open_namespace
from cni_protocol.errors import CNIError
from tests.cni_bridge import netns_path, open_container
from tests.conftest import ROOT
from tests.host import Host

pytestmark = pytest.mark.kernel

OWN = "/proc/self/ns/net"

HOLDER = """
import sys
from cni_bridge.namespace import host_lock
with host_lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds_the_lock(host: Host) -> Iterator["subprocess.Popen[str]"]:
    command = [*host.argv(sys.executable, "-c", HOLDER)]
    with subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


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
    with host.entered(), host_lock():
        pass
    with pytest.raises(CNIError):
        open_namespace("/dev/null")
    assert len(os.listdir(path)) == before


def test_a_namespace_stays_while_it_is_held(host: Host) -> None:
    host.add_container("c1")
    with open_container(host, "c1") as namespace:
        host.remove_container("c1")
        with namespace.entered():
            names = os.listdir("/proc/self/net/dev_snmp6")
    assert names == ["lo"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/null", "is not a network namespace"),
        ("/tmp", "is not a network namespace"),
        ("/proc/self/ns/mnt", "is not a network namespace"),
        (OWN, "is the network namespace of the host itself"),
        ("/run/netns/there-is-none", "No such file or directory"),
        ("", "No such file or directory"),
        ("a\0b", "null"),
    ],
    ids=["device", "directory", "mount namespace", "own", "vanished", "empty", "NUL"],
)
def test_what_is_no_container_is_refused(path: str, words: str) -> None:
    with pytest.raises(CNIError) as caught:
        open_namespace(path)
    assert caught.value.code == 4
    assert "CNI_NETNS=" in caught.value.msg
    assert words in caught.value.msg
    assert find_namespace(path) is None


def test_a_regular_file_is_no_namespace(tmp_path: Path) -> None:
    file = tmp_path / "netns"
    file.write_text("")
    with pytest.raises(CNIError, match="is not a network namespace"):
        open_namespace(str(file))


def test_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = f"from cni_bridge.namespace import find_namespace; print(find_namespace({str(tmp_path / 'pipe')!r}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert done.stdout == "None\n"


def test_an_unmounted_namespace_file_is_refused(host: Host) -> None:
    host.add_container("c1")
    path = netns_path(host, "c1")
    host.run("umount", "/run/netns/c1")
    with pytest.raises(CNIError, match="is not a network namespace"):
        open_namespace(path)


def test_the_lock_excludes_another_process_until_that_one_leaves(host: Host, mocker: MockerFixture) -> None:
    with another_process_holds_the_lock(host) as holder:
        tried = mocker.spy(subject, "_try_lock")
        mocker.patch("time.sleep", side_effect=lambda _: holder.stdin and holder.stdin.close())
        with host.entered(), host_lock():
            holder.wait(timeout=10)
    assert tried.spy_return is True
    assert tried.call_count > 1


def test_the_lock_is_had_at_once_after_its_holder_was_killed(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    with another_process_holds_the_lock(host) as holder:
        holder.kill()
        holder.wait(timeout=10)
        with host.entered(), host_lock():
            pass


def test_the_wait_for_the_lock_has_a_bound(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.1)
    began = time.monotonic()
    with (
        another_process_holds_the_lock(host),
        pytest.raises(CNIError) as caught,
        host.entered(),
        host_lock(),
    ):
        raise AssertionError("the lock was had twice")
    assert caught.value.code == 11
    assert time.monotonic() - began < 5


def test_the_lock_is_released_on_exit_also_by_an_exception(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    with host.entered():
        with host_lock():
            pass
        with pytest.raises(ZeroDivisionError), host_lock():
            raise ZeroDivisionError
        with host_lock():
            pass


def test_two_hosts_do_not_share_the_lock(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    host.add_container("c1")
    with another_process_holds_the_lock(host), host.entered("c1"), host_lock():
        pass
