"""Links, addresses and routes of one network namespace, through rtnetlink(7).

A Kernel acts on the namespace in which it was opened. Every method raises KernelError when the kernel refuses.
Must not: know a configuration, or decide what should be there.
"""

import errno

from cni_protocol.address import CIDR
from cni_protocol.light.standard import Self, Sequence
from cni_protocol.light.system import os

from .errors import KernelError, asking
from .netlink import ACK, APPEND, CREATE, EXCL, ROUTE, Message, NetlinkError, NetlinkSocket
from .rtnetlink import (
    WITHOUT_STATISTICS,
    Attributes,
    address_body,
    address_query,
    link_info,
    link_message,
    link_query,
    parse_address,
    parse_link,
    parse_routes,
    port_info,
    route_body,
    route_query,
)
from .values import Address, Link, PortVlan, Route, Veth

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19  # RTM_*
_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 21, 22, 24, 26


class Kernel:
    """The links, addresses and routes of one network namespace."""

    def __init__(self) -> None:
        """Open a socket in the namespace that the process is in."""
        with asking("netlink cannot be used"):
            self._socket = NetlinkSocket(ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def find_link(self, name: str) -> Link | None:
        """The interface of that name, None when there is none."""
        return self._find_link([("IFLA_IFNAME", name)], 0)

    def find_link_at(self, ifindex: int) -> Link | None:
        """The interface with that index, None when there is none."""
        return self._find_link([], ifindex)

    def get_link(self, name: str) -> Link:
        """The interface of that name. Raises KernelError when there is none."""
        link = self.find_link(name)
        if link is None:
            raise KernelError(errno.ENODEV, f"interface {name}", "it is not there, or has vanished meanwhile")
        return link

    def _find_link(self, attributes: Attributes, ifindex: int) -> Link | None:
        with asking("interfaces cannot be read"):
            request = link_message(_GETLINK, 0, [*attributes, WITHOUT_STATISTICS], ifindex=ifindex)
            try:
                reply = self._socket.ask(request.kind, request.body)
            except NetlinkError as error:
                if error.errno == errno.ENODEV:
                    return None
                raise
        return parse_link(reply)

    def list_ports(self, bridge: Link) -> list[Link]:
        """The ports of a bridge."""
        query = link_query([("IFLA_MASTER", bridge.ifindex), WITHOUT_STATISTICS])
        with asking(f"ports of bridge {bridge.name} cannot be read"):
            return [parse_link(reply) for reply in self._socket.dump(_GETLINK, query)]

    def list_links(self) -> list[Link]:
        """All interfaces."""
        with asking("interfaces cannot be read"):
            return [parse_link(reply) for reply in self._socket.dump(_GETLINK, link_query([WITHOUT_STATISTICS]))]

    def probe_kind(self, kind: str) -> None:
        """Raise KernelError unless the kernel can make interfaces of a kind. Changes nothing.

        The request has an MTU of one byte: the kernel refuses it, but only after it has found the kind (rtnl_newlink).
        """
        request = link_message(_NEWLINK, CREATE | EXCL | ACK, [("IFLA_MTU", 1), link_info(kind)])
        with asking(f"interfaces of kind {kind} cannot be made"):
            try:
                self._socket.send([request])
            except NetlinkError as error:
                if error.errno not in (errno.EINVAL, errno.ERANGE):
                    raise

    def create_bridge(self, name: str, mtu: int) -> bool:
        """Make a bridge, down, with a random MAC (without one set, a bridge takes over MACs of its ports).

        mtu in bytes, 0 for the kernel's choice. Returns False when an interface of that name is there already.
        """
        attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", _random_mac()), link_info("bridge")]
        if mtu:
            attributes.append(("IFLA_MTU", mtu))
        with asking(f"bridge {name} cannot be created"):
            try:
                self._socket.send([link_message(_NEWLINK, CREATE | EXCL | ACK, attributes)])
            except NetlinkError as error:
                if error.errno == errno.EEXIST:
                    return False
                raise
        return True

    def filter_vlans(self, bridge: Link, *, on: bool = True) -> None:
        """Switch a bridge's VLAN filtering on or off. The KernelError names the kernel option that is needed."""
        info = link_info("bridge", [("IFLA_BR_VLAN_FILTERING", int(on))])
        with asking(f"vlan: bridge {bridge.name} cannot filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING of the kernel)"):
            self._socket.send([link_message(_NEWLINK, ACK, [info], ifindex=bridge.ifindex)])

    def set_vlans(self, port: Link, vlans: Sequence[PortVlan]) -> None:
        """Give a bridge port exactly these VLANs; they must be sorted by number."""
        from .vlans import vlan_message

        there = self.list_vlans(port)
        kept = {vlan.vid for vlan in vlans}
        gone = [vlan._replace(pvid=False, untagged=False) for vlan in there if vlan.vid not in kept]
        new = sorted(set(vlans) - set(there))
        changes = [(_DELLINK, gone), (_SETLINK, new)]
        messages = [vlan_message(kind, ACK, port.ifindex, which) for kind, which in changes if which]
        if not messages:
            return
        with asking(
            f"vlan: port {port.name} cannot be put into its VLANs (CONFIG_BRIDGE_VLAN_FILTERING of the kernel)"
        ):
            self._socket.send(messages)

    def list_vlans(self, port: Link) -> list[PortVlan]:
        """The VLANs of a bridge port."""
        return self.list_all_vlans().get(port.ifindex, [])

    def list_all_vlans(self) -> dict[int, list[PortVlan]]:
        """The VLANs of all bridge ports, by the port's interface index; a port in no VLAN may be missing."""
        from .vlans import parse_vlans, vlan_query

        with asking("VLANs of bridge ports cannot be read"):
            replies = self._socket.dump(_GETLINK, vlan_query())
        found: dict[int, list[PortVlan]] = {}
        for ifindex, vlans in map(parse_vlans, replies):
            found[ifindex] = sorted(found.get(ifindex, []) + vlans)
        return found

    def create_veth(self, veth: Veth) -> None:
        """Make a veth pair: the host's end up and a port of its bridge, the other end down in its namespace."""
        common: Attributes = [("IFLA_MTU", veth.mtu)] if veth.mtu else []
        peer = [("IFLA_IFNAME", veth.name), ("IFLA_NET_NS_FD", veth.namespace), *common]
        if veth.mac:
            peer.append(("IFLA_ADDRESS", veth.mac))
        pair = link_info("veth", [("VETH_INFO_PEER", peer)])
        name = ("IFLA_IFNAME", veth.host_name)
        port = port_info([("IFLA_BRPORT_MODE", int(veth.hairpin)), ("IFLA_BRPORT_ISOLATED", int(veth.isolated))])
        messages = [
            link_message(_NEWLINK, CREATE | EXCL | ACK, [name, ("IFLA_MASTER", veth.bridge), pair, *common], up=True),
            link_message(_NEWLINK, ACK, [name, ("IFLA_IFALIAS", veth.owner), port]),
        ]
        with asking(f"veth pair {veth.host_name} (host) and {veth.name} (container) cannot be created"):
            self._socket.send(messages)

    def delete_link(self, name: str) -> bool:
        """Remove an interface. Returns False when there is none of that name."""
        with asking(f"interface {name} cannot be removed"):
            try:
                self._socket.send([link_message(_DELLINK, ACK, [("IFLA_IFNAME", name)])])
            except NetlinkError as error:
                if error.errno == errno.ENODEV:
                    return False
                raise
        return True

    def set_flags(self, link: Link, *, up: bool, promisc: bool) -> None:
        """Set an interface up or down, and its promiscuous mode. Sends nothing if both are so already."""
        if (link.up, link.promisc) == (up, promisc):
            return
        with asking(f"interface {link.name} cannot be set {'up' if up else 'down'}"):
            self._socket.send([link_message(_NEWLINK, ACK, [], ifindex=link.ifindex, up=up, promisc=promisc)])

    def set_mac(self, link: Link, mac: str) -> None:
        """Set the MAC of an interface. A bridge with a MAC that was set takes over no MAC of its ports any more."""
        with asking(f"the MAC of {link.name} cannot be set to {mac}"):
            self._socket.send([link_message(_NEWLINK, ACK, [("IFLA_ADDRESS", mac)], ifindex=link.ifindex)])

    def set_mtu(self, link: Link, mtu: int) -> None:
        """Set the MTU of an interface, in bytes. A bridge with an MTU that was set takes over none of its ports'."""
        with asking(f"the MTU of {link.name} cannot be set to {mtu}"):
            self._socket.send([link_message(_NEWLINK, ACK, [("IFLA_MTU", mtu)], ifindex=link.ifindex)])

    def list_addresses(self, link: Link) -> list[Address]:
        """The addresses of an interface, including link-local ones."""
        with asking(f"addresses of {link.name} cannot be read"):
            replies = self._socket.dump(_GETADDR, address_query(link.ifindex))
        return [parse_address(reply) for reply in replies]

    def list_all_addresses(self) -> list[Address]:
        """The addresses of all interfaces."""
        with asking("addresses cannot be read"):
            return [parse_address(reply) for reply in self._socket.dump(_GETADDR, address_query(0))]

    def add_addresses(self, link: Link, addresses: Sequence[CIDR], *, detect_duplicates: bool = False) -> CIDR | None:
        """Give an interface addresses, usable at once or after detection. Returns the first that it has already."""
        return self.configure(link, addresses, up=False, detect_duplicates=detect_duplicates)

    def configure(
        self,
        link: Link,
        addresses: Sequence[CIDR],
        routes: Sequence[Route] = (),
        *,
        up: bool,
        detect_duplicates: bool = False,
    ) -> CIDR | None:
        """Bring an interface up if asked to, give it addresses, add routes through it: in this order, in one go.

        Coming up, it would announce the addresses that it has, before its port passes anything on. Returns the first
        address that it has already.
        """
        steps: list[tuple[str, Message]] = []
        if up:
            what = f"interface {link.name} cannot be brought up"
            steps.append((what, link_message(_NEWLINK, ACK, [], ifindex=link.ifindex, up=True)))
        first = len(steps)
        for address in addresses:
            body = address_body(link.ifindex, address, detect_duplicates=detect_duplicates)
            what = f"address {address} cannot be given to {link.name}"
            steps.append((what, Message(_NEWADDR, CREATE | EXCL | ACK, body)))
        for route in routes:
            what = f"route {route.dst}{f' via {route.gw}' if route.gw else ''} cannot be added"
            steps.append((what, Message(_NEWROUTE, CREATE | APPEND | ACK, route_body(link, route))))
        with asking(lambda place: steps[place][0]):
            try:
                self._socket.send([message for _, message in steps])
            except NetlinkError as error:
                if error.errno == errno.EEXIST and first <= error.index < first + len(addresses):
                    return addresses[error.index - first]
                raise
        return None

    def delete_address(self, link: Link, address: CIDR) -> None:
        """Remove an address. Succeeds when it is not there."""
        with asking(f"address {address} cannot be removed from {link.name}"):
            try:
                self._socket.send([Message(_DELADDR, ACK, address_body(link.ifindex, address))])
            except NetlinkError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    raise

    def list_routes(self, link: Link) -> list[Route]:
        """The unicast routes through an interface, of all tables."""
        return [route for ifindex, route in self.list_all_routes(ifindex=link.ifindex) if ifindex == link.ifindex]

    def list_all_routes(self, *, ifindex: int = 0, table: int = 0, protocol: int = 0) -> list[tuple[int, Route]]:
        """Unicast routes, each with its interface's index. An argument other than 0 selects those that have it."""
        queries = [route_query(version, ifindex=ifindex, table=table, protocol=protocol) for version in (4, 6)]
        with asking("routes cannot be read"):
            return [pair for query in queries for reply in self._dump_routes(query) for pair in parse_routes(reply)]

    def _dump_routes(self, query: bytes) -> list[bytes]:
        try:
            return self._socket.dump(_GETROUTE, query)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:  # ENOENT: the table has never had a route
                raise
            return []


def _random_mac() -> str:
    """A random MAC, unicast and locally administered (IEEE 802)."""
    return bytes((os.urandom(1)[0] & 0xFC | 0x02, *os.urandom(5))).hex(":")
