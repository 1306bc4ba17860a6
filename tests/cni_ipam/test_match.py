"""The index and the files: no command reads the directory while they match, and none is misled when they do not."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam import directory as directory_module
from cni_ipam import stamp
from cni_ipam import store as store_module
from cni_protocol.address import parse_ip
from cni_protocol.errors import ALREADY_EXISTS, NO_ADDRESS, NOT_AVAILABLE
from tests.cni_ipam import Network, counted, looks, opened, snapshot

SMALL = {"subnet": "10.1.0.0/28"}  # gives .2 to .14
POOL = [f"10.1.0.{i}" for i in range(2, 15)]
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/64"}]]}
LARGE = {"subnet": "10.1.0.0/16"}


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


@pytest.mark.slow
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
    for turn in range(10):  # so that it often happens before the clock of the file system has moved on
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

        mocker.patch.object(directory_module, "set_back", set_back_too_early)
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
    network.index.with_name("10.1.0.2,mynet,c1,eth0").unlink()
    assert looks(network)
    assert network.records() == {"10.1.0.2,mynet,c1,eth0"}


def test_a_file_that_said_not_whose_it_is_is_looked_at_by_every_command(network: Network) -> None:
    network.add(SMALL, "c0")
    network.put("10.1.0.9", "??")
    for _ in range(2):
        assert looks(network)
    (network.directory / "10.1.0.9").write_bytes(b"c9\r\neth0")  # in place: the directory does not tell
    network.call("DEL", SMALL, "c9")
    assert set(network.reserved()) == {"10.1.0.2"}
    assert not looks(network)


def test_gc_that_finds_all_as_it_should_be_changes_nothing(network: Network) -> None:
    network.add(DUAL, "c1")
    network.add(DUAL, "c2")
    before = snapshot(network.data_dir)
    network.collect([("c1", "eth0"), ("c2", "eth0")])
    assert snapshot(network.data_dir) == before
    assert not looks(network)


def test_gc_puts_an_index_right_that_stands_for_other_files(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may come to be when somebody changes the directory in the very microsecond of our change."""
    for module in (store_module, directory_module):
        monkeypatch.setattr(module, "read_stamp", lambda *_: "the same")
    network.add(SMALL, "c1")
    network.add(SMALL, "c2")
    rename(network)
    with opened(network.data_dir) as store:
        assert store.is_taken(parse_ip("10.1.0.2"))  # misled
    network.collect([("c1", "eth0"), ("c2", "eth0")])
    with opened(network.data_dir) as store:
        assert store.addresses_of("c1", "eth0") == [parse_ip("10.1.0.9")]
        assert not store.is_taken(parse_ip("10.1.0.2"))
