"""A node: a tree without Python, with mount, network, PID, UTS and IPC namespaces of its own, on a link of the fabric.

Its disk is the upper half of an overlay over the tree. A reboot throws all of its namespaces away and keeps the disk.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.fabric import Fabric, Machine, Port, bare, run_in
from tests.kit.host import RUN_BOUND, wait_until
from tests.kit.node import CGROUPS, kill
from tests.kit.standins import PROGRAMS

# The first process of the node. Its number outside is read while /proc is still that of the machine. It lets its
# orphans go as an init has to, and takes the node along when its time is over, should nobody else.
_INIT = """
set -e
read outer rest </proc/self/stat
name=$1 tree=$2 disk=$3 reboots=$4 boot_id=proc/sys/kernel/random/boot_id
mkdir -p $disk/upper $disk/work $disk/root $disk/containerd
mount -t overlay -o lowerdir=$tree,upperdir=$disk/upper,workdir=$disk/work node $disk/root
cd $disk/root
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
if [ "$reboots" ]; then cat proc/sys/kernel/random/uuid >$disk/boot-id && mount --bind $disk/boot-id $boot_id; fi
for own in run tmp dev/shm; do mount -t tmpfs $own $own; done
mkdir -p run/lock var/lib/containerd
mount --bind $disk/containerd var/lib/containerd # containerd makes overlays in there, and none can stand on another
{furnish}
hostname $name
echo $name >etc/hostname
pivot_root . mnt
cd /
umount -l /mnt
echo $outer
exec /bin/sh -c 'sleep {lifetime} & wait $!'
"""
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Node:
    """A node, switched off at first. Close it before the fabric."""

    furnish = ""  # what else its first process does at every boot, in the node's tree, with the disk at $disk
    lifetime = "3600"  # seconds, as sleep(1) has them

    def __init__(self, fabric: Fabric, tree: Path, name: str, port: Port, *, reboots: bool = True) -> None:
        """`reboots`: each boot has an id of its own, as that of a kernel; a node that is a container keeps it."""
        self.name = name
        self._reboots = "yes" if reboots else ""
        self.port = port
        self.cgroup = f"/pycni-{uuid.uuid4().hex[:12]}"
        self._fabric = fabric
        self._tree = tree
        self._processes: list[subprocess.Popen[str]] = []  # of this boot, the one that holds the namespaces first
        self._disk = f"/run/disks/{name}"

    @property
    def netns(self) -> str:
        """The node's network namespace."""
        return f"/proc/{self.pid}/ns/net"

    @property
    def machine(self) -> Machine:
        """The node as its neighbours on the link see it."""
        return Machine(self.name, self.netns, bare(self.port.addresses))

    def path(self, name: str) -> Path:
        """A file of the node, as this process reaches it."""
        return Path(f"/proc/{self.pid}/root", name.lstrip("/"))

    def boot(self) -> None:
        """New namespaces over the old disk."""
        # Even when this process is killed the node goes, at once.
        unshare = (
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
        )
        text = _INIT.format(furnish=self.furnish, lifetime=self.lifetime)
        init = ("/bin/sh", "-c", text, "init", self.name, str(self._tree), self._disk, self._reboots)
        command = (*unshare, "--propagation", "private", *init)
        pipe = subprocess.PIPE
        holder = self._fabric.host.start(*command, env=_ENVIRONMENT, stdout=pipe, stderr=pipe)
        assert holder.stdout is not None
        said = holder.stdout.readline().strip()
        assert said, f"{self.name} does not boot: {holder.communicate(timeout=RUN_BOUND)[1]}"
        self._processes = [holder]
        self.pid = int(said)  # of its first process, in this process's namespace
        run_in(self.netns, "ip", "link", "set", "lo", "up")
        self._fabric.plug(self.name, self.netns, self.port)
        for settings in sorted(self.path("/etc/sysctl.d").glob("*.conf")):  # as systemd has it at every boot
            run_in(self.netns, "sysctl", "-qp", str(settings))
        shutil.copy(PROGRAMS / "systemctl", self.path("/usr/local/bin"))
        self.run("systemctl", "start-enabled")

    def halt(self) -> None:
        """Pull the plug: every process of the node ends, its namespaces go, its disk stays."""
        self._fabric.unplug(self.name)
        kill(self.pid)  # the kernel ends whoever else is in the PID namespace
        for process in self._processes:
            process.communicate(timeout=RUN_BOUND)
        self._processes = []
        assert wait_until(self._remove_cgroups, 10), f"processes of {self.name} are left"

    def scrap(self) -> None:
        """Halt it and throw its disk away: a node of that name is a new one."""
        self.halt()
        self._fabric.host.run("rm", "-rf", self._disk)

    def run(self, *command: str, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a program of the node on it. `env` adds to the environment."""
        options = {"capture_output": True, "text": True, "timeout": RUN_BOUND, **options}
        env: Mapping[str, str] = {**_ENVIRONMENT, **options.pop("env", {})}
        done = subprocess.run(self.argv(*command), env=env, check=False, **options)
        if check and done.returncode != 0:
            said = f"{done.stdout!s}{done.stderr!s}"
            raise AssertionError(f"{self.name}: {' '.join(command)} failed ({done.returncode}): {said}")
        return done

    def start(self, *command: str, **options: Any) -> None:
        """Start a program of the node on it and leave it running; it ends with the node."""
        self._processes.append(subprocess.Popen(self.argv(*command), env=_ENVIRONMENT, text=True, **options))

    def argv(self, *command: str) -> list[str]:
        """The command line that runs a program of the node on it."""
        return ["/usr/bin/nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "-r", "-w", "--", *command]

    def reservations(self, network: str = "pycni") -> list[str]:
        """The reserved addresses of a network, as the names of their files."""
        with suppress(FileNotFoundError):
            names = os.listdir(self.path(f"/var/lib/cni/networks/{network}"))
            return sorted(name for name in names if name[0] in "0123456789abcdef")  # not lock, nor the last one's
        return []

    def close(self) -> None:
        """Halt it, if it runs."""
        if self._processes:
            self.halt()

    def _remove_cgroups(self) -> bool:
        """Take away what the runtime made there; fails while a process is in one."""
        name = self.cgroup.lstrip("/")
        tops = [path for path in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if path.is_dir()]
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)
        return not any(top.exists() for top in tops)
