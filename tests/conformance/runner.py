"""Runs cases, each in a world of its own, some at a time."""

import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.conformance.registry import ALL, Case, Mismatch
from tests.conformance.world import Pair, World
from tests.kit.calls import call_environment

WORKERS = 3  # a case waits now and then, so this is one more than the cores of a small machine
_VERSION_BOUND = 60  # seconds
_LONGEST_FIRST = 53
_SHOWN = 240  # characters of a text in a table
# What differs from one run to the next, and what stands for it.
_RANDOM = (
    (re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b"), "MAC"),
    (re.compile(r"\bveth[0-9a-f]{6,}\b"), "vethX"),
    (re.compile(r"/tmp/cni-conformance-[^/'\"\s]+"), "SCRATCH"),
    (re.compile(r"\bCNI-[0-9a-f]{24}\b"), "CNI-X"),
)


class Verdict(NamedTuple):
    """Of one case for one version: with a failure, what was expected and what was seen."""

    version: str
    passed: bool
    expected: str = ""
    seen: str = ""

    def __str__(self) -> str:
        if self.passed:
            return f"{self.version}: pass"
        return f"{self.version}: FAIL\n    expected  {self.expected}\n    seen      {self.seen}"


Report = dict[int, list[Verdict]]  # by the number of the case; an empty list: not run


def find_spoken_versions(pair: Pair) -> tuple[str, ...]:
    """The versions that all plugins given say they support; every one when that cannot be found out."""
    spoken: tuple[str, ...] = ALL
    for role in pair.roles():
        env = call_environment("VERSION", "dummy", "dummy", "dummy", path=pair.path)
        result = subprocess.run(
            [pair.executable(role)],
            input=b'{"cniVersion": "1.0.0"}',
            env=env,
            capture_output=True,
            timeout=_VERSION_BOUND,
            check=False,
        )
        said = re.findall(r'"(\d+\.\d+\.\d+)"', result.stdout.decode("utf-8", "replace").partition("supported")[2])
        spoken = tuple(version for version in spoken if version in said) or spoken
    return spoken


def list_jobs(pair: Pair, cases: Iterable[Case], spoken: Sequence[str]) -> list[tuple[Case, str]]:
    """What is to be run: cases with their versions, those left out that need a plugin that is not given."""
    given = set(pair.roles())
    jobs = []
    for case in sorted(cases, key=lambda case: case.number != _LONGEST_FIRST):
        if case.needs <= given:
            versions = case.versions or spoken[-1:]
            jobs += [(case, version) for version in versions if version in spoken or case.demanded]
    return jobs


def run_cases(pair: Pair, cases: Sequence[Case], tell: Callable[[Case, Verdict], object] = lambda *_: None) -> Report:
    """Run cases and return their verdicts, in the order of the versions. `tell` hears of each as it comes."""
    spoken = find_spoken_versions(pair)

    def run(job: tuple[Case, str]) -> Verdict:
        verdict = _run_case(pair, *job, spoken)
        tell(job[0], verdict)
        return verdict

    jobs = list_jobs(pair, cases, spoken)
    report: Report = {case.number: [] for case in cases}
    with ThreadPoolExecutor(WORKERS) as pool:
        for (case, _), verdict in zip(jobs, pool.map(run, jobs), strict=True):
            report[case.number].append(verdict)
    return report


def _run_case(pair: Pair, case: Case, version: str, spoken: Sequence[str]) -> Verdict:
    world = World(pair, version, spoken)
    try:
        case.run(world)
    except Mismatch as mismatch:
        return Verdict(version, False, _plain(mismatch.expected, pair), _plain(mismatch.seen, pair))
    except Exception as error:  # an answer that the case could not go on with
        return Verdict(version, False, "an answer that the case can go on with", _plain(f"{error!r}", pair))
    finally:
        world.close()
    return Verdict(version, True)


def _plain(text: str, pair: Pair) -> str:
    """A text on one line, the same in every run."""
    for directory in pair.path:
        text = text.replace(directory, "CNI_PATH")
    for pattern, replacement in _RANDOM:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
