"""The body of scripts/faults; it is run as root, from the root of the repository."""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from suites.mutants.section import keep_section
from tests.faults.campaign import Finding, Row, list_trials, run_all, sample, tabulate, to_text, total
from tests.faults.document import write_document
from tests.faults.subjects import Subject, ours, reference

_REFERENCE_SAMPLE = 120  # trials of the reference that a document shows
_PROGRESS = 100  # trials between two lines that say how far it is
_POLICIES_STEP = 6  # of the kills of an agent, each so many-th is in a sample
_SHOWN, _WIDTH = 5, 200  # problems of a trial that are printed, and characters of one


def main() -> int:
    """Returns the exit status: 0 when every trial was survived, 1 when one was not."""
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description="strikes ADD and DEL with a fault at every point, one at a time"
    )
    parser.add_argument("bin_dir", help=argparse.SUPPRESS)
    parser.add_argument("--quick", type=int, metavar="N", default=0, help="a sample of N trials, evenly spread")
    parser.add_argument("--reference", action="store_true", help="strike Debian's bridge and host-local instead")
    parser.add_argument("--agent", action="store_true", help="kill pycni agent instead, at each of its calls (alone)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trials at a time (one per CPU)")
    parser.add_argument("--document", metavar="FILE", help="write the figures there, beside those of the reference")
    options = parser.parse_args()
    subject = reference() if options.reference else ours(options.bin_dir)
    rows = _strike(subject, options.quick, options.workers)
    if options.document:
        others = _strike(reference(), options.quick or _REFERENCE_SAMPLE, options.workers)
        path = Path(options.document)
        before = path.read_text("utf-8") if path.exists() else ""
        path.write_text(keep_section(before, write_document(rows, others)), "utf-8")
    figures = total(rows)
    survived = figures.survived == figures.tried and not figures.missed
    return 0 if (options.reference or _strike_policies(bool(options.quick))) and survived else 1


def _strike(subject: Subject, count: int, workers: int) -> list[Row]:
    """Run the trials of a subject, all or a sample, and print what happened."""
    found = list_trials(subject)
    chosen = sample(found, count) if count else found
    print(f"{subject.name}: {len(chosen)} of {len(found)} trials, {workers} at a time", flush=True)
    done: list[Finding] = []

    def tell(finding: Finding) -> None:
        done.append(finding)
        _tell(finding)
        if len(done) % _PROGRESS == 0:
            print(f"{len(done)} of {len(chosen)}", flush=True)

    rows = tabulate(run_all(subject, chosen, workers, tell))
    print(to_text([*rows, total(rows)]), flush=True)
    return rows


def _strike_policies(quick: bool) -> bool:
    """The faults of an agent while policies change. Returns whether all were survived."""
    from tests.faults.handovers import Struck  # which need pyroute2, and --help does without
    from tests.faults.policies import strike_all

    def tell(struck: Struck) -> None:
        mended = f", mended after {struck.seconds:.2f} s" if struck.seconds else ""
        print(f"{'FAULT    ' if struck.problem else 'survived '} {struck.name}{mended} {struck.problem}", flush=True)

    print("policies, an agent that changes them", flush=True)
    with TemporaryDirectory() as directory:
        found = strike_all(Path(directory), tell, _POLICIES_STEP if quick else 1)
    survived = sum(not struck.problem for struck in found)
    print(f"{survived} of {len(found)} survived", flush=True)
    return survived == len(found)


def _tell(finding: Finding) -> None:
    if not finding.verdict.struck:
        print(f"NOT STRUCK  {finding.trial}", flush=True)
    problems = finding.verdict.problems
    if problems:
        print(f"FAULT       {finding.trial}", flush=True)
    for kind, text in problems[:_SHOWN]:
        print(f"    {kind:10} {text[:_WIDTH]}", flush=True)
    if problems[_SHOWN:]:
        print(f"    ... and {len(problems) - _SHOWN} more", flush=True)


if __name__ == "__main__":
    sys.exit(main())
