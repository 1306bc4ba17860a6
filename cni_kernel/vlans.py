"""VLANs of bridge ports to rtnetlink(7) messages and back, in pyroute2's words. Encodes and decodes, sends nothing.

Loaded for networks with VLANs only: pyroute2's messages take longer to load than all the rest of an ADD.
Source: bridge(8), AF_BRIDGE and IFLA_AF_SPEC in include/uapi/linux/if_bridge.h.
"""

import struct

from cni_protocol.light.standard import Sequence

from .messages import HEADER_BYTES, body_of, ifinfmsg
from .netlink import Message
from .values import Link, PortVlan

_AF_BRIDGE, _EXT_BRIDGE_VLAN = 7, 1 << 1  # RTEXT_FILTER_BRVLAN
_PVID, _UNTAGGED = 1 << 1, 1 << 2  # BRIDGE_VLAN_INFO_*


def filter_message(kind: int, flags: int, bridge: Link) -> Message:
    """A message that has a bridge keep its ports' VLANs apart."""
    message = ifinfmsg()
    message["index"] = bridge.ifindex
    data = {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]}
    message["attrs"] = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]})]
    return Message(kind, flags, body_of(message))


def vlan_message(kind: int, flags: int, ifindex: int, vlans: Sequence[PortVlan]) -> Message:
    """A message that adds or deletes VLANs of a bridge port."""
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
    message = ifinfmsg(struct.pack("=IHHII", HEADER_BYTES + len(body), 0, 0, 0, 0) + body)
    message.decode()
    spec = message.get_attr("IFLA_AF_SPEC")
    infos = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else []
    vlans = [PortVlan(i["vid"], bool(i["flags"] & _PVID), bool(i["flags"] & _UNTAGGED)) for i in infos]
    return message["index"], vlans
