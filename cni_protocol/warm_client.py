"""Handing a call over to the warm service: what an executable does first where the service's socket is.

A process of its own that starts Python, imports and serves the call is what a plugin is; the service (cni_warm) has
done the first two already. It must be impossible to tell the answers of the two apart, so whatever is out of the
ordinary is left to the process itself ("cold"), and a call is run by one of the two only:

  client  REQUEST: code directory, plugin, executable, environment
  worker  TAKEN, or it closes the connection: cold
  client  GO with stdin and stderr; from here on the call is the worker's, and never run again
  client  a signal's number, when it is asked to end
  worker  OUTPUT: a part of stdout; any number of them
  worker  STATUS, the exit status, the rest of stdout

Messages are packets (SOCK_SEQPACKET). The client alone writes to stdout, so that it never has half an answer there.
Must not: import anything that is not built into the interpreter; it costs less than a millisecond.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import posix
import sys

SOCKET = "/run/pycni/warm.socket"
TAKEN, GO, OUTPUT, STATUS = b"T", b"G", b"O", b"S"
REQUEST_BYTES = 1 << 17  # a larger environment than this is left to the process itself
PART_BYTES = 1 << 16  # of stdout in one message
TAKEN_SECONDS = 2.0  # a service that is there answers within a few milliseconds

_MODE = 0o140600  # a socket that is root's alone
_DESCRIPTORS = ["0", "1", "2", "3", "4"]  # what a runtime gives, our socket, and that of the listing itself
_ENDING = (_signal.SIGTERM, _signal.SIGINT)
_ENDED = b"""{
    "cniVersion": "1.1.0",
    "code": 11,
    "msg": "the warm service of pycni ended in the middle of this call; what it had begun may be left half done",
    "details": ""
}
"""


def hand_over(code: str, plugin: str) -> None:
    """Have the service of the code directory `code` run this call, and end the process as it says.

    Returns when the call is to be served here: nothing of it was done, and nothing of stdin was read.
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
    """Whether the service is root's, and this call an ordinary one of root's. Raises OSError.

    Other open files than the three could be meant by CNI_NETNS=/proc/self/fd/3, or be for a delegate.
    """
    status = posix.lstat(SOCKET)
    if (status.st_mode, status.st_uid, posix.geteuid()) != (_MODE, 0, 0):
        return False
    return service.fileno() == 3 and sorted(posix.listdir("/proc/self/fd")) == _DESCRIPTORS


def _ask(service: _socket.socket, code: str, plugin: str) -> bool:
    """Whether a worker takes the call. Raises OSError, also when none does in time or the backlog is full."""
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
    """Have the worker begin, and forward signals from then on. Returns whether it does begin."""

    def forward(number: int, _: object) -> None:
        try:  # noqa: SIM105  # contextlib costs more than all of this
            service.send(bytes((number,)))
        except OSError:  # it is done: too late to interrupt it
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
    """The exit status and all of stdout, of a call that was handed over."""
    output = b""
    while True:
        try:
            message = service.recv(2 * PART_BYTES)
        except ConnectionResetError:  # it did not read our last signal; what it said before is still to be had
            continue
        if message[:1] == STATUS:
            return message[1], output + message[2:]
        if message[:1] != OUTPUT:
            return 1, _ENDED
        output += message[1:]


def _end(status: int, output: bytes) -> None:
    """End the process, without an interpreter's ceremonies unless stdout fails."""
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except OSError:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    posix._exit(status)
