"""User-mode Linux (Debian's package user-mode-linux): a kernel with bridge VLAN filtering, run as a process.

Its file system is the machine's own, read-only, below a layer in memory that takes what is written: inside, everything
that is installed on the machine is there, and nothing that happens there reaches the machine. It has no network but
what is made inside.
Source: Documentation/virt/uml/user_mode_linux_howto_v2 and Documentation/filesystems/overlayfs of the kernel.
"""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SHARED = "UML_SHARED"  # the variable that names, inside, the one directory of the machine that can be written to
_KERNEL = "/usr/bin/linux.uml"
_MODULES = "/usr/lib/uml/modules"
_MEMORY = "384M"  # an unlinked file in /dev/shm, as large as what has been used of it
_SHARED = "/run/shared"

# Ends with the machine: halting is all that `init` does after the command.
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
busybox insmod {modules}/$(uname -r)/kernel/fs/overlayfs/overlay.ko
mount -t tmpfs layers /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay /run/root
cd /run/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mount -t tmpfs run run
mkdir -p lib/modules {shared_below} run/machine
mount --bind {modules} lib/modules
mount -t hostfs -o {directory} shared {shared_below}
pivot_root . run/machine
printf '#!/bin/sh\\nexec busybox modprobe "$@"\\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
busybox modprobe ipv6 # which nothing asks for before it is used, and every host has
cd {here}
env -i {command} >{shared}/output 2>&1
echo $? >{shared}/status
busybox poweroff -f
"""


class Outcome(NamedTuple):
    """What a command in user-mode Linux came to."""

    status: int | None  # its exit status, None when it did not end in time, or the kernel did not come up
    output: str  # its stdout and stderr
    console: str  # what the kernel said
    files: dict[str, str]  # what it left in the directory $UML_SHARED


def run_in_uml(command: Sequence[str], here: Path, env: Mapping[str, str], seconds: float) -> Outcome:
    """Boot user-mode Linux, run a command in it as root in the directory `here`, and have its kernel halt.

    `env` is all of the command's environment, beside PATH and UML_SHARED. After `seconds`, and when this process ends
    earlier, nothing is left running: all of the kernel's processes are in a pid namespace that goes with the first.
    """
    assert Path(_KERNEL).exists(), f"{_KERNEL} is missing; install the package user-mode-linux"
    with tempfile.TemporaryDirectory(prefix="uml.") as directory:
        shared = Path(directory, "shared")
        shared.mkdir()
        init = Path(directory, "init")
        init.write_text(_init_text(command, here, env, shared))
        init.chmod(0o755)
        console = _boot(init, directory, seconds)
        left = {path.name: path.read_text(errors="replace") for path in shared.iterdir()}
        status = left.pop("status", "").strip()
        return Outcome(int(status) if status else None, left.pop("output", ""), console, left)


def _init_text(command: Sequence[str], here: Path, env: Mapping[str, str], shared: Path) -> str:
    variables = {**env, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", SHARED: _SHARED}
    assignments = [f"{key}={value}" for key, value in variables.items()]
    return _INIT.format(
        modules=_MODULES,
        shared=_SHARED,
        shared_below=_SHARED.lstrip("/"),
        directory=shlex.quote(str(shared)),
        here=shlex.quote(str(here)),
        command=shlex.join([*assignments, *command]),
    )


def _boot(init: Path, directory: str, seconds: float) -> str:
    """Run the kernel until it halts, or until the time is over. Returns what it said."""
    kernel = [
        *(_KERNEL, f"mem={_MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", f"uml_dir={directory}"),
        *("con=null", "con0=null,fd:1", "quiet"),
    ]
    # on one CPU: its processes hand over to each other at every system call, which is half as fast across two
    pinned = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), *kernel]
    # setpriv: as we end, it ends; unshare: as that ends, its child ends, and with that first process all of them
    namespace = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # the shell is the first process of the namespace and outlives the kernel, whose signals are meant for no such one
    shell = ["/bin/sh", "-c", f"{shlex.join(pinned)}; :"]
    command = [*namespace, *shell]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    ) as process:
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0]  # to its end: then the last of the processes has closed it
            return f"{said}\nnot ended after {seconds:.0f} s\n"
        finally:
            process.kill()
