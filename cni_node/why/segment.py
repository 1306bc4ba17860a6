"""The bridges of a node and who is on them: whose a port is, who has an address there, what may pass between. Pure.

Must not: know routes or filters.
"""

from collections.abc import Callable

from cni_node.doctor.facts import Link
from cni_node.why.values import NODE, Place, Stack, StopError, UnclearError
from cni_protocol.address import IP

_FORWARDING = 3  # BR_STATE_FORWARDING


class Segment:
    """Asked by the walk; every check raises StopError."""

    def __init__(self, node: Stack, places: tuple[Place, ...], say: Callable[[str, str], None]) -> None:
        self._node, self._places, self._say = node, places, say
        self._links = {link.name: link for link in node.links}

    def place_of(self, owner: str, link: Link) -> Place:
        """The attachment that an interface of a pod is."""
        own = [place for place in self._places if place.owner == owner and place.ifname == link.name]
        if own:
            return own[0]
        raise UnclearError(f"where {link.name} of the pod leads is not known")

    def at_port(self, link: Link) -> Place | None:
        """Whose end an interface of the node is."""
        return next((place for place in self._places if place.host_name == link.name), None)

    def holder(self, bridge: Link, address: IP) -> Place:
        """Who answers for an address on a bridge."""
        ports = {link.name for link in self._node.links if link.master == bridge.ifindex}
        there = [place for place in self._places if address in place.addresses and place.host_name in ports]
        if there:
            return there[0]
        detached = [place for place in self._places if address in place.addresses]
        if detached and detached[0].host_name not in self._links:
            raise StopError("no-interface", "node", f"the end of {detached[0].name} on the node is not there")
        if detached:
            what = f"{detached[0].host_name} of {detached[0].name} is no port of {bridge.name}"
            raise StopError("port-detached", "node", what)
        gateways = {port.name for link in self._node.links if (port := self._beyond(link)) is not None}
        strange = sorted(ports - gateways - {place.host_name for place in self._places})
        if strange:
            raise UnclearError(f"who is behind {', '.join(strange)} on {bridge.name} is not known")
        raise StopError("no-neighbour", "node", f"nobody on {bridge.name} has the address {address}")

    def check_port(self, place: Place) -> Link:
        """The port of an attachment, which is up and forwards."""
        port = self._links.get(place.host_name)
        if port is None:
            raise StopError("no-interface", "node", f"{place.host_name}, the end of {place.name}, is not there")
        bridge = self._node.at(port.master) if port.master else None
        if not port.up:
            raise StopError("link-down", "node", f"{port.name} of {place.name} is down (ip link set {port.name} up)")
        if not port.running:
            raise StopError("no-carrier", "node", f"{port.name} has no carrier: {place.ifname} of {place.name} is down")
        if bridge is None:
            raise StopError("port-detached", "node", f"{port.name} of {place.name} is no port of a bridge")
        if not bridge.up:
            raise StopError("link-down", "node", f"bridge {bridge.name} is down (ip link set {bridge.name} up)")
        if port.state != _FORWARDING:
            raise StopError("port-blocked", "node", f"{bridge.name} does not forward for {port.name} of {place.name}")
        return port

    def check_between(self, source: Place, target: Place) -> None:
        """Whether frames pass from one port to the other."""
        first, second = self.check_port(source), self.check_port(target)
        if first.ifindex == second.ifindex and not first.hairpin:
            raise StopError("hairpin", "node", f"{first.name} sends nothing back to where it came from: hairpin is off")
        if first.isolated and second.isolated:
            raise StopError("port-isolated", "node", f"{first.name} and {second.name} are isolated from each other")
        bridge = self._node.at(first.master)
        assert bridge is not None
        self.check_vlans(first, second, bridge)

    def check_vlans(self, first: Link, second: Link, bridge: Link) -> None:
        """Whether a frame without a tag passes from one port to the other, or to or from the bridge itself."""
        if not bridge.filters_vlans:
            return
        mine = next((vlan.vid for vlan in self._node.vlans.get(first.ifindex, ()) if vlan.pvid), None)
        theirs = next((vlan for vlan in self._node.vlans.get(second.ifindex, ()) if vlan.vid == mine), None)
        if mine is None:
            what = f"{first.name} has no VLAN for frames without a tag, and {bridge.name} filters VLANs"
        elif theirs is None:
            what = f"{first.name} is in VLAN {mine} of {bridge.name}, and {second.name} is not"
        elif not theirs.untagged:
            what = f"{second.name} gets frames of VLAN {mine} of {bridge.name} with a tag"
        else:
            return
        raise StopError("vlan", "node", what)

    def _beyond(self, link: Link) -> Link | None:
        """The bridge port that the other end of an interface of the node is."""
        other = self._node.at(link.lower) if link.kind == "veth" and not link.peer_known else None
        return other if other is not None and other.master else None

    def gateway_of(self, link: Link) -> Place | None:
        """The place of the node on a bridge, where an interface of its own leads there, as for a gateway in a VLAN."""
        port = self._beyond(link)
        return Place(NODE, "node", "", "", link.name, port.name, ()) if port is not None else None

    def find_gateway(self, bridge: Link, address: IP) -> Place | None:
        """The same by one of its addresses."""
        holders = {entry.ifindex for entry in self._node.addresses if entry.cidr.ip == address}
        for link in self._node.links:
            port = self._beyond(link) if link.ifindex in holders else None
            if port is not None and port.master == bridge.ifindex:
                return self.gateway_of(link)
        return None

    def check_size(self, source: Place, target: Place) -> None:
        """Ports of one bridge have one MTU, or large frames are lost without a word."""
        first, second = self._links[source.host_name], self._links[target.host_name]
        if second.mtu < first.mtu:
            self._say(second.name, f"frames of more than {second.mtu} bytes are dropped without a word")

    def inner(self, place: Place, stack: Stack) -> Link:
        """The interface of a pod, which is up."""
        link = next((link for link in stack.links if link.name == place.ifname), None)
        if link is None:
            raise StopError("no-interface", stack.name, f"{stack.name} has no {place.ifname}")
        if not link.up:
            raise StopError("link-down", stack.name, f"{place.ifname} of {stack.name} is down")
        return link

    def check_neighbour(self, stack: Stack, link: Link, address: IP, holder: Stack) -> None:
        """A permanent entry must have the MAC of who has the address."""
        for entry in stack.neighbours:
            known = (entry.ifindex, entry.ip) == (link.ifindex, address) and entry.permanent
            if known and not entry.forwarding and entry.mac not in {each.mac for each in holder.links}:
                what = f"a permanent neighbour entry of {link.name} says that {address} is at {entry.mac}"
                raise StopError("neighbour", stack.name, f"{what} (ip neighbour delete {address} dev {link.name})")

    def check_far(self, link: Link, next_hop: IP, address: IP) -> None:
        """What leads beyond the node: no pod of this one; the overlay's entries; whether the next hop has answered."""
        astray = next((place for place in self._places if address in place.addresses), None)
        if astray is not None:
            what = f"{address} is {astray.name} of this node, and a route leads it away by {link.name}"
            raise StopError("route-astray", "node", what)
        entries = [entry for entry in self._node.neighbours if entry.ifindex == link.ifindex]
        known = next((entry for entry in entries if entry.ip == next_hop and not entry.forwarding), None)
        if link.kind == "vxlan":
            if known is None or not known.permanent:
                raise StopError("neighbour", "node", f"{link.name} has no neighbour entry for {next_hop}")
            if not any(entry.forwarding and entry.mac == known.mac for entry in entries):
                raise StopError("neighbour", "node", f"{link.name} has no forwarding entry for {known.mac}")
        elif known is not None and known.failed:
            self._say(link.name, f"{next_hop} did not answer when it was asked last")
