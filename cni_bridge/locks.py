"""The locks of a host, which ADD, DEL and GC take against each other.

Must not: wait without a bound.
"""

import errno
import fcntl
import os
import time

from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from cni_protocol.light.locks import take_lock
from cni_protocol.light.standard import Iterator, contextmanager, socket

LOCK_BOUND = 15.0  # seconds; the lock is held for a few netlink requests
_LOCK_POLL = 0.002  # seconds
_OWN = "/proc/self/ns/net"
_UTS = "/proc/self/ns/uts"
_IPC = "/proc/self/ns/ipc"


@contextmanager
def activity_lock(*, exclusive: bool) -> Iterator[None]:
    """Hold off GC during ADD and the other way round: any number of ADDs (shared), or one GC (exclusive).

    Without it GC would take away what an ADD has half built, and that ADD would succeed without its address reserved.
    It is flock(2) on the file of the UTS namespace, beside host_lock's. That of the IPC namespace is the door to it,
    which lets in one at a time: a GC stands in it while it waits, else ADDs that come one after another would hold it
    off for ever (flock(2) grants a shared lock although somebody waits for an exclusive one). Raises CNIError (code 11)
    after LOCK_BOUND seconds for each of the two.
    """
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    with _flock(_IPC, fcntl.LOCK_EX, "a GC of pycni is waiting or under way"):
        activity = _lock_file(_UTS, mode, "a GC or ADD of pycni is under way")
    try:
        yield
    finally:
        os.close(activity)


@contextmanager
def host_lock() -> Iterator[None]:
    """Hold the lock of the namespace that the process is in, so that no other pycni changes its bridges meanwhile.

    It is flock(2) on the namespace's own file: it goes with the holder, needs no directory, and two hosts that share a
    file system do not share it. Raises CNIError (code 11) after LOCK_BOUND seconds.
    """
    with _flock(_OWN, fcntl.LOCK_EX, "another pycni holds the host's lock"):
        yield


@contextmanager
def _flock(path: str, mode: int, obstacle: str) -> Iterator[None]:
    descriptor = _lock_file(path, mode, obstacle)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: str, mode: int, obstacle: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        take_lock(descriptor, mode, LOCK_BOUND, obstacle)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def attachment_lock(name: str) -> Iterator[None]:
    """Hold off ADD during DEL of the same attachment, and the other way round; `name` is its host's end.

    Runtimes must not call both at once (SPEC.md, "Lifecycle & Ordering"); one that does would have DEL release the
    address of an ADD that then succeeds. It is a bound name in the abstract namespace (unix(7)): it belongs to the
    network namespace, and goes with its holder. Raises CNIError (code 11) after LOCK_BOUND seconds.
    """
    deadline = time.monotonic() + LOCK_BOUND
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        while not _try_bind(holder, f"\0pycni/{name}"):
            if time.monotonic() > deadline:
                raise CNIError(TRY_AGAIN_LATER, f"another call for {name} is under way, for {LOCK_BOUND:.0f} s now")
            time.sleep(_LOCK_POLL)
        yield
    finally:
        holder.close()


def _try_bind(holder: socket.socket, address: str) -> bool:
    try:
        holder.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True
