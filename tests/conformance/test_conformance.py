"""Every case against our plugins, which pass all, and against the reference, which fails those that are listed."""

from typing import NamedTuple

import pytest

from tests.conformance.cases import list_cases
from tests.conformance.document import our_pair, reference_pair, write_document
from tests.conformance.reference_failures import KNOWN, Failure
from tests.conformance.registry import ALL, Case
from tests.conformance.runner import Report, find_spoken_versions, run_cases
from tests.conftest import ROOT

# The first test that asks for verdicts waits for those of all that are selected.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]
CASES = list_cases()
FOR_EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}-{case.run.__name__}")


class Reports(NamedTuple):
    """Verdicts on both pairs."""

    ours: Report
    reference: Report


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest, bin_dir: str) -> Reports:
    """The verdicts that the selected tests ask for, made some at a time."""
    wanted: dict[str, set[int]] = {"ours": set(), "reference": set()}
    for item in request.session.items:
        if not isinstance(item, pytest.Function) or "reports" not in item.fixturenames:
            continue
        for whose, numbers in wanted.items():
            if not hasattr(item, "callspec"):
                numbers.update(case.number for case in CASES)
            elif whose in item.name:
                numbers.add(CASES[item.callspec.indices["case"]].number)
    ours, reference = ([case for case in CASES if case.number in numbers] for numbers in wanted.values())
    return Reports(run_cases(our_pair(bin_dir), ours), run_cases(reference_pair(), reference))


@FOR_EACH_CASE
def test_ours_passes(case: Case, reports: Reports) -> None:
    verdicts = reports.ours[case.number]
    assert [verdict.version for verdict in verdicts] == list(case.versions or ALL[-1:])
    assert all(verdict.passed for verdict in verdicts), "\n".join(map(str, verdicts))


@FOR_EACH_CASE
def test_reference_fails_where_it_is_known_to(case: Case, reports: Reports) -> None:
    verdicts = reports.reference[case.number]
    failed = tuple(verdict.version for verdict in verdicts if not verdict.passed)
    assert failed == KNOWN.get(case.number, Failure((), "")).versions, "\n".join(map(str, verdicts))


def test_our_plugins_speak_every_version(bin_dir: str) -> None:
    assert find_spoken_versions(our_pair(bin_dir)) == ALL


def test_document_is_up_to_date(reports: Reports) -> None:
    text = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    wanted = write_document(CASES, reports.ours, reports.reference)
    assert text == wanted, "make it anew: sudo scripts/conformance --document docs/conformance.md"
