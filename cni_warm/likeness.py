"""Making a worker like its client process, so that the call runs as in the client, or refusing the call.

Namespaces, ids, capabilities and the like must be equal already. Working directory, umask, groups, limits and ignored
signals are taken over. Cgroup, priority and CPU affinity are neither: they change no answer. Only root's service does
this, and only for root's calls.
Source: proc(5), namespaces(7), credentials(7).
"""

import os
import resource
import signal
from typing import NamedTuple

# Properties of a process that must be equal, as /proc names them. Seccomp must be 0 on both sides, since filters of
# system calls cannot be compared. The root directory is compared as a path: "/" when it is the worker's.
_NAMESPACES = ("net", "mnt", "uts", "ipc", "user", "pid")
_EQUAL = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk")
_SIGNALS = tuple(int(number) for number in signal.valid_signals())
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


class Refused(Exception):  # noqa: N818  # it is no error
    """The worker does not take a call; the text says why. The client then runs it itself."""


class Standing(NamedTuple):
    """The properties of a process: those that must be equal, and its /proc/PID/status with those to take over."""

    equal: dict[str, object]
    status: dict[str, str]


def standing_of(process: int) -> Standing:
    """Read the properties of a process. Raises OSError."""
    place = f"/proc/{process}"
    with open(f"{place}/status", encoding="utf-8", errors="surrogateescape") as file:
        status = {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    equal: dict[str, object] = {f"{name} namespace": os.stat(f"{place}/ns/{name}").st_ino for name in _NAMESPACES}
    equal |= {name: status[name] for name in _EQUAL}
    equal |= {"root directory": os.readlink(f"{place}/root"), "security label": _label_of(process)}
    return Standing(equal, status)


def find_difference(ours: Standing, theirs: Standing) -> str:
    """The properties that differ but must be equal, in words; empty when none does."""
    if theirs.equal["Seccomp"] != "0":
        return "its system calls are filtered (Seccomp)"
    return ", ".join(f"its {name} is another" for name in ours.equal if ours.equal[name] != theirs.equal[name])


def resemble(process: int, ours: Standing) -> None:
    """Take over the properties of a process, also those that only a delegate inherits.

    `ours` are this process's own. Raises Refused when others differ, OSError, ValueError.
    """
    theirs = standing_of(process)
    difference = find_difference(ours, theirs)
    if difference:
        raise Refused(difference)
    ignored = int(theirs.status["SigIgn"], 16)
    for number in _SIGNALS if ignored else ():
        if ignored >> (number - 1) & 1:
            signal.signal(number, signal.SIG_IGN)
    os.chdir(f"/proc/{process}/cwd")
    os.umask(int(theirs.status["Umask"], 8))
    os.setgroups([int(group) for group in theirs.status["Groups"].split()])
    for limit in _LIMITS:
        if (its := resource.prlimit(process, limit)) != resource.getrlimit(limit):
            resource.setrlimit(limit, its)


def _label_of(process: int) -> str:
    """The security label of a process (SELinux, AppArmor), empty without one."""
    try:
        with open(f"/proc/{process}/attr/current", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # the kernel has none of them
        return ""
