"""Whether the other end of a veth pair is in a certain network namespace, by the kernel's own word.

An interface's index says nothing without its namespace, and who may make interfaces in a container chooses their
indexes. The kernel numbers the namespaces that another one sees: IFLA_LINK_NETNSID is the number of the other end's,
and RTM_GETNSID asks for that of a descriptor. Source: rtnetlink(7), include/uapi/linux/{if_link,net_namespace}.h.
Must not: decide whose an interface is.
"""

import errno

from cni_protocol.light.standard import struct

from .attributes import U32, attribute, split
from .errors import asking
from .netlink import ACK, ROUTE, Message, NetlinkError, NetlinkSocket
from .rtnetlink import WITHOUT_STATISTICS, link_message
from .values import Link

_GETLINK, _GETNSID = 18, 90  # RTM_*
_LINK_HEAD, _NSID_HEAD = 16, 4  # bytes: ifinfomsg, rtgenmsg
_LINK_NETNSID, _NSID, _FD = 37, 1, 3  # IFLA_LINK_NETNSID, NETNSA_NSID, NETNSA_FD
_NUMBER = struct.Struct("=i")
_NOT_ASSIGNED = -1  # NETNSA_NSID_NOT_ASSIGNED


def leads_into(port: Link, namespace: int) -> bool:
    """Whether an interface of this namespace has its other end in the one of an open descriptor. Raises KernelError."""
    link = link_message(_GETLINK, ACK, [WITHOUT_STATISTICS], ifindex=port.ifindex)
    whose = Message(_GETNSID, ACK, bytes(_NSID_HEAD) + attribute(_FD, U32.pack(namespace)))
    with asking(f"the other end of interface {port.name} cannot be found"), NetlinkSocket(ROUTE) as own:
        try:
            [about_link], [about_namespace] = own.send([link]), own.send([whose])
        except NetlinkError as error:
            if error.errno == errno.ENODEV:  # it has just gone
                return False
            raise
    there = dict(split(about_link[_LINK_HEAD:])).get(_LINK_NETNSID)
    asked = dict(split(about_namespace[_NSID_HEAD:])).get(_NSID)
    return there is not None and there == asked and _NUMBER.unpack(there)[0] != _NOT_ASSIGNED
