"""The locks of a host: who excludes whom, and for how long."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_bridge import locks as subject
from cni_bridge.locks import activity_lock, attachment_lock, host_lock
from cni_protocol.errors import IO_FAILURE, TRY_AGAIN_LATER, CNIError
from tests.kit.host import Host
from tests.kit.locks import EXCLUSIVE, SHARED, held_elsewhere, list_locks

pytestmark = pytest.mark.kernel

HELD = 0.2  # seconds that a lock is held by another process
ATTACHMENT = "attachment_lock('veth1')"
NOBODY = 65534


def test_the_lock_excludes_another_process_until_that_one_leaves(host: Host) -> None:
    with held_elsewhere(host) as holder:
        began = let_go_later(holder)
        with host.entered(), host_lock():
            waited = time.monotonic() - began
            assert holder.wait(timeout=10) == 0
    assert waited >= HELD


def test_the_lock_is_had_at_once_after_its_holder_was_killed(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    with held_elsewhere(host) as holder:
        holder.kill()
        holder.wait(timeout=10)
        with host.entered(), host_lock():
            pass


def test_the_wait_for_the_lock_has_a_bound(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.1)
    began = time.monotonic()
    with (
        held_elsewhere(host),
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
    with held_elsewhere(host), host.entered("c1"), host_lock():
        pass


@pytest.mark.parametrize(
    ("held", "exclusive", "together"),
    [(SHARED, False, True), (SHARED, True, False), (EXCLUSIVE, False, False), (EXCLUSIVE, True, False)],
    ids=["ADD beside ADD", "GC beside ADD", "ADD beside GC", "GC beside GC"],
)
def test_any_number_of_adds_or_one_gc_is_active(
    host: Host, mocker: MockerFixture, held: str, exclusive: bool, together: bool
) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    began = time.monotonic()
    with held_elsewhere(host, held), host.entered():
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


@pytest.mark.parametrize("held", [SHARED, EXCLUSIVE])
def test_activity_ends_with_its_process(host: Host, mocker: MockerFixture, held: str) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    with held_elsewhere(host, held) as holder:
        holder.kill()
        holder.wait(timeout=10)
        with host.entered(), activity_lock(exclusive=True):
            pass


def test_a_gc_comes_after_the_adds_that_it_waits_for(host: Host) -> None:
    with held_elsewhere(host, SHARED) as holder:
        began = let_go_later(holder)
        with host.entered(), activity_lock(exclusive=True):
            waited = time.monotonic() - began
            assert holder.wait(timeout=10) == 0
    assert waited >= HELD


def test_a_gc_that_waits_comes_before_the_adds_that_come_after_it(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    with held_elsewhere(host, SHARED), host.entered():
        door = subject._take("door", "")  # as a GC that waits for the ADD to end
        with pytest.raises(CNIError, match="a GC of pycni is waiting"), activity_lock(exclusive=False):
            raise AssertionError("past the one that waits")
        os.close(door)
        with activity_lock(exclusive=False):
            pass


def test_two_calls_for_one_attachment_exclude_each_other(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    with held_elsewhere(host, ATTACHMENT), host.entered():
        with attachment_lock("veth2"):
            pass
        with pytest.raises(CNIError, match="another call for veth1 is under way") as caught, attachment_lock("veth1"):
            raise AssertionError("one at a time")
    assert caught.value.code == TRY_AGAIN_LATER


def let_go_later(holder: "subprocess.Popen[str]") -> float:
    """Have the holder of a lock leave after HELD seconds. Returns the time of now."""
    assert holder.stdin is not None
    threading.Timer(HELD, holder.stdin.close).start()
    return time.monotonic()


def test_locks_of_different_kinds_and_of_different_hosts_do_not_hold_each_other_up(
    host: Host, mocker: MockerFixture
) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.0)
    host.add_container("c1")
    with ExitStack() as stack:
        for container in (None, "c1"):
            stack.enter_context(host.entered(container))
            for lock in (activity_lock(exclusive=True), host_lock(), attachment_lock("veth1")):
                stack.enter_context(lock)


def test_a_lock_is_a_single_byte_of_a_file_that_is_ours_alone(host: Host) -> None:
    path = Path(subject.DIRECTORY, "locks")
    with host.entered(), host_lock():
        held = list_locks(str(path))
    assert [(entry[1], entry[3], int(entry[7]) - int(entry[6])) for entry in held] == [("OFDLCK", "WRITE", 0)]
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid, path.stat().st_size) == (0o600, 0, 0)
    with host.entered():
        places = [subject._place_of(name) for name in ("host", "activity", "door", "attachment veth1")]
    assert len(set(places)) == len(places)
    assert all(0 <= place < 1 << 62 for place in places)


UNPRIVILEGED = """
import fcntl, os, socket, sys
for name in ("ipc", "mnt", "net", "uts"):
    fcntl.flock(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
socket.socket(socket.AF_UNIX).bind("\\0pycni/veth1")
fcntl.flock(os.open("/run/pycni", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
for flags in (os.O_RDONLY, os.O_RDWR, os.O_PATH):
    try:
        descriptor = os.open("/run/pycni/locks", flags)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, bytes(32))
        print("locked")
    except OSError as error:
        print(error.errno)
for change in (os.unlink, os.mkdir):
    try:
        change("/run/pycni/locks")
        print("changed")
    except OSError as error:
        print(error.errno)
print("done", flush=True)
sys.stdin.read()
"""


def test_who_is_not_root_holds_no_lock(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    with host.entered(), host_lock():
        pass
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    command = host.argv(*become, "/usr/bin/python3", "-c", UNPRIVILEGED)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nobody:
        assert nobody.stdout is not None
        refusals = [int(line) for line in iter(nobody.stdout.readline, "done\n")]
        assert refusals == [errno.EACCES, errno.EACCES, errno.EBADF, errno.EACCES, errno.EEXIST]
        assert nobody.poll() is None
        with host.entered(), activity_lock(exclusive=True), host_lock(), attachment_lock("veth1"):
            pass
        nobody.kill()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda place: place.mkdir(mode=0o777) or place.chmod(0o777), "with mode 777"),
        (lambda place: place.mkdir() or shutil.chown(place, NOBODY), f"is of user {NOBODY}"),
        (lambda place: place.symlink_to(place.parent), "cannot be used"),
        (lambda place: place.write_text(""), "cannot be used: Not a directory"),
        (lambda place: make_locks(place).chmod(0o644), "locks is of user 0 with mode 644"),
        (lambda place: shutil.chown(make_locks(place), NOBODY), f"locks is of user {NOBODY}"),
        (lambda place: place.mkdir() or (place / "locks").symlink_to("/dev/null"), "cannot be used"),
    ],
    ids=["for all", "of another", "a link", "a file", "readable", "of another inside", "a link inside"],
)
def test_what_others_could_lock_is_refused(
    tmp_path: Path, mocker: MockerFixture, prepare: Callable[[Path], object], words: str
) -> None:
    place = tmp_path / "pycni"
    mocker.patch.object(subject, "DIRECTORY", str(place))
    prepare(place)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CNIError, match=words) as caught, host_lock():
        raise AssertionError("held where others may hold it too")
    assert caught.value.code == IO_FAILURE
    assert len(os.listdir("/proc/self/fd")) <= before


def make_locks(place: Path) -> Path:
    place.mkdir()
    (place / "locks").write_text("")
    return place / "locks"


def test_a_host_without_a_place_for_locks_is_told_what_it_needs(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "DIRECTORY", str(tmp_path / "run" / "pycni"))
    with pytest.raises(CNIError, match="No such file or directory; run the plugin as root") as caught, host_lock():
        raise AssertionError("without a file")
    assert caught.value.code == IO_FAILURE


def test_another_call_may_make_the_directory_first(tmp_path: Path, mocker: MockerFixture) -> None:
    place = tmp_path / "pycni"
    mocker.patch.object(subject, "DIRECTORY", str(place))
    genuine = os.mkdir

    def late(path: str, mode: int) -> None:
        genuine(path, mode)
        genuine(path, mode)

    mocker.patch.object(os, "mkdir", late)
    with host_lock():
        assert (place / "locks").exists()


def test_a_program_that_is_started_does_not_keep_the_lock(mocker: MockerFixture) -> None:
    mocker.patch.object(subject, "LOCK_BOUND", 0.05)
    with host_lock():
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    with host_lock():
        pass
    sleeper.kill()
    sleeper.wait()
