"""Fixtures: a network of the test's own, and a host whose boots the test makes."""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cni_ipam import boot
from tests.cni_ipam import Network


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """A network without any reservation, its directory not yet made."""
    return Network(tmp_path / "networks")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: many files are made, and a disk that is busy would be waited for."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield Path(path)


def boot_name(kernel: str, machine: str = "machine1", instance: str = "7") -> str:
    """The name of the directory of records that Elsewhere.go leads to."""
    return f"{kernel},{sha256(machine.encode()).hexdigest()[:16]}-,{instance}"


class Elsewhere:
    """Where the commands of a test run: boot, host and instance of the node are what the test says."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._patch = patch
        directory.mkdir()
        for name in ("_BOOT_ID", "_MACHINE_ID", "_PRODUCT_UUID"):
            patch.setattr(boot, name, str(directory / name))

    def go(self, kernel: str = "boot1", machine: str = "machine1", instance: str = "7") -> None:
        """Another boot id, another machine id (none for ""), another network namespace."""
        (self._directory / "_BOOT_ID").write_text(f"{kernel}\n")
        (self._directory / "_MACHINE_ID").unlink(missing_ok=True)
        if machine:
            (self._directory / "_MACHINE_ID").write_text(f"{machine}\n")
        self._patch.setattr(boot, "_read_instance", lambda: instance)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """The place of the test, the first boot of the first machine."""
    place = Elsewhere(tmp_path / "ids", monkeypatch)
    place.go()
    return place


@pytest.fixture
def reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes the kernel's boot id another one; the first boot has begun."""
    path = tmp_path / "boot_id"
    numbers = count(1)

    def begin() -> None:
        path.write_text(f"00000000-0000-4000-8000-{next(numbers):012}\n")

    monkeypatch.setattr(boot, "_BOOT_ID", str(path))
    begin()
    return begin
