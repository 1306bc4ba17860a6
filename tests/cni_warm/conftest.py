"""A host with the service, and plugins that go through it."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.cni_warm.stand_in import StandIn
from tests.conftest import REFERENCE_DIR
from tests.kit.host import Host
from tests.kit.runtime import Runtime
from tests.kit.warm import Service, socket_of


@pytest.fixture
def service(host: Host, bin_dir: str) -> Iterator[Service]:
    made = Service(host, bin_dir)
    yield made
    made.end()


@pytest.fixture
def bridge(host: Host, bin_dir: str) -> Runtime:
    return Runtime(host, f"{bin_dir}/cni-bridge", (bin_dir, REFERENCE_DIR))


@pytest.fixture
def stand_in(host: Host) -> StandIn:
    return StandIn(host)


@pytest.fixture
def listener(host: Host) -> Iterator[socket.socket]:
    """A service of the test's own, with the smallest backlog there is."""
    os.makedirs(os.path.dirname(socket_of(host)), exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(socket_of(host))
        os.chmod(socket_of(host), 0o600)
        made.listen(0)
        made.settimeout(20)
        yield made
