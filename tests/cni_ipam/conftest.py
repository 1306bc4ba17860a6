"""Fixtures: a network of the test's own, and a host whose boots the test makes."""

import os
from collections.abc import Callable, Iterator
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
