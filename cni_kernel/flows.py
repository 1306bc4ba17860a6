"""The connections that the kernel tracks (conntrack): listing them, and setting marks on them.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h; ctnetlink_change_mark for what a mask does.
Must not: decide which connections are marked.
"""

import errno

from cni_protocol.address import IP
from cni_protocol.light.standard import Collection, Generator, Iterable, NamedTuple, Self, struct

from .attributes import NESTED, attribute, split
from .netlink import ACK, NETFILTER, Message, NetlinkSocket

_NEW, _GET = 1 << 8 | 0, 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_TUPLE_ORIG, _TUPLE_REPLY, _MARK, _ZONE, _MARK_MASK = 1, 2, 8, 18, 21  # CTA_*
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_NUMBER, _SOURCE_PORT = 1, 2  # CTA_PROTO_NUM, CTA_PROTO_SRC_PORT
_VERSION = {2: 4, 10: 6}  # of AF_INET, AF_INET6
_FAMILY = {4: 2, 6: 10}
_SIZES = {2: (4, _SOURCE[4]), 10: (16, _SOURCE[6])}  # bytes of an address, and its attribute
_NFGENMSG = 4  # bytes before the attributes
_INTO_SOURCE = 12  # from a tuple's attribute to its first address: the heads of CTA_TUPLE_*, CTA_TUPLE_IP, CTA_IP_*
_HEADS = struct.Struct("=HHHHHH")  # length and type of these three


class Flow(NamedTuple):
    """A connection. `source` began it; `destination` and `port` are those that answer, after destination NAT.

    `port` is 0 for a protocol without ports. `key` is the attribute that identifies the connection to the kernel.
    """

    source: IP
    destination: IP
    protocol: int
    port: int
    mark: int
    key: bytes


class Flows:
    """The connections of the network namespace in which this object was made."""

    def __init__(self) -> None:
        """Raises OSError when the kernel has no nfnetlink."""
        self._socket = NetlinkSocket(NETFILTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def iterate(self, ends: Collection[bytes]) -> Generator[Flow, None, None]:
        """The connections with one of these packed addresses as their source or destination. Raises OSError.

        Those in conntrack zones are left out, since they belong to other programs. To be read to the end, or closed.
        """
        for body in self._socket.iterate(_GET, struct.pack("!BBH", 0, 0, 0)):
            if _may_concern(body, ends):
                flow = _parse(body)
                if flow is not None:
                    yield flow

    def mark(self, flows: Iterable[Flow], mark: int, mask: int) -> None:
        """Set the bits of `mask` in connections' marks to those of `mark`. Skips ended connections. Raises OSError."""
        bits = attribute(_MARK, mark.to_bytes(4, "big")) + attribute(_MARK_MASK, mask.to_bytes(4, "big"))
        messages = [
            Message(_NEW, ACK, struct.pack("!BBH", _FAMILY[flow.source.version], 0, 0) + flow.key + bits)
            for flow in flows
        ]
        for refusal in self._socket.send_all(messages):
            if refusal.errno != errno.ENOENT:
                raise refusal


def _may_concern(body: bytes, ends: Collection[bytes]) -> bool:
    """Whether an entry has to be parsed. The kernel writes both tuples first, each with its source in front.

    Of thousands of connections most are those of others, and parsing one takes ten times as long.
    """
    size, source = _SIZES.get(body[0], (0, 0))
    at = _NFGENMSG
    for kind in (_TUPLE_ORIG, _TUPLE_REPLY):
        if len(body) < at + _HEADS.size:
            return True
        length, outer, _, inner, _, address = _HEADS.unpack_from(body, at)
        if (outer & ~NESTED, inner & ~NESTED, address) != (kind, _IP, source):
            return True  # in another order: all of it is looked at
        if body[at + _INTO_SOURCE : at + _INTO_SOURCE + size] in ends:
            return True
        at += (length + 3) & ~3
    return False


def _parse(body: bytes) -> Flow | None:
    version = _VERSION.get(body[0])
    attributes = dict(split(body[4:]))
    if version is None or _ZONE in attributes:
        return None
    original, reply = dict(split(attributes[_TUPLE_ORIG])), dict(split(attributes[_TUPLE_REPLY]))
    service = dict(split(reply[_PROTO]))
    return Flow(
        _source(version, original),
        _source(version, reply),
        service[_NUMBER][0],
        int.from_bytes(service.get(_SOURCE_PORT, b""), "big"),
        int.from_bytes(attributes.get(_MARK, b""), "big"),
        attribute(_TUPLE_ORIG | NESTED, attributes[_TUPLE_ORIG]),
    )


def _source(version: int, parts: dict[int, bytes]) -> IP:
    return IP(version, int.from_bytes(dict(split(parts[_IP]))[_SOURCE[version]], "big"))
