"""Pods on a bridge of a throw-away host, and a table of policies there."""

from collections.abc import Iterator

import pytest

from cni_node.policy.table import PolicyTable
from tests.cni_node.policy.kernel import PODS
from tests.cni_node.policy.worlds import PORTS
from tests.kit.pod_network import PodNetwork, open_network


@pytest.fixture(scope="module")
def network() -> Iterator[PodNetwork]:
    with open_network(PODS, PORTS) as opened:
        yield opened


@pytest.fixture
def table(network: PodNetwork) -> Iterator[PolicyTable]:
    with network.host.entered():
        opened = PolicyTable()
    yield opened
    opened.delete()
    opened.close()
