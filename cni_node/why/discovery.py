"""Neighbour discovery of IPv6, which packet filters see: who asks for an address, and who has it. Pure.

Source: RFC 4861; connection tracking leaves these messages alone (nf_conntrack_proto_icmpv6.c).
Must not: know who has an address.
"""

from typing import NamedTuple

from cni_node.why.hooks import Hooks
from cni_node.why.machine import Scene
from cni_node.why.packets import Packet
from cni_node.why.routing import is_link_local
from cni_node.why.values import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, PROTOCOLS, Stack
from cni_protocol.address import IP

_SOLICITATION, _ADVERTISEMENT = 135, 136  # types of ICMPv6
_GROUP = 0xFF0200000000000000000001FF000000  # ff02::1:ff00:0, of solicited nodes
_LINK_LOCAL = 0xFE80 << 112


class Neighbour(NamedTuple):
    """A stack on a link, with its interface there by name."""

    stack: Stack
    link: str


class Request(NamedTuple):
    """Who has an address; `asking` and `holder` are None for who is beyond the node. `packet` is the one that waits.

    `between` is the bridge whose frames pass the packet filter of IP.
    """

    address: IP
    packet: Packet
    asking: Neighbour | None
    holder: Neighbour | None
    between: Neighbour | None = None


def discover(hooks: Hooks, request: Request) -> None:
    """Ask for an address and answer, through all filters on the way. Raises StopError."""
    address, _, asking, holder, between = request
    if address.version == 4:
        return
    source = _source_of(request)
    group = IP(6, _GROUP | address.value & 0xFFFFFF)
    question = Packet(source, group, PROTOCOLS["icmpv6"], 0, 0, message=_SOLICITATION)
    answer = Packet(address, source, PROTOCOLS["icmpv6"], 0, 0, message=_ADVERTISEMENT)
    for sender, receiver, packet in ((asking, holder, question), (holder, asking, answer)):
        if sender is not None:
            for hook in (OUTPUT, POSTROUTING):
                hooks.untracked(hook, packet, Scene(sender.stack, "", sender.link))
        if between is not None:
            hooks.untracked(PREROUTING, packet, Scene(between.stack, between.link))
            for hook in (FORWARD, POSTROUTING):
                hooks.untracked(hook, packet, Scene(between.stack, between.link, between.link))
        if receiver is not None:
            for hook in (PREROUTING, INPUT):
                hooks.untracked(hook, packet, Scene(receiver.stack, receiver.link))


def _source_of(request: Request) -> IP:
    """That of the packet where who asks has it, else the link-local one."""
    if request.asking is None:
        return request.packet.source
    stack, name = request.asking
    indexes = {link.ifindex for link in stack.links if link.name == name}
    own = [entry.cidr.ip for entry in stack.addresses if entry.ifindex in indexes and entry.cidr.version == 6]
    if request.packet.source in own:
        return request.packet.source
    return next((ip for ip in own if is_link_local(ip)), IP(6, _LINK_LOCAL | 1))
