"""Fixtures of the bridge's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_bridge import locks
from tests.cni_bridge import open_container, open_kernel
from tests.cni_bridge.rooms import Rooms
from tests.kit.host import Host


@pytest.fixture(autouse=True)
def locks_of_the_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The plugin runs in the test's process: with the locks of the test's host, or its own where it has none."""
    directory = str(tmp_path / "pycni")
    if "host" in request.fixturenames:
        directory = f"/proc/{request.getfixturevalue('host').pid}/root/run/pycni"
    monkeypatch.setattr(locks, "DIRECTORY", directory)


@pytest.fixture
def rooms(host: Host) -> Iterator[Rooms]:
    """The rooms of one attachment; the test runs inside the host."""
    host.add_container("c1")
    with (
        open_kernel(host) as outside,
        open_kernel(host, "c1") as inside,
        open_container(host, "c1") as namespace,
        host.entered(),
    ):
        yield Rooms(host, outside, inside, namespace)
