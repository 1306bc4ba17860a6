"""The facts about a node at one moment, and the findings that follow from them, as plain values. Pure.

Must not: know where a fact was read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cni_protocol.address import CIDR, IP
from cni_protocol.attachment import Attachment

BREAKS, HINDERS, RISK = 0, 1, 2
HARMS = {BREAKS: "breaks traffic", HINDERS: "breaks some", RISK: "risk"}


class Finding(NamedTuple):
    """A fault: how bad it is (HARMS), a stable name of its kind, what it concerns, what is wrong, and what to do."""

    harm: int
    kind: str
    subject: str
    problem: str
    remedy: str


class Link(NamedTuple):
    """An interface. `state` is that of a bridge port (3: forwarding), -1 for none; `mtu` is in bytes.

    `peer_known`: the other end of a veth pair is in a namespace that the kernel can name. `derived` is the MAC that the
    other nodes expect of an overlay's device, `underlay_version` the IP version of what it sends.
    """

    ifindex: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 1500
    up: bool = True
    master: int = 0
    lower: int = 0
    alias: str = ""
    hairpin: bool = False
    isolated: bool = False
    state: int = -1
    peer_known: bool = True
    received: int = 0
    sent: int = 0
    derived: str = ""
    running: bool = True
    underlay_version: int = 4
    filters_vlans: bool = False


class Address(NamedTuple):
    """An address of an interface."""

    ifindex: int
    cidr: CIDR
    duplicate: bool = False


class Route(NamedTuple):
    """A route; `refuses` for one that drops (blackhole, unreachable, prohibit), `local` for one to the host itself.

    `source` is the address that the host sends from, where the route says so.
    """

    dst: CIDR
    ifindex: int
    gw: IP | None
    protocol: int
    metric: int
    table: int
    refuses: bool = False
    local: bool = False
    source: IP | None = None


class Neighbour(NamedTuple):
    """A neighbour entry, or (`forwarding`) a forwarding entry of a vxlan device, where `ip` is the node."""

    ifindex: int
    ip: IP | None
    mac: str
    failed: bool = False
    permanent: bool = False
    forwarding: bool = False


class Rule(NamedTuple):
    """A rule of the packet filter: `verdict` is accept, drop, reject, jump or empty; `data` are its bytes.

    `opaque`: it has parts that are not understood, and may let new connections through.
    """

    chain: str
    verdict: str
    target: str
    matches: bool
    opaque: bool
    data: bytes


class Chain(NamedTuple):
    """A chain at the hook for forwarded packets, with the rules of its table."""

    table: str
    name: str
    drops: bool
    rules: tuple[Rule, ...] = ()


class Network(NamedTuple):
    """A network of ours, as its configuration has it; `pools` are the range sets, first and last address of each range,
    those left out from which addresses are excluded.
    """

    name: str
    bridge: str
    gateways: tuple[CIDR, ...] = ()
    subnets: tuple[CIDR, ...] = ()
    pools: tuple[tuple[tuple[IP, IP], ...], ...] = ()
    is_gateway: bool = False
    hairpin: bool = False
    isolated: bool = False
    agent: str = ""
    store: str = ""


class Configuration(NamedTuple):
    """A file of the runtime's directory: its plugins' types, or why it cannot be read; `ours` has cni-bridge."""

    path: str
    types: tuple[str, ...] = ()
    error: str = ""
    ours: bool = False


class Reservation(NamedTuple):
    """An address of the store with its holder; `error` for a file that says none."""

    network: str
    ip: IP
    container_id: str
    ifname: str
    path: str
    error: str = ""


class Pod(NamedTuple):
    """An attachment that the runtime remembers."""

    attachment: Attachment
    addresses: tuple[IP, ...] = ()
    mac: str = ""
    netns: str = ""
    netns_gone: bool = False
    missing: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()


class Room(NamedTuple):
    """The file system at a path. The free parts of its bytes and inodes are from 0 to 1."""

    path: str
    bytes_free: float = 1.0
    inodes_free: float = 1.0
    read_only: bool = False
    no_exec: bool = False


class Facts(NamedTuple):
    """All facts. `sysctls` and `counters` have those that could be read. `report` is None when no agent answers.

    `plugins` says for each needed plugin why it cannot run, "" if it can. `later_sysctls` are the values that sysctl.d
    will set at the next boot, each with its file. `unreadable` are sentences about what could not be read.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    chains: tuple[Chain, ...] = ()
    tables: frozenset[tuple[str, str]] = frozenset()
    sysctls: Mapping[str, str] = {}
    later_sysctls: Mapping[str, tuple[str, str]] = {}
    counters: Mapping[str, int] = {}
    legacy_tables: tuple[str, ...] = ()
    listening: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[Network, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    plugins: Mapping[str, str] = {}
    reservations: tuple[Reservation, ...] = ()
    pods: tuple[Pod, ...] = ()
    rooms: tuple[Room, ...] = ()
    report: Mapping[str, Any] | None = None
    managed: frozenset[int] = frozenset()
    foreign_routes_removed: bool = False
    stub_resolver: str = ""
    unreadable: tuple[str, ...] = ()

    def named(self, name: str) -> Link | None:
        """The interface of that name."""
        return next((link for link in self.links if link.name == name), None)

    def number(self, sysctl: str) -> int | None:
        """A sysctl as a number, None where it is not there."""
        text = self.sysctls.get(sysctl, "")
        return int(text) if text.lstrip("-").isdigit() else None
