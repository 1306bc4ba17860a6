"""Which addresses the host itself has: none of them can be a container's.

The kernel is asked for a list of all of them, since only that has them all: also those of interfaces that are down, and
those that it still tries for duplicates (bind(2) refuses these, and with ip_nonlocal_bind it accepts any address).
Must not: change anything.
"""

import sys

from cni_protocol.address import IP
from cni_protocol.light.standard import socket, suppress

_ORDER = sys.byteorder  # netlink(7): of the host
_NETLINK_ROUTE = 0
_GET_ADDRESSES = 22  # RTM_GETADDR
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_HEADER, _BODY = 16, 8  # bytes: struct nlmsghdr, struct ifaddrmsg
_DONE, _ERROR = 3, 2  # NLMSG_DONE, NLMSG_ERROR
_ATTRIBUTES = (1, 2, 4)  # IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST: the kernel takes all of them for itself or its peer
_BUFFER = 1 << 17  # bytes; the kernel sends no more than 32 KiB at once


class HostAddresses:
    """The addresses of all interfaces in this network namespace, asked for once for each family, when one is needed."""

    def __init__(self) -> None:
        self._lists: dict[int, bytes] = {}

    def __contains__(self, ip: object) -> bool:
        """Whether an interface has an address, as its own, its peer's or its broadcast address; no, if nobody knows."""
        if not isinstance(ip, IP):
            return False
        if ip.version not in self._lists:
            self._lists[ip.version] = b""
            with suppress(OSError):
                self._lists[ip.version] = _list_addresses(ip.family)
        length = (4 + len(ip.packed)).to_bytes(2, _ORDER)
        found = self._lists[ip.version]
        return any(length + kind.to_bytes(2, _ORDER) + ip.packed in found for kind in _ATTRIBUTES)


def _list_addresses(family: int) -> bytes:
    """All messages of the answer, one after another. Raises OSError."""
    found = b""
    asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        words = (_HEADER + _BODY, 4), (_GET_ADDRESSES, 2), (_REQUEST_DUMP, 2), (1, 4), (0, 4)
        asking.send(
            b"".join([word.to_bytes(size, _ORDER) for word, size in words]) + bytes([family]) + bytes(_BODY - 1)
        )
        while True:
            data = asking.recv(_BUFFER)
            found += data
            at = 0
            while at + _HEADER <= len(data):
                if int.from_bytes(data[at + 4 : at + 6], _ORDER) in (_DONE, _ERROR):
                    return found
                at += max(_HEADER, int.from_bytes(data[at : at + 4], _ORDER) + 3 & ~3)
    finally:
        asking.close()
