"""A blocking netlink socket: requests out, answers or an errno back (netlink(7), Documentation/userspace-api/netlink).

A socket belongs to the network namespace in which it was opened, also
after the process has left that namespace.

Must not: know what a link, a route or a rule is; decide anything.
"""

import os
import struct

from cni_protocol.light.standard import Iterator, NamedTuple, Self, Sequence, socket

ROUTE = 0  # NETLINK_ROUTE
NETFILTER = 12  # NETLINK_NETFILTER

REQUEST = 0x1  # NLM_F_REQUEST
ACK = 0x4
REPLACE = 0x100
EXCL = 0x200
CREATE = 0x400
APPEND = 0x800
DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH

REPLY_BOUND = 10  # seconds that the kernel is given for one answer
RECEIVE_BYTES = 1 << 17  # the kernel fills dump answers up to 32 KiB; larger single messages do not occur

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_DUMP_TRIES = 5


class Message(NamedTuple):
    """One netlink message to send: its type, its flags (REQUEST is added) and its encoded body."""

    kind: int
    flags: int
    body: bytes


class NetlinkError(OSError):
    """The kernel refused a message. `errno` tells why; `index` is the place of the refused message in its batch."""

    def __init__(self, number: int, extended: str, index: int) -> None:
        text = os.strerror(number) + (f" ({extended})" if extended else "")
        super().__init__(number, text)
        self.index = index


class NetlinkSocket:
    """One netlink conversation with the kernel, in the namespace of the moment."""

    def __init__(self, protocol: int) -> None:
        """Open a socket of ROUTE or NETFILTER. Raises OSError when the kernel lacks the protocol."""
        self._sequence = 0
        self._buffer = bytearray(RECEIVE_BYTES)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", REPLY_BOUND, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        if protocol == ROUTE:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address, which the kernel's notifications name for what was changed through it."""
        return int(self._socket.getsockname()[0])

    def send(self, messages: Sequence[Message]) -> list[bytes]:
        """Send messages in one system call and wait until every one that has the ACK flag was answered.

        The kernel works through them in order, within that system call. Returns the bodies of all messages that came
        back beside the acknowledgements. Raises NetlinkError for the first refusal, after all answers were read; the
        refusal of a message that asked for no ACK (the beginning of a batch) stands for all.
        """
        first = self._sequence + 1
        waiting = {first + i for i, message in enumerate(messages) if message.flags & ACK}
        self._socket.send(b"".join(self._encode(message) for message in messages))
        replies: list[bytes] = []
        refusal: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence < first:
                    continue  # an answer to an earlier call that was given up
                if kind != _NLMSG_ERROR:
                    replies.append(body)
                    continue
                refusal = refusal or _refusal(kind, body, flags, sequence - first)
                if sequence not in waiting:
                    waiting.clear()
                waiting.discard(sequence)
        if refusal is not None:
            raise refusal
        return replies

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects that a dump request lists, as message bodies. Raises NetlinkError."""
        for _ in range(_DUMP_TRIES):
            replies, interrupted = self._dump_once(Message(kind, DUMP, body))
            if not interrupted:
                break
        return replies

    def _dump_once(self, message: Message) -> tuple[list[bytes], bool]:
        self._socket.send(self._encode(message))
        replies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    refusal = _refusal(kind, body, flags, 0)
                    if refusal is not None:
                        raise refusal
                    return replies, interrupted
                replies.append(body)

    def _encode(self, message: Message) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(message.body)
        header = _HEADER.pack(length, message.kind, message.flags | REQUEST, self._sequence, 0)
        return header + message.body + b"\0" * (-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one datagram: type, flags, sequence number, body."""
        received = self._socket.recv_into(self._buffer)
        data = bytes(memoryview(self._buffer)[:received])
        offset = 0
        while offset < received:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _refusal(kind: int, body: bytes, flags: int, index: int) -> NetlinkError | None:
    """The error in an NLMSG_ERROR or NLMSG_DONE body (both start with a negative errno), or None for success."""
    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if number == 0:
        return None
    return NetlinkError(number, _extended_text(kind, body, flags), index)


def _extended_text(kind: int, body: bytes, flags: int) -> str:
    """The kernel's own words for a refusal, where it gave any (NLMSGERR_ATTR_MSG)."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    # nlmsgerr is the errno and the header of the refused message; its payload follows unless the answer is capped
    # (at the end of a dump nothing of the request comes back)
    refused_length = struct.unpack_from("=I", body, 4)[0] if len(body) >= 8 else 0
    offset = 4
    if kind == _NLMSG_ERROR:
        offset += _HEADER.size if flags & _NLM_F_CAPPED else (refused_length + 3) & ~3
    while offset + 4 <= len(body):
        length, attribute = struct.unpack_from("=HH", body, offset)
        if attribute & 0x3FFF == _NLMSGERR_ATTR_MSG:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode("utf-8", "replace")
        offset += max((length + 3) & ~3, 4)
    return ""
