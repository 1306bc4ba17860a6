"""One fault at one point of a command, what is done about it afterwards, and the verdict.

Kinds of faults: the process is killed (KILL); it is asked to end (TERM, INT); the disk fails (ENOSPC, EIO) or the
kernel refuses (ENOMEM, EPERM). After a kill one remedy alone has to put everything right. After the others ADD has
either succeeded or left nothing at all, and said why.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.child import KILLED
from tests.faults.points import BRIDGE, CHILD, IPAM, TRACED, Point, parse_log
from tests.faults.state import CONTAINER, LATECOMER, NEIGHBOUR, State, leftovers, look
from tests.faults.subjects import DATA_DIR, RECORDS, Network, Subject
from tests.kit.host import Host, Outcome, open_host, wait_until

SIGNALS = ("KILL", "TERM", "INT")
DISK_ERRORS, KERNEL_ERRORS = ("ENOSPC", "EIO"), ("ENOMEM", "EPERM")
# After a kill. A namespace that is gone is what a runtime means by a DEL without CNI_NETNS.
DEL, DEL_GONE, GC, ADD_AGAIN = "DEL", "DEL, namespace gone", "GC alone", "ADD in a new namespace"
NOTHING = ""

LEAK, DUPLICATE, STUCK, ANSWER = "leak", "duplicate", "stuck", "answer"  # kinds of what can go wrong

_STRACE = "/usr/bin/strace"
_CHILD = Path(__file__).with_name("child.py")
# Only the first call: what a plugin that failed calls to undo is to go undisturbed.
_STAND_IN = "#!/bin/sh\nmkdir '{used}' 2>/dev/null || exec '{plugin}'\nexec {words}\n"
_IO_FAILURE = 5  # SPEC.md, section "Error"
_END_BOUND = 20.0  # seconds until the last process of a command has ended
_GONE_BOUND = 10.0  # seconds in which the kernel takes a namespace's interfaces down


class Trial(NamedTuple):
    """A fault (a signal's name without SIG, or an errno's) at a point of a command, and the remedy for it."""

    network: Network
    command: str
    fault: str
    point: Point
    remedy: str = NOTHING

    def __str__(self) -> str:
        remedy = f", then {self.remedy}" if self.remedy else ""
        return f"{self.network.name} {self.command}, {self.fault} at {self.point}{remedy}"


class Verdict(NamedTuple):
    """Whether the fault struck, and what went wrong: kind and description."""

    struck: bool
    problems: tuple[tuple[str, str], ...]


class Bench:
    """A host with the plugins of a subject, one process of which may be under strace."""

    def __init__(self, host: Host, subject: Subject, network: Network, scratch: Path) -> None:
        self.host = host
        self._subject = subject
        self._network = network
        self._scratch = scratch

    def call(self, command: str, container: str, *, netns: bool = True, **keys: Any) -> Outcome:
        """A command as it is."""
        config = {**self._network.config(self._subject, container), **keys}
        place = f"/run/netns/{container}" if netns else ""
        bin_dir = self._subject.bin_dir
        executable = f"{bin_dir}/{self._subject.bridge}"
        return self.host.cni(
            command, config, executable=executable, container_id=container, netns=place, path=(bin_dir,)
        )

    def call_traced(self, command: str, process: str, injection: str = "") -> tuple[Outcome, list[str]]:
        """A command for the container with a process of it under strace. Returns what it came to, and strace's log.

        To be called once. The address plugin is put under strace by a stand-in for it in CNI_PATH. There strace is the
        grandchild (-D), so that the plugin stays the child of the one that called it and dies with it.
        """
        bin_dir, log = self._subject.bin_dir, self._scratch / "log"
        trace = injection.partition(":")[0] if injection else ",".join(TRACED)
        arguments = [_STRACE, "-y", "-s", "64", "-o", str(log), "-e", f"trace={trace}"]
        if injection:
            arguments += ["-e", f"inject={injection}"]
        directories = [bin_dir]
        prefix: list[str] = []
        if process == BRIDGE:
            prefix = arguments
        else:
            threads = ["-f"] if self._subject.threads else []
            stand_in = self._scratch / self._subject.ipam
            plugin = f"{bin_dir}/{self._subject.ipam}"
            words = " ".join(f"'{word}'" for word in [*arguments, *threads, "-D", plugin])
            stand_in.write_text(_STAND_IN.format(used=log.with_suffix(".used"), plugin=plugin, words=words))
            stand_in.chmod(0o755)
            directories = [str(self._scratch), bin_dir]
        outcome = self._call_under(prefix, command, directories)
        return outcome, log.read_text("utf-8", "replace").splitlines() if log.exists() else []

    def delete_with_child(self, number: int) -> tuple[Outcome, list[str]]:
        """DEL for the container; its child is killed at its call of that number, 0 for none. Returns child.py's log."""
        log = self._scratch / "log"
        prefix = [sys.executable, str(_CHILD), str(log), str(number)]
        outcome = self._call_under(prefix, "DEL", [self._subject.bin_dir])
        return outcome, log.read_text("utf-8").splitlines()

    def _call_under(self, prefix: list[str], command: str, directories: list[str]) -> Outcome:
        """A command for the container by way of another program; all of its processes have ended afterwards."""
        executable = f"{self._subject.bin_dir}/{self._subject.bridge}"
        with _launcher(self.host, prefix):
            config = self._network.config(self._subject, CONTAINER)
            outcome = self.host.cni(
                command,
                config,
                executable=executable,
                container_id=CONTAINER,
                netns=f"/run/netns/{CONTAINER}",
                path=directories,
            )
        if not wait_until(lambda: not _others_in(self.host), _END_BOUND):
            raise TimeoutError(f"a process of {command} goes on for more than {_END_BOUND:.0f} s")
        return outcome

    def remove_container(self) -> None:
        """The container's namespace goes, with its interfaces."""
        left = len(self.host.link_names()) - len(self.host.link_names(CONTAINER))
        self.host.remove_container(CONTAINER)
        if not wait_until(lambda: len(self.host.link_names()) <= left, _END_BOUND):
            raise TimeoutError(f"the pairs of a container stay for more than {_END_BOUND:.0f} s without it")

    @property
    def valid_attachments(self) -> dict[str, Any]:
        """What GC is told: the neighbour is to stay."""
        names = [NEIGHBOUR] if self._network.has_neighbour else []
        return {"cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in names]}


@contextmanager
def open_bench(subject: Subject, network: Network) -> Iterator[Bench]:
    """A fresh host with the container's namespace, and the neighbour where the network has one."""
    host = open_host()
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
            bench = Bench(host, subject, network, Path(scratch))
            host.add_container(CONTAINER)
            if network.has_neighbour:
                host.add_container(NEIGHBOUR)
                _require(bench.call("ADD", NEIGHBOUR))
            yield bench
    finally:
        host.close()


def record(subject: Subject, network: Network, command: str) -> list[Point]:
    """The system calls of both processes of a command that nothing disturbs, in their order."""
    points = []
    for process in (BRIDGE, IPAM):
        with open_bench(subject, network) as bench:
            if command == "DEL":
                _require(bench.call("ADD", CONTAINER))
            outcome, log = bench.call_traced(command, process)
            _require(outcome)
            points += parse_log(process, log)
    return points


def record_child(subject: Subject, network: Network) -> list[Point]:
    """The system calls of DEL's child that nothing disturbs, by their numbers in the kernel's table."""
    with open_bench(subject, network) as bench:
        _require(bench.call("ADD", CONTAINER))
        outcome, log = bench.delete_with_child(0)
        _require(outcome)
    return [Point(CHILD, f"call {call}", place, "") for place, call in enumerate(log[:-1], start=1)]


def run_trial(subject: Subject, trial: Trial) -> Verdict:
    """Do one trial, on a host of its own."""
    problems: list[tuple[str, str]] = []
    struck = True
    try:
        with open_bench(subject, trial.network) as bench:
            before = look(bench.host)
            if trial.command == "DEL":
                _require(bench.call("ADD", CONTAINER))
            outcome, struck = _strike(bench, trial)
            if trial.point.process == CHILD:
                _require(outcome)  # what the child leaves undone DEL does itself
                problems += _after_failed_delete(bench, before, outcome)
            elif trial.fault == "KILL":
                problems += _after_kill(bench, trial, before)
            elif trial.command == "ADD":
                problems += _after_failed_add(bench, trial, before, outcome)
            else:
                problems += _after_failed_delete(bench, before, outcome)
            problems += _judge_neighbour(bench, trial.network)
    except (AssertionError, TimeoutError, subprocess.TimeoutExpired) as error:
        problems.append((STUCK, str(error)))
    return Verdict(struck, tuple(problems))


def _strike(bench: Bench, trial: Trial) -> tuple[Outcome, bool]:
    """The trial's command with its fault, and whether that struck."""
    if trial.point.process == CHILD:
        outcome, log = bench.delete_with_child(trial.point.number)
        return outcome, KILLED in log
    what = f"signal={trial.fault}" if trial.fault in SIGNALS else f"error={trial.fault}"
    injection = f"{trial.point.call}:{what}:when={trial.point.number}"
    outcome, log = bench.call_traced(trial.command, trial.point.process, injection)
    return outcome, any("(INJECTED)" in line or "killed by SIGKILL" in line or "--- SIG" in line for line in log)


def _after_kill(bench: Bench, trial: Trial, before: State) -> Iterator[tuple[str, str]]:
    """The remedy, and then a fresh ADD of the same container."""
    if trial.remedy == DEL:
        yield from _judge_latecomer(bench)
    if trial.remedy in (DEL_GONE, ADD_AGAIN):
        bench.remove_container()
        before = before._replace(inside={})
    if trial.remedy == GC:
        outcome = bench.call("GC", CONTAINER, **bench.valid_attachments)
    elif trial.remedy == ADD_AGAIN:
        outcome = Outcome(0, None, "", "")
    else:
        outcome = bench.call("DEL", CONTAINER, netns=trial.remedy == DEL)
    if outcome.status != 0:
        yield STUCK, f"{trial.remedy} failed: {outcome.document or outcome.stderr}"
    if trial.remedy != ADD_AGAIN:
        yield from _leaks(before, look(bench.host))
    if trial.remedy in (DEL_GONE, ADD_AGAIN):
        bench.host.add_container(CONTAINER)
        before = before._replace(inside={})
    yield from _judge_fresh_add(bench, before)


def _judge_latecomer(bench: Bench) -> Iterator[tuple[str, str]]:
    """A container that comes before anything was put right gets no address that is in use."""
    bench.host.add_container(LATECOMER)
    outcome = bench.call("ADD", LATECOMER)
    if outcome.status != 0:
        yield STUCK, f"ADD of another container failed: {outcome.document or outcome.stderr}"
        return
    inside = {address for addresses in look(bench.host).inside.values() for address in addresses}
    for address in sorted(inside.intersection(_addresses(outcome))):
        yield DUPLICATE, f"{address} was given to another container while it was in use"
    _require(bench.call("DEL", LATECOMER))


def _judge_fresh_add(bench: Bench, before: State) -> Iterator[tuple[str, str]]:
    """ADD succeeds, with addresses that nobody else has, and DEL leaves nothing of it."""
    outcome = bench.call("ADD", CONTAINER)
    if outcome.status != 0:
        yield STUCK, f"a fresh ADD failed: {outcome.document or outcome.stderr}"
        return
    taken = {name.rpartition("/")[2] for name in before.files}
    for address in _addresses(outcome):
        if address in taken:
            yield DUPLICATE, f"{address} is reserved for the neighbour and was given again"
    _require(bench.call("DEL", CONTAINER))
    yield from _leaks(before, look(bench.host))


def _after_failed_add(bench: Bench, trial: Trial, before: State, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """It failed, said why and left nothing, or it succeeded and DEL leaves nothing."""
    if outcome.status == 0:
        previous = {"prevResult": outcome.document}
        checked = bench.call("CHECK", CONTAINER, **previous)
        if checked.status != 0:
            yield ANSWER, f"ADD said that it succeeded, and CHECK fails: {checked.document}"
        _require(bench.call("DEL", CONTAINER, **previous))
        yield from _leaks(before, look(bench.host))
        return
    yield from _judge_error(outcome)
    if trial.fault in DISK_ERRORS and isinstance(outcome.document, dict):
        code, message = outcome.document.get("code"), str(outcome.document.get("msg"))
        if code != _IO_FAILURE or DATA_DIR not in message:
            yield ANSWER, f"not code {_IO_FAILURE} with the path, but code {code}: {message}"
    for text in leftovers(before, look(bench.host), with_bridge=True):
        yield LEAK, text


def _after_failed_delete(bench: Bench, before: State, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """It said what failed unless it succeeded, and the next one leaves nothing."""
    if outcome.status != 0:
        yield from _judge_error(outcome)
    else:
        # a record whose file is gone is no reservation, and the next command drops it
        yield from _leaks(_without_records(before), _without_records(look(bench.host)))
    again = bench.call("DEL", CONTAINER)
    if again.status != 0:
        yield STUCK, f"the next DEL failed: {again.document or again.stderr}"
    yield from _leaks(before, look(bench.host))


def _judge_error(outcome: Outcome) -> Iterator[tuple[str, str]]:
    document = outcome.document
    if not isinstance(document, dict) or not isinstance(document.get("code"), int) or not document.get("msg"):
        yield ANSWER, f"exit status {outcome.status} without an error object: {outcome.stdout!r} {outcome.stderr!r}"


def _judge_neighbour(bench: Bench, network: Network) -> Iterator[tuple[str, str]]:
    """Still whole; and when it leaves, nothing at all is left."""
    if not network.has_neighbour:
        return
    _require(bench.call("DEL", NEIGHBOUR))
    after = look(bench.host)
    yield from _leaks(State({}, after.inside, (), ()), after)


def _leaks(before: State, after: State) -> Iterator[tuple[str, str]]:
    for text in leftovers(before, after, with_bridge=False):
        yield LEAK, text


def _without_records(state: State) -> State:
    return state._replace(files=tuple(name for name in state.files if RECORDS not in name))


def _addresses(outcome: Outcome) -> list[str]:
    return [entry["address"].partition("/")[0] for entry in outcome.document["ips"]]


def _require(outcome: Outcome) -> None:
    assert outcome.status == 0, f"a command that nothing disturbs failed: {outcome.document or outcome.stderr}"


@contextmanager
def _launcher(host: Host, prefix: list[str]) -> Iterator[None]:
    """Have the host put a prefix before the commands that it runs, for a block."""
    original = host.argv

    def argv(*command: str, container: str | None = None) -> list[str]:
        return original(*prefix, *command, container=container)

    host.argv = argv  # type: ignore[method-assign]
    try:
        yield
    finally:
        del host.argv


def _others_in(host: Host) -> list[int]:
    """The processes in a host's mount namespace but the one that holds it."""
    mine = os.stat(f"/proc/{host.pid}/ns/mnt").st_ino
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and int(entry) != host.pid and os.stat(f"/proc/{entry}/ns/mnt").st_ino == mine:
                found.append(int(entry))
    return found


def remedies_of(subject: Subject) -> tuple[str, ...]:
    """What may come after a kill."""
    return (DEL, DEL_GONE, GC, ADD_AGAIN) if subject.collects else (DEL, DEL_GONE, ADD_AGAIN)
