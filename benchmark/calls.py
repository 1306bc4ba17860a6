"""Calls of plugins as a runtime makes them, each timed from the start of its process to its end.

posix_spawn(3) starts them, and a pidfd tells their end: a subprocess.run would add a millisecond to each call.
"""

import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from suites.sandbox import COMMAND_BOUND

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SETTLE = 0.04  # seconds
_OUTPUT_BYTES = 1 << 16  # what a pipe holds: a plugin's answer is smaller


Job = Callable[[], Mapping[str, float]]  # what it measures, by name


class Side(NamedTuple):
    """One of the two that are compared: where its plugins are, and what they are called."""

    name: str
    bin_dir: str
    bridge: str
    ipam: str

    def network(self, name: str, subnet: str, **keys: Any) -> dict[str, Any]:
        """A configuration of the bridge plugin; both sides have a bridge and a subnet of their own."""
        return {
            "cniVersion": "1.0.0",
            "name": f"{name}-{self.name}",
            "type": self.bridge,
            "bridge": f"{name}-{self.name}"[:15],
            "ipam": {"type": self.ipam, "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]},
            **keys,
        }

    def store(self, name: str, subnet: str, data_dir: str) -> dict[str, Any]:
        """A configuration of the address plugin alone."""
        ipam = {"type": self.ipam, "subnet": subnet, "dataDir": data_dir}
        return {"cniVersion": "1.0.0", "name": name, "type": self.ipam, "ipam": ipam}


class Call(NamedTuple):
    """A call that is ready to be made."""

    executable: str
    env: dict[str, str]
    stdin: bytes
    arguments: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What came back: seconds, exit status, and the document on stdout (None for none)."""

    seconds: float
    status: int
    document: Any


class _Running(NamedTuple):
    call: Call
    pid: int
    ended: int  # a pidfd
    stdout: int
    began: float


def make_call(side: Side, command: str, config: Mapping[str, Any], container: str) -> Call:
    """The call of a command for the interface eth0 of a container. `container` may be empty (VERSION, STATUS)."""
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}" if container else "",
        "CNI_IFNAME": "eth0" if container else "",
        "CNI_PATH": side.bin_dir,
        "PATH": _PATH,
    }
    return Call(f"{side.bin_dir}/{config['type']}", env, json.dumps(config).encode())


def with_result(config: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """The configuration that DEL gets after that ADD."""
    return {**config, "prevResult": answer.document}


def run_call(call: Call, status: int = 0) -> Answer:
    """Make a call and wait for its end. Raises RuntimeError unless it ends with that exit status.

    The kernel gets a moment before to finish what the call before has left (interfaces, rules): closing any socket of
    nfnetlink waits for that, whoever left it.
    """
    time.sleep(_SETTLE)
    return _finish(_start(call), status)


def run_calls(calls: Iterable[Call], workers: int) -> tuple[float, list[Answer]]:
    """Make many calls, so many at a time. Returns the seconds for all, and the answers in the order of the calls."""
    began = time.perf_counter()
    running: dict[int, tuple[int, _Running]] = {}
    answers: dict[int, Answer] = {}
    ends = select.poll()
    for number, call in enumerate(calls):
        if len(running) == workers:
            _collect(ends, running, answers)
        started = _start(call)
        running[started.ended] = (number, started)
        ends.register(started.ended, select.POLLIN)
    while running:
        _collect(ends, running, answers)
    return time.perf_counter() - began, [answers[number] for number in sorted(answers)]


class Bench(NamedTuple):
    """What all measurements share."""

    rounds: int
    quick: bool
    ours: Side
    reference: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both."""
        return self.ours, self.reference

    def medians(self, jobs: Mapping[str, Job], rounds: int = 0, unseen: int = 1) -> dict[str, dict[str, float]]:
        """Do every job once per round, in random order, so that all meet the machine in the same mood.

        What comes back are the medians of so many rounds (0: of as many as is usual), by job and name. Before these
        there are `unseen` ones, to warm the caches.
        """
        figures: dict[str, dict[str, list[float]]] = {name: {} for name in jobs}
        first = 0 if self.quick else unseen
        for number in range(first + (rounds or self.rounds)):
            for name in random.sample(list(jobs), len(jobs)):
                measured = jobs[name]()
                for key, value in measured.items() if number >= first else ():
                    figures[name].setdefault(key, []).append(value)
        return {name: {key: median(values) for key, values in found.items()} for name, found in figures.items()}


def timed(call: Call) -> Job:
    """The job of a call; it measures its seconds, under that name."""
    return lambda: {"seconds": run_call(call).seconds}


def interpreter_of(executable: str) -> list[str]:
    """The interpreter that a script names, with its options."""
    with open(executable, encoding="utf-8") as file:
        return file.readline().removeprefix("#!").split()


def _start(call: Call) -> _Running:
    source = os.memfd_create("stdin")  # a pipe holds less than ten thousand port mappings
    stdout, sink = os.pipe()
    os.write(source, call.stdin)
    os.lseek(source, 0, os.SEEK_SET)
    actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, sink, 1)]
    began = time.perf_counter()
    pid = os.posix_spawn(  # Python ignores SIGPIPE, and what is ignored stays so in a new program
        call.executable, [call.executable, *call.arguments], call.env, file_actions=actions, setsigdef=[signal.SIGPIPE]
    )
    os.close(source)
    os.close(sink)
    return _Running(call, pid, os.pidfd_open(pid), stdout, began)


def _collect(ends: select.poll, running: dict[int, tuple[int, _Running]], answers: dict[int, Answer]) -> None:
    """Take the answers of the calls that have ended; wait for one."""
    for descriptor, _ in ends.poll(COMMAND_BOUND * 1000) or [(next(iter(running)), 0)]:
        ends.unregister(descriptor)
        number, ended = running.pop(descriptor)
        answers[number] = _finish(ended, 0)


def _finish(running: _Running, status: int) -> Answer:
    end = select.poll()
    end.register(running.ended, select.POLLIN)
    if not end.poll(COMMAND_BOUND * 1000):
        os.kill(running.pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
    seconds = time.perf_counter() - running.began
    output = os.read(running.stdout, _OUTPUT_BYTES)
    os.close(running.ended)
    os.close(running.stdout)
    if code != status:
        command = f"{running.call.executable} {running.call.env.get('CNI_COMMAND', '')}"
        raise RuntimeError(f"{command} ended with {code}: {output.decode(errors='replace')}")
    return Answer(seconds, code, json.loads(output) if output.strip() else None)
