"""The conformance suite without pytest; scripts/conformance calls it as root."""

import argparse
import json
import sys
import threading
from pathlib import Path

from tests.conformance.cases import list_cases
from tests.conformance.document import our_pair, reference_pair, write_document
from tests.conformance.registry import Case
from tests.conformance.runner import Report, Verdict, run_cases
from tests.conformance.table import count, to_json, to_markdown
from tests.conformance.world import Pair

CAPABILITIES = "ips,ipRanges,mac,portMappings"


def main() -> int:
    """Returns the exit status: 0 when every case passes, 1 when one fails, 2 for a wrong call."""
    parser = _make_parser()
    options = parser.parse_args()
    numbers = {int(number) for number in options.cases.split(",") if number}
    cases = [case for case in list_cases() if not numbers or case.number in numbers]
    if options.document:
        if not options.cni_path:
            parser.error("--document needs --cni-path, with our plugins in it")
        return _document(options.document, options.cni_path, cases)
    if not options.cni_path or not (options.bridge or options.ipam):
        parser.error("--cni-path and one of --bridge and --ipam at least are needed")
    capabilities = frozenset(filter(None, options.capabilities.split(",")))
    pair = Pair(tuple(options.cni_path.split(":")), options.bridge, options.ipam, capabilities)
    for role in pair.roles():
        try:
            pair.executable(role)
        except FileNotFoundError as error:
            parser.error(str(error))
    report = _run(pair, cases)
    name = " + ".join(pair.type_of(role) for role in pair.roles())
    if options.output:
        Path(options.output).write_text("# Conformance\n\n" + to_markdown(cases, {name: report}), "utf-8")
    if options.json:
        Path(options.json).write_text(json.dumps(to_json(cases, report), indent=2) + "\n", "utf-8")
    return _sum_up(name, report)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/conformance",
        description="Judges CNI plugins by what the specification asks. Needs root; works on throw-away hosts.",
    )
    parser.add_argument("--cni-path", metavar="DIR[:DIR]", help="where the executables are")
    parser.add_argument("--bridge", metavar="TYPE", default="", help="the plugin that makes the interface")
    parser.add_argument("--ipam", metavar="TYPE", default="", help="the plugin that hands out addresses")
    parser.add_argument(
        "--capabilities",
        metavar="LIST",
        default=CAPABILITIES,
        help=f"the capabilities that the plugins claim (default: {CAPABILITIES})",
    )
    parser.add_argument("--cases", metavar="LIST", default="", help="only the cases with these numbers, as in 7,30")
    parser.add_argument("--output", metavar="FILE", help="write the table there, as Markdown")
    parser.add_argument("--json", metavar="FILE", help="write all verdicts there")
    parser.add_argument(
        "--document", metavar="FILE", help="write the table of our plugins and of Debian's there, side by side"
    )
    return parser


def _document(target: str, bin_dir: str, cases: list[Case]) -> int:
    """Exit status 0 although the reference fails: that is what the document says."""
    ours, reference = _run(our_pair(bin_dir), cases), _run(reference_pair(), cases)
    Path(target).write_text(write_document(cases, ours, reference), "utf-8")
    return _sum_up("our plugins", ours)


def _run(pair: Pair, cases: list[Case]) -> Report:
    lock = threading.Lock()

    def tell(case: Case, verdict: Verdict) -> None:
        with lock:
            print(f"{case.number:3} {case.sentence}\n    {verdict}", flush=True)

    return run_cases(pair, cases, tell)


def _sum_up(name: str, report: Report) -> int:
    passed, ran = count(report)
    print(f"{name}: {passed} of {ran} cases passed, {len(report) - ran} not run")
    return 0 if passed == ran else 1


if __name__ == "__main__":
    sys.exit(main())
