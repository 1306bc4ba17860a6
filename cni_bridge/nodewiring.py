"""Having the ways to other nodes' pods in the kernel: nodes.py says which, this puts them there and takes others away.

Ours are known by the protocol and the metric of a route, and by the vxlan device. Nobody else's are touched.
"""

import errno
import struct

from cni_kernel import sysctl
from cni_kernel.attributes import LINK, LINK_DATA, NDA, RTA
from cni_kernel.errors import asking
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import ACK, CREATE, REPLACE, ROUTE, Message, NetlinkError, NetlinkSocket
from cni_kernel.rtnetlink import address_body, address_query, link_message, parse_address
from cni_kernel.values import MAIN_TABLE
from cni_protocol.address import CIDR, IP, LINK_LOCAL6
from cni_protocol.attachment import Attachment
from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.light.standard import Any, NamedTuple

from . import nodes
from .bridge import warn
from .config import BridgeConfig
from .nodes import Entry, Forward, Neighbour, NodeRoute, Overlay, Source, Ways
from .plan import gateway_interface
from .undo import Undo

_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22  # RTM_*
_NEWROUTE, _DELROUTE, _GETROUTE, _NEWLINK, _GETLINK, _GETNEIGH = 24, 25, 26, 16, 18, 30  # RTM_*
_LINK_HEAD_BYTES = 16  # struct ifinfomsg
_ROUTE_HEAD = struct.Struct("=BBBBBBBBI")  # rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_NEIGH_HEAD = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_UNICAST, _ONLINK = 1, 0x4  # RTN_UNICAST, RTNH_F_ONLINK
_AF_BRIDGE, _PERMANENT = 7, 0x80  # NUD_PERMANENT
_GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)


class Underlay(NamedTuple):
    """Where an overlay goes out: interface index, and the node's own address there."""

    ifindex: int
    local: IP


def ensure_overlay(host: Kernel, config: BridgeConfig, undo: Undo) -> BridgeConfig:
    """Have the vxlan device. Returns the configuration with the MTU that its header leaves, unless one is set.

    Raises CNIError: 7 when something else has its name or no interface leads to the peers, 100.
    """
    overlay = config.overlay
    if overlay is None or not config.peers:
        return config
    others = nodes.list_others(config.peers, _own_addresses(host))
    if not others:
        return config  # the only node so far
    underlay = _find_underlay(host, overlay, others[0].node)
    owner = Attachment(config.network, "", "").owner_prefix
    link = host.find_link(overlay.name)
    if link is not None and (link.kind, link.alias) != ("vxlan", owner):
        raise CNIError(
            INVALID_CONFIG,
            f"overlay.vni: interface {link.name} is there and does not belong to network {config.network}; "
            "choose another vni, or remove it",
        )
    if link is not None and _read_device(overlay) != (overlay.port, *underlay):
        host.delete_link(link.name)  # the node has another address by now, or the network another port
        link = None
    if link is None:
        undo.on_failure(host.delete_link, overlay.name)
        _create_device(overlay, owner, underlay)
        warn(sysctl.ignore_router_advertisements(overlay.name))
        if sysctl.has_ipv6():
            warn(sysctl.allow_ipv6(overlay.name))
        sysctl.loosen_reverse_path(overlay.name)
    return config if config.mtu else config._replace(mtu=host.get_link(overlay.name).mtu)


def ensure_ways(host: Kernel, config: BridgeConfig, undo: Undo) -> None:
    """Have the ways to the peers, and none to former ones. Raises CNIError: 7 for a gateway out of reach, 100."""
    device, missing, surplus = _compare(host, config)
    for entry in missing:
        undo.on_failure(_delete, entry, device)
        _add(entry, device)
    for entry in surplus:
        undo.on_failure(_add, entry, device)
        _delete(entry, device)


def find_missing(host: Kernel, config: BridgeConfig) -> list[str]:
    """What of the ways to the peers is not there, and what is there of former peers, in words."""
    _, missing, surplus = _compare(host, config)
    return [f"{entry} is missing" for entry in missing] + [f"{entry} leads to a former peer" for entry in surplus]


def _compare(host: Kernel, config: BridgeConfig) -> tuple[int, list[Entry], list[Entry]]:
    """The index of the vxlan device (0: none), what is to be added and what to be deleted, in that order."""
    if config.peers is None:
        return 0, [], []
    peers = nodes.list_others(config.peers, _own_addresses(host))
    device = 0
    if config.overlay is not None:
        link = host.find_link(config.overlay.name)
        device = link.ifindex if link is not None else -1  # which no route has: all is missing
    gateway = host.find_link(gateway_interface(config)) if device else None
    gateways = [entry.cidr.ip for entry in host.list_addresses(gateway)] if gateway is not None else []
    sources = {ip.version: ip for ip in reversed(gateways) if ip not in LINK_LOCAL6}
    wanted = nodes.make_ways(config.network, peers, device, sources)
    there = _read_ways(config.network, device)
    missing = [entry for entry in wanted.in_order() if entry not in there.in_order()]
    surplus = [entry for entry in reversed(there.in_order()) if entry not in wanted.in_order()]
    return device, missing, surplus


def _own_addresses(host: Kernel) -> set[IP]:
    return {entry.cidr.ip for entry in host.list_all_addresses()}


def _find_underlay(host: Kernel, overlay: Overlay, node: IP) -> Underlay:
    """The interface that is named, or that leads to a peer, and our address on it."""
    if overlay.device:
        link = host.find_link(overlay.device)
        if link is None:
            raise CNIError(INVALID_CONFIG, f"overlay.device: there is no interface {overlay.device}")
        for entry in host.list_addresses(link):
            if entry.cidr.version == node.version and entry.cidr.ip not in LINK_LOCAL6:
                return Underlay(link.ifindex, entry.cidr.ip)
        raise CNIError(INVALID_CONFIG, f"overlay.device: {overlay.device} has no IPv{node.version} address")
    head = _ROUTE_HEAD.pack(node.family, node.bits, 0, 0, 0, 0, 0, 0, 0)
    try:
        [reply] = _send([Message(_GETROUTE, ACK, head + RTA.pack([("RTA_DST", node)]))])
    except NetlinkError as error:
        raise CNIError(INVALID_CONFIG, f"overlay.peers: node {node} cannot be reached: {error.strerror}") from None
    found = RTA.unpack(reply[_ROUTE_HEAD.size :])
    if "RTA_OIF" not in found or "RTA_PREFSRC" not in found:
        raise CNIError(INVALID_CONFIG, f"overlay.peers: no interface leads to node {node}; set overlay.device")
    return Underlay(found["RTA_OIF"], found["RTA_PREFSRC"])


def _read_device(overlay: Overlay) -> tuple[int, int, IP | None]:
    """Port, underlay's index and local address of the vxlan device."""
    [reply] = _send([link_message(_GETLINK, ACK, [("IFLA_IFNAME", overlay.name)])])
    info = LINK.unpack(reply[_LINK_HEAD_BYTES:])["IFLA_LINKINFO"]
    data = LINK_DATA["vxlan"].unpack(info["IFLA_INFO_DATA"])
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6")
    return data["IFLA_VXLAN_PORT"], data.get("IFLA_VXLAN_LINK", 0), local


def _create_device(overlay: Overlay, owner: str, underlay: Underlay) -> None:
    from .vxlan import device_message

    with asking(f"vxlan device {overlay.name} cannot be created"):
        made = device_message(overlay, nodes.mac_of(underlay.local), *underlay)
        named = [("IFLA_IFNAME", overlay.name), ("IFLA_IFALIAS", owner)]  # the kernel takes no alias at once
        _send([made, link_message(_NEWLINK, ACK, named)])


def _read_ways(network: str, device: int) -> Ways:
    with asking("routes to other nodes cannot be read"):
        routes = frozenset(_read_routes(network, device))
    if device <= 0:
        return Ways(routes=routes)
    neighbours, forwards = set(), set()
    head = _NEIGH_HEAD.pack(0, 0, 0, 0, 0) + NDA.pack([("NDA_IFINDEX", device)])
    with asking("neighbours on the vxlan device cannot be read"):
        for state, found in _dump_neighbours(head, device):
            if state & _PERMANENT and "NDA_LLADDR" in found:
                neighbours.add(Neighbour(found["NDA_DST"], found["NDA_LLADDR"]))
        for _, found in _dump_neighbours(_NEIGH_HEAD.pack(_AF_BRIDGE, device, 0, 0, 0), device):
            if "NDA_DST" in found:
                forwards.add(Forward(found["NDA_LLADDR"], found["NDA_DST"]))
    with asking("addresses of the vxlan device cannot be read"):
        addresses = [parse_address(reply).cidr for reply in _dump(Message(_GETADDR, 0, address_query(device)))]
    sources = frozenset(Source(cidr) for cidr in addresses if cidr.version == 4)
    return Ways(sources, frozenset(neighbours), frozenset(forwards), routes)


def _read_routes(network: str, device: int) -> list[NodeRoute]:
    """Our routes of a network, of both families."""
    found = []
    for version in (4, 6):
        head = _ROUTE_HEAD.pack(IP(version, 0).family, 0, 0, 0, MAIN_TABLE, nodes.PROTOCOL, 0, 0, 0)
        for reply in _dump(Message(_GETROUTE, 0, head)):
            prefix, protocol = _ROUTE_HEAD.unpack_from(reply)[1], _ROUTE_HEAD.unpack_from(reply)[5]
            route = RTA.unpack(reply[_ROUTE_HEAD.size :])
            metric = route.get("RTA_PRIORITY", 0)
            if (protocol, metric) != (nodes.PROTOCOL, nodes.metric_of(network)) or "RTA_GATEWAY" not in route:
                continue
            dst = CIDR(route.get("RTA_DST") or IP(version, 0), prefix)
            out = route["RTA_OIF"] if device else 0
            found.append(NodeRoute(dst, route["RTA_GATEWAY"], out, route.get("RTA_PREFSRC"), metric))
    return found


def _dump_neighbours(body: bytes, device: int) -> list[tuple[int, dict[str, Any]]]:
    """State and attributes of the neighbour or forwarding entries of a device."""
    replies = _dump(Message(_GETNEIGH, 0, body))
    entries = [(_NEIGH_HEAD.unpack_from(reply), NDA.unpack(reply[_NEIGH_HEAD.size :])) for reply in replies]
    return [(state, found) for (_, ifindex, state, _, _), found in entries if ifindex == device]


def _add(entry: Entry, device: int) -> None:
    with asking(f"{entry} cannot be added"):
        try:
            _send([_message(entry, device, delete=False)])
        except NetlinkError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                raise
            raise CNIError(
                INVALID_CONFIG, f"nodeRoutes: {entry} cannot be added: the gateway is on no network of this host"
            ) from None


def _delete(entry: Entry, device: int) -> None:
    """Take an entry away; one that is gone is fine."""
    with asking(f"{entry} cannot be removed"):
        try:
            _send([_message(entry, device, delete=True)])
        except NetlinkError as error:
            if error.errno not in _GONE:
                raise


def _message(entry: Entry, device: int, *, delete: bool) -> Message:
    if isinstance(entry, Source):
        kind, flags = (_DELADDR, ACK) if delete else (_NEWADDR, CREATE | ACK)
        return Message(kind, flags, address_body(device, entry.address))
    if not isinstance(entry, NodeRoute):
        from .vxlan import neighbour_message

        return neighbour_message(entry, device, delete=delete)
    attributes = [("RTA_DST", entry.dst.ip), ("RTA_GATEWAY", entry.gw), ("RTA_PRIORITY", entry.metric)]
    attributes += [("RTA_OIF", device)] if device else []
    attributes += [("RTA_PREFSRC", entry.source)] if entry.source is not None else []
    on_link = _ONLINK if device else 0  # the gateway's address is nowhere but on the other node's device
    family, prefix = entry.dst.ip.family, entry.dst.prefix
    head = _ROUTE_HEAD.pack(family, prefix, 0, 0, MAIN_TABLE, nodes.PROTOCOL, 0, _UNICAST, on_link)
    kind, flags = (_DELROUTE, ACK) if delete else (_NEWROUTE, CREATE | REPLACE | ACK)
    return Message(kind, flags, head + RTA.pack(attributes))


def _send(messages: list[Message]) -> list[bytes]:
    with NetlinkSocket(ROUTE) as socket:
        return socket.send(messages)


def _dump(message: Message) -> list[bytes]:
    with NetlinkSocket(ROUTE) as socket:
        return socket.dump(message.kind, message.body)
