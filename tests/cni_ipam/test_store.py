"""The reservations on disk: the format byte for byte, the lock, and storage that fails."""

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam import store as store_module
from cni_ipam.index import NAME as INDEX
from cni_ipam.origin import NAME as ORIGIN
from cni_ipam.records import UNKNOWN
from cni_ipam.store import Store, open_store
from cni_protocol.address import parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import IO_FAILURE, TRY_AGAIN_LATER, CNIError
from tests.cni_ipam import held_elsewhere, opened

V4, V6 = parse_ip("10.1.0.5"), parse_ip("2001:db8::5")
OWNER = ("c1", "eth0")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store of network `mynet` in tmp_path."""
    with opened(tmp_path) as store:
        yield store


def names(data_dir: Path) -> set[str]:
    return set(os.listdir(data_dir / "mynet"))


def records(data_dir: Path) -> set[str]:
    return {path.name for path in data_dir.glob(".pycni/mynet/*/*")} - {INDEX, ORIGIN}


def owners(data_dir: Path) -> dict[str, str]:
    """Who holds what, as the next command sees it."""
    with opened(data_dir) as store:
        return {str(ip): label for ip, label in store.list_owners().items()}


def failing(function: Any, number: int) -> Any:
    """A stand-in for a function of os that fails."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    fail.__name__ = function.__name__
    return fail


def without_tmpfile(mocker: MockerFixture, number: int = errno.EOPNOTSUPP) -> None:
    """A file system that does not know O_TMPFILE."""
    real = os.open

    def stand_in(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **options)

    mocker.patch.object(os, "open", stand_in)


# The format


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("tmpfile", [True, False], ids=["tmpfile", "no-tmpfile"])
def test_the_files_are_those_of_the_reference_byte_for_byte(
    umask: int, tmpfile: bool, tmp_path: Path, mocker: MockerFixture
) -> None:
    if not tmpfile:
        without_tmpfile(mocker)
    before = os.umask(umask)
    try:
        with opened(tmp_path) as store:
            assert store.reserve(V4, *OWNER)
            assert store.reserve(V6, *OWNER)
            store.set_last(0, V4)
            store.set_last(1, V6)
    finally:
        os.umask(before)
    network = tmp_path / "mynet"
    content = {path.name: path.read_bytes() for path in network.iterdir()}
    assert content == {
        "10.1.0.5": b"c1\r\neth0",
        "2001:db8::5": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.1.0.5",
        "last_reserved_ip.1": b"2001:db8::5",
        "lock": b"",
    }
    assert {path.stat().st_mode & 0o7777 for path in network.iterdir()} == {0o600}
    links = {path.name: path.stat().st_nlink for path in network.iterdir()}
    assert links == {"10.1.0.5": 2, "2001:db8::5": 2, "last_reserved_ip.0": 1, "last_reserved_ip.1": 1, "lock": 1}
    assert network.stat().st_mode & 0o7777 == 0o755 & ~umask
    ours = [tmp_path / ".pycni", *(path for path in (tmp_path / ".pycni").rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o7777 for path in ours} == {0o700}


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"c1\r\neth0", "mynet,c1,eth0"),
        (b"c1", "mynet,c1,"),
        (b"c1\n", "mynet,c1,"),
        (b" c1\r\neth0\n", "mynet,c1,eth0"),
        (b"c1\r\n", "mynet,c1,"),
        (b"\xff\r\neth0", UNKNOWN),
        (b"c1\r\neth0\r\neth1", UNKNOWN),
        (b"\0\0\0\0", UNKNOWN),
        (b"c1\r\neth\0", UNKNOWN),
        (b"c1\r\n../../eth0", UNKNOWN),
        (b"../c1\r\neth0", UNKNOWN),
        (b"c1\r\n" + b"x" * 300, UNKNOWN),
        (b"-c1\r\neth0", UNKNOWN),
    ],
    ids=[
        *("whole", "old", "old-newline", "white-space", "no-interface", "no-utf-8", "three-lines", "zeros", "nul"),
        *("path", "path-id", "long-interface", "no-id"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_the_owner_is_read_from_files_of_every_age(content: bytes, label: str, create: bool, tmp_path: Path) -> None:
    (tmp_path / "mynet").mkdir()
    (tmp_path / "mynet" / "10.1.0.5").write_bytes(content)
    for _ in range(2):
        with opened(tmp_path, create=create) as store:
            assert store.list_owners() == {V4: label}
        assert records(tmp_path) == ({f"10.1.0.5,{label}"} if label else set())
    assert {path.name for path in tmp_path.iterdir()} == {"mynet", ".pycni"}


def test_what_is_written_is_read(store: Store, tmp_path: Path) -> None:
    long = "c" * 100_000
    store.reserve(V4, long, "eth0")
    store.reserve(V6, *OWNER)
    assert store.list_owners() == {V4: Attachment("mynet", long, "eth0").owner, V6: "mynet,c1,eth0"}
    (read,) = (path for path in (tmp_path / "mynet").iterdir() if path.stat().st_size > 1000)
    assert (read.name, read.read_bytes()) == ("10.1.0.5", f"{long}\r\neth0".encode())


def test_files_that_are_no_reservations_are_passed_over(tmp_path: Path) -> None:
    strange = {
        "notes.txt",
        "10.1.0",
        "10.1.0.5.bak",
        ".10.1.0.5.new",
        "last_reserved_ip.7",
        "10.1.0.0-24",
        # other spellings of addresses: nobody writes them, and releasing the address would not remove them
        "2001:DB8::5",
        "2001:db8:0::5",
        "::ffff:10.1.0.5",
    }
    (tmp_path / "mynet").mkdir()
    for name in strange:
        (tmp_path / "mynet" / name).write_bytes(b"c1\r\neth0")
    assert owners(tmp_path) == {}
    assert names(tmp_path) == {*strange, "lock"}


@pytest.mark.parametrize(
    ("held", "asked", "counts"),
    [
        (("c1", "eth0"), OWNER, True),
        (("c1", ""), OWNER, True),
        (("c1", "eth1"), OWNER, False),
        (("c2", "eth0"), OWNER, False),
        (("c2", ""), OWNER, False),
        (("c", "1eth0"), OWNER, False),
        (("c" * 5000, "eth0"), ("c" * 5000, "eth0"), True),
        (("c" * 5000, "eth1"), ("c" * 5000, "eth0"), False),
        (("c" * 5000, "eth0"), ("c" * 5001, "eth0"), False),
        (("c" * 5000, ""), ("c" * 5000, "eth0"), True),
    ],
    ids=lambda value: None if isinstance(value, bool) else f"{value[0][:3]}-{len(value[0])}-{value[1]}",
)
def test_a_reservation_counts_for_its_attachment_and_without_interface_for_all_of_the_container(
    held: tuple[str, str], asked: tuple[str, str], counts: bool, tmp_path: Path
) -> None:
    (tmp_path / "mynet").mkdir()
    (tmp_path / "mynet" / "10.1.0.5").write_text("\r\n".join(filter(None, held)), newline="")
    for _ in range(2):  # adopted, and then by the record
        with opened(tmp_path) as store:
            assert store.addresses_of(*asked) == ([V4] if counts else [])


def test_a_holder_reads_as_words_with_the_file(store: Store, tmp_path: Path) -> None:
    store.reserve(V4, *OWNER)
    assert store.describe(V4) == f"container c1 interface eth0 ({tmp_path}/mynet/10.1.0.5)"
    Path(store.path, "10.1.0.5").write_text("c1")
    assert store.describe(V4) == f"container c1 ({tmp_path}/mynet/10.1.0.5)"
    Path(store.path, "10.1.0.5").write_text("?")
    assert store.describe(V4) == f"container unknown ({tmp_path}/mynet/10.1.0.5)"


# Changes


@pytest.mark.parametrize("tmpfile", [True, False], ids=["tmpfile", "no-tmpfile"])
def test_a_taken_address_is_not_reserved_again(
    tmpfile: bool, store: Store, tmp_path: Path, mocker: MockerFixture
) -> None:
    if not tmpfile:
        without_tmpfile(mocker)
    assert store.reserve(V4, *OWNER)
    assert not store.reserve(V4, "c2", "eth0")
    assert (tmp_path / "mynet" / "10.1.0.5").read_bytes() == b"c1\r\neth0"
    assert names(tmp_path) == {"lock", "10.1.0.5"}


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT])
def test_without_tmpfile_a_temporary_file_serves_also_over_a_leftover(
    number: int, store: Store, tmp_path: Path, mocker: MockerFixture
) -> None:
    Path(store.path, ".10.1.0.5.new").write_bytes(b"half of what a crashed process wrote, and longer")
    without_tmpfile(mocker, number)
    assert store.reserve(V4, *OWNER)
    assert names(tmp_path) == {"lock", "10.1.0.5"}
    assert Path(store.path, "10.1.0.5").read_bytes() == b"c1\r\neth0"


def test_a_released_address_is_free_and_releasing_it_again_is_fine(store: Store, tmp_path: Path) -> None:
    store.reserve(V4, *OWNER)
    assert records(tmp_path) == {"10.1.0.5,mynet,c1,eth0"}
    store.release(V4)
    assert (names(tmp_path), records(tmp_path)) == ({"lock"}, set())
    store.release(V4)
    assert store.reserve(V4, *OWNER)


def test_the_last_address_replaces_a_longer_one(store: Store) -> None:
    assert store.find_last(0) is None
    for text in ("10.1.0.100", "10.1.0.2"):
        store.set_last(0, parse_ip(text))
        assert Path(store.path, "last_reserved_ip.0").read_bytes() == text.encode()
        assert store.find_last(0) == parse_ip(text)
    assert store.find_last(1) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"10.1.0", b"\xff", b"10.1.0.5\0", b"9" * 5000])
def test_a_last_address_that_is_none_is_not_known(content: bytes, store: Store) -> None:
    Path(store.path, "last_reserved_ip.0").write_bytes(content)
    assert store.find_last(0) is None


def test_a_last_address_with_a_newline_is_known(store: Store) -> None:
    Path(store.path, "last_reserved_ip.0").write_bytes(b"10.1.0.5\n")
    assert store.find_last(0) == V4


def test_links_are_not_followed_out_of_the_directory(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(store.path, "last_reserved_ip.0").symlink_to(victim)
    assert store.find_last(0) is None
    with pytest.raises(CNIError):
        store.set_last(0, V4)
    assert victim.read_text() == "precious"


# Storage that fails


@pytest.mark.parametrize("tmpfile", [True, False], ids=["tmpfile", "no-tmpfile"])
@pytest.mark.parametrize("function", ["write", "link"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EROFS, "mount it writable"),
        (errno.EIO, "check that directory"),
    ],
    ids=["full", "quota", "read-only", "broken"],
)
def test_a_reservation_that_cannot_be_written_leaves_nothing(
    tmpfile: bool, function: str, number: int, remedy: str, store: Store, tmp_path: Path, mocker: MockerFixture
) -> None:
    if not tmpfile:
        without_tmpfile(mocker)
    mocker.patch.object(os, function, failing(getattr(os, function), number))
    with pytest.raises(CNIError) as caught:
        store.reserve(V4, *OWNER)
    assert caught.value.code == IO_FAILURE
    for part in (str(tmp_path / "mynet" / "10.1.0.5"), os.strerror(number), remedy):
        assert part in caught.value.msg
    assert (names(tmp_path), records(tmp_path)) == ({"lock"}, set())


def test_a_reservation_whose_record_cannot_be_made_leaves_nothing(
    store: Store, tmp_path: Path, mocker: MockerFixture
) -> None:
    real = os.link

    def link(source: str, target: str, **options: Any) -> None:
        if target == "10.1.0.5,mynet,c1,eth0":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **options)

    mocker.patch.object(os, "link", link)
    with pytest.raises(CNIError) as caught:
        store.reserve(V4, *OWNER)
    assert caught.value.code == IO_FAILURE
    assert (names(tmp_path), records(tmp_path), store.list_owners()) == ({"lock"}, set(), {})


@pytest.mark.parametrize("function", ["open", "pwrite"])
def test_a_last_address_that_cannot_be_written_is_told(function: str, store: Store, mocker: MockerFixture) -> None:
    mocker.patch.object(os, function, failing(getattr(os, function), errno.ENOSPC))
    with pytest.raises(CNIError, match=r"mynet/last_reserved_ip\.3 cannot be used") as caught:
        store.set_last(3, V4)
    assert caught.value.code == IO_FAILURE


def test_an_address_that_cannot_be_released_is_told(store: Store, mocker: MockerFixture) -> None:
    mocker.patch.object(os, "unlink", failing(os.unlink, errno.EROFS))
    with pytest.raises(CNIError, match=r"mynet/10\.1\.0\.5 cannot be used: Read-only file system") as caught:
        store.release(V4)
    assert caught.value.code == IO_FAILURE


@pytest.mark.parametrize("create", [True, False])
def test_a_directory_that_cannot_be_listed_is_told(create: bool, tmp_path: Path, mocker: MockerFixture) -> None:
    (tmp_path / "mynet").mkdir()
    mocker.patch.object(os, "scandir", failing(os.scandir, errno.EIO))
    with pytest.raises(CNIError) as caught, opened(tmp_path, create=create):
        pytest.fail("the store was opened")
    mocker.stopall()
    assert caught.value.code == IO_FAILURE
    assert str(tmp_path / "mynet") in caught.value.msg


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("in_the_way", ["data", "data/mynet", "data/mynet/lock"])
def test_what_is_in_the_way_is_named(create: bool, in_the_way: str, tmp_path: Path) -> None:
    path = tmp_path / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "lock":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("a file")
    with pytest.raises(CNIError) as caught, opened(tmp_path / "data", create=create):
        pytest.fail("the store was opened")
    assert caught.value.code == IO_FAILURE
    assert str(path if path.name == "lock" else tmp_path / "data" / "mynet") in caught.value.msg
    assert ("remove it" if path.name == "lock" else "set ipam.dataDir") in caught.value.msg
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_that_is_not_there_is_made_only_on_request(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "b"
    with open_store(str(data_dir), "mynet", create=False) as store:
        assert store is None
    assert list(tmp_path.iterdir()) == []
    with opened(data_dir):
        pass
    assert names(data_dir) == {"lock"}


# The lock


@pytest.mark.parametrize("create", [True, False])
def test_a_lock_that_is_held_elsewhere_is_given_up_within_the_bound(
    create: bool, tmp_path: Path, mocker: MockerFixture
) -> None:
    mocker.patch.object(store_module, "LOCK_BOUND", 0.2)
    with held_elsewhere(tmp_path):
        begin = time.monotonic()
        with pytest.raises(CNIError) as caught, opened(tmp_path, create=create):
            pytest.fail("the lock was had")
        assert 0.2 <= time.monotonic() - begin < 10
    assert caught.value.code == TRY_AGAIN_LATER
    assert str(tmp_path / "mynet" / "lock") in caught.value.msg


def test_a_lock_that_is_let_go_in_time_is_had(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        assert process.stdin is not None
        release = threading.Timer(0.1, process.stdin.close)
        release.start()
        with opened(tmp_path) as store:
            assert process.wait(5) == 0
            assert store.list_owners() == {}
        release.join()


def is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_lock_is_held_for_the_block_and_its_file_stays(tmp_path: Path) -> None:
    lock = tmp_path / "mynet" / "lock"
    with opened(tmp_path):
        assert is_locked(lock)
        inode = lock.stat().st_ino
    assert not is_locked(lock)
    with pytest.raises(KeyError), opened(tmp_path):
        raise KeyError
    assert not is_locked(lock)
    assert lock.stat().st_ino == inode


def test_no_alarm_stays_behind(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(store_module, "LOCK_BOUND", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    timer = signal.setitimer(signal.ITIMER_REAL, 50.0)  # the caller's own
    try:
        with opened(tmp_path):
            assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
        with held_elsewhere(tmp_path), pytest.raises(CNIError), opened(tmp_path):
            pass
        assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
        assert signal.getsignal(signal.SIGALRM) == before
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
