"""Removing many interfaces at once, by link groups (ip-link(8)).

The kernel waits some 20 ms for each interface that is removed by itself, and once for a whole group.
Must not: choose what goes; remove a group that another program uses.
"""

import errno

from cni_protocol.light.standard import Sequence, suppress
from cni_protocol.light.system import os

from .errors import KernelError, asking
from .netlink import ACK, ROUTE, NetlinkError, NetlinkSocket
from .rtnetlink import link_message, link_query, parse_group
from .values import Link

_DELLINK, _GETLINK, _SETLINK = 17, 18, 19  # RTM_*
_TOGETHER = 200  # interfaces per group: while one is removed, the kernel holds the lock of all interfaces


def delete_links(links: Sequence[Link]) -> list[KernelError]:
    """Remove interfaces of the process's namespace. Continues after a refusal, and skips interfaces that are gone.

    Returns the refusals.
    """
    with asking("interfaces cannot be removed"), NetlinkSocket(ROUTE) as socket:
        if len(links) > 1:
            links = _delete_together(socket, links)
        refusals = socket.send_all([link_message(_DELLINK, ACK, [], ifindex=link.ifindex) for link in links])
    return [
        KernelError(error.errno or 0, f"interface {links[error.index].name} cannot be removed", error.strerror or "")
        for error in refusals
        if error.errno != errno.ENODEV
    ]


def _delete_together(socket: NetlinkSocket, links: Sequence[Link]) -> Sequence[Link]:
    """Put interfaces into new groups, and remove these. Returns the interfaces that must be removed one by one.

    If the process dies in between, the interfaces keep the number of their group, which does no harm.
    """
    first = int.from_bytes(os.urandom(3), "big") + 1 << 7  # not group 0: every interface is in it by default
    groups = {link.ifindex: first + place // _TOGETHER for place, link in enumerate(links)}
    numbers = sorted(set(groups.values()))
    marks = [link_message(_SETLINK, ACK, [("IFLA_GROUP", group)], ifindex=index) for index, group in groups.items()]
    refused = {links[refusal.index].ifindex for refusal in socket.send_all(marks)}
    listed = socket.dump(_GETLINK, link_query([]))
    if any(group in numbers and index not in groups for index, group in map(parse_group, listed)):
        return links  # another program uses this number
    with suppress(NetlinkError):  # removing them one by one will show the reason
        for group in numbers:
            socket.send([link_message(_DELLINK, ACK, [("IFLA_GROUP", group)])])
        return [link for link in links if link.ifindex in refused]
    return links
