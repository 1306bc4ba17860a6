"""Fixtures of the bridge's tests."""

from collections.abc import Iterator

import pytest

from tests.cni_bridge import open_container, open_kernel
from tests.cni_bridge.rooms import Rooms
from tests.kit.host import Host


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
