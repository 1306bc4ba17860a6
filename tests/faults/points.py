"""The system calls of a plugin command as strace(1) records them: the points where a fault can strike.

A point is the N-th call of a name in a process, as `-e inject=NAME:...:when=N` counts. A fault strikes on entry: the
call itself is not made any more (a signal that does not kill lets it pass).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.faults.subjects import DATA_DIR

BRIDGE, IPAM = "bridge", "ipam"  # the processes of a command
CHILD = "child"  # of DEL, which makes the request that takes long (child.py)

_SENDS = ("sendto", "sendmsg")
_WRITES = (
    *("link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "rename", "renameat", "renameat2"),
    *("write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "chmod", "fchmod", "utimensat"),
)
_PROCESSES = ("clone", "clone3", "fork", "vfork", "execve", "kill", "wait4", "exit_group")
_OTHERS = ("setns", "flock", "fcntl", "ioctl", "memfd_create")
TRACED = (*_SENDS, *_WRITES, *_PROCESSES, *_OTHERS, "openat", "getdents64")

_LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
_CHANGES = re.compile(r"O_(CREAT|WRONLY|RDWR|TMPFILE)")
_ASKS = re.compile(r"RTM_GET|NFT_MSG_GET|IPCTNL_MSG_CT_GET")
_RESTARTED = "? ERESTART"  # strace's word for a call that the kernel makes again by itself
_SHOWN = 100  # characters of a call's arguments


class Point(NamedTuple):
    """A system call of a process: the `number`-th of its name, and how it looked when nothing was wrong."""

    process: str
    call: str
    number: int
    arguments: str

    def __str__(self) -> str:
        return f"{self.process}: {self.call} {self.number} ({self.arguments[:_SHOWN]})"


def parse_log(process: str, lines: Iterable[str]) -> list[Point]:
    """All recorded calls in their order. Each thread counts for itself, as strace does.

    A call that the kernel makes again by itself is not counted: how often it does that is chance. (A sysctl does it as
    long as another process changes interfaces.)
    """
    counts: Counter[tuple[str, str]] = Counter()
    points = []
    for line in lines:
        match = _LINE.match(line)
        if match and _RESTARTED not in line:
            thread, call, arguments = match[1] or "", match[2], match[3]
            counts[thread, call] += 1
            points.append(Point(process, call, counts[thread, call], arguments))
    unique = {(point.call, point.number): point for point in reversed(points)}
    return sorted(unique.values(), key=points.index)


def mutating(points: Sequence[Point]) -> list[Point]:
    """The calls that change something, in the kernel, on disk or among processes; before them and at the very end."""
    return [point for point in points if _is_mutating(point)]


def on_store(points: Sequence[Point]) -> list[Point]:
    """The calls that work on the files of the address plugin."""
    calls = (*_WRITES, "openat", "getdents64")
    return [p for p in points if p.process == IPAM and p.call in calls and DATA_DIR in p.arguments]


def on_netlink(points: Sequence[Point]) -> list[Point]:
    """The requests to the kernel."""
    return [p for p in points if p.call in _SENDS]


def _is_mutating(point: Point) -> bool:
    if point.call == "openat":
        return bool(_CHANGES.search(point.arguments))
    if point.call == "fcntl":
        return "F_OFD_SETLK" in point.arguments
    if point.call == "execve":
        return point.number > 1  # the first one is how strace starts the plugin
    if point.call in _SENDS:
        return not _ASKS.search(point.arguments)
    return point.call not in ("ioctl", "getdents64")
