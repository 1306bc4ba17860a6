"""What decides where a packet goes: network stacks with routes and filters, and an answer. Pure.

Must not: know where anything was read, or decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cni_kernel.values import PortVlan
from cni_node.doctor.facts import Address, Link, Neighbour, Route
from cni_protocol.address import CIDR, IP

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)  # NF_INET_*, NF_BR_*
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
ACCEPT, DROP = 1, 0  # NF_*
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132, "icmpv6": 58}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
NODE = ""  # the owner of the node's own stack

Attributes = dict[str, Any]
ChainKey = tuple[str, str, str]  # family, table, chain


class Expression(NamedTuple):
    """A part of a rule: what it does, and the attributes that the kernel names for it; None where it is not known."""

    name: str
    values: Attributes | None


class BaseChain(NamedTuple):
    """A chain at a hook. `kind` is filter, nat or route; `device` is empty but for a chain of one interface."""

    key: ChainKey
    hook: int
    priority: int
    kind: str
    drops: bool
    device: str = ""


class Rule(NamedTuple):
    """A rule with its number in the chain, counted from 1."""

    number: int
    expressions: tuple[Expression, ...]


class SetElement(NamedTuple):
    """An element; `last` is the end of its interval, `data` what it leads to, `verdict` a code with a chain."""

    key: bytes
    last: bytes
    data: bytes = b""
    verdict: tuple[int, str] | None = None


class FilterSet(NamedTuple):
    """A set or map; `parts` are the bytes of the parts of concatenated intervals; `other` is what the rest gets."""

    length: int
    elements: tuple[SetElement, ...]
    parts: tuple[int, ...] = ()
    other: SetElement | None = None


class Filter(NamedTuple):
    """A packet filter."""

    bases: tuple[BaseChain, ...] = ()
    chains: Mapping[ChainKey, tuple[Rule, ...]] = {}
    sets: Mapping[ChainKey, FilterSet] = {}


class RoutingRule(NamedTuple):
    """Which table is asked for which packets; None where a part of it is not understood."""

    version: int
    priority: int
    table: int
    source: CIDR | None = None
    destination: CIDR | None = None
    incoming: str = ""
    outgoing: str = ""
    mark: int | None = None
    mask: int = 0xFFFFFFFF
    understood: bool = True
    inverted: bool = False


class Stack(NamedTuple):
    """The network of the node, or (`owner`) of a pod. `name` is what people call it.

    By the indexes of interfaces: `programs` are those that packets pass beside the filter, in words; `vlans` are those
    of the ports of bridges that filter VLANs.
    """

    owner: str
    name: str
    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    filter: Filter = Filter()
    sysctls: Mapping[str, str] = {}
    listening: frozenset[tuple[str, int]] = frozenset()
    unreadable: tuple[str, ...] = ()
    programs: Mapping[int, tuple[str, ...]] = {}
    vlans: Mapping[int, Sequence[PortVlan]] = {}

    def number(self, sysctl: str, default: int = 0) -> int:
        """A sysctl as a number."""
        text = self.sysctls.get(sysctl, "")
        return int(text) if text.lstrip("-").isdigit() else default

    def at(self, ifindex: int) -> Link | None:
        """The interface with that index."""
        return next((link for link in self.links if link.ifindex == ifindex), None)


class Place(NamedTuple):
    """An attachment of a pod: its interface there, its end on the node, its addresses, and how people call it."""

    owner: str
    name: str
    pod: str
    container_id: str
    ifname: str
    host_name: str
    addresses: tuple[IP, ...]


class World(NamedTuple):
    """All that is known: the node, those pods that were read, and where further ones are; peers by name."""

    node: str
    stacks: Mapping[str, Stack]
    places: tuple[Place, ...]
    peers: tuple[tuple[str, CIDR, IP | None], ...] = ()  # name, pods, its address
    unreadable: tuple[str, ...] = ()


class Question(NamedTuple):
    """Who asks whom; `protocol` is a number of IP, `port` the destination's."""

    source: str
    destination: str
    protocol: int
    port: int = 0


class Step(NamedTuple):
    """A hop: where, what happens there, and in which direction (the answer goes back)."""

    where: str
    what: str
    back: bool = False


PASSES, STOPPED, UNKNOWN = 0, 1, 2  # exit statuses


class Answer(NamedTuple):
    """What became of a packet and of the answer to it. `reason` says what stops it, or what could not be read."""

    status: int
    steps: tuple[Step, ...]
    reason: str = ""
    where: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    judged: tuple[IP, IP, int, int] | None = None  # what policies were asked about: ends, protocol, port


class StopError(Exception):
    """It goes no further: `kind` is a name that stays, `where` the stack or chain."""

    def __init__(self, kind: str, where: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.where, self.reason = kind, where, reason


class UnclearError(Exception):
    """What decides is not known; the text is a sentence."""


class NeededError(Exception):
    """The stack of this owner decides, and was not read yet."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner
