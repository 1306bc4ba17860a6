"""Damaged stores: no address is lost, none is given twice, and what was repaired is said on stderr."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_ipam.store import LOCK_BOUND
from cni_protocol.errors import ALREADY_EXISTS, IO_FAILURE
from tests.cni_ipam import Network, snapshot

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
POOL = [f"10.1.0.{i}" for i in (2, 3, 4, 5, 6)]
NOTHING_VALID: dict[str, Any] = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
PREVIOUS = {"ips": [{"address": "10.1.0.2/29"}]}


def write(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content)

    return damage


def write_anew(content: bytes) -> Callable[[Path], None]:
    """As another plugin would: a new file of that name."""

    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    return damage


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("c1\r\neth0")


def make_link(path: Path) -> None:
    path.symlink_to("../../victim")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(path.parent, os.O_RDONLY)  # the name itself may be too long for an address of a socket
        server.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"c1\r\neth0")
    return path


# A reservation that we made


def check_it(network: Network) -> None:
    network.call("CHECK", SMALL)


def add_it_again(network: Network) -> None:
    assert network.refusal("ADD", SMALL).code == ALREADY_EXISTS


def collect_garbage(network: Network) -> None:
    network.collect([("c1", "eth0")])


def change_the_directory(network: Network) -> None:
    network.put("10.1.0.200", "theirs\r\neth0")
    network.call("DEL", SMALL, "nobody")


@pytest.mark.parametrize("content", [b"", b"c", b"c1\r\n", b"\0\0\0", b"x" * 5000, b"c2\r\neth0 and more"], ids=repr)
@pytest.mark.parametrize(
    "action", [check_it, add_it_again, collect_garbage, change_the_directory], ids=lambda function: function.__name__
)
def test_a_damaged_reservation_of_ours_is_written_anew_when_it_is_next_looked_at(
    action: Callable[[Network], None], content: bytes, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.add(SMALL)
    path = network.directory / "10.1.0.2"
    inode = path.stat().st_ino
    path.write_bytes(content)
    assert network.exhaust(SMALL) == POOL[1:]
    action(network)
    assert capsys.readouterr().err == f"cni-ipam: {path} was damaged: written anew for container c1 interface eth0\n"
    assert (path.read_bytes(), path.stat().st_ino) == (b"c1\r\neth0", inode)
    network.call("DEL", SMALL)
    assert not path.exists()
    assert network.add(SMALL, "c9") == ["10.1.0.2/29"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"c9\r\neth9"], ids=["empty", "garbage", "of-the-same-size"])
def test_a_damaged_reservation_of_ours_is_given_back_by_the_del_of_its_owner(content: bytes, network: Network) -> None:
    network.add(SMALL)
    (network.directory / "10.1.0.2").write_bytes(content)
    network.call("DEL", SMALL, "c9", ifname="eth9")
    assert "10.1.0.2" in network.reserved()
    network.call("DEL", SMALL)
    assert (network.reserved(), network.records()) == ({}, set())


def test_a_reservation_that_cannot_be_written_anew_holds_by_its_record(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(SMALL)
    (network.directory / "10.1.0.2").write_bytes(b"")

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        network.call("CHECK", SMALL)
    assert network.reserved()["10.1.0.2"] == ""
    assert network.exhaust(SMALL) == POOL[1:]


# Something in the place of a reservation


@pytest.mark.parametrize("known", [True, False], ids=["was-ours", "no-record"])
@pytest.mark.parametrize(
    ("damage", "taken", "said"),
    [
        (write_anew(b""), False, "was empty, left by a plugin that ended before it wrote it: removed"),
        (write_anew(b"\0\0\0\0\0\0\0\0"), True, "names no container"),
        (write_anew(b"c1\r\n../../../x"), True, "names no container"),
        (write_anew(b"x" * (1 << 20)), True, ""),
        (write_anew(b"\xff\xfe"), True, "names no container"),
        (make_directory, True, "names no container"),
        (make_link, True, "names no container"),
        (make_socket, True, "names no container"),
        (os.mkfifo, False, "was empty"),
    ],
    ids=["empty", "zeros", "path", "megabyte", "no-utf-8", "directory", "link", "socket", "fifo"],
)
def test_what_stands_in_the_place_of_a_reservation(
    damage: Callable[[Path], None],
    taken: bool,
    said: str,
    known: bool,
    network: Network,
    victim: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network.add(SMALL, "other")
    path = network.directory / "10.1.0.3"
    if known:
        network.add(SMALL)
        path.unlink()
    damage(path)
    (network.directory / "last_reserved_ip.0").write_text("10.1.0.2")
    capsys.readouterr()
    assert sorted(network.exhaust(SMALL)) == [ip for ip in POOL[1:] if not (taken and ip == "10.1.0.3")]
    assert f"{path} {said}" in capsys.readouterr().err or not said
    assert (network.directory / "10.1.0.2").read_bytes() == b"other\r\neth0"
    assert victim.read_bytes() == b"c1\r\neth0"
    assert damage is not make_directory or (path / "inside").exists()


@pytest.mark.parametrize("damage", [write(b"?"), make_link, make_socket], ids=["garbage", "link", "socket"])
def test_a_del_that_names_the_address_frees_what_says_not_whose_it_is(
    damage: Callable[[Path], None], network: Network, victim: Path
) -> None:
    network.directory.mkdir(parents=True)
    damage(network.directory / "10.1.0.2")
    network.call("DEL", SMALL)
    assert (network.directory / "10.1.0.2").is_symlink() or (network.directory / "10.1.0.2").exists()
    network.call("DEL", SMALL, prevResult=PREVIOUS)
    assert os.listdir(network.directory) == ["lock"]
    assert victim.exists()


def test_a_del_that_names_the_address_of_somebody_else_frees_nothing(network: Network) -> None:
    network.add(SMALL, "c2")
    network.call("DEL", SMALL, prevResult=PREVIOUS)
    assert network.reserved() == {"10.1.0.2": "c2\r\neth0"}


# The rest of the directory


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"10.1.0", b"\xff", b"10.9.0.1", b"10.1.0.6\0", b"9" * 5000], ids=repr
)
def test_a_broken_last_address_costs_one_round(
    content: bytes, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.add(SMALL)
    network.put("last_reserved_ip.0", content.decode("latin-1"))
    path = network.directory / "last_reserved_ip.0"
    path.write_bytes(content)
    assert network.exhaust(SMALL) == POOL[1:]
    assert path.read_bytes() == b"10.1.0.6"
    said = (
        "" if content == b"10.9.0.1" else f"cni-ipam: {path} holds no address: the search begins with the first one\n"
    )
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("damage", [make_directory, make_link, os.mkfifo], ids=["directory", "link", "fifo"])
def test_a_last_address_that_is_no_file_is_named_and_nothing_is_reserved(
    damage: Callable[[Path], None], network: Network, victim: Path
) -> None:
    network.directory.mkdir(parents=True)
    path = network.directory / "last_reserved_ip.0"
    damage(path)
    error = network.refusal("ADD", SMALL)
    assert error.code == IO_FAILURE
    assert str(path) in error.msg
    assert {name for name in os.listdir(network.directory) if name in POOL} == set()
    assert victim.read_bytes() == b"c1\r\neth0"
    network.put("10.1.0.3", "c1\r\neth0")
    network.call("DEL", SMALL)
    assert not (network.directory / "10.1.0.3").exists()


def test_a_missing_lock_is_made_again(network: Network) -> None:
    network.add(SMALL)
    (network.directory / "lock").unlink()
    assert network.exhaust(SMALL) == POOL[1:]
    (network.directory / "lock").unlink()
    network.call("DEL", SMALL)
    assert (network.directory / "lock").exists()
    assert "10.1.0.2" not in network.reserved()


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_a_lock_that_is_a_directory_is_named(command: str, network: Network) -> None:
    network.add(SMALL)
    (network.directory / "lock").unlink()
    (network.directory / "lock").mkdir()
    before = snapshot(network.data_dir)
    error = network.refusal(command, SMALL, **NOTHING_VALID)
    assert error.code == IO_FAILURE
    assert str(network.directory / "lock") in error.msg
    assert snapshot(network.data_dir) == before


def test_strangers_in_the_directory_are_neither_counted_nor_touched(network: Network) -> None:
    network.directory.mkdir(parents=True)
    make_directory(network.directory / "backup")
    make_link(network.directory / "link")
    os.mkfifo(network.directory / "pipe")
    for name in ("10.1.0.2.bak", ".10.1.0.2.new", "last_reserved_ip", "::ffff:10.1.0.2", "10.1.0.02", "notes\n"):
        network.put(name, "c1\r\neth0")
    before = snapshot(network.directory)
    assert network.exhaust(SMALL) == POOL
    network.collect([])
    after = snapshot(network.directory)
    assert {name: entry for name, entry in after.items() if name not in ("lock", "last_reserved_ip.0")} == before


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_link_in_the_place_of_the_directory_is_not_followed(
    command: str, target: str, network: Network, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "10.1.0.2").write_text("c1\r\neth0")
    network.data_dir.mkdir()
    network.directory.symlink_to(tmp_path / target)
    before = snapshot(tmp_path)
    error = network.refusal(command, SMALL, **NOTHING_VALID)
    assert error.code == (50 if command == "STATUS" else IO_FAILURE)
    assert str(network.directory) in error.msg
    assert snapshot(tmp_path) == before


def test_the_lock_is_waited_for_no_longer_than_a_delegating_plugin_waits() -> None:
    from cni_protocol.delegate import RUN_BOUND

    assert LOCK_BOUND < RUN_BOUND
