"""Pods on a bridge of a throw-away host, and a table of policies there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_node.policy.enforcer import Enforcer
from cni_node.policy.table import PolicyTable
from tests.cni_node.policy.kernel import PODS
from tests.cni_node.policy.live import pod_item, running
from tests.cni_node.policy.worlds import PORTS
from tests.kit.api_server import ApiServer
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


@pytest.fixture
def api(soon: None) -> Iterator[ApiServer]:
    with ApiServer() as server:
        for namespace in "xyz":
            server.put({"metadata": {"name": namespace, "labels": {"ns": namespace}}}, "namespaces")
        for name, addresses in PODS.items():
            server.put(pod_item(name, *addresses), "pods")
        yield server


@pytest.fixture
def enforcer(api: ApiServer, network: PodNetwork, tmp_path: Path) -> Iterator[Enforcer]:
    with running(network.host, api.url, tmp_path) as opened:
        yield opened
    network.host.run("nft", "flush", "ruleset")
