"""Deleting the conntrack entries of UDP flows whose port mapping has come or gone.

The kernel translates all packets of a flow like its first one, and a UDP flow ends only after it has been idle. So the
packets of a client that keeps sending would still go to a container that is gone, or never reach a new one.
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
    """Which flows to delete: those with `value` at a place (tuple, part of it, attribute in that).

    `example` and `flags` are the same as a filter of the kernel: a flow to compare with, and the parts that count.
    """

    place: tuple[int, int, int]
    value: bytes
    example: bytes
    flags: int


def forget_flows(ports: Iterable[tuple[int, int]], targets: Iterable[IP]) -> None:
    """Delete UDP flows: those to host ports (IP version, port), and those that containers with these addresses answer.

    The next packet of such a flow is translated by the rules of that moment. Each IP version takes one dump of the
    conntrack table. Raises OSError.
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
    else:  # given an IPv6 address, the kernel lists all other flows instead (ctnetlink_filter_match_tuple)
        example, flags = _protocol_of(_TUPLE_REPLY), _BY_PROTOCOL
    return _Wanted((_TUPLE_REPLY, _TUPLE_IP, source), address.packed, example, flags)


def _forget(socket: NetlinkSocket, version: int, wanted: Sequence[_Wanted]) -> None:
    """Delete the UDP flows of an IP version that have one of the wanted values.

    The kernel filters its list: by protocol, and when one value is wanted also by that. A kernel before 5.8 does not
    filter, so each flow is compared here too.
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
        if refusal.errno != errno.ENOENT:  # ENOENT: the flow has ended meanwhile
            raise refusal


def _has_one_of(tuples: dict[int, bytes], values: dict[tuple[int, int, int], set[bytes]]) -> bool:
    """Whether a flow has one of the wanted values at the value's place."""
    return any(
        dict(split(dict(split(tuples[which]))[part])).get(number) in found
        for (which, part, number), found in values.items()
    )


def _protocol_of(kind: int, more: bytes = b"") -> bytes:
    """An example of a UDP flow, for the kernel's filter; `more` are further attributes of its protocol."""
    return _tuple(kind, _TUPLE_PROTO, attribute(_PROTO_NUM, bytes([_UDP])) + more)


def _tuple(kind: int, part: int, content: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(part | NESTED, content))
