"""Becoming the client as far as its call can tell, or finding that we cannot.

Source: proc(5), namespaces(7), credentials(7). Only the super-user's service does this, for the super-user's calls.
What is not compared: accounting (cgroup, priority, CPU affinity), which changes no answer.
"""

import os
import resource
import signal
from typing import NamedTuple

# Where a process is, who it is and what it may do: to be equal. One filter of system calls cannot be compared with
# another, so there is to be none. The root directory is a path as we see it: "/" when it is ours.
_NAMESPACES = ("net", "mnt", "uts", "ipc", "user", "pid")
_EQUAL = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk")
_SIGNALS = tuple(int(number) for number in signal.valid_signals())
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


class Refused(Exception):  # noqa: N818  # it is no error
    """A call that is none for us, and why: the client runs it itself."""


class Standing(NamedTuple):
    """What has to be equal of two processes, and what one can take on."""

    equal: dict[str, object]
    status: dict[str, str]


def standing_of(process: int) -> Standing:
    """How a process stands. Raises OSError."""
    place = f"/proc/{process}"
    with open(f"{place}/status", encoding="utf-8", errors="surrogateescape") as file:
        status = {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    equal: dict[str, object] = {f"{name} namespace": os.stat(f"{place}/ns/{name}").st_ino for name in _NAMESPACES}
    equal |= {name: status[name] for name in _EQUAL}
    equal |= {"root directory": os.readlink(f"{place}/root"), "security label": _label_of(process)}
    return Standing(equal, status)


def find_difference(ours: Standing, theirs: Standing) -> str:
    """Why two processes are not alike enough, in words; empty when they are."""
    if theirs.equal["Seccomp"] != "0":
        return "its system calls are filtered (Seccomp)"
    return ", ".join(f"its {name} is another" for name in ours.equal if ours.equal[name] != theirs.equal[name])


def resemble(process: int, ours: Standing) -> None:
    """Become like a process, also in what a delegate inherits. Raises Refused, OSError, ValueError."""
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
    """What SELinux, AppArmor or their like call the process."""
    try:
        with open(f"/proc/{process}/attr/current", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # the kernel has none of them
        return ""
