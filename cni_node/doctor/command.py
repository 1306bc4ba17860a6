"""`pycni doctor`: shows what is wrong with this node, the worst first. It needs no agent and no cluster.

Must not: change anything.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from cni_node.doctor.checks import diagnose
from cni_node.doctor.facts import HARMS, Finding
from cni_node.doctor.moving import compare
from cni_node.doctor.progress import Progress
from cni_node.doctor.reading import Places, read_facts, read_moving
from cni_node.settings import SOCKET

HEALTHY, FAULTY = 0, 1  # exit statuses
_MINUTE = 60  # seconds
_SHOWN = 10  # findings of one kind on the screen; JSON has all


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    option = parser.add_argument
    option(
        "--watch",
        metavar="SECONDS",
        type=int,
        nargs="?",
        const=_MINUTE,
        help=f"tell which counters of lost packets move meanwhile, instead of looking at once [{_MINUTE}]",
    )
    option("--json", action="store_true", help="all of it, for programs")
    option("--conf-dir", metavar="DIR", default="/etc/cni/net.d", help="of the runtime [/etc/cni/net.d]")
    option("--bin-dir", metavar="DIR", default="/opt/cni/bin", help="with the plugins, several with : [/opt/cni/bin]")
    option("--root", metavar="DIR", type=Path, default=Path("/"), help="the node's root directory [/]")
    option("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"of the agent, if there is one [{SOCKET}]")


def run(options: argparse.Namespace) -> int:
    """Show the findings. Returns 0 when there is none, else 1; what could not be read is no finding."""
    if options.watch is not None:
        findings, unreadable = _watch(options.watch)
    else:
        places = Places(options.root, options.conf_dir, options.bin_dir, options.socket)
        with Progress(sys.stderr if sys.stderr.isatty() and not options.json else None) as progress:
            facts = read_facts(places, progress.begin)
        findings, unreadable = diagnose(facts), list(facts.unreadable)
    if options.json:
        print(json.dumps({"findings": [_to_document(each) for each in findings], "unreadable": unreadable}, indent=2))
    else:
        for line in render(findings):
            print(line)
        for text in unreadable:
            print(f"pycni: {text}", file=sys.stderr)
    return FAULTY if findings else HEALTHY


def _watch(seconds: int) -> tuple[list[Finding], list[str]]:
    """The counters that move meanwhile; SIGINT ends the wait, and what moved until then is told."""
    problems: list[str] = []
    before, began = read_moving(problems), time.monotonic()
    with suppress(KeyboardInterrupt):
        print(f"pycni: counters are watched for {seconds} s; Ctrl-C ends that", file=sys.stderr, flush=True)
        time.sleep(seconds)
    found = compare(before, read_moving(problems), time.monotonic() - began)
    return found, list(dict.fromkeys(problems))


def _to_document(finding: Finding) -> dict[str, str]:
    return {**finding._asdict(), "harm": HARMS[finding.harm]}


def render(findings: Sequence[Finding]) -> Iterator[str]:
    """The findings as lines of text, few of each kind."""
    for _, group in groupby(findings, key=lambda finding: finding[:2]):
        each = list(group)
        for finding in each[:_SHOWN]:
            yield f"{HARMS[finding.harm]}: {finding.subject}: {finding.problem}"
            yield f"    {finding.kind}; {finding.remedy}"
        if len(each) > _SHOWN:
            yield f"    and {len(each) - _SHOWN} more of {each[0].kind} (--json has all)"
    if not findings:
        yield "no fault was found"
