"""Reservations over a reboot: nothing of the network survives it, so none of an earlier boot may hold an address."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from cni_ipam.boot import read_boot
from cni_ipam.boots import list_records
from cni_ipam.origin import NAME as ORIGIN
from cni_ipam.records import record_name
from cni_protocol.address import parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CHECK_FAILED, NO_ADDRESS, NOT_AVAILABLE
from tests.cni_ipam import Network, snapshot

Reboot = Callable[[], None]

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/125"}]]}


def fill(network: Network, first: str = "old") -> list[str]:
    return [network.add(SMALL, f"{first}{i}")[0] for i in range(5)]


def boots(network: Network) -> set[str]:
    return {path.name for path in (network.data_dir / ".pycni" / "mynet").iterdir()}


def test_a_record_is_a_hard_link_to_the_reservation_named_by_its_owner(network: Network, reboot: Reboot) -> None:
    network.add(DUAL)
    (boot,) = (network.data_dir / ".pycni" / "mynet").iterdir()
    assert boot.name == str(read_boot())
    assert {path.name: path.stat().st_ino for path in boot.iterdir() if path.name not in ("index", ORIGIN)} == {
        f"{address},mynet,c1,eth0": (network.directory / address).stat().st_ino
        for address in ("10.1.0.2", "2001:db8::2")
    }


def test_a_record_of_any_owner_has_room_in_a_file_name() -> None:
    owner = Attachment("n" * 500, "c" * 5000, "x" * 15).owner
    assert len(record_name(parse_ip("2001:db8:1111:2222:3333:4444:5555:6666"), owner).encode()) <= 255


def test_only_names_of_our_own_making_are_records(tmp_path: Path) -> None:
    for name in ("10.1.0.2,mynet,c1,eth0", "10.1.0.2", "10.1.0.2,", "notes", "2001:DB8::5,mynet,c1,eth0", ",c1,eth0"):
        (tmp_path / name).touch()
    (tmp_path / "10.1.0.3,mynet,c1,eth0").mkdir()
    assert [record.name for record in list_records([str(tmp_path)], "mynet")] == ["10.1.0.2,mynet,c1,eth0"]
    assert list_records([str(tmp_path / "missing")], "mynet") == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("10.1.0.2,c1,eth0", Attachment("mynet", "c1", "eth0").owner),
        ("10.1.0.2,c1,", Attachment("mynet", "c1", "").owner),
        ("10.1.0.2,mynet,eth0", Attachment("mynet", "mynet", "eth0").owner),
        ("10.1.0.2,c1,a,b", Attachment("mynet", "c1", "a,b").owner),
        (f"10.1.0.2,{'c' * 150},eth0", Attachment("mynet", "c" * 150, "eth0").owner),
        (f"10.1.0.2,{'c' * 100}~{sha256(b'c' * 500).hexdigest()},eth0", Attachment("mynet", "c" * 500, "eth0").owner),
        ("10.1.0.2,mynet,c1,a,b", Attachment("mynet", "c1", "a,b").owner),
        ("10.1.0.2,mynet,c1,", Attachment("mynet", "c1", "").owner),
    ],
    ids=["old", "old-file", "named-as-the-network", "comma", "long", "longer", "now-with-comma", "now-of-old-file"],
)
def test_a_record_of_any_version_tells_its_owner(name: str, owner: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert [record.owner for record in list_records([str(tmp_path)], "mynet")] == [owner]


# What is taken back, and what is not


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_any_command_takes_back_what_is_of_an_earlier_boot(
    command: str, network: Network, reboot: Reboot, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = fill(network)
    reboot()
    if command == "CHECK":
        assert network.refusal("CHECK", SMALL, "old0").code == CHECK_FAILED
    elif command == "GC":
        network.collect([("old0", "eth0")])
    else:
        network.call(command, SMALL, "new")
    assert set(network.reserved().values()) == ({"new\r\neth0"} if command == "ADD" else set())
    said = capsys.readouterr().err
    for address in (entry.partition("/")[0] for entry in addresses):
        assert f"{network.directory}/{address} was of an earlier boot: the address is free again" in said
    assert boots(network) == {str(read_boot()), "previous"}


def test_a_pool_that_an_earlier_boot_had_exhausted_is_whole_again(network: Network, reboot: Reboot) -> None:
    fill(network)
    assert network.refusal("ADD", SMALL, "new").code == NO_ADDRESS
    reboot()
    assert len(set(fill(network, "new"))) == 5
    assert network.refusal("ADD", SMALL, "more").code == NO_ADDRESS


def test_reservations_of_this_boot_stay(network: Network, reboot: Reboot) -> None:
    fill(network)
    reboot()
    network.add(SMALL, "a")
    network.add(SMALL, "b")
    before = network.reserved()
    for command in ("DEL", "ADD"):
        network.call(command, SMALL, "c")
        assert before.items() <= network.reserved().items()


def test_what_host_local_wrote_in_an_earlier_boot_is_taken_back_once_we_have_seen_it(
    network: Network, reboot: Reboot
) -> None:
    network.put("10.1.0.2", "theirs\r\neth0")
    network.put("10.1.0.3", "theirs-old")
    network.call("DEL", SMALL, "nobody")
    assert network.records() == {"10.1.0.2,mynet,theirs,eth0", "10.1.0.3,mynet,theirs-old,"}
    reboot()
    network.call("DEL", SMALL, "nobody")
    assert network.reserved() == {}


@pytest.mark.parametrize("address", ["10.1.0.2", "10.1.0.4"], ids=["the-same-address", "another"])
def test_what_host_local_has_written_since_the_boot_stays(address: str, network: Network, reboot: Reboot) -> None:
    network.add(SMALL, "old")
    reboot()
    (network.directory / "10.1.0.2").unlink()  # host-local's DEL, and then its ADD
    network.put(address, "old\r\neth0")
    inode = (network.directory / address).stat().st_ino
    given = network.exhaust(SMALL)
    assert address not in given
    assert len(given) == 4
    assert (network.directory / address).stat().st_ino == inode
    assert network.reserved()[address] == "old\r\neth0"


def test_the_links_keep_inode_numbers_from_being_used_again(network: Network, reboot: Reboot) -> None:
    """Else a file of host-local could have the number of one that was removed, and be taken for it."""
    network.add(SMALL, "old")
    path = network.directory / "10.1.0.2"
    old = path.stat().st_ino
    reboot()
    for _ in range(20):
        path.unlink()
        network.put("10.1.0.2", "theirs\r\neth0")
        assert path.stat().st_ino != old
    assert network.add(SMALL, "new") == ["10.1.0.3/29"]
    assert network.reserved()["10.1.0.2"] == "theirs\r\neth0"


# Who comes back


def test_a_container_that_comes_back_gets_its_addresses_again(network: Network, reboot: Reboot) -> None:
    first, second = network.add(DUAL, "c1"), network.add(DUAL, "c2")
    other = network.add(DUAL, "c1", ifname="eth1")
    reboot()
    assert network.add(DUAL, "c2") == second
    assert network.add(DUAL, "c1", ifname="eth1") == other
    assert network.add(DUAL, "c1") == first
    assert network.add(DUAL, "c3")[0] not in (first[0], second[0], other[0])


@pytest.mark.parametrize("taker", ["ours", "theirs"])
def test_an_address_that_was_taken_since_is_not_given_to_who_had_it(
    taker: str, network: Network, reboot: Reboot
) -> None:
    assert network.add(SMALL, "c1") == ["10.1.0.2/29"]
    reboot()
    if taker == "ours":
        network.add(SMALL, "c2", cni_args="IP=10.1.0.2")
    else:
        (network.directory / "10.1.0.2").unlink()
        network.put("10.1.0.2", "c2\r\neth0")
    assert network.add(SMALL, "c1") == ["10.1.0.3/29"]
    assert network.reserved()["10.1.0.2"] == "c2\r\neth0"


def test_a_request_and_a_changed_range_come_before_the_address_of_old(network: Network, reboot: Reboot) -> None:
    network.add(SMALL, "c1")
    reboot()
    assert network.add(SMALL, "c1", cni_args="IP=10.1.0.5") == ["10.1.0.5/29"]
    network.call("DEL", SMALL, "c1")
    assert network.add({**SMALL, "gateway": "10.1.0.2"}, "c1") != ["10.1.0.2/29"]
    network.call("DEL", SMALL, "c1")
    assert network.add({"subnet": "10.2.0.0/29"}, "c1") == ["10.2.0.2/29"]


def test_an_address_given_back_before_the_reboot_is_no_longer_the_container_s(network: Network, reboot: Reboot) -> None:
    network.add(SMALL, "c1")
    network.call("DEL", SMALL, "c1")
    reboot()
    assert network.add(SMALL, "c1") == ["10.1.0.3/29"]


def test_the_boot_before_the_last_is_forgotten(network: Network, reboot: Reboot) -> None:
    network.add(SMALL, "c1")
    reboot()
    network.add(SMALL, "c2", cni_args="IP=10.1.0.5")
    reboot()
    assert network.add(SMALL, "c2") == ["10.1.0.5/29"]
    assert {path.name for path in network.data_dir.glob(".pycni/mynet/previous/*")} == {"10.1.0.5,mynet,c2,eth0"}
    assert network.add(SMALL, "c1") == ["10.1.0.6/29"]
    assert boots(network) == {str(read_boot()), "previous"}


def test_boots_in_which_nothing_happened_change_nothing(network: Network, reboot: Reboot) -> None:
    assert network.add(SMALL, "c1") == ["10.1.0.2/29"]
    for _ in range(3):
        reboot()
    assert network.add(SMALL, "c9") == ["10.1.0.3/29"]
    assert network.add(SMALL, "c1") == ["10.1.0.2/29"]


# STATUS


def test_status_after_a_reboot_does_not_count_what_is_stale(network: Network, reboot: Reboot) -> None:
    fill(network)
    assert network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE
    reboot()
    before = snapshot(network.data_dir)
    assert network.call("STATUS", SMALL, cniVersion="1.1.0") is None
    assert snapshot(network.data_dir) == before
    assert len(fill(network, "new")) == 5
    assert network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE


def test_status_after_a_reboot_counts_what_was_written_since(network: Network, reboot: Reboot) -> None:
    fill(network)
    reboot()
    for name in [f"10.1.0.{i}" for i in range(2, 7)]:
        (network.directory / name).unlink()
        network.put(name, "theirs\r\neth0")
    assert network.refusal("STATUS", SMALL, cniVersion="1.1.0").code == NOT_AVAILABLE


# Damage in the records' own directory


@pytest.mark.parametrize("place", ["", "previous", "boot"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_strangers_among_the_records_stop_nobody(place: str, kind: str, network: Network, reboot: Reboot) -> None:
    network.add(SMALL, "c1")
    reboot()
    network.add(SMALL, "c1")
    directory = network.data_dir / ".pycni" / "mynet" / (str(read_boot()) if place == "boot" else place)
    for name in ("notes", "10.1.0.4"):
        if kind == "file":
            (directory / name).write_text("x")
        else:
            (directory / name / "inner").mkdir(parents=True)
    assert network.add(SMALL, "c2") == ["10.1.0.3/29"]
    assert network.reserved() == {"10.1.0.2": "c1\r\neth0", "10.1.0.3": "c2\r\neth0"}
    for _ in range(3):
        reboot()
        assert network.add(SMALL, "c1") == ["10.1.0.2/29"]
        assert network.reserved() == {"10.1.0.2": "c1\r\neth0"}


def test_records_without_reservations_and_reservations_without_records_are_put_right(
    network: Network, reboot: Reboot
) -> None:
    network.add(SMALL, "c1")
    network.add(SMALL, "c2")
    (boot,) = (network.data_dir / ".pycni" / "mynet").iterdir()
    (network.directory / "10.1.0.2").unlink()  # host-local's DEL
    (boot / "10.1.0.3,mynet,c2,eth0").unlink()
    (boot / "10.1.0.3,mynet,c7,eth0").touch()  # of another inode
    os.link(network.directory / "lock", boot / "10.1.0.4,c8,eth0")
    network.call("DEL", SMALL, "nobody")
    assert network.records() == {"10.1.0.3,mynet,c2,eth0"}
    assert network.reserved() == {"10.1.0.3": "c2\r\neth0"}
