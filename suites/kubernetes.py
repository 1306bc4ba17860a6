"""The body of scripts/kubernetes: a cluster, its checks, and its end; it is run as root, from the repository's root.

The cluster lives in a PID namespace of its own, with this module once more. That process ends with whoever called it,
and the namespace with that: by a pipe that breaks, so that it can outlive its caller when it is to be kept.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from tests.kit.grid import grid
from tests.kit.kubernetes.cluster import Kubernetes, gather_parts
from tests.kit.kubernetes.command import SetupError
from tests.kit.kubernetes.e2e_run import FOCUS, Case, run_e2e
from tests.kit.kubernetes.programs import CACHE, cache
from tests.kit.kubernetes.worker import remove_stale_cgroups

TESTS = "tests/kubernetes"
# Those that take the cluster apart and together again, or fill it: three quarters of the time.
LONG = tuple(f"{TESTS}/test_{name}.py" for name in ("restarts", "topology", "updates"))
LIFELINE = "PYCNI_KUBERNETES_LIFELINE"  # inside: the descriptor of the pipe that breaks
TESTED, REACHED = "<!-- table: the end-to-end tests -->", "<!-- table: who reached what -->"
END = "<!-- end of table -->"
FAILURE = 1500  # characters of a failure that are shown
KEPT = b"\0"  # what the inner half says next is for the outer one


class Report:
    """A pytest plugin: hands the cluster to the tests, and prints what they noted."""

    def __init__(self, cluster: Kubernetes) -> None:
        self._cluster = cluster
        self._reached: dict[str, dict[tuple[str, str], tuple[str, bool]]] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """For the fixture `kubernetes`."""
        config.kubernetes = self._cluster  # type: ignore[attr-defined]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes over what a test has noted."""
        noted: list[tuple[str, Any]] = list(report.user_properties) if report.when == "call" else []
        for _, (path, source, destination, seen) in noted:
            self._reached.setdefault(path, {})[source, destination] = (seen, report.passed)

    def lines(self) -> list[str]:
        """All of it."""
        lines = ["", "Who reached what: what the other end saw or said; ! is wrong."]
        for path, cells in self._reached.items():
            lines += ["", f"{path}:", *(line.rstrip() for line in grid(cells))]
        return lines


def main() -> int:
    """Call the other half of this module, or be it. Returns the exit status."""
    options = parse_options(sys.argv[1:])
    if LIFELINE in os.environ:
        return inside(options, int(os.environ.pop(LIFELINE)))
    return outside(sys.argv[1:])


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/kubernetes",
        description="A real Kubernetes cluster in namespaces, with pycni; its checks; and nothing left of it.",
        epilog=f"What is built is kept in {cache()}, or where ${CACHE} says; without it, it is built anew.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", metavar="N", type=int, choices=range(2, 10), default=3, help="how many, 2 to 9 [3]")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up, and say how to reach it and end it")
    parser.add_argument("--no-checks", action="store_true", help="with --keep: start the cluster and check nothing")
    parser.add_argument(
        "--e2e", metavar="FOCUS", nargs="?", const=FOCUS, help=f"run Kubernetes' own tests instead, by name [{FOCUS}]"
    )
    parser.add_argument("--document", metavar="FILE", type=Path, help="write what comes of it into this page")
    parser.add_argument("--all", action="store_true", help="also: updates, 100 pods, outages, nodes that come and go")
    parser.add_argument("-k", metavar="EXPRESSION", dest="chosen", help="only these of all checks, as pytest has it")
    return parser.parse_args(arguments)


def outside(arguments: Sequence[str]) -> int:
    """Run the other half in namespaces, until it ends or is to be kept."""
    scratch = cache() / "scratch"  # a place for a file system in memory, which only the other half sees
    scratch.mkdir(parents=True, exist_ok=True)
    lifeline, our_life = os.pipe()
    # the shell stays, as the first process: it lets orphans go, without which no namespace in this one could end
    mounted = 'mount -t tmpfs scratch "$TMPDIR" && "$@"; exit $?'
    within = ["sh", "-c", mounted, "sh", sys.executable, "-m", __spec__.name]
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *within, *arguments]
    env = {**os.environ, LIFELINE: str(lifeline), "TMPDIR": str(scratch)}
    signal.signal(signal.SIGTERM, interrupt)
    # its output comes by a pipe: unshare holds that as long as the cluster is there, and must not hold the caller's
    output: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=env, pass_fds=[lifeline], start_new_session=True, **output) as process:
        os.close(lifeline)
        try:
            kept = print_until_kept(process.stdout)
            if kept:
                print_how_to_reach(kept, child_of(child_of(str(process.pid))))
                os._exit(0)  # without a wait for the process, which goes on
            status = process.wait()
        except KeyboardInterrupt:
            print("scripts/kubernetes: interrupted; whatever it has started ends", file=sys.stderr)
            status = 128 + signal.SIGINT
        finally:
            os.close(our_life)
    remove_stale_cgroups()
    return status


def print_until_kept(output: Any) -> dict[str, str] | None:
    """Print what the other half prints, until it has no more (None), or until it tells what is kept, after a KEPT."""
    while chunk := output.read1():
        text, mark, told = chunk.partition(KEPT)
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        if mark:
            while not told.endswith(b"\n"):
                told += output.read1()
            kept: dict[str, str] = json.loads(told)
            return kept
    return None


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """End as if by the keyboard."""
    raise KeyboardInterrupt


def child_of(pid: str) -> str:
    """The one process that a process has started."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return child


def print_how_to_reach(told: dict[str, str], inner: str) -> None:
    """What a user types from here on; `inner` is the process of the other half."""
    print("\nThe cluster stays up. A shell reaches it so; behind the name of a node stands a command for that node:")
    for name, command in told.items():
        print(f'  {name}() {{ nsenter -t {inner} -p -m -- {command} "$@"; }}')
    print(f"and it ends, with all that is in it, by\n  kill {inner}", flush=True)


def inside(options: argparse.Namespace, lifeline: int) -> int:
    """Have the cluster, check it, and let it go. Returns the exit status."""
    keeping = threading.Event()
    threading.Thread(target=end_with_caller, args=(lifeline, keeping), daemon=True).start()
    began = time.monotonic()

    def say(what: str) -> None:
        # in one piece: several threads have something to say
        print(f"[{time.monotonic() - began:6.1f} s] {what}\n", end="", flush=True)

    try:
        cluster = Kubernetes(gather_parts(Path(os.environ["TMPDIR"]), say), say)
    except (SetupError, OSError) as error:
        print(f"scripts/kubernetes: {error}", file=sys.stderr)
        return 1
    try:
        cluster.start([f"node{number}" for number in range(1, options.nodes + 1)])
        status = try_out(cluster, options)
        say("all is as it should be" if status == 0 else "not all is as it should be")
        if options.keep:
            keeping.set()
            stay(cluster)
    except (SetupError, AssertionError, OSError, subprocess.TimeoutExpired) as error:
        print(f"scripts/kubernetes: {error}", file=sys.stderr)
        status = 1
    finally:
        cluster.close()
    return status


def try_out(cluster: Kubernetes, options: argparse.Namespace) -> int:
    """Do with the cluster what the options say. Returns the exit status."""
    if options.no_checks:
        return 0
    if options.e2e is None:
        return check(cluster, options)
    cases = run_e2e(cluster, options.e2e)
    for case in cases:
        print(f"  {'FAIL' if case.failure else 'PASS'}  {case.seconds:6.1f} s  {case.name}")
        if case.failure:
            print(textwrap.indent(case.reason or case.failure[:FAILURE], "    "))
    if options.document:
        write_table(options.document, cases)
    failed = [case for case in cases if case.failure]
    known = [case for case in failed if case.reason]
    print(f"{len(cases) - len(failed)} of {len(cases)} passed; {len(known)} of the others fail for a known reason")
    return 0 if cases and len(failed) == len(known) else 1


def write_table(page: Path, cases: Sequence[Case]) -> None:
    """Put the results into a page, between its markers."""
    lines = ["| test | result |", "|---|---|"]
    for case in cases:
        name = case.name.replace("|", "\\|").replace("[", "\\[")
        result = f"fails: {case.reason or 'not explained'}" if case.failure else "passes"
        lines.append(f"| {name} | {result} |")
    write_between(TESTED, page, lines)


def write_between(begin: str, page: Path, lines: Sequence[str]) -> None:
    """Put lines into a page, in the place of those from a marker to the end of the table that it begins."""
    before, found, after = page.read_text("utf-8").partition(begin)
    _, end, rest = after.partition(END)
    if not found or not end:
        raise SetupError(f"{page} has no line {begin!r} with a line {END!r} after it")
    page.write_text("\n".join([before + begin, *lines, end]) + rest, "utf-8")


def check(cluster: Kubernetes, options: argparse.Namespace) -> int:
    """Run the tests on the cluster. Returns the exit status."""
    told = Report(cluster)
    arguments = ["-q", "-rN", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    if options.chosen:
        arguments += ["-k", options.chosen]
    elif not options.all:
        arguments += [f"--ignore={path}" for path in LONG]
    status = pytest.main([*arguments, TESTS], plugins=[told])
    print("\n".join(told.lines()))
    if options.document:
        write_between(REACHED, options.document, ["```text", *told.lines()[1:], "```"])
    return 0 if status == pytest.ExitCode.OK else 1


def stay(cluster: Kubernetes) -> None:
    """Tell the caller, who goes, and wait to be ended."""
    signal.signal(signal.SIGTERM, interrupt)
    told = cluster.commands()
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), KEPT + json.dumps(told).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


def end_with_caller(lifeline: int, keeping: threading.Event) -> None:
    """End this process, and all of the namespace with it, when the caller is gone and nothing is to be kept."""
    os.read(lifeline, 1)
    if not keeping.is_set():
        os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
