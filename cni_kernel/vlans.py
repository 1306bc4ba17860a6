"""VLANs of bridge ports to rtnetlink(7) messages and back. Encodes and decodes, sends nothing.

Imported only for networks with VLANs.
Source: bridge(8), AF_BRIDGE and IFLA_AF_SPEC in include/uapi/linux/if_bridge.h, RTEXT_FILTER_* in rtnetlink.h.
"""

from cni_protocol.light.standard import Sequence, struct

from .attributes import NESTED, U32, attribute, split
from .netlink import Message
from .values import PortVlan, group_vlans

_AF_BRIDGE = 7
_AF_SPEC, _EXT_MASK = 26, 29  # IFLA_*
_VLAN_INFO = 2  # IFLA_BRIDGE_VLAN_INFO
_COMPRESSED = 1 << 2  # RTEXT_FILTER_BRVLAN_COMPRESSED: neighbours with the same flags as a range
_PVID, _UNTAGGED, _BEGIN, _END = 1 << 1, 1 << 2, 1 << 3, 1 << 4  # BRIDGE_VLAN_INFO_*, the last two of a range

_HEAD = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_INFO = struct.Struct("=HH")  # bridge_vlan_info: flags, vid


def vlan_message(kind: int, flags: int, ifindex: int, vlans: Sequence[PortVlan]) -> Message:
    """A message that adds or deletes VLANs of a bridge port. They must be sorted, so that they can be sent as ranges.

    One message holds any number of them: 4094 VLANs take at most 32 KiB, and an attribute holds 64 KiB.
    """
    infos = b"".join(_pack_range(first, last) for first, last in group_vlans(vlans))
    return Message(kind, flags, _HEAD.pack(_AF_BRIDGE, 0, ifindex, 0, 0) + attribute(_AF_SPEC | NESTED, infos))


def vlan_query() -> bytes:
    """The body of a dump request for the VLANs of all bridge ports."""
    return _HEAD.pack(_AF_BRIDGE, 0, 0, 0, 0) + attribute(_EXT_MASK, U32.pack(_COMPRESSED))


def parse_vlans(body: bytes) -> tuple[int, list[PortVlan]]:
    """The interface index and the VLANs in an RTM_NEWLINK body of AF_BRIDGE."""
    ifindex: int = _HEAD.unpack_from(body)[2]
    spec = dict(split(body[_HEAD.size :])).get(_AF_SPEC, b"")
    vlans: list[PortVlan] = []
    begin = 0
    for flags, vid in [_INFO.unpack(data) for number, data in split(spec) if number == _VLAN_INFO]:
        if flags & _BEGIN:
            begin = vid
            continue
        first = begin if flags & _END else vid
        vlans += [PortVlan(each, bool(flags & _PVID), bool(flags & _UNTAGGED)) for each in range(first, vid + 1)]
    return ifindex, vlans


def _pack_range(first: PortVlan, last: PortVlan) -> bytes:
    flags = _PVID * first.pvid | _UNTAGGED * first.untagged
    if first == last:
        return attribute(_VLAN_INFO, _INFO.pack(flags, first.vid))
    begin, end = _INFO.pack(flags | _BEGIN, first.vid), _INFO.pack(flags | _END, last.vid)
    return attribute(_VLAN_INFO, begin) + attribute(_VLAN_INFO, end)
