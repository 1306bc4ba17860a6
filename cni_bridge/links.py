"""Links as the kernel has them, and a pair to be made: types alone, so that what only compares needs no netlink."""

from typing import NamedTuple


class Link(NamedTuple):
    """A network interface as the kernel has it. mtu in bytes; master and peer are interface indexes, 0 for none.

    `kind` is the link's type (bridge, veth, ...), `alias` its ifalias; `running` tells whether its other end is up
    too; `hairpin` and `forwarding` are those of a bridge port.
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
    forwarding: bool


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
