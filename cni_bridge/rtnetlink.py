"""Links, addresses and routes to rtnetlink(7) messages and back. Encodes and decodes, sends nothing."""

import struct

from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.lean import Any, Sequence
from cni_protocol.result import Route

from .links import Address, Link
from .messages import ifaddrmsg, ifinfmsg, rtmsg
from .netlink import Message, body_of
from .plan import PortVlan

_UP, _PROMISC, _LOWER_UP = 0x1, 0x100, 0x10000  # netdevice(7)
_NODAD, _DAD_FAILED, _TENTATIVE = 0x02, 0x08, 0x40  # IFA_F_*
_PORT_DISABLED = 0  # BR_STATE_DISABLED
_AF_BRIDGE, _EXT_BRIDGE_VLAN = 7, 1 << 1  # RTEXT_FILTER_BRVLAN
_PVID, _UNTAGGED = 1 << 1, 1 << 2  # BRIDGE_VLAN_INFO_*
_PROTOCOL_BOOT, _UNICAST = 3, 1  # RTPROT_BOOT, RTN_UNICAST

Attributes = list[tuple[str, Any]]


def link_message(
    kind: int,
    flags: int,
    attributes: Attributes,
    *,
    ifindex: int = 0,
    up: bool | None = None,
    promisc: bool | None = None,
) -> Message:
    """A message about a link; `up` and `promisc` switch these on or off, None leaves them as they are."""
    message = ifinfmsg()
    message["index"] = ifindex
    message["flags"] = (_UP if up else 0) | (_PROMISC if promisc else 0)
    message["change"] = (_UP if up is not None else 0) | (_PROMISC if promisc is not None else 0)
    message["attrs"] = attributes
    return Message(kind, flags, body_of(message))


def link_info(kind: str, data: Attributes | None = None) -> tuple[str, Any]:
    """The type of a link to create, with the settings of that type."""
    attributes: Attributes = [("IFLA_INFO_KIND", kind)]
    if data:
        attributes.append(("IFLA_INFO_DATA", {"attrs": data}))
    return ("IFLA_LINKINFO", {"attrs": attributes})


def port_info(data: Attributes) -> tuple[str, Any]:
    """Settings of an interface as a port of its bridge."""
    attributes = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": data})]
    return ("IFLA_LINKINFO", {"attrs": attributes})


def _decoded(message_type: Any, body: bytes) -> Any:
    message = message_type(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def parse_link(body: bytes) -> Link:
    """The link that an RTM_NEWLINK body describes."""
    message = _decoded(ifinfmsg, body)
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    bridge = info.get_attr("IFLA_INFO_DATA") if info and kind == "bridge" else None
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    state = port.get_attr("IFLA_BRPORT_STATE") if port else None
    return Link(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & _UP),
        running=bool(message["flags"] & _LOWER_UP),
        promisc=bool(message["flags"] & _PROMISC),
        master=message.get_attr("IFLA_MASTER") or 0,
        peer=message.get_attr("IFLA_LINK") or 0,
        alias=message.get_attr("IFLA_IFALIAS") or "",
        hairpin=bool(port and port.get_attr("IFLA_BRPORT_MODE")),
        isolated=bool(port and port.get_attr("IFLA_BRPORT_ISOLATED")),
        forwarding=bool(state is not None and state != _PORT_DISABLED),
        vlan_filtering=bool(bridge and bridge.get_attr("IFLA_BR_VLAN_FILTERING")),
    )


def vlan_message(kind: int, flags: int, ifindex: int, vlans: Sequence[PortVlan]) -> Message:
    """A message that adds or deletes VLANs of a bridge port (AF_BRIDGE, IFLA_AF_SPEC, bridge(8))."""
    message = ifinfmsg()
    message["family"] = _AF_BRIDGE
    message["index"] = ifindex
    infos = [
        ("IFLA_BRIDGE_VLAN_INFO", {"vid": entry.vid, "flags": _PVID * entry.pvid | _UNTAGGED * entry.untagged})
        for entry in vlans
    ]
    message["attrs"] = [("IFLA_AF_SPEC", {"attrs": infos})]
    return Message(kind, flags, body_of(message))


def vlan_query() -> bytes:
    """The body of a dump request for the VLANs of all bridge ports."""
    message = ifinfmsg()
    message["family"] = _AF_BRIDGE
    message["attrs"] = [("IFLA_EXT_MASK", _EXT_BRIDGE_VLAN)]
    return body_of(message)


def parse_vlans(body: bytes) -> tuple[int, list[PortVlan]]:
    """The interface index and the VLANs in an RTM_NEWLINK body of AF_BRIDGE."""
    message = _decoded(ifinfmsg, body)
    spec = message.get_attr("IFLA_AF_SPEC")
    infos = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else []
    vlans = [PortVlan(i["vid"], bool(i["flags"] & _PVID), bool(i["flags"] & _UNTAGGED)) for i in infos]
    return message["index"], vlans


def address_query(link: Link) -> bytes:
    """The body of a dump request for the addresses of a link."""
    message = ifaddrmsg()
    message["index"] = link.ifindex
    return body_of(message)


def address_body(link: Link, address: CIDR, *, detect_duplicates: bool = False) -> bytes:
    """The body that adds or deletes an address; without duplicate detection it is usable at once (IFA_F_NODAD)."""
    message = ifaddrmsg()
    message["family"] = address.ip.family
    message["prefixlen"] = address.prefix
    message["index"] = link.ifindex
    attributes: Attributes = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    if address.version == 6 and not detect_duplicates:
        attributes.append(("IFA_FLAGS", _NODAD))
    elif address.version == 4 and address.prefix < 31:
        attributes.append(("IFA_BROADCAST", str(address.last)))
    message["attrs"] = attributes
    return body_of(message)


def parse_address(body: bytes) -> Address:
    """The address that an RTM_NEWADDR body describes."""
    message = _decoded(ifaddrmsg, body)
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    cidr = parse_cidr(f"{text}/{message['prefixlen']}")
    return Address(cidr, bool(flags & _TENTATIVE), bool(flags & _DAD_FAILED))


def route_query(link: Link, version: int) -> bytes:
    """The body of a dump request for the routes of an IP version through a link."""
    message = rtmsg()
    message["family"] = IP(version, 0).family
    message["attrs"] = [("RTA_OIF", link.ifindex)]
    return body_of(message)


def route_body(link: Link, route: Route) -> bytes:
    """The body that adds a route through a link."""
    message = rtmsg()
    message["family"] = route.dst.ip.family
    message["dst_len"] = route.dst.prefix
    message["proto"] = _PROTOCOL_BOOT
    message["type"] = _UNICAST
    message["scope"] = route.scope or 0
    attributes: Attributes = [("RTA_OIF", link.ifindex), ("RTA_TABLE", route.table)]
    if route.dst.prefix:
        attributes.append(("RTA_DST", str(route.dst.ip)))
    if route.gw is not None:
        attributes.append(("RTA_GATEWAY", str(route.gw)))
    if route.priority is not None:
        attributes.append(("RTA_PRIORITY", route.priority))
    metrics = [("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)]
    set_metrics = [(key, value) for key, value in metrics if value is not None]
    if set_metrics:
        attributes.append(("RTA_METRICS", {"attrs": set_metrics}))
    message["attrs"] = attributes
    return body_of(message)


def parse_route(body: bytes, link: Link) -> Route | None:
    """A unicast route through the link, as its numbers in the kernel (0 for a priority or metric not set)."""
    message = _decoded(rtmsg, body)
    if message.get_attr("RTA_OIF") != link.ifindex or message["type"] != _UNICAST:
        return None
    version = 4 if message["family"] == IP(4, 0).family else 6
    dst = parse_cidr(f"{message.get_attr('RTA_DST') or IP(version, 0)}/{message['dst_len']}")
    gw = message.get_attr("RTA_GATEWAY")
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        dst=dst,
        gw=parse_ip(gw) if gw else None,
        mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
        advmss=metrics.get_attr("RTAX_ADVMSS") if metrics else None,
        priority=message.get_attr("RTA_PRIORITY"),
        table=message.get_attr("RTA_TABLE") or message["table"],
        scope=message["scope"],
    )
