"""Evaluates whether a connection is allowed, and which policy and rule decide that. Pure.

It shares no code with the compiler, since the two are tested against each other.
Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
Must not: know the kernel, or the compiler.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cni_node.policy.model import (
    EGRESS,
    INGRESS,
    Cluster,
    Peer,
    Pod,
    PodPeer,
    Policy,
    Port,
    PortRange,
    pods_by_address,
)
from cni_protocol.address import IP


class Connection(NamedTuple):
    """A connection to evaluate, with the pods' own addresses: after DNAT, before SNAT.

    `protocol` is "TCP", "UDP", "SCTP", or another name or number. `port` is the destination's, 0 without ports.
    """

    source: IP
    destination: IP
    protocol: str
    port: int = 0


class Judgement(NamedTuple):
    """The judgement of one end's policies. `policy` and `rule` name what allows it, or `policy` those that isolate."""

    allowed: bool
    policy: str = ""
    rule: str = ""
    reason: str = ""


class Verdict(NamedTuple):
    """The judgements of both ends. None for an end that is no pod, or whose policies are not evaluated here."""

    egress: Judgement | None
    ingress: Judgement | None

    @property
    def allowed(self) -> bool:
        """Whether both let it through."""
        return all(end is None or end.allowed for end in (self.egress, self.ingress))

    @property
    def decisive(self) -> Judgement:
        """The one that denies; else the one that a policy allows; else any."""
        ends = [end for end in (self.egress, self.ingress) if end is not None]
        ends.sort(key=lambda end: (end.allowed, not end.policy))
        return ends[0] if ends else Judgement(True, reason="neither end is a pod")


class Evaluator:
    """One state of the cluster, to be asked many times."""

    def __init__(self, cluster: Cluster, node: str = "", owners: Mapping[IP, Pod] | None = None) -> None:
        """With `node` only policies of the pods on that node are judged, as that node's kernel does.

        `owners` is whose each address is, where the caller knows it already.
        """
        self._namespaces, self._node = cluster.namespaces, node
        self._pods = pods_by_address(cluster.pods, node) if owners is None else owners
        self._own = {name: frozenset(addresses) for name, addresses in cluster.nodes.items()}
        self._policies: dict[str, list[Policy]] = {}
        for policy in sorted(cluster.policies, key=lambda policy: policy.full_name):
            self._policies.setdefault(policy.namespace, []).append(policy)
        self._isolating: dict[tuple[str, str, str], list[Policy]] = {}

    @property
    def judged(self) -> frozenset[IP]:
        """The addresses of the pods whose policies are judged."""
        return frozenset(ip for ip, pod in self._pods.items() if not self._node or pod.node == self._node)

    def allowed(self, asked: Connection) -> Verdict:
        """Whether the connection may be made: the source's egress and the destination's ingress must both allow it."""
        source, destination = self._pods.get(asked.source), self._pods.get(asked.destination)
        if source is not None and source is destination:
            itself = Judgement(True, reason="a pod may always talk to itself")
            return Verdict(itself, itself)
        return Verdict(
            self._judge(EGRESS, source, asked, asked.destination) if source else None,
            self._judge(INGRESS, destination, asked, asked.source) if destination else None,
        )

    def _judge(self, direction: str, subject: Pod, asked: Connection, other: IP) -> Judgement | None:
        if self._node and subject.node != self._node:
            return None
        if other in self._own.get(subject.node, ()):
            return Judgement(True, reason="a pod's own node is always allowed")
        isolating = self._isolating_policies(direction, subject)
        if not isolating:
            return Judgement(True, reason=f"no policy isolates {subject.full_name} for {direction}")
        destination = self._pods.get(asked.destination)
        for policy in isolating:
            for rule in policy.rules(direction) or ():
                if rule.peers is not None and not any(self._is_peer(peer, other) for peer in rule.peers):
                    continue
                if rule.ports is None or any(_is_port(port, asked, destination) for port in rule.ports):
                    return Judgement(True, policy.full_name, rule.name)
        names = ", ".join(policy.full_name for policy in isolating)
        return Judgement(False, names, reason=f"{subject.full_name} is isolated for {direction}, and no rule allows it")

    def _isolating_policies(self, direction: str, subject: Pod) -> list[Policy]:
        key = (direction, subject.namespace, subject.name)
        found = self._isolating.get(key)
        if found is None:
            found = self._isolating[key] = [
                policy
                for policy in self._policies.get(subject.namespace, ())
                if policy.rules(direction) is not None and policy.pods.matches(subject.labels)
            ]
        return found

    def _is_peer(self, peer: Peer, address: IP) -> bool:
        if not isinstance(peer, PodPeer):
            return address in peer.network and not any(address in network for network in peer.excepted)
        pod = self._pods.get(address)
        if pod is None:
            return False
        if isinstance(peer.namespaces, str):
            return pod.namespace == peer.namespaces and peer.pods.matches(pod.labels)
        labels = self._namespaces.get(pod.namespace)
        return labels is not None and peer.namespaces.matches(labels) and peer.pods.matches(pod.labels)


def allowed(cluster: Cluster, asked: Connection) -> Verdict:
    """One question about one state of the cluster."""
    return Evaluator(cluster).allowed(asked)


def _is_port(port: Port, asked: Connection, destination: Pod | None) -> bool:
    if port.protocol != asked.protocol:
        return False
    if isinstance(port, PortRange):
        return port.first <= asked.port <= port.last
    if destination is None:
        return False
    return any(
        (named.protocol, named.name, named.number) == (port.protocol, port.name, asked.port)
        for named in destination.ports
    )
