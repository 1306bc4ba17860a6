"""A machine of the cluster: a node of the cluster tests with Kubernetes' programs, and daemons that can be ended."""

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cluster.fabric import Fabric, Port
from tests.cluster.node import Node
from tests.kit.host import RUN_BOUND
from tests.kit.kubernetes.command import SetupError, Value, await_value
from tests.kit.node import kill

PROGRAMS = "/opt/kubernetes"  # where they stand on a machine
SETTINGS = "/etc/kubernetes"
_LOGS = "/var/log/kubernetes"
_END_BOUND = 20.0  # seconds for a daemon that was asked to end
_TAIL = 1500  # characters of a log that an error shows
_FURNISH = """
mkdir -p opt/kubernetes var/log/kubernetes
mount --bind {programs} opt/kubernetes
"""


class Machine(Node):
    """A machine, switched off at first."""

    lifetime = "infinity"

    def __init__(self, fabric: Fabric, tree: Path, programs: Path, name: str, port: Port) -> None:
        super().__init__(fabric, tree, name, port)
        self.furnish = _FURNISH.format(programs=programs)
        self._daemons: dict[str, subprocess.Popen[str]] = {}

    def start_daemon(self, name: str, program: str, *arguments: str) -> None:
        """Start a program that stays; its log is in /var/log/kubernetes, and is kept over a reboot."""
        with self.path(f"{_LOGS}/{name}").open("a") as log:
            command = self.argv(program, *arguments)
            stream = subprocess.DEVNULL
            env = {"PATH": f"{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
            process = subprocess.Popen(command, stdin=stream, stdout=log, stderr=log, env=env, text=True)
            self._daemons[name] = process

    def end_daemon(self, name: str) -> None:
        """Ask a daemon to end, as systemd does, and wait until it has; what does not is killed."""
        process = self._daemons.pop(name)
        (pid,) = _children(process.pid)  # nsenter waits for the program, in the PID namespace of the machine
        subprocess.run(["kill", str(pid)], check=False, timeout=RUN_BOUND)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_BOUND)
        kill(pid)
        process.wait(RUN_BOUND)

    def daemons(self) -> list[str]:
        """Those that have been started on this boot, and not ended."""
        return list(self._daemons)

    def check_daemons(self) -> None:
        """Raises SetupError with the end of its log when one has ended by itself."""
        for name, process in self._daemons.items():
            if process.poll() is not None:
                raise SetupError(
                    f"{name} on {self.name} has ended ({process.returncode}): {last_words(self.log(name))}"
                )

    def log(self, name: str) -> str:
        """What a daemon has said so far."""
        return self.path(f"{_LOGS}/{name}").read_text(errors="replace")

    def halt(self) -> None:
        """Pull the plug."""
        super().halt()
        for process in self._daemons.values():
            process.wait(RUN_BOUND)
        self._daemons = {}


def last_words(log: str) -> str:
    """What a daemon said of why it ended: from its fatal line on, if there is one, which a long trace may follow."""
    fatal = re.search(r"^F\d{4} ", log, re.MULTILINE)
    return log[fatal.start() :][:_TAIL] if fatal else log[-_TAIL:]


def await_ready(what: str, get: Callable[[], Value], seconds: float, *machines: Machine) -> Value:
    """Like await_value. Raises SetupError also when a daemon of these machines has ended."""

    def watched() -> Value:
        for machine in machines:
            machine.check_daemons()
        return get()

    return await_value(what, watched, seconds)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
