"""Clusters by chance, small enough that every kind of rule meets every kind of end."""

import random
from collections.abc import Sequence
from typing import Any

from cni_node.policy.evaluator import Connection
from cni_node.policy.model import Cluster, Pod, Policy
from cni_protocol.address import IP, parse_ip
from tests.cni_node.policy.texts import namespaces, policy

OUTSIDE = tuple(map(parse_ip, ("10.0.9.1", "203.0.113.7", "2001:db8::7")))
PORTS = (80, 81, 8080)
NETWORKS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.1.0/24", "10.0.1.2/31", "10.0.2.2/32", "::/0", "fd00::1:0/112")
EXCEPTED = ("10.0.1.0/24", "10.0.1.1/32", "10.0.2.0/25", "fd00::1:0/120")


class Chance:
    """Makes policies and questions from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.one_of = self._random.choice

    def often(self, share: float) -> bool:
        """Whether something of that probability happens."""
        return self._random.random() < share

    def cluster(self, pods: Sequence[Pod], nodes: dict[str, tuple[IP, ...]], policies: int) -> Cluster:
        """Policies by chance for pods that are given."""
        spaces = namespaces("x", "y", z="tier=back")
        spaces |= namespaces("z", z="tier=back")
        return Cluster(tuple(self.policy(f"p{i}") for i in range(policies)), tuple(pods), spaces, nodes)

    def policy(self, name: str) -> Policy:
        """A policy by chance."""
        spec: dict[str, Any] = {"podSelector": self._selector()}
        if self.often(0.8):
            spec["policyTypes"] = self.one_of([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
        if self.often(0.8):
            spec["ingress"] = [self._rule("from") for _ in range(self._random.randrange(3))]
        if self.often(0.7):
            spec["egress"] = [self._rule("to") for _ in range(self._random.randrange(3))]
        return policy(self.one_of("xyz"), name, **spec)

    def connection(self, ends: Sequence[IP], ports: Sequence[int] = PORTS) -> Connection:
        """A question by chance."""
        source = self.one_of(ends)
        destination = self.one_of([ip for ip in ends if ip.version == source.version])
        protocol = self.one_of(["TCP", "TCP", "UDP", "SCTP", "ICMP"])
        return Connection(source, destination, protocol, self.one_of(ports) if protocol != "ICMP" else 0)

    def _rule(self, key: str) -> dict[str, Any]:
        rule: dict[str, Any] = {}
        if self.often(0.85):
            rule[key] = [self._peer() for _ in range(self._random.randrange(1, 4))]
        if self.often(0.6):
            rule["ports"] = [self._port() for _ in range(self._random.randrange(1, 4))]
        return rule

    def _peer(self) -> dict[str, Any]:
        if self.often(0.3):
            excepted = [each for each in EXCEPTED if self.often(0.3)]
            return {"ipBlock": {"cidr": self.one_of(NETWORKS), "except": excepted}}
        peer = {}
        if self.often(0.6):
            peer["namespaceSelector"] = self._selector(("ns", "xyz"), ("tier", ["back"]))
        if self.often(0.6) or not peer:
            peer["podSelector"] = self._selector()
        return peer

    def _port(self) -> dict[str, Any]:
        port: dict[str, Any] = {}
        if self.often(0.7):
            port["protocol"] = self.one_of(["TCP", "UDP", "SCTP"])
        if self.often(0.8):
            port["port"] = self.one_of([*PORTS, "http", "alt", "none"])
        if isinstance(port.get("port"), int) and self.often(0.3):
            port["endPort"] = port["port"] + self.one_of([0, 1, 9000])
        return port

    def _selector(self, *keys: tuple[str, Sequence[str]]) -> dict[str, Any]:
        keys = keys or (("pod", "abc"), ("role", ["client"]))
        selector: dict[str, Any] = {}
        if self.often(0.4):
            key, values = self.one_of(keys)
            selector["matchLabels"] = {key: self.one_of(values)}
        if self.often(0.3):
            key, values = self.one_of(keys)
            operator = self.one_of(["In", "NotIn", "Exists", "DoesNotExist"])
            expression: dict[str, Any] = {"key": key, "operator": operator}
            if operator.endswith("In"):
                expression["values"] = [each for each in values if self.often(0.6)] or [values[0]]
            selector["matchExpressions"] = [expression]
        return selector
