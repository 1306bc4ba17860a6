"""The addresses that the host itself has. A container must get none of them.

They come from a netlink dump, which has them all. A try with bind(2) would not do: it refuses the addresses of
interfaces that are down or still in duplicate detection, and with ip_nonlocal_bind it accepts any address.
Must not: change anything.
"""

import sys

from cni_protocol.address import IP
from cni_protocol.light.standard import socket, suppress

_ORDER = sys.byteorder  # netlink(7): numbers are in host byte order
_NETLINK_ROUTE = 0
_GET_ADDRESSES = 22  # RTM_GETADDR
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_HEADER, _BODY = 16, 8  # bytes: struct nlmsghdr, struct ifaddrmsg
_DONE, _ERROR = 3, 2  # NLMSG_DONE, NLMSG_ERROR
_ATTRIBUTES = (1, 2, 4)  # IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST: the peer's, its own, broadcast
_BUFFER = 1 << 17  # bytes; the kernel sends no more than 32 KiB at once


class HostAddresses:
    """The addresses of all interfaces in this network namespace. Each family is dumped once, when first needed."""

    def __init__(self) -> None:
        self._lists: dict[int, bytes] = {}

    def __contains__(self, ip: object) -> bool:
        """Whether any interface has this as its own, its peer's or its broadcast address. False if the dump fails."""
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
    """The messages that answer a dump of a family's addresses, concatenated. Raises OSError."""
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
