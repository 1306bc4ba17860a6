"""Links as the kernel has them, and a pair to be made: types alone, so that what only compares needs no netlink."""

from cni_protocol.address import CIDR
from cni_protocol.lean import NamedTuple


class Link(NamedTuple):
    """A network interface as the kernel has it. mtu in bytes; master and peer are interface indexes, 0 for none.

    `kind` is the link's type (bridge, veth, ...), `alias` its ifalias; `running` tells whether its other end is up
    too; `hairpin`, `isolated` and `forwarding` are those of a bridge port, `vlan_filtering` that of a bridge.
    """

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    running: bool
    promisc: bool
    master: int
    peer: int
    alias: str
    hairpin: bool
    isolated: bool
    forwarding: bool
    vlan_filtering: bool


class Address(NamedTuple):
    """An address of an interface: `tentative` while duplicates are being looked for, `duplicate` when one was found."""

    cidr: CIDR
    tentative: bool
    duplicate: bool


class Veth(NamedTuple):
    """A veth pair to create: names of both ends, the namespace of the inner one, and what both are to be like."""

    host_name: str
    owner: str
    bridge: int
    name: str
    namespace: int
    mac: str
    mtu: int
    hairpin: bool
    isolated: bool
