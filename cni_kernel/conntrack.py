"""Forgetting UDP flows, so that they do not outlive (or precede) the port mapping that directs them.

The kernel keeps sending a flow where its first packet went; a UDP flow ends only when it has been idle for a while. A
client that goes on sending would reach a container that is gone, or never reach one that has just come.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, conntrack(8).
"""

import errno

from cni_protocol.address import IP
from cni_protocol.light.standard import Iterable, NamedTuple, Sequence, struct

from .attributes import NESTED, attribute, split
from .netlink import ACK, NETFILTER, Message, NetlinkSocket

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _FILTER = 1, 2, 12, 25  # CTA_*
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_PROTO_NUM, _PROTO_DPORT = 1, 3
_FILTER_FLAGS = (_TUPLE_ORIG, _TUPLE_REPLY)  # CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS have the numbers of the tuples
_BY_SOURCE, _BY_PROTOCOL, _BY_DPORT = 1 << 0, 1 << 3, 1 << 5  # CTA_FILTER_F_*
_UDP = 17
_AF = {4: 2, 6: 10}


class _Wanted(NamedTuple):
    """What flows are known by: a value at a place (tuple, part, attribute).

    `example` and `flags` have the kernel pick those that have it.
    """

    place: tuple[int, int, int]
    value: bytes
    example: bytes
    flags: int


def forget_flows(ports: Iterable[tuple[int, int]], targets: Iterable[IP]) -> None:
    """Forget UDP flows: those towards host ports (IP version, port), and those that containers (targets) answer.

    What comes next is directed anew. The table of each IP version is gone through once. Raises OSError.
    """
    wanted: dict[int, list[_Wanted]] = {}
    for version, port in ports:
        wanted.setdefault(version, []).append(_towards(port))
    for address in targets:
        wanted.setdefault(address.version, []).append(_answered_by(address))
    if not wanted:
        return
    socket = NetlinkSocket(NETFILTER)
    try:
        for version, values in wanted.items():
            _forget(socket, version, values)
    finally:
        socket.close()


def _towards(host_port: int) -> _Wanted:
    port = host_port.to_bytes(2, "big")
    example = _protocol_of(_TUPLE_ORIG, attribute(_PROTO_DPORT, port))
    return _Wanted((_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_DPORT), port, example, _BY_PROTOCOL | _BY_DPORT)


def _answered_by(address: IP) -> _Wanted:
    source = _IP_SOURCE[address.version]
    if address.version == 4:
        example, flags = _tuple(_TUPLE_REPLY, _TUPLE_IP, attribute(source, address.packed)), _BY_SOURCE
    else:  # by an IPv6 address the kernel picks all others instead (ctnetlink_filter_match_tuple)
        example, flags = _protocol_of(_TUPLE_REPLY), _BY_PROTOCOL
    return _Wanted((_TUPLE_REPLY, _TUPLE_IP, source), address.packed, example, flags)


def _forget(socket: NetlinkSocket, version: int, wanted: Sequence[_Wanted]) -> None:
    """Delete the UDP flows of an IP version that have one of the wanted values.

    The kernel picks them, by all that is asked for where that is one thing; a kernel older than 5.8 lists all there
    are, so each is looked at again.
    """
    values: dict[tuple[int, int, int], set[bytes]] = {}
    for entry in wanted:
        values.setdefault(entry.place, set()).add(entry.value)
    example, flags, which = _protocol_of(_TUPLE_ORIG), _BY_PROTOCOL, _TUPLE_ORIG
    if len(wanted) == 1:
        example, flags, which = wanted[0].example, wanted[0].flags, wanted[0].place[0]
    header = struct.pack("!BBH", _AF[version], 0, 0)
    both = b"".join(attribute(key, struct.pack("=I", flags if key == which else 0)) for key in _FILTER_FLAGS)
    deletions = []
    for flow in socket.dump(_GET, header + example + attribute(_FILTER | NESTED, both)):
        tuples = dict(split(flow[4:]))
        original = dict(split(tuples[_TUPLE_ORIG]))
        if dict(split(original[_TUPLE_PROTO]))[_PROTO_NUM][0] == _UDP and _has_one_of(tuples, values):
            body = header + attribute(_TUPLE_ORIG | NESTED, tuples[_TUPLE_ORIG]) + attribute(_ID, tuples[_ID])
            deletions.append(Message(_DELETE, ACK, body))
    for refusal in socket.send_all(deletions):
        if refusal.errno != errno.ENOENT:  # it has ended by itself
            raise refusal


def _has_one_of(tuples: dict[int, bytes], values: dict[tuple[int, int, int], set[bytes]]) -> bool:
    """Whether a flow has one of the values at its place."""
    return any(
        dict(split(dict(split(tuples[which]))[part])).get(number) in found
        for (which, part, number), found in values.items()
    )


def _protocol_of(kind: int, more: bytes = b"") -> bytes:
    """An example of a UDP flow."""
    return _tuple(kind, _TUPLE_PROTO, attribute(_PROTO_NUM, bytes([_UDP])) + more)


def _tuple(kind: int, part: int, content: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(part | NESTED, content))
