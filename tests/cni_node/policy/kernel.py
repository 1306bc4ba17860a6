"""Pods on a bridge, and policies for them in the kernel."""

from cni_node.policy.change import Change
from cni_node.policy.compiler import Compiler
from cni_node.policy.model import Cluster, Policy
from cni_node.policy.table import PolicyTable
from cni_protocol.address import IP, parse_ip
from tests.cni_node.policy.texts import namespaces, pod
from tests.kit.pod_network import GATEWAYS, PodNetwork, Probe

PODS = {
    f"{ns}-{name}": (f"10.0.{i}.{j}", f"fd00::{i}:{j}")
    for i, ns in enumerate("xyz", 1)
    for j, name in enumerate("abc", 1)
}
NODES = {"node1": tuple(parse_ip(each.partition("/")[0]) for each in GATEWAYS)}


A4, B4, C4 = (parse_ip(f"10.0.1.{j}") for j in (1, 2, 3))  # x/a, x/b, x/c


def state_of(*policies: Policy, without: str = "") -> Cluster:
    """The pods with these policies; one may be unknown yet."""
    pods = [pod(name.replace("-", "/"), *addresses, ports=("TCP/http/80",)) for name, addresses in PODS.items()]
    return Cluster(tuple(policies), tuple(p for p in pods if p.full_name != without), namespaces("x", "y", "z"), NODES)


def put(table: PolicyTable, state: Cluster, *, log: bool = False) -> Change:
    return table.ensure(Compiler("node1", log=log).compile(state))


def passes(network: PodNetwork, source: IP, destination: IP, port: int = 80, protocol: str = "TCP") -> bool:
    probe = Probe(source, destination, protocol, port)
    return probe in network.arrived([probe], [])
