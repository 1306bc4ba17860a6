"""`pycni doctor`: shows what is wrong with this node, the worst first. It needs no agent and no cluster.

Must not: change anything.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from cni_node.doctor.checks import diagnose
from cni_node.doctor.facts import HARMS, Finding
from cni_node.doctor.reading import Places, read_facts
from cni_node.settings import SOCKET

HEALTHY, FAULTY = 0, 1  # exit statuses
_SHOWN = 10  # findings of one kind on the screen; JSON has all


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    option = parser.add_argument
    option("--json", action="store_true", help="all of it, for programs")
    option("--conf-dir", metavar="DIR", default="/etc/cni/net.d", help="of the runtime [/etc/cni/net.d]")
    option("--bin-dir", metavar="DIR", default="/opt/cni/bin", help="with the plugins, several with : [/opt/cni/bin]")
    option("--root", metavar="DIR", type=Path, default=Path("/"), help="the node's root directory [/]")
    option("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"of the agent, if there is one [{SOCKET}]")


def run(options: argparse.Namespace) -> int:
    """Print the findings. Returns 0 when there is none, else 1. Facts that could not be read are no findings."""
    facts = read_facts(Places(options.root, options.conf_dir, options.bin_dir, options.socket))
    findings = diagnose(facts)
    if options.json:
        print(
            json.dumps(
                {"findings": [_to_document(each) for each in findings], "unreadable": facts.unreadable}, indent=2
            )
        )
    else:
        for line in render(findings):
            print(line)
        for text in facts.unreadable:
            print(f"pycni: {text}", file=sys.stderr)
    return FAULTY if findings else HEALTHY


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
