"""The file `origin` in a directory of records, by which a copy of the directory is recognized.

A backup that is restored during a boot lacks the reservations made since the backup, so an address in use could be
given out twice. The file `origin` holds its own inode number and generation; a copy of the file has other ones. The
inode number alone is not enough: ext4 gives the number of a removed file to the next new one.
Must not: know what a reservation is, or decide what follows from a copy.
"""

import fcntl
import time

from cni_protocol.light.standard import NamedTuple, suppress
from cni_protocol.light.system import os

from .files import make_file

NAME = "origin"
_FORMAT = "pycni-origin-1"
_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION, <linux/fs.h>
_SIZE = 256  # bytes; more than the file has


class Origin(NamedTuple):
    """The content of a file `origin`.

    `lock` identifies the lock's file of that moment. `is_copy`: the file is not the one that was written first.
    `changed` is the file's ctime, in nanoseconds since 1970.
    """

    lock: str
    is_copy: bool
    changed: int

    def is_recent(self) -> bool:
        """Whether the file has been changed since the kernel booted, by the system clock. Used for copies only."""
        return self.changed >= time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def identify(descriptor: int) -> str:
    """An open file's inode number and generation as a text, unique on its file system. Raises OSError."""
    generation = b""
    with suppress(OSError):  # a file system without generations, such as tmpfs, does not reuse inode numbers
        generation = fcntl.ioctl(descriptor, _GET_GENERATION, bytes(8))[:4]
    return f"{os.fstat(descriptor).st_ino}.{generation.hex()}"


def find_origin(directory: str) -> Origin | None:
    """The origin of a directory. None without one (older versions), or when a power failure damaged it.

    Raises OSError.
    """
    with suppress(FileNotFoundError, ValueError):
        path = os.path.join(directory, NAME)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            form, itself, lock = os.read(descriptor, _SIZE).decode().split()
            if form == _FORMAT:
                status = os.fstat(descriptor)
                return Origin(lock, itself != identify(descriptor), status.st_ctime_ns)
        finally:
            os.close(descriptor)
    return None


def note_origin(directory: int, lock: str) -> None:
    """Write the file `origin` of a new open directory. `lock` identifies the lock's file. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(NAME, dir_fd=directory)
    make_file(directory, NAME, lambda descriptor: f"{_FORMAT} {identify(descriptor)} {lock}\n".encode())
