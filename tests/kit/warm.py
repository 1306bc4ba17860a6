"""The warm service on a test's host."""

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.kit.host import Host, wait_until

_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cni_warm.__main__ import main; sys.exit(main())"
_BOUND = 30.0  # seconds until it listens, or has ended
_PLACE = re.compile(r'^sys\.path\.insert\(0, "(.*)"\)$', re.MULTILINE)
_COUNTS = re.compile(r"^pycni-warm: (\d+) calls run, (\d+) not taken$", re.MULTILINE)


class Counts(NamedTuple):
    """The calls that a service was asked to run."""

    run: int
    not_taken: int


def code_of(bin_dir: str) -> str:
    """The directory with the code of an installation."""
    found = _PLACE.search(Path(bin_dir, "cni-bridge").read_text())
    assert found, f"{bin_dir}/cni-bridge is none of install.sh's"
    return found[1]


def command_line(bin_dir: str, code: str = "") -> list[str]:
    """How the service is started, with the interpreter and the options of the executables."""
    interpreter = Path(bin_dir, "cni-bridge").read_text().splitlines()[0].removeprefix("#!").split()
    return [*interpreter, "-c", _PROGRAM, code or code_of(bin_dir)]


class Service:
    """A service that runs on a host, ready when it is made."""

    def __init__(self, host: Host, bin_dir: str, *, workers: int = 2, code: str = "") -> None:
        self._host = host
        self._workers = workers
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the service runs
        command = [*command_line(bin_dir, code), "--workers", str(workers)]
        self._process = host.start(*command, stdin=subprocess.DEVNULL, stderr=self._said)
        assert wait_until(lambda: self.settled, _BOUND), self.said

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """What it wrote on stderr."""
        os.lseek(self._said.fileno(), 0, os.SEEK_SET)
        return self._said.read()

    @property
    def workers(self) -> list[int]:
        """Its processes, those that wait and those that are at work."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def settle(self) -> None:
        """Wait until it runs no call any more, and all its workers wait for one."""
        assert wait_until(lambda: self.settled, _BOUND), f"a worker goes on for more than {_BOUND} s"

    def signal(self, number: int) -> None:
        """Send a signal to the service and all workers."""
        for pid in (self.pid, *self.workers):
            os.kill(pid, number)

    def stop(self) -> Counts:
        """End it, after the calls that it runs. Returns how many calls there were."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(_BOUND) == 0, self.said
        counts = _COUNTS.search(self.said)
        assert counts, self.said
        return Counts(int(counts[1]), int(counts[2]))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """End it in whatever state it is."""
        if self.running:
            self.signal(signal.SIGKILL)
            self._process.wait(_BOUND)

    @property
    def settled(self) -> bool:
        """Whether it runs no call, and all its workers wait for one."""
        workers = self.workers
        return self.running and len(workers) == self._workers and all(map(self._is_waiting, workers))

    def _is_waiting(self, pid: int) -> bool:
        """Whether a worker stands in accept(2), as the kernel calls its wait for a datagram."""
        try:
            return Path(f"/proc/{pid}/wchan").read_text() in ("__skb_wait_for_more_packets", "0")
        except OSError:
            return False


def socket_of(host: Host) -> str:
    """The path of the service's socket as the test sees it."""
    return f"/proc/{host.pid}/root/run/pycni/warm.socket"
