"""Reading, creating and overwriting the files of an open directory. Creating is atomic.

No symbolic link is followed. Must not: know what is in a file.
"""

import errno

from cni_protocol.address import IP, parse_ip
from cni_protocol.errors import IO_FAILURE, CNIError
from cni_protocol.light.standard import Callable, Iterator, contextmanager, suppress
from cni_protocol.light.system import os

_LOCK = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: opening a FIFO would wait


class Lock:
    """The open file of the lock, not locked yet. `is_new`: this command created it, so reservations may be missing."""

    def __init__(self, directory: int) -> None:
        self.is_new = False
        try:
            self.descriptor = os.open("lock", _LOCK, dir_fd=directory)
        except FileNotFoundError:
            self.descriptor = os.open("lock", _LOCK | os.O_CREAT, 0o600, dir_fd=directory)
            self.is_new = True


def open_directory(path: str) -> int:
    """Open a directory. Its last path component must not be a symbolic link; those before may be. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def scan_addresses(directory: int) -> dict[IP, int]:
    """The files whose name is an address in canonical form, with their inode numbers."""
    found = {}
    for entry in os.scandir(directory):
        with suppress(ValueError):
            ip = parse_ip(entry.name)
            if str(ip) == entry.name:
                found[ip] = entry.inode()
    return found


def read_file(directory: int, name: str, size: int) -> bytes:
    """The first `size` bytes of a file. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def read_content(directory: int, ip: IP, size: int) -> bytes:
    """The first `size` bytes of a reservation's file; b"?", which names no container, when it cannot be read."""
    try:
        return read_file(directory, str(ip), size)
    except OSError:
        return b"?"  # a directory or a symbolic link: not empty, so that nobody removes it


def overwrite_file(directory: int, name: str, content: bytes, *, create: bool) -> None:
    """Overwrite a file in place. Raises OSError."""
    descriptor = os.open(name, _WRITE | (os.O_CREAT if create else 0), 0o600, dir_fd=directory)
    try:
        written = os.pwrite(descriptor, content, 0)
        if os.fstat(descriptor).st_size != written:  # not O_TRUNC: ext4 would write the file to disk on close
            os.ftruncate(descriptor, written)
    finally:
        os.close(descriptor)


def make_file(directory: int, name: str, content: Callable[[int], bytes]) -> None:
    """Create a file atomically. `content` gets its descriptor, returns its bytes. Raises FileExistsError, OSError."""
    try:
        descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        _make_from_named(directory, name, content)  # a file system without O_TMPFILE
        return
    try:
        _write_all(descriptor, content(descriptor))
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(descriptor)


def find_obstacle(place: str) -> int:
    """The errno with which creating a file in a directory would fail, 0 if it would succeed."""
    if not os.path.isdir(place):
        return errno.ENOTDIR
    system = os.statvfs(place)
    if system.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if not os.access(place, os.W_OK | os.X_OK):
        return errno.EACCES
    return 0 if system.f_bavail and (system.f_favail or not system.f_files) else errno.ENOSPC


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turn an OSError of the block into CNIError (code 5) that names the path and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space there",
            errno.EDQUOT: "raise the quota",
            errno.EROFS: "mount it writable, or set ipam.dataDir to a directory that is",
            errno.EACCES: "check its owner and mode",
            errno.ENOTDIR: "something else than a directory is in the way; set ipam.dataDir to another directory",
            errno.ELOOP: "a symbolic link is in the way, and none is followed here; remove it",
        }.get(error.errno or 0, "check that directory, or set ipam.dataDir to another one")
        raise CNIError(IO_FAILURE, f"the reservations at {path} cannot be used: {error.strerror}; {remedy}") from None


def _make_from_named(directory: int, name: str, content: Callable[[int], bytes]) -> None:
    temporary = f".{name}.new"  # a file that a crash left behind is overwritten
    descriptor = os.open(temporary, _WRITE | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=directory)
    try:
        _write_all(descriptor, content(descriptor))
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(descriptor)
        os.unlink(temporary, dir_fd=directory)


def _write_all(descriptor: int, content: bytes) -> None:
    """Write a small file in one call. Raises OSError (ENOSPC) after a short write."""
    if os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
