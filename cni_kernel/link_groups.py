"""Removing many interfaces: the kernel waits some 20 ms for each that goes, and once for all of a group (ip-link(8)).

Must not: choose what goes; touch a group that anybody else has a member in.
"""

import errno

from cni_protocol.light.standard import Sequence, suppress
from cni_protocol.light.system import os

from .errors import KernelError, asking
from .netlink import ACK, ROUTE, NetlinkError, NetlinkSocket
from .rtnetlink import link_message, parse_group
from .values import Link

_DELLINK, _GETLINK, _SETLINK = 17, 18, 19  # RTM_*
_TOGETHER = 200  # interfaces in one go: the kernel lets nobody else change any meanwhile


def delete_links(links: Sequence[Link]) -> list[KernelError]:
    """Remove interfaces of the process's namespace, all that can be; one that is gone is fine.

    Returns what was refused.
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
    """Remove interfaces by groups made for that. Returns those that have to be tried by themselves.

    A caller that dies before a group is deleted leaves no more than its number.
    """
    first = int.from_bytes(os.urandom(3), "big") + 1 << 7  # group 0 is everybody's
    groups = {link.ifindex: first + place // _TOGETHER for place, link in enumerate(links)}
    numbers = sorted(set(groups.values()))
    marks = [link_message(_SETLINK, ACK, [("IFLA_GROUP", group)], ifindex=index) for index, group in groups.items()]
    refused = {links[refusal.index].ifindex for refusal in socket.send_all(marks)}
    listed = socket.dump(_GETLINK, link_message(_GETLINK, 0, []).body)
    if any(group in numbers and index not in groups for index, group in map(parse_group, listed)):
        return links  # somebody else has the number
    with suppress(NetlinkError):  # the reason shows when each is tried
        for group in numbers:
            socket.send([link_message(_DELLINK, ACK, [("IFLA_GROUP", group)])])
        return [link for link in links if link.ifindex in refused]
    return links
