"""What a call consists of: starting the interpreter, importing, the kernel's work, and the rest (own code and store).

Each part is a process or a request that does nothing else, measured in turn with the whole calls. The imports are those
of the executable up to the command itself, and what the interpreter lists beyond them for that very call (-X
importtime).
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmark.attach import PLAIN, SEED
from benchmark.calls import Bench, Call, Job, interpreter_of, make_call, run_call, timed, with_result
from benchmark.floor import open_floor
from suites import sandbox

_COMMANDS = ("VERSION", "ADD", "DEL")
_BARE = ("-I", "-S", "-c", "pass")
_MILLI = 1000.0
_COMMAND = "posix._exit(main())"  # as the executable ends
_IMPORT = """
for name in {names!r}:
    try:
        __import__(name)
    except ImportError:
        pass
"""
_COUNT = "print(len(sys.modules))"
_END = "posix._exit(0)"
_TIMED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \| ( *)([\w.]+)$", re.MULTILINE)


class Part(NamedTuple):
    """Milliseconds of a call, and of what it consists of; `modules` is how many it loads."""

    call: str
    whole: float
    interpreter: float
    imports: float
    modules: int
    kernel: float | None

    @property
    def rest(self) -> float:
        """Reading and writing JSON, the decisions, the store, and what the kernel does beyond the floor."""
        return self.whole - self.interpreter - self.imports - (self.kernel or 0.0)


class _Imports(NamedTuple):
    """A call that does nothing but import what another one does, and how many modules these are."""

    call: Call
    modules: int


class _Subject(NamedTuple):
    """A network (or a store alone) whose calls are taken apart."""

    name: str
    config: dict[str, Any]
    container: str
    has_links: bool


def measure_profile(bench: Bench) -> list[Part]:
    """The parts of the calls of both plugins, cold."""
    sandbox.have_container("profile")
    subjects = (
        _Subject(
            "cni-ipam", bench.ours.store("profile-ipam", "10.112.0.0/16", "/var/lib/cni/networks"), "alone", False
        ),
        _Subject("cni-bridge", bench.ours.network("profile-plain", "10.110.0.0/16", **PLAIN), "profile", True),
        _Subject("cni-bridge, ipMasq", bench.ours.network("profile-seed", "10.111.0.0/16", **SEED), "profile", True),
    )
    imports: dict[str, _Imports] = {}
    jobs = {"bare": timed(Call("/usr/bin/python3", {}, b"", _BARE)), "floor": open_floor("profile-fl").attach}
    for subject in subjects:
        jobs[subject.name] = _cycle(bench, subject)
        for command in _COMMANDS:
            found = imports[f"{subject.name} {command}"] = _find_imports(bench, subject, command)
            jobs[f"{subject.name} {command}"] = timed(found.call)
    times = bench.medians(jobs)
    return [_part(subject, command, times, imports) for subject in subjects for command in _COMMANDS]


def as_markdown(parts: Sequence[Part]) -> str:
    """The parts as a table."""
    lines = [
        "| call | ms | interpreter | imports | of modules | kernel | rest |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for part in parts:
        kernel = "" if part.kernel is None else f"{part.kernel:.1f}"
        figures = (f"{part.whole:.1f}", f"{part.interpreter:.1f}", f"{part.imports:.1f}", str(part.modules), kernel)
        lines.append("| " + " | ".join((part.call, *figures, f"{part.rest:.1f}")) + " |")
    return "\n".join(lines) + "\n"


def _part(
    subject: _Subject, command: str, times: Mapping[str, Mapping[str, float]], imports: Mapping[str, _Imports]
) -> Part:
    name = f"{subject.name} {command}"
    bare = times["bare"]["seconds"]
    floor = times["floor"].get(command) if subject.has_links else None
    kernel = None if floor is None else _MILLI * floor
    importing = max(0.0, times[name]["seconds"] - bare)
    call = f"{command}, {subject.name}"
    return Part(
        call, _MILLI * times[subject.name][command], _MILLI * bare, _MILLI * importing, imports[name].modules, kernel
    )


def _cycle(bench: Bench, subject: _Subject) -> Job:
    side, config, container = bench.ours, subject.config, subject.container

    def job() -> Mapping[str, float]:
        version = run_call(make_call(side, "VERSION", config, ""))
        added = run_call(make_call(side, "ADD", config, container))
        deleted = run_call(make_call(side, "DEL", with_result(config, added), container))
        return {"VERSION": version.seconds, "ADD": added.seconds, "DEL": deleted.seconds}

    return job


def _find_imports(bench: Bench, subject: _Subject, command: str) -> _Imports:
    """What a command imports beyond what an interpreter has that does nothing."""
    call = make_call(bench.ours, command, subject.config, "" if command == "VERSION" else subject.container)
    interpreter, *options = interpreter_of(call.executable)
    names = _imports_of([interpreter, *options, "-X", "importtime", call.executable], call)
    with open(call.executable, encoding="utf-8") as file:
        program = file.read().partition(_COMMAND)[0] + _IMPORT.format(names=names)
    counts = [
        int(_run([interpreter, *options, "-c", f"{text}\n{_COUNT}"], call).stdout) for text in (program, "import sys")
    ]
    importing = Call(interpreter, {"CNI_COMMAND": command}, b"", (*options, "-c", f"{program}\n{_END}"))
    return _Imports(importing, counts[0] - counts[1])


def _imports_of(argv: list[str], call: Call) -> list[str]:
    """The modules that a program imports by itself, in their order."""
    return [name for indent, name in _TIMED.findall(_run(argv, call).stderr.decode()) if not indent]


def _run(argv: list[str], call: Call) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv, input=call.stdin, env=call.env, capture_output=True, check=True, timeout=sandbox.COMMAND_BOUND
    )
