"""STATUS of the address plugin: whether an ADD could work, found out without changing anything."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cni_protocol.errors import INVALID_CONFIG, IO_FAILURE, NOT_AVAILABLE, CNIError
from tests.cni_ipam import Network, held_elsewhere, snapshot

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
DUAL = {"ranges": [[{"subnet": "10.2.0.0/16"}], [{"subnet": "2001:db8::/126"}]]}  # the second gives ::2 and ::3


def refusal(network: Network, ipam: Any) -> CNIError:
    """The error of a STATUS, which changes nothing on the disk."""
    before = snapshot(network.data_dir.parent)
    error = network.refusal("STATUS", ipam, cniVersion="1.1.0")
    assert snapshot(network.data_dir.parent) == before
    return error


def is_ready(network: Network, ipam: Any) -> bool:
    before = snapshot(network.data_dir.parent)
    answer = network.call("STATUS", ipam, cniVersion="1.1.0")
    assert snapshot(network.data_dir.parent) == before
    return answer is None


def test_a_network_that_was_never_used_is_ready_and_not_made(network: Network) -> None:
    assert is_ready(network, DUAL)
    assert not network.data_dir.exists()


def test_a_network_in_use_is_ready_while_an_address_is_free(network: Network) -> None:
    for i in range(4):
        network.add(SMALL, f"c{i}")
        assert is_ready(network, SMALL)


def test_an_exhausted_pool_is_named_until_an_address_is_free(network: Network) -> None:
    network.exhaust(SMALL)
    error = refusal(network, SMALL)
    assert (error.code, error.msg) == (NOT_AVAILABLE, "no IP addresses available in range set: 10.1.0.1-10.1.0.6")
    network.call("DEL", SMALL, "exhausting3")
    assert is_ready(network, SMALL)


def test_one_exhausted_set_of_several_is_enough(network: Network) -> None:
    network.add(DUAL, "c1")
    assert is_ready(network, DUAL)
    network.add(DUAL, "c2")
    error = refusal(network, DUAL)
    assert error.code == NOT_AVAILABLE
    assert "2001:db8::1" in error.msg
    assert "10.2.0" not in error.msg


def test_reservations_of_host_local_and_the_gateway_count_as_for_add(network: Network) -> None:
    for i in (1, 2, 3, 4, 5):  # .1 is the gateway, and never given
        network.put(f"10.1.0.{i}", "theirs\r\neth0")
    assert is_ready(network, SMALL)
    network.put("10.1.0.6", "theirs-old")
    assert refusal(network, SMALL).code == NOT_AVAILABLE
    assert network.exhaust(SMALL) == []


def test_a_lock_held_by_another_process_does_not_delay_it(network: Network) -> None:
    with held_elsewhere(network.data_dir):
        assert is_ready(network, SMALL)


def file_for_data_dir(network: Network) -> None:
    network.data_dir.write_text("")


def file_above_data_dir(network: Network) -> None:
    network.data_dir.write_text("")
    network.data_dir = network.data_dir / "below"


def file_for_network(network: Network) -> None:
    network.data_dir.mkdir()
    network.directory.write_text("")


def link_for_network(network: Network) -> None:
    network.data_dir.mkdir()
    network.directory.symlink_to("/nowhere")


def link_to_directory(network: Network) -> None:
    network.data_dir.mkdir()
    (network.data_dir / "elsewhere").mkdir()
    network.directory.symlink_to("elsewhere")


def file_for_records(network: Network) -> None:
    network.directory.mkdir(parents=True)
    (network.data_dir / ".pycni").write_text("")


@pytest.mark.parametrize(
    "damage",
    [file_for_data_dir, file_above_data_dir, file_for_network, link_for_network, link_to_directory, file_for_records],
    ids=lambda function: function.__name__,
)
def test_a_store_that_add_could_not_use_is_named(damage: Callable[[Network], None], network: Network) -> None:
    damage(network)
    error = refusal(network, SMALL)
    assert error.code == NOT_AVAILABLE
    assert str(network.data_dir) in error.msg
    assert network.refusal("ADD", SMALL).code == IO_FAILURE


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("f_bavail", 0, "No space left on device; free some space there"),
        ("f_favail", 0, "No space left on device"),
        ("f_flag", os.ST_RDONLY, "Read-only file system; mount it writable"),
    ],
    ids=["full", "no-inodes", "read-only"],
)
@pytest.mark.parametrize("used", [True, False], ids=["used", "never-used"])
def test_a_file_system_that_add_could_not_use_is_named(
    used: bool, field: str, value: int, said: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    if used:
        network.add(SMALL)
    fields = {"f_bavail": 100, "f_favail": 100, "f_files": 1000, "f_flag": 0, field: value}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**fields))
    error = refusal(network, SMALL)
    assert error.code == NOT_AVAILABLE
    assert str(network.directory) in error.msg
    assert said in error.msg


def test_a_file_system_that_does_not_count_inodes_is_fine(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"f_bavail": 100, "f_favail": 0, "f_files": 0, "f_flag": 0}  # btrfs
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**fields))
    assert is_ready(network, SMALL)


def test_a_directory_without_permission_is_named(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network.add(SMALL)
    monkeypatch.setattr(os, "access", lambda *_: False)
    error = refusal(network, SMALL)
    assert error.code == NOT_AVAILABLE
    assert "Permission denied; check its owner and mode" in error.msg


@pytest.mark.parametrize("ipam", [{}, {"subnet": "x"}, {"ranges": [[]]}], ids=str)
def test_a_wrong_configuration_is_told_as_such(ipam: Any, network: Network) -> None:
    assert refusal(network, ipam).code == INVALID_CONFIG


def test_other_commands_work_while_status_fails(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network.add(SMALL, "c1")
    result = network.call("ADD", SMALL, "c2")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refusal(network, SMALL).code == NOT_AVAILABLE
    assert network.call("CHECK", SMALL, "c2", prevResult=result) is None
    network.call("DEL", SMALL, "c1")
    assert network.add(SMALL, "c3") == ["10.1.0.4/29"]


def test_a_path_through_a_link_of_the_administrator_is_followed(network: Network, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    network.data_dir.symlink_to(tmp_path / "large-disk")
    assert is_ready(network, SMALL)
    network.exhaust(SMALL)
    assert refusal(network, SMALL).code == NOT_AVAILABLE
