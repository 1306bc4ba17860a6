"""The agent on the kernel: what it makes, adopts, repairs and leaves. Judged by ip, nft, ping and TCP."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cni_node.agents import NODES, PODS, Agent, line, link_hosts
from tests.host import Host

pytestmark = pytest.mark.kernel

ROUTED = {PODS[version][1]: NODES[version][1] for version in (4, 6)}


@pytest.fixture
def pair(new_host: Callable[[], Host], bin_dir: str, tmp_path: Path) -> Iterator[tuple[Agent, Agent]]:
    """Two agents, not started, with a file of both nodes each."""
    hosts = (new_host(), new_host())
    link_hosts(*hosts)
    agents = []
    for i, host in enumerate(hosts):
        root = tmp_path / f"node{i + 1}"
        root.mkdir()
        agents.append(Agent(host, root, bin_dir, i))
        agents[-1].write_nodes(line(0), line(1))
    yield agents[0], agents[1]
    for agent in agents:
        agent.stop()


def test_two_nodes_get_ready_when_their_peers_answer(pair: tuple[Agent, Agent]) -> None:
    for agent in pair:
        agent.start()
    for agent in pair:
        report = agent.await_ready()
        assert (report["problems"], report["silent"]) == ([], [])
    first = pair[0]
    assert first.routes() == ROUTED
    assert first.exempt() == ["10.240.2.0/24", "192.168.1.12"]
    assert first.exempt(6) == ["fd00:2::/64", "fd00:a::12"]
    assert sorted(first.host.addresses("cni0")) == ["10.240.1.1/24", "fd00:1::1/64"]
    [plugin] = json.loads(first.configuration.read_text())["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.240.1.0/24"}], [{"subnet": "fd00:1::/64"}]]
