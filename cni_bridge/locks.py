"""The locks by which ADD, DEL and GC of one host exclude each other.

Each lock is one byte of the file `/run/pycni/locks`, locked by open file description (fcntl(2), F_OFD_SETLKW). Only
root can open the file, and a lock ends with its holder, so there is nothing to clean up. The offset of the byte is a
digest of the lock's name and of the network namespace, so hosts that share the file do not share their locks.
Must not: wait without a bound, or lock a file that others than root can open.
"""

import fcntl

from cni_protocol.errors import IO_FAILURE, CNIError
from cni_protocol.light.locks import wait_for_lock
from cni_protocol.light.standard import Iterator, contextmanager, sha256, struct, suppress
from cni_protocol.light.system import os

LOCK_BOUND = 15.0  # seconds to wait for a lock; a holder needs it for some milliseconds
DIRECTORY = "/run/pycni"
_FILE = "locks"
_OWN = "/proc/self/ns/net"
_REQUEST = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_WRITABLE, _ACCESSIBLE = 0o022, 0o077  # mode bits: others than the owner can write; can do anything
_DIGEST_BYTES, _UNUSED_BITS = 8, 2  # an offset and the end of its range must fit into signed 64 bits


@contextmanager
def activity_lock(*, exclusive: bool) -> Iterator[None]:
    """Keep ADD and GC apart: any number of ADDs hold the lock (shared), or one GC does (exclusive).

    Without it GC could release the address of an ADD that is under way and then succeeds.

    A second lock, the door, is held while waiting for the first one. So a GC that waits keeps further ADDs outside:
    the kernel would grant them a shared lock although a GC waits, and ADDs one after another could delay it for ever.
    Raises CNIError: 11 after LOCK_BOUND seconds for either lock, 5 when the file of the locks cannot be used.
    """
    with _held("door", "a GC of pycni is waiting or under way"):
        activity = _take("activity", "a GC or ADD of pycni is under way", shared=not exclusive)
    try:
        yield
    finally:
        os.close(activity)


@contextmanager
def host_lock() -> Iterator[None]:
    """Keep other calls in this network namespace from changing its bridges while the block runs.

    Raises CNIError: 11 after LOCK_BOUND seconds, 5 when the file of the locks cannot be used.
    """
    with _held("host", "another pycni holds the host's lock"):
        yield


@contextmanager
def attachment_lock(name: str) -> Iterator[None]:
    """Keep ADD and DEL of one attachment apart. `name` is that of the attachment's host end.

    Runtimes must not call both at once (SPEC.md, "Lifecycle & Ordering"). If one did, DEL could release the address of
    an ADD that then succeeds. Raises CNIError as host_lock does.
    """
    with _held(f"attachment {name}", f"another call for {name} is under way"):
        yield


@contextmanager
def _held(name: str, obstacle: str) -> Iterator[None]:
    descriptor = _take(name, obstacle)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(name: str, obstacle: str, *, shared: bool = False) -> int:
    """Take a lock of this network namespace. Returns a descriptor; closing it releases the lock."""
    path = f"{DIRECTORY}/{_FILE}"
    try:
        request = _REQUEST.pack(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, os.SEEK_SET, _place_of(name), 1, 0)
        descriptor = _open_file(path)
        try:
            wait_for_lock(
                lambda wait: fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request),
                seconds=LOCK_BOUND,
                obstacle=f"{obstacle} (`fuser -v {path}` names who has locks)",
            )
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    except OSError as error:
        raise CNIError(
            IO_FAILURE,
            f"{path}, where the locks are, cannot be used: {error.strerror}; run the plugin as root, "
            "with a directory /run that can be written to, such as a tmpfs",
        ) from None


def _place_of(name: str) -> int:
    """The offset of a lock's byte, for the network namespace that the process is in."""
    namespace = os.stat(_OWN).st_ino
    digest = sha256(f"{namespace} {name}".encode()).digest()
    return int.from_bytes(digest[:_DIGEST_BYTES], "big") >> _UNUSED_BITS


def _open_file(path: str) -> int:
    """Open or create the file of the locks. Raises OSError, and CNIError (code 5) when others than root may open it."""
    directory = _open_directory()
    try:
        _require_ours(directory, DIRECTORY, _WRITABLE)
        descriptor = os.open(_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        _require_ours(descriptor, path, _ACCESSIBLE)
    except CNIError:
        os.close(descriptor)
        raise
    return descriptor


def _open_directory() -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(DIRECTORY, flags)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another call was quicker
            os.mkdir(DIRECTORY, 0o755)
        return os.open(DIRECTORY, flags)


def _require_ours(descriptor: int, path: str, forbidden: int) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & forbidden:
        raise CNIError(
            IO_FAILURE,
            f"{path} is of user {status.st_uid} with mode {status.st_mode & 0o7777:o}, so others could hold the locks; "
            f"remove it, and it is made anew for user {os.geteuid()} alone",
        )
