"""Reads which interfaces have programs that packets pass beside the packet filter: filters of tc, and XDP.

Source: tc(8), include/uapi/linux/pkt_sched.h and if_link.h.
Must not: interpret them; that they are there is all that is told.
"""

import errno
import struct
from collections.abc import Iterator

from cni_kernel.attributes import TEXT, split
from cni_kernel.netlink import ROUTE, NetlinkError, NetlinkSocket

_GETLINK, _GETQDISC, _GETTFILTER = 18, 38, 46  # RTM_*
_LINK_HEAD, _TC_HEAD = struct.Struct("=BxHiII"), struct.Struct("=BxxxiIII")  # ifinfomsg, tcmsg
_XDP, _XDP_ATTACHED = 43, 2  # IFLA_*
_TCA_KIND = 1
_AT = {"clsact": {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}, "ingress": {"ingress": 0xFFFFFFF2}}  # TC_H_MIN_*


def read_programs() -> dict[int, tuple[str, ...]]:
    """What there is on interfaces of this network namespace, by their indexes, in words. Raises NetlinkError."""
    found: dict[int, list[str]] = {}
    with NetlinkSocket(ROUTE) as sock:
        for index, what in [*_xdp(sock), *_filters(sock)]:
            found.setdefault(index, []).append(what)
    return {index: tuple(dict.fromkeys(each)) for index, each in found.items()}


def _xdp(sock: NetlinkSocket) -> Iterator[tuple[int, str]]:
    for body in sock.dump(_GETLINK, _LINK_HEAD.pack(0, 0, 0, 0, 0)):
        state = dict(split(dict(split(body[_LINK_HEAD.size :])).get(_XDP, b"")))
        if any(state.get(_XDP_ATTACHED, b"")):
            yield _LINK_HEAD.unpack_from(body)[2], "an XDP program"


def _filters(sock: NetlinkSocket) -> Iterator[tuple[int, str]]:
    try:
        disciplines = sock.dump(_GETQDISC, _TC_HEAD.pack(0, 0, 0, 0, 0))
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:  # a kernel without tc
            raise
        return
    for body in disciplines:
        index = _TC_HEAD.unpack_from(body)[1]
        for way, parent in _AT.get(_kind_of(body), {}).items():
            for entry in sock.dump(_GETTFILTER, _TC_HEAD.pack(0, index, 0, parent, 0)):
                yield index, f"a tc filter ({_kind_of(entry)}, {way})"


def _kind_of(body: bytes) -> str:
    return str(TEXT.unpack(dict(split(body[_TC_HEAD.size :])).get(_TCA_KIND, b"")))
