"""The locks of a host: who excludes whom, and for how long."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_bridge import locks as subject
from cni_bridge.locks import activity_lock, attachment_lock, host_lock
from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from tests.conftest import ROOT
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

HELD = 0.2  # seconds that a lock is held by another process

HOLDER = """
import sys
from cni_bridge.locks import host_lock
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
from cni_bridge import locks as namespace
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
