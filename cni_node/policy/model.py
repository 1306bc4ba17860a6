"""Policies, pods and namespaces as immutable values: all that decides who may talk to whom. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
Must not: know JSON, or what is allowed.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cni_protocol.address import CIDR, IP

IN, NOT_IN, EXISTS, DOES_NOT_EXIST = "In", "NotIn", "Exists", "DoesNotExist"
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}  # IPPROTO_*
LAST_PORT = 65535

Labels = frozenset[tuple[str, str]]


class Requirement(NamedTuple):
    """A requirement on a label: IN or NOT_IN `values`, EXISTS, DOES_NOT_EXIST. NOT_IN is also met without the label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(NamedTuple):
    """Labels that must be there, and further requirements; the empty one matches everything."""

    labels: Labels = frozenset()
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether something with these labels is selected."""
        return self.labels <= labels and all(_is_met(requirement, labels) for requirement in self.requirements)


class PodPeer(NamedTuple):
    """Pods at the other end. `namespaces` is a selector of their namespaces, or the name of one."""

    pods: Selector
    namespaces: Selector | str


class Block(NamedTuple):
    """Addresses at the other end: those of a network, except some networks within it."""

    network: CIDR
    excepted: tuple[CIDR, ...] = ()


class PortRange(NamedTuple):
    """Ports of a protocol, both ends included."""

    protocol: str
    first: int = 0
    last: int = LAST_PORT


class PortName(NamedTuple):
    """A named port. Each pod assigns its own number to the name."""

    protocol: str
    name: str


Peer = PodPeer | Block
Port = PortRange | PortName


class Rule(NamedTuple):
    """A rule: it allows packets to or from these peers, on these ports of the destination.

    `peers` None is everybody, `ports` None is all ports and protocols; an empty tuple matches nothing. `name` is the
    rule's position in the policy, such as "ingress[0]".
    """

    name: str
    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None


class Policy(NamedTuple):
    """A NetworkPolicy. A direction is None if the policy does not isolate for it; an empty tuple allows nothing.

    `problems` are sentences about parts that could not be read, which therefore allow nothing.
    """

    namespace: str
    name: str
    pods: Selector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    problems: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The namespace and the name."""
        return f"{self.namespace}/{self.name}"

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        """The rules of a direction, INGRESS or EGRESS."""
        return self.ingress if direction == INGRESS else self.egress


INGRESS, EGRESS = "ingress", "egress"
DIRECTIONS = (EGRESS, INGRESS)  # in the order in which a packet meets them


class ContainerPort(NamedTuple):
    """A named port of a pod."""

    protocol: str
    name: str
    number: int


class Pod(NamedTuple):
    """A pod. `finished`: it has succeeded or failed, so its addresses may be another's by now."""

    namespace: str
    name: str
    labels: Labels = frozenset()
    addresses: tuple[IP, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    node: str = ""
    host_network: bool = False
    finished: bool = False
    terminating: bool = False
    created: str = ""
    uid: str = ""

    @property
    def full_name(self) -> str:
        """The namespace and the name."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_selectable(self) -> bool:
        """Whether policies apply to its addresses. A pod in the host's network has those of the node."""
        return not self.host_network and not self.finished


class Cluster(NamedTuple):
    """The state of the cluster: policies, pods, labels of namespaces by name, addresses of nodes by name."""

    policies: tuple[Policy, ...]
    pods: tuple[Pod, ...]
    namespaces: Mapping[str, Labels]
    nodes: Mapping[str, tuple[IP, ...]]


def pods_by_address(pods: tuple[Pod, ...], node: str = "") -> dict[IP, Pod]:
    """The pod of each address, as seen from a node.

    If several pods have it, the node's own one counts, then one that is not terminating, and then the youngest.
    """
    found: dict[IP, Pod] = {}
    for pod in pods:
        if pod.is_selectable:
            for address in pod.addresses:
                other = found.get(address)
                if other is None or _seniority(pod, node) > _seniority(other, node):
                    found[address] = pod
    return found


def _seniority(pod: Pod, node: str) -> tuple[bool, bool, str, str]:
    return pod.node == node, not pod.terminating, pod.created, pod.full_name


def _is_met(requirement: Requirement, labels: Labels) -> bool:
    values = [value for key, value in labels if key == requirement.key]
    match requirement.operator:
        case "In":
            return any(value in requirement.values for value in values)
        case "NotIn":
            return all(value not in requirement.values for value in values)
        case "Exists":
            return bool(values)
        case _:
            return not values
