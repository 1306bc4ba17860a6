"""Links, addresses, routes and VLANs as the kernel has them: values alone, so that what only compares needs no netlink.

Must not: know how they are encoded (rtnetlink.py), or what a network wants.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import NamedTuple, Sequence

# rtnetlink(7): where a destination lives, and the table that every lookup comes to.
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
MAIN_TABLE = 254


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
    """An address of an interface: `tentative` while duplicates are being looked for, `duplicate` when one was found.

    `permanent` is one without an end, as nobody but an administrator gives; `ifindex` is the interface's.
    """

    cidr: CIDR
    tentative: bool
    duplicate: bool
    permanent: bool = True
    ifindex: int = 0


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


class Route(NamedTuple):
    """A unicast route through a link; the numbers as in rtnetlink(7), None or 0 where not set. mtu, advmss in bytes."""

    dst: CIDR
    gw: IP | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int = MAIN_TABLE
    scope: int = SCOPE_UNIVERSE


class PortVlan(NamedTuple):
    """A VLAN of a bridge port: frames of it leave `untagged`, frames without a tag are taken for the `pvid`."""

    vid: int
    pvid: bool = False
    untagged: bool = False


DEFAULT_VLAN = PortVlan(1, pvid=True, untagged=True)  # what a bridge gives to every new port


def group_vlans(vlans: Sequence[PortVlan]) -> list[tuple[PortVlan, PortVlan]]:
    """VLANs in order as ranges, first and last: neighbours that differ in their number alone."""
    ranges: list[tuple[PortVlan, PortVlan]] = []
    for vlan in vlans:
        if ranges and vlan == ranges[-1][1]._replace(vid=vlan.vid) and vlan.vid == ranges[-1][1].vid + 1:
            ranges[-1] = (ranges[-1][0], vlan)
        else:
            ranges.append((vlan, vlan))
    return ranges
