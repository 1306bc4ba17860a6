"""GC of the address plugin: what no valid attachment holds is given back, and all else stays byte for byte."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam import store
from cni_protocol.address import IP
from cni_protocol.errors import INVALID_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CNIError
from tests.cni_ipam import Network, held_elsewhere, snapshot

SMALL = {"subnet": "10.1.0.0/28"}
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/124"}]]}
KEY, OLD_KEY = "cni.dev/valid-attachments", "cni.dev/attachments"
NOTHING_VALID: dict[str, Any] = {"cniVersion": "1.1.0", KEY: []}


def files(network: Network) -> dict[str, tuple[int, int, bytes]]:
    """The reservations as they lie on the disk."""
    return {name: entry for name, entry in snapshot(network.directory).items() if name in network.reserved()}


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_the_valid_ones_stay_byte_for_byte_and_the_rest_goes(key: str, network: Network) -> None:
    for container_id in ("c1", "c2", "c3"):
        network.add(DUAL, container_id)
    network.add(DUAL, "c1", ifname="eth1")
    before = files(network)
    valid = [{"containerID": "c1", "ifname": "eth1"}, {"containerID": "c3", "ifname": "eth0", "x": 1}]
    keys: dict[str, Any] = {key: valid}
    assert network.call("GC", DUAL, cniVersion="1.1.0", **keys) is None
    kept = ("10.1.0.4", "10.1.0.5", "2001:db8::4", "2001:db8::5")
    assert files(network) == {name: before[name] for name in kept}
    assert len(network.records()) == 4
    network.collect([("c1", "eth1"), ("c3", "eth0")])
    assert files(network) == {name: before[name] for name in kept}
    assert network.add(DUAL, "c9") == ["10.1.0.6/28", "2001:db8::6/124"]


def test_both_spellings_of_the_list_count(network: Network) -> None:
    for container_id in ("c1", "c2", "c3"):
        network.add(SMALL, container_id)
    network.collect([("c1", "eth0")], **{OLD_KEY: [{"containerID": "c2", "ifname": "eth0"}]})
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.3"}


def test_an_empty_list_says_that_nothing_is_valid(network: Network) -> None:
    network.add(DUAL)
    network.put("10.1.0.9", "old-format")
    network.put("10.1.0.10", "??")
    network.collect([])
    assert (network.reserved(), network.records()) == ({}, set())
    assert {path.name for path in network.directory.iterdir()} == {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


@pytest.mark.parametrize("keys", [{}, {"cni.dev/other": []}], ids=["missing", "another-key"])
def test_without_a_list_nothing_is_known_and_nothing_removed(
    keys: dict[str, Any], network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.add(DUAL)
    before = snapshot(network.data_dir)
    assert network.call("GC", DUAL, cniVersion="1.1.0", **keys) is None
    assert snapshot(network.data_dir) == before
    assert capsys.readouterr().err == "cni-ipam: GC without a list of valid attachments: nothing was removed\n"


@pytest.mark.parametrize(
    "valid",
    [
        *({}, "x", 5, True),
        *([1], [None], ["c1"], [[]], [{}]),
        *([{"containerID": "c2"}], [{"ifname": "eth0"}], [{"containerID": "c2", "ifname": ""}]),
        [{"containerID": 5, "ifname": "eth0"}],
        [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c3"}],
    ],
    ids=str,
)
@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_with_a_malformed_list_nothing_is_removed(key: str, valid: Any, network: Network) -> None:
    network.add(SMALL)
    before = snapshot(network.data_dir)
    error = network.refusal("GC", SMALL, cniVersion="1.1.0", **{KEY: [], key: valid})
    assert error.code == INVALID_CONFIG
    assert error.msg.startswith(f"nothing was removed: {key}")
    assert snapshot(network.data_dir) == before


def test_a_reservation_of_an_old_version_stays_for_any_interface_of_its_container(network: Network) -> None:
    network.put("10.1.0.2", "c1")
    network.put("10.1.0.3", "c2\n")
    network.put("10.1.0.4", "c3")
    before = files(network)
    network.collect([("c1", "eth7"), ("c2", "eth0"), ("c33", "eth0")])
    assert files(network) == {name: before[name] for name in ("10.1.0.2", "10.1.0.3")}


def test_one_that_says_not_whose_it_is_goes_only_when_every_valid_attachment_has_another(network: Network) -> None:
    network.add(SMALL, "c1")
    network.put("10.1.0.9", "??")
    network.collect([("c1", "eth0"), ("c2", "eth0")])  # it may be c2's
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.9"}
    network.collect([("c1", "eth0")])
    assert set(network.reserved()) == {"10.1.0.2"}


def test_other_networks_are_untouched(network: Network) -> None:
    network.add(SMALL, "c1", name="othernet")
    network.add(SMALL, "c1")
    (network.data_dir / "mynet.bak").mkdir()
    (network.data_dir / "mynet.bak" / "10.1.0.2").write_text("c1")

    def others() -> dict[str, Any]:
        entries = snapshot(network.data_dir).items()
        return {name: entry for name, entry in entries if "mynet" not in Path(name).parts}

    before = others()
    assert len([name for name in before if "10.1.0.2" in name]) == 3
    network.collect([])
    assert others() == before
    assert network.reserved() == {}


def test_a_network_that_was_never_used_is_not_made(network: Network, tmp_path: Path) -> None:
    network.collect([("c1", "eth0")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ipam", [{}, {"subnet": "nonsense", "routes": 5}, {"strict": True, "rnages": []}], ids=str)
def test_a_configuration_that_is_broken_by_now_does_not_keep_anything(ipam: Any, network: Network) -> None:
    network.add(SMALL)
    network.call("GC", ipam, **NOTHING_VALID)
    assert network.reserved() == {}


def test_what_cannot_be_removed_is_told_after_the_rest_is(network: Network, mocker: MockerFixture) -> None:
    for container_id in ("c1", "c2", "c3"):
        network.add(SMALL, container_id)
    real = store.Store.release

    def release(self: store.Store, ip: IP) -> None:
        if str(ip) != "10.1.0.4":
            raise CNIError(IO_FAILURE, f"{ip} cannot be released")
        real(self, ip)

    mocker.patch.object(store.Store, "release", release)
    error = network.refusal("GC", SMALL, **NOTHING_VALID)
    assert error.code == IO_FAILURE
    assert sorted(error.msg.split("; ")) == ["10.1.0.2 cannot be released", "10.1.0.3 cannot be released"]
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.3"}


def test_a_directory_in_the_place_of_a_reservation_is_named_and_the_rest_goes(network: Network) -> None:
    network.add(SMALL)
    (network.directory / "10.1.0.9").mkdir()
    error = network.refusal("GC", SMALL, **NOTHING_VALID)
    assert error.code == IO_FAILURE
    assert f"{network.directory}/10.1.0.9 cannot be used: {os.strerror(errno.EISDIR)}" in error.msg
    assert os.listdir(network.directory / "10.1.0.9") == []
    assert not (network.directory / "10.1.0.2").exists()


def test_a_lock_held_by_another_process_means_try_again_later(network: Network, mocker: MockerFixture) -> None:
    mocker.patch.object(store, "LOCK_BOUND", 0.1)
    with held_elsewhere(network.data_dir):
        assert network.refusal("GC", SMALL, **NOTHING_VALID).code == TRY_AGAIN_LATER
