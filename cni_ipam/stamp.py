"""The stamp of directories: a text that changes whenever anybody creates, removes or renames a file in one of them.

It consists of inode numbers, mtimes and ctimes. The kernel takes these times from a clock that advances every few
milliseconds, so two changes within one tick have the same time, and equal times alone would prove nothing. So mtime is
set back by a second before the stamp is taken. A later change makes mtime equal to ctime, whatever the clock says, and
no stamp has them equal. A program that sets mtime (utimes) changes ctime, which it cannot set (inode(7)).
"""

import time

from cni_protocol.light.system import os

_SET_BACK = 10**9  # nanoseconds; far more than the kernel's clock of files lags behind


def set_back(*directories: int) -> None:
    """Set the mtime of open directories back, so that read_stamp gives a stamp. Raises OSError."""
    then = time.time_ns() - _SET_BACK
    for descriptor in directories:
        os.utime(descriptor, ns=(then, then))


def read_stamp(*directories: int) -> str:
    """The stamp of open directories, "" when one has been changed since set_back. Raises OSError."""
    words: list[int] = []
    for descriptor in directories:
        status = os.fstat(descriptor)
        if status.st_mtime_ns >= status.st_ctime_ns:
            return ""
        words += [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    return " ".join(map(str, words))
