"""Services of kube-proxy's kind over the pod network: one pod behind an address, several, and a client that sticks."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.conftest import Record
from tests.cluster.fabric import run_in
from tests.cluster.installation import CONFLIST, PROGRAM
from tests.cluster.probe import Seen, Target, ask, listening
from tests.cluster.services import Service, iptables_rules, nftables_rules
from tests.cluster.worlds import NODES, OUTSIDERS, PODS, World
from tests.kit.calls import bare_environment

pytestmark = pytest.mark.kernel

PORT = 3306
SERVER = "pod1a"  # behind the service with one pod
BOTH = ("pod1a", "pod2a")
DATABASE = Target("10.103.132.104", PORT)  # the first address of a service that a Kubernetes user gets to see
SPREAD, STICKY = Target("10.103.132.105", PORT), Target("10.103.132.106", PORT)
NODE_PORT, SPREAD_PORT, STICKY_PORT = 30306, 30000, 32767  # the last two are the ends of their range
TRIES = 40  # of two pods one is missed by accident once in 2^39

# How rules get there, how they are written, and how they go again.
MANNERS: dict[str, tuple[tuple[str, ...], Callable[[Sequence[Service]], str], tuple[tuple[str, ...], ...]]] = {
    "iptables": (
        ("iptables-nft-restore", "--noflush"),
        iptables_rules,
        (("iptables-nft", "-t", "nat", "-F"), ("iptables-nft", "-t", "nat", "-X")),
    ),
    "nftables": (("nft", "-f", "-"), nftables_rules, (("nft", "delete", "table", "ip", "kube-proxy"),)),
}


@pytest.fixture(scope="module", params=MANNERS)
def services(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """The rules on every node, in one manner and then in the other."""
    one = (world.machine(SERVER).address(4),)
    both = tuple(world.machine(pod).address(4) for pod in BOTH)
    wanted = [
        Service("database", *DATABASE, NODE_PORT, one, PORT),
        Service("spread", *SPREAD, SPREAD_PORT, both, PORT),
        Service("sticky", *STICKY, STICKY_PORT, both, PORT, affinity=True),
    ]
    load, write, flush = MANNERS[request.param]
    for node in NODES:
        run_in(world.machine(node).netns, *load, input=write(wanted))
    yield request.param
    for node in NODES:
        for command in flush:
            run_in(world.machine(node).netns, *command)


@pytest.fixture
def servers(world: World) -> Iterator[Mapping[str, Any]]:
    """The pods behind the services, answering."""
    with listening(PORT, *(world.machine(pod) for pod in BOTH)) as made:
        yield made


@contextmanager
def without_bridge_netfilter(world: World, node: str) -> Iterator[None]:
    """Switch it off on a node for a block."""
    key = "net.bridge.bridge-nf-call-iptables"
    run_in(world.machine(node).netns, "sysctl", "-qw", f"{key}=0")
    yield
    run_in(world.machine(node).netns, "sysctl", "-qw", f"{key}=1")


def rewritten(world: World, node: str, server: str) -> str:
    """The source of what a node has translated on its way to a pod: that of the interface by which it leaves."""
    return world.cluster.places[node].gateway(4) if PODS[server] == node else world.machine(node).address(4)


@pytest.mark.parametrize("node", NODES)
def test_the_doctor_finds_nothing_beside_them(world: World, services: str, node: str) -> None:
    said = world.cluster.agents[node].node.run(PROGRAM, "doctor", "--json", check=False)
    assert json.loads(said.stdout) == {"findings": [], "unreadable": []}


@pytest.mark.parametrize("client", [*PODS, *NODES], ids=lambda name: f"from {name}")
def test_the_address_of_a_service_leads_to_its_pod(
    world: World, services: str, servers: Mapping[str, Any], record: Record, client: str
) -> None:
    machine = world.machine(client)
    seen = ask(machine, DATABASE, servers)
    record(f"{SERVER} as a service, {services}", client, "ClusterIP", seen)
    if client in (SERVER, *NODES):  # a pod that reaches itself would take its own packet for a forged one
        source = rewritten(world, PODS.get(client, client), SERVER)
    else:
        source = machine.address(4)
    assert seen == Seen(SERVER, source)


@pytest.mark.parametrize("node", NODES, ids=lambda name: f"to {name}")
@pytest.mark.parametrize("client", [*PODS, *NODES, *OUTSIDERS], ids=lambda name: f"from {name}")
def test_a_node_port_of_any_node_leads_to_the_pod(
    world: World, services: str, servers: Mapping[str, Any], record: Record, client: str, node: str
) -> None:
    seen = ask(world.machine(client), Target(world.machine(node).address(4), NODE_PORT), servers)
    record(f"{SERVER} as a service, {services}", client, f"port of {node}", seen)
    assert seen == Seen(SERVER, rewritten(world, node, SERVER))


@pytest.mark.parametrize("client", ["pod1a", "pod1b", "pod3a", "node1", "node3"], ids=lambda name: f"from {name}")
def test_a_service_of_two_pods_is_spread_over_both(
    world: World, services: str, servers: Mapping[str, Any], client: str
) -> None:
    answers = [ask(world.machine(client), SPREAD, servers) for _ in range(TRIES)]
    assert {seen and seen.by for seen in answers} == set(BOTH)


@pytest.mark.parametrize("port", [SPREAD_PORT, STICKY_PORT])
def test_both_ends_of_the_range_of_node_ports_work(
    world: World, services: str, servers: Mapping[str, Any], port: int
) -> None:
    seen = ask(world.machine("outside"), Target(world.machine("node3").address(4), port), servers)
    assert seen is not None
    assert seen.by in BOTH


@pytest.mark.parametrize("client", ["pod1a", "pod1b", "pod3a", "node1", "outside"], ids=lambda name: f"from {name}")
def test_with_affinity_a_client_stays_with_its_pod(
    world: World, services: str, servers: Mapping[str, Any], client: str
) -> None:
    target = Target(world.machine("node2").address(4), STICKY_PORT) if client in OUTSIDERS else STICKY
    answers = [ask(world.machine(client), target, servers) for _ in range(TRIES)]
    assert {seen and seen.by for seen in answers} in ({BOTH[0]}, {BOTH[1]})


def test_without_bridge_netfilter_a_pod_of_the_same_node_gets_no_answer(
    world: World, services: str, servers: Mapping[str, Any]
) -> None:
    """It comes straight over the bridge, from an address that the client did not ask; so the node has it on."""
    with without_bridge_netfilter(world, "node1"):
        assert ask(world.machine("pod1b"), DATABASE, servers, bound=0.5) is None
    assert ask(world.machine("pod1b"), DATABASE, servers) == Seen(SERVER, world.machine("pod1b").address(4))


@pytest.mark.parametrize("required", [False, True], ids=["not required", "required"])
def test_status_tells_that_bridge_netfilter_is_off(world: World, required: bool) -> None:
    node = world.cluster.nodes["node1"]
    conflist = json.loads(node.path(CONFLIST).read_text())
    config = {**conflist["plugins"][0], "cniVersion": "1.1.0", "name": conflist["name"]}
    config["requireBridgeNetfilter"] = required
    plugin = "/opt/cni/bin/cni-bridge"
    call: dict[str, Any] = {
        "input": json.dumps(config),
        "env": bare_environment("STATUS", ["/opt/cni/bin"]),
        "check": False,
    }
    said = node.run(plugin, **call)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    with without_bridge_netfilter(world, "node1"):
        said = node.run(plugin, **call)
    assert said.returncode == (1 if required else 0)
    assert "net.bridge.bridge-nf-call-iptables" in (said.stdout if required else said.stderr)
