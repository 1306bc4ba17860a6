"""The trial of one mutant: which tests run, in which order, and what their failure says."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from suites.mutants.checkout import Checkout
from suites.mutants.places import Place, mutate
from suites.mutants.reach import Reach, Test

KILLED, HUNG, SURVIVED = "killed", "hung", "survived"
_UNREACHED = "no test runs it"
_BUDGET = 90.0  # seconds of tests that are tried, beside the module's own
_START_BOUND = 90  # seconds for pytest to get to the first test
_SLOWNESS = 4  # a machine that is busier than when the tests were recorded
_TEST_BOUND = 15  # seconds, and that much more for the slowest of the tests: one that hangs is noticed
_INTERRUPTED, _FAILED, _USAGE, _NOTHING = 2, 1, 4, 5  # pytest's exit status


class Verdict(NamedTuple):
    """What came of a place: the test that failed; or, of a survivor, the files of tests that were tried.

    `past` has a digest of each run that it survived, of the source and the tests.
    """

    name: str
    file: str
    line: int
    change: str
    result: str
    by: str
    tests: int  # how many were chosen
    past: tuple[str, ...] = ()


def merge(first: Verdict | None, second: Verdict) -> Verdict:
    """The verdict on a mutant that survived the first tests and was then tried with others."""
    if first is None or second.result != SURVIVED:
        return second
    files = sorted({*first.by.split(", "), *second.by.split(", ")} - {_UNREACHED}) or [_UNREACHED]
    past = tuple(dict.fromkeys((*first.past, *second.past)))
    return second._replace(by=", ".join(files), tests=first.tests + second.tests, past=past)


def try_mutant(checkout: Checkout, source: str, place: Place, reach: Reach, past: Collection[str] = ()) -> Verdict:
    """Change the copy, run the tests that reach the place, and change it back. Runs of the past are not repeated."""
    tried = _choose(place, reach.find_tests(place))
    digest = _digest(checkout, source, tried)
    result, by = SURVIVED, ""
    if tried and digest not in past:
        checkout.write(place.file, mutate(source, place))
        try:
            result, by = _run(checkout, tried)
        finally:
            checkout.write(place.file, source)
    if result == SURVIVED:
        by = ", ".join(sorted({test.file for test in tried})) or _UNREACHED
    return Verdict(place.name, place.file, place.line, place.shown, result, by, len(tried), (digest,))


def _digest(checkout: Checkout, source: str, tests: Collection[Test]) -> str:
    """Of the source, and of the files and names of tests."""
    parts = [source, *sorted(test.name for test in tests)]
    parts += [(checkout.root / file).read_text("utf-8") for file in sorted({test.file for test in tests})]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _choose(place: Place, tests: Collection[Test]) -> list[Test]:
    """The module's own tests first, then its package's, then the others; the quick ones first, within the budget."""
    path = PurePosixPath(place.file)
    own = f"test_{path.stem}.py"

    def turn(test: Test) -> tuple[int, float]:
        file = PurePosixPath(test.file)
        package = file.parts[1] == path.parts[0]
        return (0 if package and file.name == own else 1 if package else 2), test.seconds

    found: list[Test] = []
    for test in sorted(tests, key=turn):
        if turn(test)[0] == 0 or sum(each.seconds for each in found) + test.seconds <= _BUDGET or not found:
            found.append(test)
    return found


def _run(checkout: Checkout, tests: Sequence[Test]) -> tuple[str, str]:
    """The result, and the test that failed."""
    plan = checkout.root.parent / "plan"
    plan.write_text(json.dumps([test.name for test in tests]))
    failed = plan.with_suffix(".failed")
    failed.unlink(missing_ok=True)
    bound = _START_BOUND + _SLOWNESS * sum(test.seconds for test in tests)
    of_one = _TEST_BOUND + _SLOWNESS * max(test.seconds for test in tests)
    options = ["-x", "-o", f"timeout={of_one:.0f}", "-p", "suites.mutants.chooser"]
    files = dict.fromkeys(test.file for test in tests)
    run = checkout.pytest([*options, *files], bound, {"MUTANTS_PLAN": str(plan)})
    by = failed.read_text() if failed.exists() else "its import"
    if run.status is None:
        return HUNG, by if failed.exists() else "no answer"
    if run.status == 0 and " passed" in run.output:
        return SURVIVED, ""
    if run.status == _FAILED and "Timeout (>" in run.output:
        return HUNG, by
    if run.status in (_FAILED, _INTERRUPTED) or (run.status == _USAGE and "conftest" in run.output):
        return KILLED, by
    if run.status <= 0 or run.status > _NOTHING:  # the mutant has ended pytest itself
        return KILLED, by
    raise RuntimeError(f"pytest cannot run ({run.status}):\n{run.output[-3000:]}")
