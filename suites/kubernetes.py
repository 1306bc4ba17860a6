"""The body of scripts/kubernetes: a cluster, its checks, and its end; it is run as root, from the repository's root.

The cluster lives in a PID namespace of its own, whose first process is this module once more. That process ends with
whoever called it: by a pipe that breaks, so that it can outlive its caller when it is to be kept.
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
LIFELINE = "PYCNI_KUBERNETES_LIFELINE"  # inside: the descriptor of the pipe that breaks
BEGIN, END = "<!-- table: the end-to-end tests -->", "<!-- end of table -->"
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

    def print(self) -> None:
        """All of it."""
        for path, cells in self._reached.items():
            print(f"\nWho reached what: {path} (what the other end saw or said; ! is wrong)")
            print("\n".join(grid(cells)))


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
    parser.add_argument("--document", metavar="FILE", type=Path, help="with --e2e: write the results into this page")
    parser.add_argument("-k", metavar="EXPRESSION", dest="chosen", help="only these checks, as pytest chooses them")
    return parser.parse_args(arguments)


def outside(arguments: Sequence[str]) -> int:
    """Run the other half in namespaces, until it ends or is to be kept."""
    scratch = cache() / "scratch"  # a place for a file system in memory, which only the other half sees
    scratch.mkdir(parents=True, exist_ok=True)
    lifeline, our_life = os.pipe()
    within = ["sh", "-c", 'mount -t tmpfs scratch "$TMPDIR" && exec "$@"', "sh", sys.executable, "-m", __spec__.name]
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
                (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                print_how_to_reach(kept, first)
                os._exit(0)  # without a wait for the process, which goes on
            status = process.wait()
        except KeyboardInterrupt:
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


def print_how_to_reach(told: dict[str, str], first: str) -> None:
    """What a user types from here on."""
    print("\nThe cluster stays up. A shell reaches it so; behind the name of a node stands a command for that node:")
    for name, command in told.items():
        print(f'  {name}() {{ nsenter -t {first} -p -m -- {command} "$@"; }}')
    print(f"and it ends, with all that is in it, by\n  kill {first}", flush=True)


def inside(options: argparse.Namespace, lifeline: int) -> int:
    """Have the cluster, check it, and let it go. Returns the exit status."""
    keeping = threading.Event()
    threading.Thread(target=end_with_caller, args=(lifeline, keeping), daemon=True).start()
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {what}", flush=True)

    try:
        cluster = Kubernetes(gather_parts(Path(os.environ["TMPDIR"]), say), say)
    except SetupError as error:
        print(f"scripts/kubernetes: {error}", file=sys.stderr)
        return 1
    try:
        cluster.start([f"node{number}" for number in range(1, options.nodes + 1)])
        status = try_out(cluster, options)
        say("all is as it should be" if status == 0 else "not all is as it should be")
        if options.keep:
            keeping.set()
            stay(cluster)
    except (SetupError, AssertionError) as error:
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
        return check(cluster, options.chosen)
    cases = run_e2e(cluster, options.e2e)
    for case in cases:
        print(f"  {'FAIL' if case.failure else 'PASS'}  {case.seconds:6.1f} s  {case.name}")
        if case.failure:
            print(textwrap.indent(case.failure[:FAILURE], "    "))
    if options.document:
        write_table(options.document, cases)
    failed = sum(bool(case.failure) for case in cases)
    print(f"{len(cases) - failed} of {len(cases)} passed")
    return 0 if cases and not failed else 1


def write_table(page: Path, cases: Sequence[Case]) -> None:
    """Put the results into a page, between its markers."""
    lines = ["| test | result |", "|---|---|"]
    for case in cases:
        name = case.name.replace("|", "\\|").replace("[", "\\[")
        lines.append(f"| {name} | {'fails' if case.failure else 'passes'} |")
    text = page.read_text("utf-8")
    begin, rest = text.split(BEGIN)
    _, end = rest.split(END)
    page.write_text("\n".join([begin + BEGIN, *lines, END]) + end, "utf-8")


def check(cluster: Kubernetes, chosen: str | None) -> int:
    """Run the tests on the cluster. Returns the exit status."""
    told = Report(cluster)
    options = [
        "-q",
        "-rN",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *(["-k", chosen] if chosen else []),
    ]
    status = pytest.main([*options, TESTS], plugins=[told])
    told.print()
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
    """End the namespace's first process, and all others with it, when the caller is gone and nothing is to be kept."""
    os.read(lifeline, 1)
    if not keeping.is_set():
        os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
