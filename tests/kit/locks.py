"""The plugins' locks, held by another process, and looked at as the kernel lists them (proc(5), /proc/locks)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.kit.host import Host

HOST, SHARED, EXCLUSIVE = "host_lock()", "activity_lock(exclusive=False)", "activity_lock(exclusive=True)"
_DIRECTORY = "/run/pycni"
_HOLDER = """
import sys
from cni_bridge import locks
with locks.{lock}:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(host: Host, lock: str = HOST) -> Iterator["subprocess.Popen[str]"]:
    """Have a process on a host hold a lock until its stdin is closed, or the block is left; `lock` is Python."""
    command = host.argv(sys.executable, "-c", _HOLDER.format(lock=lock))
    with subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def list_locks(file: str) -> list[list[str]]:
    """The words of /proc/locks for a file: those that are held, and those ("->") that are waited for."""
    status = os.stat(file)
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return [words for line in Path("/proc/locks").read_text().splitlines() if name in (words := line.split())]


def count_waiting(host: Host) -> int:
    """How many calls on a host wait for a lock."""
    file = f"/proc/{host.pid}/root{_DIRECTORY}/locks"
    return sum("->" in words for words in list_locks(file)) if os.path.exists(file) else 0
