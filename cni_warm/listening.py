"""The socket that the executables look for: systemd's, or our own.

Source: sd_listen_fds(3), unix(7).
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress

from cni_protocol.warm_client import SOCKET

BACKLOG = 128  # calls that wait for a worker; those beyond run cold
_FIRST = 3  # SD_LISTEN_FDS_START


class Listener:
    """A listening socket; `inode` is that of its file when it is ours to remove."""

    def __init__(self, listener: socket.socket, inode: int | None) -> None:
        self.socket = listener
        self._inode = inode

    def remove(self) -> None:
        """Take our file away, so that nobody calls any more. systemd's stays."""
        with suppress(OSError):
            if os.lstat(SOCKET).st_ino == self._inode:
                os.unlink(SOCKET)


def inherit() -> Listener | None:
    """The socket that systemd hands to us, None when there is none. Raises OSError for one of another kind."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    listener = socket.socket(fileno=_FIRST)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise OSError(errno.EPROTOTYPE, "systemd's socket is not of ListenSequentialPacket=")
    listener.set_inheritable(False)
    listener.setblocking(True)
    return Listener(listener, None)


def bind() -> Listener:
    """Make the socket, in place of one that nobody listens on. Raises OSError, also when somebody does."""
    directory = os.path.dirname(SOCKET)
    with suppress(FileExistsError):
        os.mkdir(directory, 0o755)
    lock = os.open(f"{directory}/warm.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that start at once do not remove each other's
        _remove_stale()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mask = os.umask(0o177)
        try:
            listener.bind(SOCKET)
        finally:
            os.umask(mask)
        inode = os.lstat(SOCKET).st_ino
        listener.listen(BACKLOG)
    finally:
        os.close(lock)
    return Listener(listener, inode)


def _remove_stale() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.setblocking(False)  # a full backlog is somebody's
        try:
            asking.connect(SOCKET)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(SOCKET)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another service listens there")
