"""Namespaces: opening, entering, leaving again; the lock of the host's own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_bridge import namespace as subject
from cni_bridge.namespace import (
    activity_lock,
    attachment_lock,
    find_namespace,
    host_lock,
    open_namespace,
    open_own_namespace,
)
from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from tests.cni_bridge import netns_path, open_container
from tests.conftest import ROOT
from tests.host import Host

pytestmark = pytest.mark.kernel

OWN = "/proc/self/ns/net"
HELD = 0.2  # seconds that a lock is held by another process

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


def test_the_lock_excludes_another_process_until_that_one_leaves(host: Host) -> None:
    with another_process_holds_the_lock(host) as holder:
        began = let_go_later(holder)
        with host.entered(), host_lock():
            waited = time.monotonic() - began
            assert holder.wait(timeout=10) == 0
    assert waited >= HELD


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


def test_the_own_namespace_is_the_one_that_the_process_is_in(host: Host) -> None:
    host.add_container("c1")
    with host.entered("c1"), open_own_namespace() as own:
        assert os.fstat(own.descriptor).st_ino == os.stat(netns_path(host, "c1")).st_ino


@pytest.fixture
def own_uts(tmp_path: Path, mocker: MockerFixture) -> Path:
    """Files in the place of those of the UTS and the IPC namespace, so that no pycni on the test's machine is held off.

    Returns the first.
    """
    for name in ("ipc", "uts"):
        (tmp_path / name).write_text("")
        mocker.patch.object(subject, f"_{name.upper()}", str(tmp_path / name))
    return tmp_path / "uts"


ACTIVITY = """
import sys
from cni_bridge import namespace
namespace._UTS = sys.argv[1]
with namespace.activity_lock(exclusive=sys.argv[2] == "exclusive"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_is_active(file: Path, mode: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", ACTIVITY, str(file), mode],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize(
    ("held", "exclusive", "together"),
    [("shared", False, True), ("shared", True, False), ("exclusive", False, False), ("exclusive", True, False)],
    ids=["ADD beside ADD", "GC beside ADD", "ADD beside GC", "GC beside GC"],
)
def test_any_number_of_adds_or_one_gc_is_active(
    own_uts: Path, mocker: MockerFixture, held: str, exclusive: bool, together: bool
) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    began = time.monotonic()
    with another_process_is_active(own_uts, held):
        if together:
            with activity_lock(exclusive=exclusive):
                pass
            return
        with (
            pytest.raises(CNIError, match="a GC or ADD of pycni is under way") as caught,
            activity_lock(exclusive=exclusive),
        ):
            raise AssertionError("both at once")
    assert caught.value.code == 11
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_activity_ends_with_its_process(own_uts: Path, mocker: MockerFixture, held: str) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    with another_process_is_active(own_uts, held) as holder:
        holder.kill()
        holder.wait(timeout=10)
        with activity_lock(exclusive=True):
            pass


def test_a_gc_comes_after_the_adds_that_it_waits_for(own_uts: Path) -> None:
    with another_process_is_active(own_uts, "shared") as holder:
        began = let_go_later(holder)
        with activity_lock(exclusive=True):
            waited = time.monotonic() - began
            assert holder.wait(timeout=10) == 0
    assert waited >= HELD


def test_two_calls_for_one_attachment_exclude_each_other(host: Host) -> None:
    with host.entered(), attachment_lock("veth1"):
        with attachment_lock("veth2"):
            pass
        program = "import socket; socket.socket(socket.AF_UNIX).bind('\\0pycni/veth1')"
        taken = host.run(sys.executable, "-c", program, check=False)
        assert "Address already in use" in taken.stderr
    assert host.run(sys.executable, "-c", program, check=False).returncode == 0


def test_the_wait_for_another_call_has_a_bound(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    with (
        host.entered(),
        attachment_lock("veth1"),
        pytest.raises(CNIError, match="another call for veth1 is under way") as caught,
        attachment_lock("veth1"),
    ):
        raise AssertionError("one at a time")
    assert caught.value.code == TRY_AGAIN_LATER


def let_go_later(holder: "subprocess.Popen[str]") -> float:
    """Have the holder of a lock leave after HELD seconds. Returns the time of now."""
    assert holder.stdin is not None
    threading.Timer(HELD, holder.stdin.close).start()
    return time.monotonic()


def test_activity_is_the_machine_s_and_does_not_hold_up_the_lock_of_a_network_namespace(
    host: Host, own_uts: Path, mocker: MockerFixture
) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    host.add_container("c1")
    with host.entered(), activity_lock(exclusive=True):
        with host_lock():
            pass
        with host.entered("c1"), pytest.raises(CNIError), activity_lock(exclusive=False):
            raise AssertionError("another network namespace is the same machine")


def test_the_activity_lock_is_on_the_uts_namespace() -> None:
    path = f"/proc/{os.getpid()}/fd"
    uts = os.stat("/proc/self/ns/uts")
    with activity_lock(exclusive=False):
        held = [os.stat(f"{path}/{name}") for name in os.listdir(path) if os.path.exists(f"{path}/{name}")]
    assert any(os.path.samestat(uts, entry) for entry in held)


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
