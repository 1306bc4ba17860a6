"""Links, addresses and routes to rtnetlink(7) messages and back. Encodes and decodes, sends nothing."""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import Any, struct

from .attributes import IFA, IFLA_GROUP, LINK, LINK_DATA, RTA, U32, split
from .netlink import Message
from .values import Address, Link, Route

_UP, _PROMISC, _LOWER_UP = 0x1, 0x100, 0x10000  # netdevice(7)
_NODAD, _DAD_FAILED, _TENTATIVE, _PERMANENT = 0x02, 0x08, 0x40, 0x80  # IFA_F_*
_DELLINK = 17  # RTM_DELLINK
_PORT_DISABLED = 0  # BR_STATE_DISABLED
_PROTOCOL_BOOT, _UNICAST = 3, 1  # RTPROT_BOOT, RTN_UNICAST

_LINK_HEAD = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS_HEAD = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE_HEAD = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, dst length, src length, tos, table, protocol, scope, type, flags

_NEXT_HOP = struct.Struct("=HxxI")  # rtnexthop: length with its attributes, index

Attributes = list[tuple[str, Any]]
WITHOUT_STATISTICS = ("IFLA_EXT_MASK", 8)  # RTEXT_FILTER_SKIP_STATS: of a query for links


def link_message(
    kind: int,
    flags: int,
    attributes: Attributes,
    *,
    ifindex: int = 0,
    up: bool | None = None,
    promisc: bool | None = None,
) -> Message:
    """A message about a link. `up` and `promisc` switch these flags on or off; None leaves them unchanged."""
    set_flags = (_UP if up else 0) | (_PROMISC if promisc else 0)
    change = (_UP if up is not None else 0) | (_PROMISC if promisc is not None else 0)
    return Message(kind, flags, _LINK_HEAD.pack(0, 0, ifindex, set_flags, change) + LINK.pack(attributes))


def link_query(attributes: Attributes) -> bytes:
    """The body of a request for many links."""
    return bytes(_LINK_HEAD.size) + LINK.pack(attributes)


def link_info(kind: str, data: Attributes | None = None) -> tuple[str, Any]:
    """The attribute for the type of a link, with the settings of that type."""
    attributes: Attributes = [("IFLA_INFO_KIND", kind)]
    if data:
        attributes.append(("IFLA_INFO_DATA", LINK_DATA[kind].pack(data)))
    return ("IFLA_LINKINFO", attributes)


def port_info(data: Attributes) -> tuple[str, Any]:
    """The attribute for settings of an interface as a port of its bridge."""
    return ("IFLA_LINKINFO", [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)])


def parse_link(body: bytes) -> Link:
    """Decode the body of an RTM_NEWLINK message."""
    _, _, ifindex, flags, _ = _LINK_HEAD.unpack_from(body)
    found = LINK.unpack(body[_LINK_HEAD.size :])
    info = found.get("IFLA_LINKINFO", {})
    kind = info.get("IFLA_INFO_KIND", "")
    data = LINK_DATA["bridge"].unpack(info.get("IFLA_INFO_DATA", b"")) if kind == "bridge" else {}
    port = info.get("IFLA_INFO_SLAVE_DATA", {})
    return Link(
        ifindex=ifindex,
        name=found["IFLA_IFNAME"],
        kind=kind,
        mac=found.get("IFLA_ADDRESS", ""),
        mtu=found.get("IFLA_MTU", 0),
        up=bool(flags & _UP),
        running=bool(flags & _LOWER_UP),
        promisc=bool(flags & _PROMISC),
        master=found.get("IFLA_MASTER", 0),
        peer=found.get("IFLA_LINK", 0),
        alias=found.get("IFLA_IFALIAS", ""),
        hairpin=bool(port.get("IFLA_BRPORT_MODE")),
        isolated=bool(port.get("IFLA_BRPORT_ISOLATED")),
        forwarding=port.get("IFLA_BRPORT_STATE", _PORT_DISABLED) != _PORT_DISABLED,
        vlan_filtering=bool(data.get("IFLA_BR_VLAN_FILTERING")),
    )


def gone_index(kind: int, body: bytes) -> int:
    """The index of the interface that an announcement says is gone; 0 for others, and for a port that left its bridge.

    A bridge announces the latter by the same message, in its own family, and before.
    """
    family, _, ifindex, _, _ = _LINK_HEAD.unpack_from(body)
    return int(ifindex) if (kind, family) == (_DELLINK, 0) else 0


def parse_group(body: bytes) -> tuple[int, int]:
    """The interface index and the group in an RTM_NEWLINK body."""
    found = dict(split(body[_LINK_HEAD.size :]))
    return _LINK_HEAD.unpack_from(body)[2], int(U32.unpack(found[IFLA_GROUP]))


def address_query(ifindex: int) -> bytes:
    """The body of a dump request for the addresses of a link; 0 stands for all links."""
    return _ADDRESS_HEAD.pack(0, 0, 0, 0, ifindex)


def address_body(ifindex: int, address: CIDR, *, detect_duplicates: bool = False) -> bytes:
    """The body of a message that adds or deletes an address; without detection it is usable at once (IFA_F_NODAD)."""
    attributes: Attributes = [("IFA_LOCAL", address.ip), ("IFA_ADDRESS", address.ip)]
    if address.version == 6 and not detect_duplicates:
        attributes.append(("IFA_FLAGS", _NODAD))
    elif address.version == 4 and address.prefix < 31:
        attributes.append(("IFA_BROADCAST", address.last))
    return _ADDRESS_HEAD.pack(address.ip.family, address.prefix, 0, 0, ifindex) + IFA.pack(attributes)


def parse_address(body: bytes) -> Address:
    """Decode the body of an RTM_NEWADDR message."""
    _, prefix, short_flags, _, ifindex = _ADDRESS_HEAD.unpack_from(body)
    found = IFA.unpack(body[_ADDRESS_HEAD.size :])
    flags = found.get("IFA_FLAGS", short_flags)
    cidr = CIDR(found.get("IFA_LOCAL") or found["IFA_ADDRESS"], prefix)
    return Address(cidr, bool(flags & _TENTATIVE), bool(flags & _DAD_FAILED), bool(flags & _PERMANENT), ifindex)


def route_query(version: int, *, ifindex: int = 0, table: int = 0, protocol: int = 0) -> bytes:
    """The body of a dump request for routes of an IP version: through a link, in a table, of a protocol; 0 is any."""
    attributes: Attributes = [("RTA_OIF", ifindex)] if ifindex else []
    return _ROUTE_HEAD.pack(IP(version, 0).family, 0, 0, 0, table, protocol, 0, 0, 0) + RTA.pack(attributes)


def route_body(link: Link, route: Route) -> bytes:
    """The body that adds a route through a link."""
    dst = route.dst
    attributes: Attributes = [("RTA_OIF", link.ifindex), ("RTA_TABLE", route.table)]
    if dst.prefix:
        attributes.append(("RTA_DST", dst.ip))
    if route.gw is not None:
        attributes.append(("RTA_GATEWAY", route.gw))
    if route.priority is not None:
        attributes.append(("RTA_PRIORITY", route.priority))
    metrics = [("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)]
    set_metrics = [(key, value) for key, value in metrics if value is not None]
    if set_metrics:
        attributes.append(("RTA_METRICS", set_metrics))
    scope = route.scope or 0
    head = _ROUTE_HEAD.pack(dst.ip.family, dst.prefix, 0, 0, 0, _PROTOCOL_BOOT, scope, _UNICAST, 0)
    return head + RTA.pack(attributes)


def parse_routes(body: bytes) -> list[tuple[int, Route]]:
    """Decode the body of an RTM_NEWROUTE message: unicast routes, each with the index of its interface.

    A route with several next hops is returned as several routes: the kernel joins IPv6 routes to one destination so.
    Routes of other types give an empty list.
    """
    family, prefix, _, _, table, _, scope, kind, _ = _ROUTE_HEAD.unpack_from(body)
    if kind != _UNICAST:
        return []
    found = RTA.unpack(body[_ROUTE_HEAD.size :])
    version = 4 if family == IP(4, 0).family else 6
    metrics = found.get("RTA_METRICS", {})
    route = Route(
        dst=CIDR(found.get("RTA_DST") or IP(version, 0), prefix),
        mtu=metrics.get("RTAX_MTU"),
        advmss=metrics.get("RTAX_ADVMSS"),
        priority=found.get("RTA_PRIORITY"),
        table=found.get("RTA_TABLE", table),
        scope=scope,
    )
    hops = [(found["RTA_OIF"], found.get("RTA_GATEWAY"))] if "RTA_OIF" in found else []
    hops += _parse_next_hops(found.get("RTA_MULTIPATH", b""))
    return [(ifindex, route._replace(gw=gw)) for ifindex, gw in hops]


def _parse_next_hops(data: bytes) -> list[tuple[int, IP | None]]:
    """Interface and gateway of each next hop of a multipath route."""
    hops = []
    while len(data) >= _NEXT_HOP.size:
        length, ifindex = _NEXT_HOP.unpack_from(data)
        hops.append((ifindex, RTA.unpack(data[_NEXT_HOP.size : length]).get("RTA_GATEWAY")))
        data = data[max((length + 3) & ~3, _NEXT_HOP.size) :]
    return hops
