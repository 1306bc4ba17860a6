"""Backups that are restored: no living address is given out twice, and what cannot be told is refused."""

from pathlib import Path
from typing import Any

import pytest

from cni_ipam import origin as origin_module
from cni_ipam.origin import NAME as ORIGIN
from cni_protocol.errors import IO_FAILURE, NOT_AVAILABLE
from tests.cni_ipam import Network, looks, restore, snapshot
from tests.cni_ipam.conftest import Elsewhere, boot_name

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
POOL = [f"10.1.0.{i}" for i in range(2, 7)]
READY: dict[str, Any] = {"cniVersion": "1.1.0"}


@pytest.fixture
def backup(network: Network) -> Path:
    """Where a backup of all is kept."""
    return network.data_dir.with_name("backup")


def check_refused(network: Network) -> str:
    """ADD and STATUS refuse, with the same words, and change nothing. Returns the words."""
    before = snapshot(network.data_dir)
    error = network.refusal("ADD", SMALL, "new")
    assert error.code == IO_FAILURE
    status = network.refusal("STATUS", SMALL, **READY)
    assert (status.code, status.msg) == (NOT_AVAILABLE, error.msg)
    assert snapshot(network.data_dir) == before
    assert f"the reservations at {network.directory} were copied or restored while this host was up" in error.msg
    return error.msg


@pytest.mark.parametrize("links", [True, False], ids=["with-links", "without-links"])
def test_a_backup_of_this_boot_that_may_lack_the_living_is_refused(
    links: bool, network: Network, elsewhere: Elsewhere, backup: Path
) -> None:
    network.add(SMALL, "c1")
    restore(network.data_dir, backup)
    network.add(SMALL, "c2")
    restore(backup, network.data_dir, links=links)
    origin = network.data_dir / ".pycni" / "mynet" / boot_name("boot1") / ORIGIN
    assert f"If none is, remove {origin}; else" in check_refused(network)
    network.call("CHECK", SMALL, "c1")
    network.call("DEL", SMALL, "c2")
    check_refused(network)  # what DEL and CHECK do makes it no better known
    network.collect([("c1", "eth0")])
    assert network.reserved() == {"10.1.0.2": "c1\r\neth0"}
    network.call("DEL", SMALL, "c1")
    assert network.reserved() == {}
    check_refused(network)
    origin.unlink()
    assert network.add(SMALL, "new") == ["10.1.0.3/29"]
    assert not looks(network)


def test_a_backup_of_this_boot_is_refused_for_every_instance(
    network: Network, elsewhere: Elsewhere, backup: Path
) -> None:
    network.add(SMALL, "c1")
    restore(network.data_dir, backup)
    restore(backup, network.data_dir)
    elsewhere.go(instance="8")
    check_refused(network)
    network.call("DEL", SMALL, "nobody")
    check_refused(network)


def test_a_backup_of_an_earlier_boot_that_was_restored_in_this_one_is_refused(
    network: Network, elsewhere: Elsewhere, backup: Path
) -> None:
    network.add(SMALL, "old")
    restore(network.data_dir, backup)
    elsewhere.go("boot2")
    network.add(SMALL, "living")
    restore(backup, network.data_dir)
    check_refused(network)
    network.call("DEL", SMALL, "nobody")
    assert network.reserved() == {"10.1.0.2": "old\r\neth0"}
    network.call("DEL", SMALL, "old")
    assert network.reserved() == {}


@pytest.mark.parametrize("links", [True, False], ids=["with-links", "without-links"])
def test_a_backup_that_was_restored_before_the_boot_is_of_the_past(
    links: bool, network: Network, elsewhere: Elsewhere, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(SMALL, "old")
    restore(network.data_dir, backup)
    restore(backup, network.data_dir, links=links)
    elsewhere.go("boot2")
    monkeypatch.setattr(origin_module.Origin, "is_recent", lambda _: False)
    assert network.add(SMALL, "new") == ["10.1.0.3/29"]
    assert ("10.1.0.2" in network.reserved()) is not links  # which no record tells the boot of, stays
    network.collect([("new", "eth0")])
    assert sorted(network.exhaust(SMALL)) == [ip for ip in POOL if ip != "10.1.0.3"]


def test_an_origin_is_recent_when_it_came_to_be_in_this_boot(network: Network, elsewhere: Elsewhere) -> None:
    network.add(SMALL, "c1")
    found = origin_module.find_origin(str(network.data_dir / ".pycni" / "mynet" / boot_name("boot1")))
    assert found is not None
    assert (found.is_copy, found.is_recent()) == (False, True)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert not found._replace(changed=found.changed - int((uptime + 60) * 1e9)).is_recent()


def test_a_directory_that_was_moved_is_the_same_one(network: Network, elsewhere: Elsewhere, backup: Path) -> None:
    network.add(SMALL, "c1")
    network.data_dir.rename(backup)
    network.data_dir, network.directory = backup, backup / "mynet"
    assert sorted(network.exhaust(SMALL)) == POOL[1:]


def test_an_origin_without_sense_is_noted_anew(network: Network, elsewhere: Elsewhere) -> None:
    network.add(SMALL, "c1")
    origin = network.data_dir / ".pycni" / "mynet" / boot_name("boot1") / ORIGIN
    whole = origin.read_bytes()
    for content in (b"", b"\0" * 80, whole.replace(b"origin-1", b"origin-0")):
        origin.write_bytes(content)
        network.index.unlink()
        assert network.add(SMALL, f"c{len(content)}")
        found = origin_module.find_origin(str(origin.parent))
        assert found is not None
        assert not found.is_copy
    assert "10.1.0.2" in network.reserved()


# Only the directory of the reservations is restored


@pytest.mark.parametrize("links", [True, False], ids=["with-links", "without-links"])
def test_living_reservations_that_a_restored_directory_lacks_are_put_back(
    links: bool, network: Network, elsewhere: Elsewhere, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.add(SMALL, "old")
    network.add(SMALL, "gone")
    restore(network.directory, backup)
    network.call("DEL", SMALL, "gone")
    network.call("DEL", SMALL, "old")
    network.add(SMALL, "c1", cni_args="IP=10.1.0.2")
    network.add(SMALL, "c2", cni_args="IP=10.1.0.6")
    restore(backup, network.directory, links=links)
    given = network.exhaust(SMALL)
    assert given == ["10.1.0.4", "10.1.0.5"]
    living = {"10.1.0.2": "c1\r\neth0", "10.1.0.6": "c2\r\neth0", "10.1.0.3": "gone\r\neth0"}
    assert living.items() <= network.reserved().items()
    assert f"{network.directory}/10.1.0.6 was lost when the directory was restored: put back" in capsys.readouterr().err
    network.collect([("c1", "eth0"), ("c2", "eth0")])
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.6"}
    (network.directory / "10.1.0.6").unlink()  # from here on a file that goes is given back again
    assert sorted(network.exhaust(SMALL)) == ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]


@pytest.mark.parametrize("what", ["directory", "files"])
def test_reservations_that_the_admin_removed_are_free(what: str, network: Network, elsewhere: Elsewhere) -> None:
    """`rm` in the directory, as the pages on the reference say."""
    network.exhaust(SMALL)
    for path in network.directory.iterdir():
        path.unlink()
    if what == "directory":
        network.directory.rmdir()
    assert network.exhaust(SMALL) == POOL
    assert not looks(network)


def test_a_backup_of_another_boot_over_a_running_one_gives_no_living_address_twice(
    network: Network, elsewhere: Elsewhere, backup: Path
) -> None:
    network.add(SMALL, "old", cni_args="IP=10.1.0.2")
    network.add(SMALL, "old2", cni_args="IP=10.1.0.3")
    restore(network.data_dir, backup)
    elsewhere.go("boot2")
    network.add(SMALL, "c1", cni_args="IP=10.1.0.2")
    for path in backup.rglob("*"):  # as tar does: what is there is replaced
        target = network.data_dir / path.relative_to(backup)
        if path.is_file():
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            target.hardlink_to(path)
    assert sorted(network.exhaust(SMALL)) == POOL[1:]
    assert network.reserved()["10.1.0.2"] == "c1\r\neth0"
