"""The stamp of directories: what changes whenever anybody makes, removes or renames a file in one of them.

It is made of inode numbers and of the times of the last change. The clock that the kernel takes these from stands still
for some milliseconds at a time, so equal times alone would prove nothing: a file could come into being right after the
stamp was taken. So the mtime is set back by a second first. Whoever changes a directory then makes its mtime and ctime
the same, which no stamp has, whatever the clock says; and who sets mtime himself cannot set ctime (inode(7)).
"""

import time

from cni_protocol.light.system import os

_SET_BACK = 10**9  # nanoseconds; far more than the kernel's clock of files lags behind


def set_back(*directories: int) -> None:
    """Make a stamp possible for open directories. Raises OSError."""
    then = time.time_ns() - _SET_BACK
    for descriptor in directories:
        os.utime(descriptor, ns=(then, then))


def read_stamp(*directories: int) -> str:
    """The stamp of open directories; empty when one has been changed since it was set back. Raises OSError."""
    words: list[int] = []
    for descriptor in directories:
        status = os.fstat(descriptor)
        if status.st_mtime_ns >= status.st_ctime_ns:
            return ""
        words += [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    return " ".join(map(str, words))
