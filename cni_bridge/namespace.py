"""Network namespaces: opening the container's, working inside it, and the lock that belongs to the host's.

Source: setns(2), ioctl_ns(2), SPEC.md section "Parameters" (CNI_NETNS).
Must not: change anything inside a namespace.
"""

import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from cni_protocol.errors import INVALID_ENVIRONMENT, KERNEL_REFUSED, TRY_AGAIN_LATER, CNIError

LOCK_BOUND = 15.0  # seconds; the lock is held for a few netlink requests
_LOCK_POLL = 0.002  # seconds

_OWN = "/proc/self/ns/net"
_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703


class Namespace:
    """A network namespace, kept alive by an open descriptor until the end of its `with` block."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run a block inside the namespace; the process is back in its own one afterwards, whatever happens."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.descriptor)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)


def open_namespace(path: str) -> Namespace:
    """Open the network namespace at a path. Raises CNIError (code 4) when it is none, or is the plugin's own."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS={path} cannot be opened: {reason}") from None
    try:
        if not _is_network_namespace(descriptor):
            raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS={path} is not a network namespace")
        if os.path.samestat(os.fstat(descriptor), os.stat(_OWN)):
            raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS={path} is the network namespace of the host itself")
    except BaseException:
        os.close(descriptor)
        raise
    return Namespace(path, descriptor)


def find_namespace(path: str) -> Namespace | None:
    """The namespace at a path, None where there is none (any more): DEL and GC go on without it."""
    try:
        return open_namespace(path) if path else None
    except CNIError:
        return None


@contextmanager
def host_lock() -> Iterator[None]:
    """Hold the lock of the namespace that the process is in, so that no other pycni changes its bridges meanwhile.

    It is flock(2) on the namespace's own file: it goes with the holder, needs no directory, and two hosts that share a
    file system do not share it. Raises CNIError (code 11) after LOCK_BOUND seconds.
    """
    descriptor = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_BOUND
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise CNIError(TRY_AGAIN_LATER, f"another pycni has held the host's lock for {LOCK_BOUND:.0f} s")
            time.sleep(_LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _setns(descriptor: int) -> None:
    """setns(2); os.setns exists from Python 3.12 on. Raises CNIError (code 100)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CNIError(KERNEL_REFUSED, f"the network namespace cannot be entered: {reason} (run the plugin as root)")
