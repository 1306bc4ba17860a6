"""A blocking netlink socket: requests out, answers or an errno back (netlink(7), Documentation/userspace-api/netlink).

A socket stays in the network namespace in which it was opened, even when the process enters another one.

Must not: know what a link, a route or a rule is; decide anything.
"""

import errno

from cni_protocol.light.standard import Generator, Iterator, NamedTuple, Self, Sequence, socket, struct
from cni_protocol.light.system import os

ROUTE = 0  # NETLINK_ROUTE
NETFILTER = 12  # NETLINK_NETFILTER
LINKS = 1  # RTMGRP_LINK

REQUEST = 0x1  # NLM_F_REQUEST
ACK = 0x4
REPLACE = 0x100
EXCL = 0x200
CREATE = 0x400
APPEND = 0x800
DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH

REPLY_BOUND = 10  # seconds to wait for one answer of the kernel
RECEIVE_BYTES = 1 << 17  # the kernel fills dump answers up to 32 KiB; larger single messages do not occur
ANSWERS = 128  # acknowledgements in one exchange: the receive buffer's default size holds some 277

_SOL_NETLINK = 270
_SO_SNDBUFFORCE = 32
_SURE_ROOM = 1 << 16  # bytes that fit into a send buffer of the default size
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
_DUMP_TRIES = 20


class Message(NamedTuple):
    """One netlink message to send: its type, its flags (REQUEST is added) and its encoded body."""

    kind: int
    flags: int
    body: bytes


class NetlinkError(OSError):
    """The kernel refused a message. `errno` says why; `index` is the position of that message in its batch, from 0."""

    def __init__(self, number: int, extended: str, index: int) -> None:
        text = os.strerror(number) + (f" ({extended})" if extended else "")
        super().__init__(number, text)
        self.index = index


class NetlinkSocket:
    """A netlink socket in the network namespace in which the process is when it opens it."""

    def __init__(self, protocol: int, groups: int = 0) -> None:
        """Open a socket of ROUTE or NETFILTER, to hear what is announced to `groups` (LINKS).

        Raises OSError when the kernel lacks the protocol.
        """
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, groups))
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

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def announcements(self) -> list[tuple[int, bytes]]:
        """Types and bodies of the messages in the next announcement. Raises OSError: ENOBUFS where some were lost."""
        return [(kind, body) for kind, _, _, body in self._receive()]

    @property
    def port(self) -> int:
        """The socket's address (nl_pid). The kernel's notifications name it as the origin of a change."""
        return int(self._socket.getsockname()[0])

    def send(self, messages: Sequence[Message]) -> list[bytes]:
        """Send messages, any number, and wait until each one with the ACK flag is answered.

        They go in portions of up to ANSWERS messages with that flag, each portion in one system call; the kernel
        handles a portion's messages in order. Returns the bodies of all answers that are not acknowledgements. Raises
        NetlinkError for the first refusal: the rest of its portion has been handled, later portions are not sent.
        Raises OSError (EMSGSIZE) for a portion that is larger than the send buffer may be.
        """
        replies: list[bytes] = []
        for start, portion in _portions(messages):
            answers, refusals = self._exchange(portion, start)
            if refusals:
                raise refusals[0]
            replies += answers
        return replies

    def ask(self, kind: int, body: bytes) -> bytes:
        """Send a query with one answer, and return that one's body. Raises NetlinkError.

        No acknowledgement is asked for: the answer comes without one, and so does a refusal.
        """
        self._socket.send(self._encode(Message(kind, 0, body)))
        while True:
            for answer, flags, sequence, content in self._receive():
                if sequence != self._sequence:
                    continue  # an answer to an earlier call that was given up
                refusal = _refusal(answer, content, flags, 0) if answer == _NLMSG_ERROR else None
                if refusal is not None:
                    raise refusal
                return content

    def send_all(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Send messages as `send` does, but continue after refusals. Returns the refusals in order."""
        return [refusal for start, portion in _portions(messages) for refusal in self._exchange(portion, start)[1]]

    def _exchange(self, messages: Sequence[Message], start: int) -> tuple[list[bytes], list[NetlinkError]]:
        """Send one portion. Returns the answers and the refusals. `start` is its position in all messages.

        A first message without ACK is the beginning of an nftables batch: when it is refused, no other answer follows.
        """
        first = self._sequence + 1
        waiting = {first + i for i, message in enumerate(messages) if message.flags & ACK}
        edge = set() if first in waiting else {first}
        data = b"".join(self._encode(message) for message in messages)
        self._make_room(len(data))
        self._socket.send(data)
        replies: list[bytes] = []
        refusals: list[NetlinkError] = []
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence < first:
                    continue  # an answer to an earlier call that was given up
                if kind != _NLMSG_ERROR:
                    replies.append(body)
                    continue
                refusal = _refusal(kind, body, flags, start + sequence - first)
                if refusal is not None:
                    refusals.append(refusal)
                if sequence in edge:
                    waiting.clear()
                waiting.discard(sequence)
        return replies, refusals

    def _make_room(self, size: int) -> None:
        """Enlarge the send buffer to `size` bytes; without privilege, up to net.core.wmem_max only."""
        if size <= _SURE_ROOM:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
        except PermissionError:  # in a user namespace
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all messages that answer a dump request.

        Tries again when the list changed while it was read. Raises NetlinkError; EINTR after _DUMP_TRIES such tries.
        """
        for _ in range(_DUMP_TRIES):
            replies, interrupted = self._dump_once(Message(kind, DUMP, body))
            if not interrupted:
                return replies
        raise NetlinkError(errno.EINTR, f"the list changed while it was read, {_DUMP_TRIES} times", 0)

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

    def iterate(self, kind: int, body: bytes) -> Generator[bytes, None, None]:
        """The bodies of the messages that answer a dump request, while they come: a long list takes no room.

        For lists that may change while they are read. What is not read to the end is to be closed: then the rest is
        read, since until then the kernel takes no other such request. Raises OSError.
        """
        self._socket.send(self._encode(Message(kind, DUMP, body)))
        asked, ended = self._sequence, False
        try:
            while not ended:
                for answer, flags, sequence, reply in self._receive():
                    if sequence != asked:
                        continue
                    if answer in (_NLMSG_DONE, _NLMSG_ERROR):
                        ended = True
                        refusal = _refusal(answer, reply, flags, 0)
                        if refusal is not None:
                            raise refusal
                    else:
                        yield reply
        finally:
            while not ended:
                ended = any(answer in (_NLMSG_DONE, _NLMSG_ERROR) for answer, *_ in self._receive())

    def _encode(self, message: Message) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(message.body)
        header = _HEADER.pack(length, message.kind, message.flags | REQUEST, self._sequence, 0)
        return header + message.body + b"\0" * (-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one datagram: type, flags, sequence number, body. Raises OSError for one that is cut off."""
        data = self._socket.recv(RECEIVE_BYTES, socket.MSG_TRUNC)  # as long as the answer is, also where it is cut off
        received = len(data)
        if received > RECEIVE_BYTES:
            raise OSError(errno.EBADMSG, f"an answer of {received} bytes, where at most {RECEIVE_BYTES} are read")
        offset = 0
        while offset < received:
            rest = received - offset
            length, kind, flags, sequence, _ = (
                _HEADER.unpack_from(data, offset) if rest >= _HEADER.size else (0, 0, 0, 0, 0)
            )
            if not _HEADER.size <= length <= rest:
                raise OSError(errno.EBADMSG, f"a message said to have {length} bytes, in an answer with {rest} left")
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _portions(messages: Sequence[Message]) -> Iterator[tuple[int, Sequence[Message]]]:
    """Portions with at most ANSWERS messages that have the ACK flag, each with the position of its first message."""
    start = asked = 0
    for end, message in enumerate(messages):
        if message.flags & ACK:
            asked += 1
            if asked > ANSWERS:
                yield start, messages[start:end]
                start, asked = end, 1
    if messages:
        yield start, messages[start:]


def _refusal(kind: int, body: bytes, flags: int, index: int) -> NetlinkError | None:
    """The error in an NLMSG_ERROR or NLMSG_DONE body (both start with a negative errno), or None for success."""
    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if number == 0:
        return None
    return NetlinkError(number, _extended_text(kind, body, flags), index)


def _extended_text(kind: int, body: bytes, flags: int) -> str:
    """The kernel's own message for a refusal (NLMSGERR_ATTR_MSG), empty when it gave none."""
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    # NLMSG_ERROR repeats the header of the refused message behind the errno, and unless capped its payload too.
    # NLMSG_DONE, the end of a dump, repeats nothing.
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
