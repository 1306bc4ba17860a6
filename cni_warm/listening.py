"""The socket on which the service listens: systemd's, or our own. The executables look for it.

Source: sd_listen_fds(3), unix(7).
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress

from cni_protocol.warm_client import SOCKET

BACKLOG = 128  # calls that wait for a worker; further calls run cold
_FIRST = 3  # SD_LISTEN_FDS_START


class Listener:
    """A listening socket. `inode` is that of the socket's file if we made it, None if systemd did."""

    def __init__(self, listener: socket.socket, inode: int | None) -> None:
        self.socket = listener
        self._inode = inode

    def remove(self) -> None:
        """Remove the socket's file if we made it, so that no client connects any more."""
        with suppress(OSError):
            if os.lstat(SOCKET).st_ino == self._inode:
                os.unlink(SOCKET)


def inherit() -> Listener | None:
    """The socket that systemd passed to this process, None without one. Raises OSError for another kind of socket."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    listener = socket.socket(fileno=_FIRST)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise OSError(errno.EPROTOTYPE, "systemd's socket is not of ListenSequentialPacket=")
    listener.set_inheritable(False)
    listener.setblocking(True)
    return Listener(listener, None)


def bind() -> Listener:
    """Create the socket; replaces one on which nobody listens. Raises OSError, also when another service listens."""
    directory = os.path.dirname(SOCKET)
    with suppress(FileExistsError):
        os.mkdir(directory, 0o755)
    lock = os.open(f"{directory}/warm.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that two services that start at once do not remove each other's socket
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
        asking.setblocking(False)  # with a full backlog connect would wait; BlockingIOError says that a service listens
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
