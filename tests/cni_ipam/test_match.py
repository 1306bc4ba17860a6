"""The index and the files: no command reads the directory while they match, and none is misled when they do not."""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam import stamp
from cni_ipam import store as store_module
from cni_ipam.index import Index
from cni_ipam.peek import peek
from cni_protocol.address import parse_ip
from cni_protocol.errors import ALREADY_EXISTS, NO_ADDRESS, NOT_AVAILABLE
from tests.cni_ipam import Network, opened

SMALL = {"subnet": "10.1.0.0/28"}  # gives .2 to .14
POOL = [f"10.1.0.{i}" for i in range(2, 15)]
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/64"}]]}
LARGE = {"subnet": "10.1.0.0/16"}
CALLS = ("open", "read", "pread", "write", "pwrite", "link", "unlink", "stat", "fstat", "utime", "ftruncate", "scandir")


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
        network.call("DEL", SMALL, "nobody")
    return counts["scandir"] > 0


def every_command(network: Network, ipam: Any) -> dict[str, Counter[str]]:
    """The calls of each command, of a container that comes and goes."""
    done: dict[str, Counter[str]] = {}
    given: dict[str, Any] = {}
    for name in ("ADD", "ADD again", "CHECK", "STATUS", "DEL", "DEL again"):
        with counted() as counts:
            if name == "ADD":
                given = network.call("ADD", ipam, "c1", cniVersion="1.1.0")
            elif name == "ADD again":
                assert network.refusal("ADD", ipam, "c1").code == ALREADY_EXISTS
            else:
                previous: dict[str, Any] = {"prevResult": given} if name == "CHECK" else {}
                assert network.call(name.split()[0], ipam, "c1", cniVersion="1.1.0", **previous) is None
        done[name] = counts
    return done


# What is not read


@pytest.mark.parametrize("ipam", [SMALL, DUAL], ids=["one-family", "two-families"])
def test_no_command_reads_the_directory(ipam: Any, network: Network) -> None:
    network.add(ipam, "c0")
    for counts in every_command(network, ipam).values():
        assert counts["scandir"] == 0
    network.exhaust(SMALL)
    with counted() as counts:
        assert network.refusal("ADD", SMALL, "new").code == NO_ADDRESS
        assert network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE
        assert network.refusal("ADD", SMALL, "new", cni_args="IP=10.1.0.9").code == ALREADY_EXISTS
    assert counts["scandir"] == 0


def test_with_60000_reservations_a_command_makes_the_calls_that_it_makes_with_none(memory: Path) -> None:
    empty, full = Network(memory / "empty"), Network(memory / "full")
    empty.call("ADD", LARGE, "c0", cni_args="IP=10.1.255.254")
    full.call("ADD", LARGE, "c0", cni_args="IP=10.1.255.254")
    addresses = full.fill(60_000)
    for network in (empty, full):
        (network.directory / "last_reserved_ip.0").write_text(addresses[-1])
        network.call("DEL", LARGE, "nobody")
    few, many = every_command(empty, LARGE), every_command(full, LARGE)
    for name in ("ADD", "ADD again", "CHECK", "DEL", "DEL again"):
        blocks = 2 * 16  # at most, each by its entry and its bits
        assert many[name]["pread"] <= few[name]["pread"] + blocks
        assert {**many[name], "pread": 0} == {**few[name], "pread": 0}
    full.fill(65_533)
    assert full.refusal("ADD", LARGE, "new").code == NO_ADDRESS
    with counted() as counts:
        assert full.refusal("ADD", LARGE, "new").code == NO_ADDRESS
    assert counts["scandir"] == 0
    assert counts["pread"] < 2 * 16 + 8
    full.call("DEL", LARGE, "other40000")
    assert full.add(LARGE, "new") == [f"{addresses[40_000]}/16"]
    full.collect([("new", "eth0")])
    assert full.reserved() == {addresses[40_000]: "new\r\neth0"}
    assert not looks(full)


def test_it_grows_with_the_reservations(network: Network) -> None:
    given = {f"c{i}": network.add(LARGE, f"c{i}") for i in range(200)}
    network.call("DEL", LARGE, "nobody")
    assert not looks(network)
    for container_id in given:
        network.call("DEL", LARGE, container_id)
    assert network.reserved() == {}
    assert not looks(network)


def test_who_had_which_address_before_the_reboot_is_not_searched_for(
    network: Network, reboot: Callable[[], None]
) -> None:
    given = {f"c{i}": network.add(DUAL, f"c{i}") for i in range(10)}
    reboot()
    network.call("DEL", DUAL, "nobody")
    with counted() as counts:
        assert {name: network.add(DUAL, name) for name in reversed(given)} == given
    assert counts["scandir"] == 0


def test_a_record_of_the_boot_before_that_was_removed_by_hand_is_no_claim(
    network: Network, reboot: Callable[[], None]
) -> None:
    assert network.add(SMALL, "c1", cni_args="IP=10.1.0.5") == ["10.1.0.5/28"]
    reboot()
    network.call("DEL", SMALL, "nobody")
    (record,) = network.data_dir.glob(".pycni/mynet/previous/*")
    record.unlink()
    assert network.add(SMALL, "c1") == ["10.1.0.6/28"]


# What others do


def create(network: Network) -> dict[str, str]:
    network.put("10.1.0.9", "theirs\r\neth0")
    return {"10.1.0.9": "theirs\r\neth0"}


def create_and_remove(network: Network) -> dict[str, str]:
    network.put("10.1.0.9", "theirs\r\neth0")
    (network.directory / "10.1.0.9").unlink()
    return {}


def remove(network: Network) -> dict[str, str]:
    (network.directory / "10.1.0.2").unlink()
    return {"10.1.0.2": ""}


def remove_and_create(network: Network) -> dict[str, str]:
    (network.directory / "10.1.0.2").unlink()
    network.put("10.1.0.2", "theirs\r\neth0")
    return {"10.1.0.2": "theirs\r\neth0"}


def rename(network: Network) -> dict[str, str]:
    (network.directory / "10.1.0.2").rename(network.directory / "10.1.0.9")
    return {"10.1.0.2": "", "10.1.0.9": "c1\r\neth0"}


def replace(network: Network) -> dict[str, str]:
    (network.data_dir / "new").write_bytes(b"theirs\r\neth0")
    (network.data_dir / "new").rename(network.directory / "10.1.0.2")
    return {"10.1.0.2": "theirs\r\neth0"}


def replace_all(network: Network) -> dict[str, str]:
    """The directory itself, as a restored backup."""
    network.directory.rename(network.data_dir / "old")
    network.put("10.1.0.9", "theirs\r\neth0")
    return {"10.1.0.2": "", "10.1.0.9": "theirs\r\neth0"}


def restore_times(network: Network) -> dict[str, str]:
    """As cp --archive and tar do."""
    before = network.directory.stat()
    changed = create(network)
    os.utime(network.directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    return changed


CHANGES = [create, create_and_remove, remove, remove_and_create, rename, replace, replace_all, restore_times]


@pytest.mark.parametrize("change", CHANGES, ids=lambda function: function.__name__)
def test_what_another_did_is_seen_however_soon_after_our_command(
    change: Callable[[Network], dict[str, str]], tmp_path: Path
) -> None:
    for turn in range(30):  # so that it often happens before the clock of the file system has moved on
        network = Network(tmp_path / str(turn))
        network.add(SMALL)
        expected = {"10.1.0.2": "c1\r\neth0"} | change(network)
        assert looks(network)
        assert network.reserved() == {address: content for address, content in expected.items() if content}
        assert sorted(network.exhaust(SMALL)) == sorted(ip for ip in POOL if not expected.get(ip))
        network.call("DEL", SMALL)
        assert "c1\r\neth0" not in network.reserved().values()
        assert not looks(network)


def test_commands_of_host_local_and_ours_in_turn_see_each_other(network: Network) -> None:
    for i in range(6):
        given = network.add(SMALL, f"ours{i}")[0].partition("/")[0]
        free = next(ip for ip in reversed(POOL) if ip not in network.reserved())
        network.put(free, f"theirs{i}\r\neth0")
        assert given != free
    assert len(network.reserved()) == 12
    assert len(network.exhaust(SMALL)) == 1


@pytest.mark.parametrize("when", ["before", "between", "after", "at-the-very-end"])
def test_a_change_without_the_lock_during_a_command_is_seen_by_the_next(
    when: str, network: Network, mocker: MockerFixture
) -> None:
    network.add(SMALL, "c1")
    if when == "at-the-very-end":

        def set_back_too_early(*directories: int) -> None:
            stamp.set_back(*directories)
            create(network)

        mocker.patch.object(store_module, "set_back", set_back_too_early)
    with opened(network.data_dir) as store:
        if when == "before":
            create(network)
        assert store.reserve(parse_ip("10.1.0.3"), "c2", "eth0")
        if when == "between":
            create(network)
        assert store.reserve(parse_ip("10.1.0.4"), "c3", "eth0")
        if when == "after":
            create(network)
    mocker.stopall()
    assert looks(network)
    assert sorted(network.exhaust(SMALL)) == sorted(set(POOL) - {"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.9"})


def test_a_record_that_was_removed_is_made_again_by_the_next_command(network: Network) -> None:
    network.add(SMALL)
    network.index.with_name("10.1.0.2,c1,eth0").unlink()
    assert looks(network)
    assert network.records() == {"10.1.0.2,c1,eth0"}


def test_a_file_that_said_not_whose_it_is_is_looked_at_by_every_command(network: Network) -> None:
    network.add(SMALL, "c0")
    network.put("10.1.0.9", "??")
    for _ in range(2):
        assert looks(network)
    (network.directory / "10.1.0.9").write_bytes(b"c9\r\neth0")  # in place: the directory does not tell
    network.call("DEL", SMALL, "c9")
    assert set(network.reserved()) == {"10.1.0.2"}
    assert not looks(network)


# What becomes of the index


def write_part(at: int, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(content)

    return damage


def truncate(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def make_older(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"pycni-index-1", b"pycni-index-0"))


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "missing": os.unlink,
    "empty": truncate(0),
    "head-only": truncate(512),
    "half": truncate(900),
    "garbage": write_part(0, os.urandom(1 << 14)),
    "garbage-in-head": write_part(20, b"99"),
    "garbage-behind-head": write_part(600, b"garbage"),
    "zeros": write_part(512, bytes(1 << 12)),
    "other-version": make_older,
    "link": replace_by(lambda path: path.symlink_to("/nowhere")),
    "fifo": replace_by(os.mkfifo),
    "directory": replace_by(Path.mkdir),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_an_index_that_is_damaged_misleads_nobody(
    damage: Callable[[Path], None], command: str, network: Network
) -> None:
    for i in range(3):
        network.add(SMALL, f"c{i}")
    damage(network.index)
    expected = {f"10.1.0.{i + 2}": f"c{i}\r\neth0" for i in range(3)}
    if command == "ADD":
        assert network.add(SMALL, "c9") == ["10.1.0.5/28"]
        expected["10.1.0.5"] = "c9\r\neth0"
    elif command == "GC":
        network.collect([("c0", "eth0"), ("c2", "eth0")])
        del expected["10.1.0.3"]
    else:
        assert network.call(command, SMALL, "c1", cniVersion="1.1.0", prevResult={"ips": []}) is None
        if command == "DEL":
            del expected["10.1.0.3"]
    assert network.reserved() == expected
    assert sorted(network.exhaust(SMALL)) == sorted(set(POOL) - set(expected))
    network.call("DEL", SMALL, "c0")
    assert "c0\r\neth0" not in network.reserved().values()
    if not network.index.is_dir():
        assert not looks(network)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO], ids=errno.errorcode.__getitem__
)
@pytest.mark.parametrize("function", ["open", "pwrite", "utime", "unlink"])
def test_an_index_that_cannot_be_written_is_done_without(
    function: str, number: int, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(SMALL, "c0")
    real = getattr(os, function)

    def fail(what: Any, *rest: Any, **options: Any) -> Any:
        index = os.fstat(what).st_size > 500 if function == "pwrite" else what == "index" or function == "utime"
        if index:
            raise OSError(number, os.strerror(number))
        return real(what, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        assert network.add(SMALL, "c1") == ["10.1.0.3/28"]
        assert network.add(SMALL, "c2") == ["10.1.0.4/28"]
        network.call("DEL", SMALL, "c0")
        assert network.add(SMALL, "c3") == ["10.1.0.5/28"]
    assert set(network.reserved()) == {"10.1.0.3", "10.1.0.4", "10.1.0.5"}
    network.call("DEL", SMALL, "c1")
    assert not looks(network)
    assert len(network.exhaust(SMALL)) == len(POOL) - 2


def test_an_index_of_earlier_is_not_taken_for_that_of_now(network: Network) -> None:
    network.add(SMALL, "c1")
    old = network.index.read_bytes()
    network.add(SMALL, "c2")
    network.call("DEL", SMALL, "c1")
    network.index.write_bytes(old)
    assert looks(network)
    network.call("DEL", SMALL, "c2")
    assert network.reserved() == {}


def test_an_index_of_another_network_is_not_taken_for_its_own(network: Network) -> None:
    network.add(SMALL, "c1")
    network.call("ADD", SMALL, "c1", name="othernet")
    (other,) = network.data_dir.glob(".pycni/othernet/*/index")
    network.call("ADD", SMALL, "c2", name="othernet")
    network.index.write_bytes(other.read_bytes())
    assert network.add(SMALL, "c2") == ["10.1.0.3/28"]


def test_status_asks_again_when_somebody_wrote_in_the_meanwhile(network: Network) -> None:
    network.add(SMALL, "c1")
    asked = []

    def question(index: Index) -> bool:
        asked.append(index.is_taken(parse_ip("10.1.0.3")))
        if len(asked) == 1:
            network.add(SMALL, "c2")
        return asked[-1]

    assert peek(str(network.data_dir), "mynet", question)
    assert asked == [False, True]


def test_status_counts_no_file_that_add_would_remove(network: Network) -> None:
    tiny = {"subnet": "10.1.0.0/29"}
    network.exhaust(tiny)
    network.call("DEL", tiny, "exhausting0")
    network.put("10.1.0.2", "")
    assert network.call("STATUS", tiny, cniVersion="1.1.0") is None
    network.put("10.1.0.2", "theirs")
    assert network.refusal("STATUS", tiny, cniVersion="1.1.0").code == NOT_AVAILABLE
    (network.directory / "10.1.0.3").write_bytes(b"")  # ours: the record knows whose it is
    assert network.refusal("STATUS", tiny, cniVersion="1.1.0").code == NOT_AVAILABLE


# Everything at once


class Model:
    """What should be reserved after any number of commands, of ours and of others."""

    def __init__(self, network: Network, choose: random.Random, reboot: Callable[[], None]) -> None:
        self.network = network
        self.choose = choose
        self.reboot = reboot
        self.held: dict[str, str] = {}
        self.others = 0

    def add(self) -> None:
        name = f"c{self.choose.randrange(18)}"
        if f"{name}\r\neth0" in self.held.values():
            assert self.network.refusal("ADD", SMALL, name).code == ALREADY_EXISTS
        elif len(self.held) == len(POOL):
            assert self.network.refusal("ADD", SMALL, name).code == NO_ADDRESS
        else:
            (given,) = self.network.add(SMALL, name)
            address = given.partition("/")[0]
            assert address in POOL
            assert address not in self.held
            self.held[address] = f"{name}\r\neth0"

    def delete(self) -> None:
        name = self.choose.choice([f"c{self.choose.randrange(18)}", f"theirs{self.choose.randrange(self.others + 1)}"])
        self.network.call("DEL", SMALL, name)
        self.held = {ip: content for ip, content in self.held.items() if content != f"{name}\r\neth0"}

    def check(self) -> None:
        for address, content in self.held.items():
            name = content.partition("\r")[0]
            previous = {"ips": [{"address": f"{address}/28"}]}
            assert self.network.call("CHECK", SMALL, name, prevResult=previous) is None

    def status(self) -> None:
        if len(self.held) == len(POOL):
            assert self.network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE
        else:
            assert self.network.call("STATUS", SMALL, cniVersion="1.1.0") is None

    def collect(self) -> None:
        valid = [content for content in self.held.values() if self.choose.random() < 0.7]
        self.network.collect([tuple(content.split("\r\n")) for content in valid])
        self.held = {ip: content for ip, content in self.held.items() if content in valid}

    def create(self) -> None:
        free = sorted(set(POOL) - set(self.held))
        if free:
            self.others += 1
            address = self.choose.choice(free)
            self.held[address] = f"theirs{self.others}\r\neth0"
            self.network.put(address, self.held[address])

    def remove(self) -> None:
        if self.held:
            address = self.choose.choice(sorted(self.held))
            del self.held[address]
            (self.network.directory / address).unlink()

    def leave_empty(self) -> None:
        free = sorted(set(POOL) - set(self.held))
        if free:
            self.network.put(self.choose.choice(free), "")

    def damage_index(self) -> None:
        for path in self.network.data_dir.glob(".pycni/mynet/*/index"):
            content = bytearray(path.read_bytes())
            content[self.choose.randrange(len(content))] ^= 1 << self.choose.randrange(8)
            path.write_bytes(content[: self.choose.choice((len(content), self.choose.randrange(len(content))))])

    def die(self) -> None:
        """A command that ends right before it would write the index, or in the middle of that."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.choose.choice((("write", "sign"), ("sign",))):
                patch.setattr(Index, name, lambda *_: None)
            self.choose.choice((self.add, self.delete, self.collect))()

    def begin_boot(self) -> None:
        self.network.call("DEL", SMALL, "nobody")  # see what others have written
        self.reboot()
        self.held = {}


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_commands_and_of_what_others_do_is_as_the_model_has_it(
    seed: int, memory: Path, reboot: Callable[[], None]
) -> None:
    choose = random.Random(seed)
    model = Model(Network(memory), choose, reboot)
    ours = (model.add, model.add, model.add, model.delete, model.delete, model.check, model.status)
    rarely = (model.collect, model.die, model.begin_boot, model.damage_index)
    theirs = (model.create, model.remove, model.leave_empty)
    model.add()
    for _ in range(250):
        choose.choice(choose.choices((ours, rarely, theirs), (85, 5, 10))[0])()
    model.network.call("DEL", SMALL, "nobody")
    assert model.network.reserved() == model.held
    assert len(model.network.exhaust(SMALL)) == len(POOL) - len(model.held)
