"""As which files a directory of records was begun: so a copy is known for a copy.

A copy that is put in the place of the directory during a boot (a restored backup) may lack what was reserved since it
was made, and then a living address would be given out twice. A file tells that it is a copy by its inode number and its
generation, which copying does not keep. The number alone would not do: ext4 gives it to the next file that is made.
Must not: know what a reservation is, or decide what a copy means.
"""

import fcntl
import time

from cni_protocol.light.standard import NamedTuple, suppress
from cni_protocol.light.system import os

from .files import make_file

NAME = "origin"
_FORMAT = "pycni-origin-1"
_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION, <linux/fs.h>
_SIZE = 256  # bytes, at most


class Origin(NamedTuple):
    """What was noted: which file is the lock. `is_copy`: it was noted in another file than this one.

    `changed`: when the file came to be what it is (ctime), in nanoseconds.
    """

    lock: str
    is_copy: bool
    changed: int

    def is_recent(self) -> bool:
        """Whether the file came to be since the kernel began, by the clock (which is asked about copies alone)."""
        return self.changed >= time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def identify(descriptor: int) -> str:
    """What an open file is known by until it is removed. Raises OSError."""
    generation = b""
    with suppress(OSError):  # a file system without it, such as tmpfs, does not use numbers again
        generation = fcntl.ioctl(descriptor, _GET_GENERATION, bytes(8))[:4]
    return f"{os.fstat(descriptor).st_ino}.{generation.hex()}"


def find_origin(directory: str) -> Origin | None:
    """What a directory has; None without it, or when a power failure left no sense in it. Raises OSError.

    An older version had none.
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
    """Note that an open directory is begun, beside a lock. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(NAME, dir_fd=directory)
    make_file(directory, NAME, lambda descriptor: f"{_FORMAT} {identify(descriptor)} {lock}\n".encode())
