"""Forgetting UDP flows, so that they do not outlive (or precede) the port mapping that directs them.

The kernel keeps sending a flow where its first packet went; a UDP flow ends only when it has been idle for a while. A
client that goes on sending would reach a container that is gone, or never reach one that has just come.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, conntrack(8).
"""

import errno
import struct

from cni_protocol.address import IP
from cni_protocol.light.standard import Iterable

from .attributes import NESTED, attribute, split
from .netlink import ACK, NETFILTER, Message, NetlinkError, NetlinkSocket

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _FILTER = 1, 2, 12, 25  # CTA_*
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_PROTO_NUM, _PROTO_DPORT = 1, 3
_FILTER_FLAGS = (_TUPLE_ORIG, _TUPLE_REPLY)  # CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS have the numbers of the tuples
_BY_SOURCE, _BY_PROTOCOL, _BY_DPORT = 1 << 0, 1 << 3, 1 << 5  # CTA_FILTER_F_*
_UDP = 17
_AF = {4: 2, 6: 10}


def forget_flows_to(addresses: Iterable[IP]) -> None:
    """Forget the UDP flows that a container answers: those that its mappings directed to it. Raises OSError."""
    for address in addresses:
        source = _IP_SOURCE[address.version]
        if address.version == 4:
            example, flags = _tuple(_TUPLE_REPLY, _TUPLE_IP, attribute(source, address.packed)), _BY_SOURCE
        else:  # by an IPv6 address the kernel picks all others instead (ctnetlink_filter_match_tuple)
            example, flags = _tuple(_TUPLE_REPLY, _TUPLE_PROTO, attribute(_PROTO_NUM, bytes([_UDP]))), _BY_PROTOCOL
        _forget(address.version, example, (_TUPLE_REPLY, _TUPLE_IP, source, address.packed), flags)


def forget_flows_from_port(version: int, host_port: int) -> None:
    """Forget the UDP flows towards a host port: what comes next is directed anew. Raises OSError."""
    port = host_port.to_bytes(2, "big")
    example = attribute(_PROTO_NUM, bytes([_UDP])) + attribute(_PROTO_DPORT, port)
    wanted = (_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_DPORT, port)
    _forget(version, _tuple(_TUPLE_ORIG, _TUPLE_PROTO, example), wanted, _BY_PROTOCOL | _BY_DPORT)


def _forget(version: int, example: bytes, wanted: tuple[int, int, int, bytes], flags: int) -> None:
    """Delete the UDP flows that have the wanted value at a place (tuple, part, attribute).

    The kernel picks them by example and flags; one older than 5.8 lists all there are, so each is looked at again.
    """
    which, part, number, value = wanted
    header = struct.pack("!BBH", _AF[version], 0, 0)
    both = b"".join(attribute(key, struct.pack("=I", flags if key == which else 0)) for key in _FILTER_FLAGS)
    socket = NetlinkSocket(NETFILTER)
    try:
        for flow in socket.dump(_GET, header + example + attribute(_FILTER | NESTED, both)):
            tuples = dict(split(flow[4:]))
            original = tuples[_TUPLE_ORIG]
            protocol = dict(split(dict(split(original))[_TUPLE_PROTO]))[_PROTO_NUM][0]
            found = dict(split(dict(split(tuples[which]))[part])).get(number)
            if protocol != _UDP or found != value:
                continue
            body = header + attribute(_TUPLE_ORIG | NESTED, original) + attribute(_ID, tuples[_ID])
            try:
                socket.send([Message(_DELETE, ACK, body)])
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # it has ended by itself
                    raise
    finally:
        socket.close()


def _tuple(kind: int, part: int, content: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(part | NESTED, content))
