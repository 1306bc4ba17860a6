"""What 5,000 peers cost: CPU time of the process and memory, not the clock on the wall."""

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_node.agent.keeper import ROUTES, STAGES, SYSCTLS, Keeper
from cni_node.host.overlay import Overlay
from cni_node.settings import Settings
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.static import StaticSettings
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from tests.cni_node.agents import Agent
from tests.conftest import ROOT
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

PEERS = 5000
OWN = Node("node", (parse_cidr("10.240.1.0/24"),), (parse_ip("192.168.0.1"),))
FIRST_SYNC, ONE_CHANGE = 10.0, 0.020  # seconds of CPU, as promised
IDLE_MIB, BUSY_MIB = 45, 64


def peer(number: int) -> Node:
    pods = CIDR(IP(4, (10 << 24) + (number << 8)), 24)
    return Node(f"node{number}", (pods,), (IP(4, parse_ip("192.168.16.0").value + number),))


@pytest.fixture
def wide(host: Host) -> Host:
    """A host on a link with room for all peers."""
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "other")
    host.run("ip", "address", "add", "192.168.0.1/16", "dev", "uplink")
    for name in ("uplink", "other"):
        host.run("ip", "link", "set", name, "up")
    return host


@pytest.fixture(params=[None, Overlay(1, 4789)], ids=["routes", "overlay"])
def keeper(wide: Host, request: pytest.FixtureRequest) -> Iterator[Keeper]:
    with wide.entered():
        made = Keeper(Settings(StaticSettings(OWN), overlay=request.param))
        yield made
        made.close()


def test_the_first_sync_and_one_change(wide: Host, keeper: Keeper) -> None:
    peers = tuple(map(peer, range(PEERS)))
    begun = time.process_time()
    keeper.settle(Snapshot(OWN, peers), STAGES)
    first = time.process_time() - begun
    assert keeper.problems.pop("sysctls") is not None
    assert (keeper.routes, keeper.exempted, [texts for texts in keeper.problems.values() if texts]) == (5000, 10000, [])
    assert len(wide.ip("route", "show", "proto", "80")) == PEERS
    assert first < FIRST_SYNC
    costs = []
    gc.collect()
    for number in range(PEERS, PEERS + 10):
        peers = (*peers, peer(number))
        begun = time.process_time()
        keeper.settle(Snapshot(OWN, peers), {SYSCTLS})
        costs.append(time.process_time() - begun)
    assert len(wide.ip("route", "show", "proto", "80")) == PEERS + 10
    assert sorted(costs)[len(costs) // 2] < ONE_CHANGE, costs
    begun = time.process_time()
    assert keeper.settle(Snapshot(OWN, peers), {ROUTES}) == []
    assert time.process_time() - begun < FIRST_SYNC / 10


def mib_of(agent: Agent) -> float:
    command = [
        sys.executable,
        "-c",
        "from cni_node.agent.status import Path, fetch, sys; print(fetch(Path(sys.argv[1]), '/metrics'))",
    ]
    text = subprocess.run([*command, str(agent.socket)], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [line] = [line for line in text.splitlines() if line.startswith("process_resident_memory_bytes ")]
    return float(line.split()[1]) / 2**20


@pytest.mark.parametrize(
    ("peers", "bound"), [pytest.param(0, IDLE_MIB, id="none"), pytest.param(PEERS, BUSY_MIB, id="all")]
)
def test_memory(wide: Host, bin_dir: str, tmp_path: Path, peers: int, bound: int) -> None:
    agent = Agent(wide, tmp_path, bin_dir, 0)
    lines = [f"{node.pods[0]} {node.addresses[0]} {node.name}\n" for node in (OWN, *map(peer, range(peers)))]
    agent.write_nodes(*lines)
    agent.start("--overlay=vxlan", "--node-ip=192.168.0.1")
    try:
        agent.await_report(lambda report: report["routes"] == peers and (report["exempt"] or not peers), 60)
        assert mib_of(agent) < bound
    finally:
        agent.stop()
