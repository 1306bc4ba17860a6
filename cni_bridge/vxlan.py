"""The vxlan device of an overlay, its neighbours and its forwarding entries as rtnetlink(7) messages, by pyroute2.

Loaded when one of them is to be made or removed: pyroute2's messages take longer to load than all the rest of an ADD.
Source: ip-link(8), bridge(8), Documentation/networking/vxlan in the kernel.
"""

from cni_kernel.messages import body_of, ifinfmsg, ndmsg
from cni_kernel.netlink import ACK, CREATE, EXCL, REPLACE, Message
from cni_protocol.address import IP

from .nodes import Forward, Neighbour, Overlay

_NEWLINK, _NEWNEIGH, _DELNEIGH = 16, 28, 29  # RTM_*
_UP = 0x1  # netdevice(7)
_AF_BRIDGE = 7
_PERMANENT, _SELF = 0x80, 0x02  # NUD_PERMANENT, NTF_SELF


def device_message(overlay: Overlay, mac: str, underlay: int, local: IP) -> Message:
    """Make the device, up: it sends from `local` by the interface with the index `underlay`, and learns nothing."""
    message = ifinfmsg()
    message["flags"] = message["change"] = _UP
    data = [
        ("IFLA_VXLAN_ID", overlay.vni),
        ("IFLA_VXLAN_LINK", underlay),
        ("IFLA_VXLAN_LOCAL" if local.version == 4 else "IFLA_VXLAN_LOCAL6", str(local)),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_PORT", overlay.port),
    ]
    info = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]
    message["attrs"] = [
        ("IFLA_IFNAME", overlay.name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return Message(_NEWLINK, CREATE | EXCL | ACK, body_of(message))


def neighbour_message(entry: Neighbour | Forward, device: int, *, delete: bool = False) -> Message:
    """Make an entry of the device with that index, or delete it."""
    message = ndmsg()
    message["ifindex"] = device
    message["state"] = _PERMANENT
    target = entry.ip if isinstance(entry, Neighbour) else entry.node
    if isinstance(entry, Neighbour):
        message["family"] = target.family
    else:
        message["family"], message["flags"] = _AF_BRIDGE, _SELF
    message["attrs"] = [("NDA_DST", str(target)), ("NDA_LLADDR", entry.mac)]
    kind, flags = (_DELNEIGH, ACK) if delete else (_NEWNEIGH, CREATE | REPLACE | ACK)
    return Message(kind, flags, body_of(message))
