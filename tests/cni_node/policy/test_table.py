"""The kernel as judge: what passes between containers on a bridge, against what the evaluator says."""

import socket

import pytest

from cni_kernel.flows import Flows
from cni_node.policy.change import Change
from cni_node.policy.compiler import Compiler
from cni_node.policy.evaluator import Connection, Evaluator
from cni_node.policy.model import DIRECTIONS, Cluster, Policy
from cni_node.policy.recheck import recheck
from cni_node.policy.table import PolicyTable
from cni_protocol.address import IP, parse_ip
from tests.cni_node.policy.cases import DENY_ALL, DENY_IN, block, let_in, let_out, port, spaces
from tests.cni_node.policy.kernel import A4, B4, C4, NODES, PODS, passes, put, state_of
from tests.cni_node.policy.texts import pod, policy
from tests.cni_node.policy.worlds import Chance
from tests.kit.pod_network import PodNetwork, Probe

pytestmark = pytest.mark.kernel


def probes_of(evaluator: Evaluator, asked: list[Probe]) -> set[Probe]:
    return {probe for probe in asked if evaluator.allowed(Connection(*probe)).allowed}


def cluster_by_chance(chance: Chance, policies: int) -> Cluster:
    pods = []
    for name, addresses in PODS.items():
        ports = [each for each in ("TCP/http/80", "TCP/http/81", "UDP/http/80", "TCP/alt/8080") if chance.often(0.5)]
        labels = {"pod": name[-1], **({"role": "client"} if chance.often(0.5) else {})}
        pods.append(pod(name.replace("-", "/"), *addresses, ports=ports, metadata={"labels": labels}))
    return chance.cluster(pods, NODES, policies)


def probes_by_chance(chance: Chance, ends: list[IP], number: int) -> list[Probe]:
    found: list[Probe] = []
    while len(found) < number:
        asked = chance.connection(ends)
        if asked.protocol == "ICMP":  # GRE has no ports either: what is sent back is the same connection
            lower, higher = sorted((asked.source, asked.destination))
            asked = Connection(lower, higher, "GRE")
        if {asked.source, asked.destination} & set(NODES["node1"]) != {asked.source, asked.destination}:
            found.append(Probe(*asked))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_and_the_evaluator_agree(network: PodNetwork, table: PolicyTable, seed: int) -> None:
    """The table of one cluster by chance becomes that of the next, and of nothing in between."""
    chance = Chance(1000 + seed)
    for policies in (2, 6):
        state = cluster_by_chance(chance, policies)
        table.ensure(Compiler("node1").compile(state))
        with network.host.entered(), Flows() as flows:
            recheck(flows, Evaluator(state))
        probes = probes_by_chance(chance, sorted(network.place), 250)
        expected = probes_of(Evaluator(state), probes)
        arrived = network.arrived(probes, expected)
        assert sorted(arrived - expected) == []
        assert sorted(expected - arrived) == []


def test_a_change_is_as_small_as_what_changes(network: PodNetwork, table: PolicyTable) -> None:
    state = state_of(let_in(spaces("ns=y")))
    assert put(table, state) == Change(chains=8, sets=10, elements=12)
    assert put(table, state) == Change()
    [first, *others] = state.pods
    assert put(table, state._replace(pods=(first, *others[:-4], *others[-3:]))) == Change(elements=2)  # y/c is gone
    assert put(table, state) == Change(elements=2)
    assert put(table, state_of(let_in(spaces("ns=z")))) == Change(chains=4, sets=4, elements=10)


def test_what_stands_is_adopted_and_what_others_changed_is_mended(network: PodNetwork, table: PolicyTable) -> None:
    state = state_of(let_in(block("10.0.2.0/24", "10.0.2.2/32"), ports=[port(80), port(8000, end=8005), port("http")]))
    put(table, state)
    with network.host.entered():
        other = PolicyTable()
    assert put(other, state) == Change()
    address = "inet pycni_policy ingress4 { 10.0.1.1 }"
    network.host.run("nft", f"delete element {address}; delete element {address.replace('ingress4', 'iso4')}")
    network.host.run("nft", "insert rule inet pycni_policy forward accept")
    other.forget()
    assert put(other, state) == Change(chains=1, elements=2)
    assert not passes(network, C4, A4)
    network.host.run("nft", "flush ruleset")
    other.forget()
    assert put(other, state).chains == 8
    assert not passes(network, C4, A4)
    other.close()


def test_tables_of_others_stay_as_they_are(network: PodNetwork, table: PolicyTable) -> None:
    network.host.run(
        "nft", "add table inet pycni; add chain inet pycni x; add set ip pycni s { type ipv4_addr; }", check=False
    )
    network.host.run("nft", "add table inet other; add set inet other s { type ipv4_addr; elements = { 1.2.3.4 } }")
    before = network.host.run("nft", "list", "ruleset").stdout
    put(table, state_of(DENY_ALL))
    put(table, state_of())
    table.delete()
    assert network.host.run("nft", "list", "ruleset").stdout == before
    network.host.run("nft", "flush ruleset")


def test_a_pod_that_nobody_knows_yet_waits_until_it_is_known(network: PodNetwork, table: PolicyTable) -> None:
    put(table, state_of(without="x/a"))
    assert passes(network, A4, B4)
    elements = "; ".join(f"add element inet pycni_policy {each}4 {{ 10.0.1.1 : jump pending }}" for each in DIRECTIONS)
    network.host.run("nft", f"{elements}; add element inet pycni_policy iso4 {{ 10.0.1.1 }}")
    table.forget()
    put(table, state_of(let_in(spaces()), without="x/a"))
    assert not passes(network, A4, B4) and not passes(network, B4, A4)
    assert passes(network, NODES["node1"][0], A4)
    assert table.denied()["pending"] == 2
    put(table, state_of(let_in(spaces())))
    assert passes(network, A4, B4) and passes(network, B4, A4)
    state = state_of(without="x/a")
    table.ensure(Compiler("node1").compile(state, pending=[A4]))
    assert not passes(network, A4, B4) and not passes(network, B4, A4)


def test_in_a_table_that_can_only_be_made_anew_who_waits_waits_on(network: PodNetwork, table: PolicyTable) -> None:
    """Its base chain is at another place, as another version may have it: the kernel moves no chain."""
    base = "add chain inet pycni_policy forward { type filter hook forward priority filter + 20; }"
    put(table, state_of(without="x/a"))
    network.host.run("nft", f"delete chain inet pycni_policy forward; {base}")
    for each in DIRECTIONS:
        network.host.run("nft", f"add element inet pycni_policy {each}4 {{ 10.0.1.1 : jump pending }}")
    table.forget()
    put(table, state_of(without="x/a"))
    assert "priority filter + 10" in network.host.run("nft", "list", "table", "inet", "pycni_policy").stdout
    assert not passes(network, A4, B4) and not passes(network, B4, A4)
    put(table, state_of())
    assert passes(network, A4, B4) and passes(network, B4, A4)


def test_ten_thousand_addresses_networks_and_ports(network: PodNetwork, table: PolicyTable) -> None:
    """More than a netlink attribute holds (64 KiB), and than a socket takes at once."""
    peers = [block(f"198.{i // 128}.{i % 128 * 2}.0/24") for i in range(10_000)]
    ports = [port(i, "UDP") for i in range(1, 20_000, 2)]
    policy = let_in(*peers, spaces(), ports=[*ports, port(80)])
    many = tuple(pod(f"y/p{i}", f"10.9.{i // 250}.{i % 250}", f"fd00::9:{i:x}", node="node2") for i in range(10_000))
    state = state_of(policy)
    put(table, state._replace(pods=(*state.pods, *many)))
    assert passes(network, C4, A4)
    assert not passes(network, parse_ip("203.0.113.7"), A4)
    with network.host.entered():
        other = PolicyTable()
    assert put(other, state._replace(pods=(*state.pods, *many))) == Change()
    assert put(other, state) == Change(elements=20_000)
    other.close()


def test_denied_packets_are_counted_and_logged_with_the_names_of_policies(
    network: PodNetwork, table: PolicyTable
) -> None:
    put(table, state_of(DENY_IN, let_in(spaces("ns=y"))), log=True)
    assert not passes(network, C4, A4)
    assert table.denied() == {"egress": 0, "ingress": 1, "cut": 0, "stray": 0, "pending": 0}
    listed = network.host.run("nft", "list", "table", "inet", "pycni_policy").stdout
    assert 'limit rate 10/second burst 20 packets log prefix "pycni denied ingress x/deny-in, x/in: "' in listed
    long = [policy("x", f"a-name-that-is-rather-long-{i}", podSelector={}, policyTypes=["Ingress"]) for i in range(9)]
    put(table, state_of(*long), log=True)
    assert not passes(network, C4, A4)


YA4, ZA4 = parse_ip("10.0.2.1"), parse_ip("10.0.3.1")
SERVICE = """
table ip service {
    chain prerouting { type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 dnat to %s; }
    chain postrouting {
        type nat hook postrouting priority srcnat
        ct status dnat ip saddr %s ip daddr %s masquerade
    }
}
"""


@pytest.mark.parametrize(
    ("case", "endpoint", "rule", "allowed"),
    [
        ("69 hairpin", A4, let_out(spaces("ns=z")), True),
        ("70 as the endpoint: denied", YA4, let_out(spaces("ns=z")), False),
        ("71 as the endpoint: allowed, on the same bridge", ZA4, let_out(spaces("ns=z")), True),
        ("59 by ipBlock of the service's address", ZA4, let_out(block("10.96.0.0/12")), False),
        ("59 by ipBlock of the endpoint", ZA4, let_out(block("10.0.3.1/32")), True),
    ],
)
def test_a_service_is_judged_by_its_endpoint(
    network: PodNetwork, table: PolicyTable, case: str, endpoint: IP, rule: Policy, allowed: bool
) -> None:
    network.host.run("nft", "-f", "-", input=SERVICE % (endpoint, endpoint, endpoint))
    put(table, state_of(DENY_IN, rule))
    assert passes(network, A4, parse_ip("10.96.0.1")) == allowed, case
    network.host.run("nft", "delete table ip service")


def test_tables_hold_what_nft_can_save_and_load(network: PodNetwork, table: PolicyTable) -> None:
    state = cluster_by_chance(Chance(5), 12)
    put(table, state)
    saved = network.host.run("nft", "list", "ruleset").stdout
    network.host.run("nft", "flush ruleset")
    network.host.run("nft", "-f", "-", input=saved)
    table.forget()
    assert put(table, state) == Change()


OUTSIDE4, NODE4 = parse_ip("203.0.113.7"), parse_ip("203.0.113.1")
PORT_MAP = f"""
table ip mapped {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {NODE4} tcp dport 82 meta mark set 0x4000
        ip daddr {NODE4} tcp dport {{ 81, 82 }} dnat to {A4}:80
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "up0" masquerade
        meta mark 0x4000 masquerade
    }}
}}
"""


@pytest.mark.parametrize(
    ("case", "rule", "source", "destination", "number", "allowed"),
    [
        ("57, 73, 76 the client, at a port of the node", let_in(block("203.0.113.0/24")), OUTSIDE4, NODE4, 81, True),
        ("57, 73, 76 another client", let_in(block("203.0.112.0/24")), OUTSIDE4, NODE4, 81, False),
        ("58 what this node masquerades: the client", let_in(block("203.0.113.7/32")), OUTSIDE4, NODE4, 82, True),
        ("58 what this node masquerades: another client", let_in(block("10.0.0.0/8")), OUTSIDE4, NODE4, 82, False),
        ("60 masqueraded behind the pod's node: let through", let_out(block("203.0.113.0/24")), A4, OUTSIDE4, 80, True),
        ("60 masqueraded behind the pod's node: denied", let_out(block("10.0.0.0/8")), A4, OUTSIDE4, 80, False),
    ],
)
def test_addresses_are_judged_as_the_pod_has_them(
    network: PodNetwork,
    table: PolicyTable,
    case: str,
    rule: Policy,
    source: IP,
    destination: IP,
    number: int,
    allowed: bool,
) -> None:
    network.host.run("nft", "-f", "-", input=PORT_MAP)
    put(table, state_of(rule))
    assert passes(network, source, destination, number) == allowed, case
    network.host.run("nft", "delete table ip mapped")


def test_a_service_without_endpoints_is_refused_at_once_also_to_an_isolated_pod(
    network: PodNetwork, table: PolicyTable
) -> None:
    """74. As kube-proxy does it, at priority filter."""
    network.host.run("ip", "route", "add", "10.96.0.0/16", "via", str(OUTSIDE4))
    chain = "add chain ip proxy f { type filter hook forward priority filter; }"
    network.host.run("nft", f"add table ip proxy; {chain}; add rule ip proxy f ip daddr 10.96.0.9 reject")
    put(table, state_of(DENY_ALL))
    with network.at(A4):
        client = socket.socket()
    client.settimeout(20)
    with pytest.raises(ConnectionRefusedError):
        client.connect(("10.96.0.9", 80))
    client.close()
    network.host.run("nft", "delete table ip proxy")
    network.host.run("ip", "route", "del", "10.96.0.0/16")
