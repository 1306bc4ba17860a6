"""The client of the warm service: an executable first tries to hand its call over to the service.

A call takes three steps: start Python, import the plugin, serve the call. A worker of the service (cni_warm) has done
the first two already. Its answer must not differ from that of the executable's own process (a "cold" call). So any
unusual call is served cold, and no call is served by both:

  client  REQUEST: code directory, plugin, executable, environment
  worker  TAKEN; or it closes the connection, and the client serves the call cold
  client  GO with stdin and stderr; from here on the call is the worker's, and never run again
  client  the number of a signal, for each SIGTERM or SIGINT that it gets
  worker  OUTPUT: a part of stdout; any number of them
  worker  STATUS, the exit status, the rest of stdout

Messages are packets (SOCK_SEQPACKET). Only the client writes to stdout, so a worker that dies leaves no partial answer.
All of this costs less than a millisecond.
Must not: import anything that is not built into the interpreter.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import posix
import sys

SOCKET = "/run/pycni/warm.socket"
TAKEN, GO, OUTPUT, STATUS = b"T", b"G", b"O", b"S"
REQUEST_BYTES = 1 << 17  # a call with a larger request is served cold
PART_BYTES = 1 << 16  # of stdout in one message
TAKEN_SECONDS = 2.0  # a service that is there answers within a few milliseconds

_MODE = 0o140600  # a socket that is root's alone
_DESCRIPTORS = ["0", "1", "2", "3", "4"]  # the three standard ones, our socket, and the directory being listed
_ENDING = (_signal.SIGTERM, _signal.SIGINT)
_ENDED = b"""{
    "cniVersion": "1.1.0",
    "code": 11,
    "msg": "the warm service of pycni ended in the middle of this call; what it had begun may be left half done",
    "details": ""
}
"""


def hand_over(code: str, plugin: str) -> None:
    """Have the service run this call of `plugin`, and end the process with its output and exit status.

    `code` is our code directory; the service must have been started from the same one. Returns only when the call is to
    be served cold: then nothing has been done, and nothing has been read from stdin.
    """
    if sys.argv[1:]:
        return
    try:
        service = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    except OSError:
        return
    try:
        taken = _is_fit(service) and _ask(service, code, plugin) and _go(service)
    except OSError:
        taken = False
    if not taken:
        service.close()
        return
    _end(*_await(service))


def _is_fit(service: _socket.socket) -> bool:
    """Whether root owns the socket, root makes this call, and only the three standard descriptors are open.

    A worker has no other descriptors, but CNI_NETNS=/proc/self/fd/3 or a delegate could need them. Raises OSError.
    """
    status = posix.lstat(SOCKET)
    if (status.st_mode, status.st_uid, posix.geteuid()) != (_MODE, 0, 0):
        return False
    return service.fileno() == 3 and sorted(posix.listdir("/proc/self/fd")) == _DESCRIPTORS


def _ask(service: _socket.socket, code: str, plugin: str) -> bool:
    """Send the request. Returns whether a worker takes the call. Raises OSError, also on timeout or a full backlog."""
    request = _request(code, plugin)
    if len(request) > REQUEST_BYTES:
        return False
    service.settimeout(TAKEN_SECONDS)
    service.connect(SOCKET)
    service.send(request)
    return service.recv(1) == TAKEN


def _request(code: str, plugin: str) -> bytes:
    words = [word.encode("utf-8", "surrogateescape") for word in (code, plugin, sys.argv[0])]
    return b"\0".join([*words, *(key + b"=" + value for key, value in posix.environ.items())])


def _go(service: _socket.socket) -> bool:
    """Have the worker begin, and forward signals to it from then on. Returns False when the worker is gone."""

    def forward(number: int, _: object) -> None:
        try:  # noqa: SIM105  # contextlib costs more than all of this
            service.send(bytes((number,)))
        except OSError:  # the worker has finished: it is too late to interrupt it
            pass

    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
    before = [_signal.signal(number, forward) for number in _ENDING]
    try:
        service.settimeout(None)
        descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 2))
        service.sendmsg([GO], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
        return True
    except OSError:
        for number, disposition in zip(_ENDING, before, strict=True):
            _signal.signal(number, disposition)
        return False
    finally:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ENDING)


def _await(service: _socket.socket) -> tuple[int, bytes]:
    """Wait for the worker. Returns the exit status and all of stdout; 1 and an error object when the worker died."""
    output = b""
    while True:
        try:
            message = service.recv(2 * PART_BYTES)
        except ConnectionResetError:  # it ended without reading our last signal; its earlier messages can still be read
            continue
        if message[:1] == STATUS:
            return message[1], output + message[2:]
        if message[:1] != OUTPUT:
            return 1, _ENDED
        output += message[1:]


def _end(status: int, output: bytes) -> None:
    """Write stdout and end the process at once, without the interpreter's shutdown; SystemExit(1) if stdout fails."""
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except OSError:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    posix._exit(status)
