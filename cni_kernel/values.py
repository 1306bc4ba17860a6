"""Links, addresses, routes and VLANs of the kernel as plain values, so that code can compare them without netlink.

Must not: know how they are encoded (rtnetlink.py), or what a network wants.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import NamedTuple, Sequence

# rtnetlink(7): scopes of a route's destination (anywhere; on the link), and the main routing table.
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
MAIN_TABLE = 254


class Link(NamedTuple):
    """A network interface. `mtu` is in bytes; `master` and `peer` are interface indexes, 0 for none.

    `kind` is the link's type (bridge, veth, ...), `alias` its ifalias. `running` says that it has a carrier: the other
    end of a veth pair is up too. `hairpin`, `isolated` and `forwarding` are of a bridge port, `vlan_filtering` is of a
    bridge.
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

    `permanent` means without an expiry: addresses from router advertisements or DHCP have one. `ifindex` is the
    interface's.
    """

    cidr: CIDR
    tentative: bool
    duplicate: bool
    permanent: bool = True
    ifindex: int = 0


class Veth(NamedTuple):
    """A veth pair to create. `host_name`, `owner` (alias), `bridge` (index), hairpin and isolated are the host end's.

    `name`, `namespace` (open descriptor) and `mac` (empty: the kernel's choice) are the container end's. `mtu` is in
    bytes and for both; 0 is the kernel's choice.
    """

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
    """A unicast route. The numbers are those of rtnetlink(7), None or 0 for not set; mtu and advmss are in bytes."""

    dst: CIDR
    gw: IP | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int = MAIN_TABLE
    scope: int = SCOPE_UNIVERSE


class PortVlan(NamedTuple):
    """A VLAN of a bridge port. With `untagged` its frames leave without a tag; with `pvid` it gets untagged frames."""

    vid: int
    pvid: bool = False
    untagged: bool = False


DEFAULT_VLAN = PortVlan(1, pvid=True, untagged=True)  # what a bridge gives to every new port


def group_vlans(vlans: Sequence[PortVlan]) -> list[tuple[PortVlan, PortVlan]]:
    """Sorted VLANs as ranges (first, last). A range's members are consecutive and have the same flags."""
    ranges: list[tuple[PortVlan, PortVlan]] = []
    for vlan in vlans:
        if ranges and vlan == ranges[-1][1]._replace(vid=vlan.vid) and vlan.vid == ranges[-1][1].vid + 1:
            ranges[-1] = (ranges[-1][0], vlan)
        else:
            ranges.append((vlan, vlan))
    return ranges
