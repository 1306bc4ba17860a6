"""Where several hosts may see the reservations: ADD and STATUS refuse, and what gives back works on."""

from pathlib import Path
from typing import Any

import pytest

from cni_ipam import filesystems
from cni_ipam.filesystems import find_shared_filesystem, parse_mounts
from cni_protocol.errors import INVALID_CONFIG, NOT_AVAILABLE
from tests.cni_ipam import Network, age, snapshot
from tests.cni_ipam.conftest import Elsewhere

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
READY: dict[str, Any] = {"cniVersion": "1.1.0"}

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /var/lib rw,relatime - xfs /dev/sdb rw
31 30 0:40 /export /var/lib/cni rw,relatime shared:7 master:3 - nfs4 server:/export rw
32 31 0:41 / /var/lib/cni/local rw - tmpfs tmpfs rw
33 21 0:42 / /mnt/with\040space\134n rw - fuse.sshfs host:/ rw
34 21 0:43 / /mnt/twice rw - nfs server:/ rw
35 34 8:2 / /mnt/twice rw - ext4 /dev/sdc rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc", "ext4"),
        ("/var/lib", "xfs"),
        ("/var/libx", "ext4"),
        ("/var/lib/cni/networks", "nfs4"),
        ("/var/lib/cni", "nfs4"),
        ("/var/lib/cni2", "xfs"),
        ("/var/lib/cni/local/mynet", "tmpfs"),
        (r"/mnt/with space\n/x", "fuse.sshfs"),
        ("/mnt/twice/x", "ext4"),
    ],
)
def test_a_path_is_on_the_longest_mount_point_and_of_these_the_last(path: str, kind: str) -> None:
    assert parse_mounts(MOUNTS, path) == kind


def test_without_a_list_of_mounts_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_mounts("", "/x") == ""
    assert find_shared_filesystem(str(tmp_path)) == ""
    monkeypatch.setattr(filesystems, "_MOUNTS", str(tmp_path / "missing"))
    assert find_shared_filesystem("/") == ""


class Mounts:
    """The list of mounts, as the test has it: what the test's directory is on."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._path = directory / "mounts"
        patch.setattr(filesystems, "_MOUNTS", str(self._path))

    def put_on(self, kind: str) -> None:
        self._path.write_text(
            f"1 1 8:1 / / rw - ext4 x rw\n2 1 0:9 / {self._directory.resolve()} rw - {kind} server:/x rw\n"
        )


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounts:
    return Mounts(tmp_path, monkeypatch)


@pytest.mark.parametrize("place", ["link", "link/not/yet/there", "link/a file/below", "to link", "link/../below"])
def test_symbolic_links_are_followed_as_far_as_a_path_is_there(
    mounts: Mounts, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a file").touch()
    mounts.put_on("nfs4")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "link").symlink_to(tmp_path / "there")
    (elsewhere / "to link").symlink_to("link")
    followed = place != "link/a file/below"  # which nothing can ever be made in
    assert find_shared_filesystem(str(elsewhere / place)) == ("nfs4" if followed else "")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "gfs2", "fuse.glusterfs"])
def test_a_file_system_of_several_hosts_is_refused_and_named(kind: str, network: Network, mounts: Mounts) -> None:
    mounts.put_on(kind)
    error = network.refusal("ADD", SMALL)
    assert error.code == INVALID_CONFIG
    for part in ("ipam.dataDir: ", f"{network.directory} would be on {kind},", "set ipam.dataDir to"):
        assert part in error.msg
    status = network.refusal("STATUS", SMALL, **READY)
    assert (status.code, "ipam.dataDir: " in status.msg, f"on {kind}," in status.msg) == (NOT_AVAILABLE, True, True)
    assert network.refusal("ADD", SMALL).code == INVALID_CONFIG  # also when the directory is there


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.fuse-overlayfs"])
def test_a_file_system_of_this_host_is_fine(kind: str, network: Network, mounts: Mounts) -> None:
    mounts.put_on(kind)
    assert network.call("STATUS", SMALL, **READY) is None
    assert network.add(SMALL) == ["10.1.0.2/29"]


def test_what_is_there_is_given_back_and_checked_all_the_same(network: Network, mounts: Mounts) -> None:
    mounts.put_on("nfs4")
    for i in (2, 3, 4):
        network.put(f"10.1.0.{i}", f"c{i}\r\neth0")
    network.call("CHECK", SMALL, "c2")
    network.call("DEL", SMALL, "c2")
    network.collect([("c3", "eth0")])
    assert network.reserved() == {"10.1.0.3": "c3\r\neth0"}
    assert network.refusal("ADD", SMALL).code == INVALID_CONFIG  # none of these began anything there
    before = snapshot(network.data_dir)
    assert network.refusal("STATUS", SMALL, **READY).code == NOT_AVAILABLE
    assert snapshot(network.data_dir) == before


def test_records_of_the_version_before_tell_there_whose_a_damaged_reservation_is(
    network: Network, elsewhere: Elsewhere, mounts: Mounts
) -> None:
    mounts.put_on("ext4")
    network.add(SMALL, "c1")
    age(network, "boot1")
    network.directory.joinpath("10.1.0.2").write_bytes(b"damaged")
    mounts.put_on("nfs4")
    network.call("DEL", SMALL, "c1")
    assert (network.reserved(), network.records()) == ({}, set())


def test_the_list_of_mounts_is_read_when_records_are_begun_and_then_by_status_alone(
    network: Network, mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts.put_on("ext4")
    network.add(SMALL, "c1")
    looked = []
    real = filesystems.parse_mounts
    monkeypatch.setattr(filesystems, "parse_mounts", lambda *args: looked.append(1) or real(*args))  # type: ignore[func-returns-value]
    network.add(SMALL, "c2")
    network.call("DEL", SMALL, "c1")
    network.collect([])
    assert looked == []
    network.call("STATUS", SMALL, **READY)
    assert looked == [1]
