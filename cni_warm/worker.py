"""A worker: it waits for one call, makes itself like the client (likeness.py), runs the plugin's main(), and ends.

Source: unix(7) (SCM_RIGHTS, SO_PEERCRED), fcntl(2) (O_ASYNC), prctl(2).
"""

import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from cni_protocol.light.libc import PR_SET_PDEATHSIG, prctl
from cni_protocol.warm_client import GO, OUTPUT, PART_BYTES, REQUEST_BYTES, STATUS, TAKEN

from .likeness import Refused, resemble, standing_of
from .preload import PLUGINS
from .rehearsal import rehearse

CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HANDSHAKE_SECONDS = 5.0  # to wait for the client's next message; it takes a millisecond
_ENDING = (signal.SIGTERM, signal.SIGINT)


class Request(NamedTuple):
    """A client's request: code directory, name of the plugin, path of the executable, environment."""

    code: str
    plugin: str
    executable: str
    environment: dict[bytes, bytes]


def serve(listener: socket.socket, parent: int, announce: Callable[[], None], *, at_leisure: bool) -> bool:
    """Wait for one call and run it. Calls `announce` when a client has connected.

    While it waits, the kernel ends it together with `parent`, the service. With `at_leisure` (no other worker is busy)
    it rehearses first. Returns whether a call was run; if not, stderr says why.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return False
    ours = standing_of(os.getpid())
    if at_leisure:
        rehearse()
        resemble(os.getpid(), ours)
    connection, _ = listener.accept()
    prctl(PR_SET_PDEATHSIG, 0)
    announce()
    listener.close()
    client, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
        request = _parse(connection.recv(REQUEST_BYTES))
        output = os.memfd_create("stdout")
        resemble(client, ours)
        descriptors = _take(connection)
    except (Refused, OSError, ValueError) as reason:
        print(f"pycni-warm: a call of process {client} is not taken: {reason}", file=sys.stderr, flush=True)
        return False
    connection.settimeout(None)
    _put_in_place(request, descriptors, output)
    status = _run(PLUGINS[request.plugin], connection)
    with suppress(OSError):  # the client has ended
        _answer(connection, status, output)
    return True


def _take(connection: socket.socket) -> list[int]:
    """Tell the client that the call is taken. Returns its stdin and stderr. Raises Refused, OSError."""
    connection.send(TAKEN)
    # GO also proves that the client lived until now, so /proc showed the client and no later process with its pid
    word, descriptors, _, _ = socket.recv_fds(connection, len(GO), 2, socket.MSG_CMSG_CLOEXEC)
    if word != GO or len(descriptors) != 2:
        raise Refused("the client has given up")
    return descriptors


def _parse(message: bytes) -> Request:
    """Parse a REQUEST message. Raises Refused, also when the client is of another installation."""
    words = message.split(b"\0")
    if len(words) < 3:
        raise Refused("its request is not complete")
    code, plugin, executable = (os.fsdecode(word) for word in words[:3])
    if code != CODE or plugin not in PLUGINS:
        raise Refused(f"it is of the installation {code}, this is {CODE}")
    variables = (word.partition(b"=") for word in words[3:])
    return Request(code, plugin, executable, {key: value for key, _, value in variables})


def _put_in_place(request: Request, descriptors: list[int], output: int) -> None:
    """Set stdin, stdout, stderr, sys.argv and the environment as a new interpreter would find them."""
    stdin, stderr = descriptors
    for descriptor, number in ((stdin, 0), (output, 1), (stderr, 2)):
        os.dup2(descriptor, number)
    os.close(stdin)
    os.close(stderr)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv = [request.executable]
    os.environ.clear()
    os.environb.update(request.environment)


def _run(main: Callable[[], int], connection: socket.socket) -> int:
    """Run the plugin's main(). Returns the exit status that a process of its own would have."""

    def forward(*_: object) -> None:
        """Raise the signal that the client has forwarded; SIGTERM if the client has ended."""
        try:
            word = connection.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        number = word[0] if word else signal.SIGTERM
        if number in _ENDING:
            signal.raise_signal(number)

    signal.signal(signal.SIGIO, forward)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        forward()  # a signal may have come before SIGIO was set up
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    return status & 0xFF


def _answer(connection: socket.socket, status: int, output: int) -> None:
    """Send stdout and the exit status to the client. Raises OSError.

    stdin and stderr are closed before: a caller that waits for their end must not wait for this process.
    """
    sys.stdout.flush()
    size = os.lseek(output, 0, os.SEEK_END)
    text = os.pread(output, size, 0)
    os.close(0)
    os.close(2)
    while len(text) > PART_BYTES:
        connection.send(OUTPUT + text[:PART_BYTES])
        text = text[PART_BYTES:]
    connection.send(STATUS + bytes((status,)) + text)
