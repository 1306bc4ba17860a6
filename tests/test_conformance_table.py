"""The conformance suite itself: its cases, which of them are run, its tables, its command."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.cases import MODULES, list_cases
from tests.conformance.reference_failures import KNOWN
from tests.conformance.registry import ALL, EACH, IPAM, PAIR, Case, Mismatch, expect, expect_equal
from tests.conformance.runner import Report, Verdict, list_jobs
from tests.conformance.table import SECTIONS, count, to_json, to_markdown
from tests.conformance.world import Pair, refuse, succeed
from tests.conftest import REFERENCE_DIR, ROOT
from tests.kit.host import Outcome

RUN_BOUND = 100  # seconds for scripts/conformance
BOTH = Pair(("/bin",), "b", "i", frozenset())


def make_case(
    number: int, needs: frozenset[str] = EACH, versions: tuple[str, ...] = (), demanded: bool = False
) -> Case:
    return Case(number, "add", f"sentence {number}", lambda _: None, needs, versions, demanded)


def test_cases_are_numbered_without_a_gap() -> None:
    assert [case.number for case in list_cases()] == list(range(1, 69))


def test_every_case_has_a_section_and_every_section_a_module() -> None:
    assert {case.section for case in list_cases()} == set(SECTIONS)
    assert len(MODULES) == len(SECTIONS)


def test_every_case_says_what_is_asked_in_a_sentence() -> None:
    for case in list_cases():
        assert case.sentence.endswith("."), case.sentence
        assert "|" not in case.sentence


def test_known_failures_are_of_versions_that_the_case_is_judged_for() -> None:
    cases = {case.number: case for case in list_cases()}
    for number, failure in KNOWN.items():
        assert set(failure.versions) <= set(cases[number].versions or ALL), number
        assert failure.reason


@pytest.mark.parametrize(
    ("case", "pair", "versions"),
    [
        pytest.param(make_case(1), BOTH, ["1.0.0"], id="the newest that is spoken"),
        pytest.param(make_case(1, versions=ALL), BOTH, ["0.4.0", "1.0.0"], id="those that are spoken"),
        pytest.param(make_case(1, versions=ALL[5:], demanded=True), BOTH, ["1.0.0", "1.1.0"], id="demanded"),
        pytest.param(make_case(1, PAIR), BOTH._replace(bridge=""), [], id="a plugin is not given"),
        pytest.param(make_case(1, frozenset({IPAM})), BOTH._replace(bridge=""), ["1.0.0"], id="the one it needs is"),
    ],
)
def test_cases_are_run_for(case: Case, pair: Pair, versions: list[str]) -> None:
    assert list_jobs(pair, [case], ("0.4.0", "1.0.0")) == [(case, version) for version in versions]


@pytest.mark.parametrize(
    ("outcome", "codes", "naming", "expected"),
    [
        pytest.param(Outcome(0, None, "", ""), [], [], "an exit status other than 0", id="success"),
        pytest.param(Outcome(1, None, "", ""), [], [], "an error object on stdout", id="nothing on stdout"),
        pytest.param(Outcome(1, [], "[]", ""), [], [], "an error object on stdout", id="no object"),
        pytest.param(Outcome(1, {"code": "4", "msg": "x"}, "", ""), [], [], "with code and msg", id="code as text"),
        pytest.param(Outcome(1, {"code": 4, "msg": ""}, "", ""), [], [], "with code and msg", id="no message"),
        pytest.param(Outcome(1, {"code": 5, "msg": "x"}, "", ""), [4, 7], [], "code 4 or 7", id="other code"),
        pytest.param(Outcome(1, {"code": 4, "msg": "x"}, "", ""), [4], ["x", "y"], "y in the message", id="not named"),
    ],
)
def test_refuse_tells_what_is_wrong(outcome: Outcome, codes: list[int], naming: list[str], expected: str) -> None:
    with pytest.raises(Mismatch) as caught:
        refuse(outcome, "ADD", codes, naming)
    assert caught.value.expected.startswith("ADD: ")
    assert expected in caught.value.expected


def test_refuse_takes_an_error_object() -> None:
    error = {"code": 4, "msg": "x", "details": "y"}
    assert refuse(Outcome(1, error, "", ""), "ADD", [4], ["x", "y"]) == error


def test_succeed_wants_exit_status_0_and_can_want_silence() -> None:
    fine = Outcome(0, {"a": 1}, '{"a": 1}', "")
    assert succeed(fine, "ADD") is fine
    with pytest.raises(Mismatch, match="nothing on stdout"):
        succeed(fine, "DEL", silent=True)
    with pytest.raises(Mismatch, match="exit status 3, code 7: no"):
        succeed(Outcome(3, {"code": 7, "msg": "no"}, "", ""), "ADD")


def test_expectations_that_hold_are_silent_and_others_say_both_sides() -> None:
    expect(True, "a", "b")
    expect_equal(1, 1, "number")
    with pytest.raises(Mismatch) as caught:
        expect_equal(2, 1, "number")
    assert (caught.value.expected, caught.value.seen) == ("number: 1", "2")


REPORT: Report = {
    1: [Verdict("1.1.0", True)],
    2: [Verdict("0.4.0", True), Verdict("1.0.0", False, "the version 1.0.0", "a|b"), Verdict("1.1.0", False, "x", "y")],
    3: [],
    4: [Verdict("0.4.0", False, "as 0.4.0", "_x_"), Verdict("1.0.0", False, "as 1.0.0", "_x_")],
}


def test_table_has_a_verdict_for_every_case_and_then_the_failures() -> None:
    text = to_markdown([make_case(number) for number in REPORT], {"some pair": REPORT})
    assert text.splitlines() == [
        "## ADD",
        "",
        "| | The specification asks | some pair |",
        "|--:|---|---|",
        "| 1 | sentence 1 | pass |",
        "| 2 | sentence 2 | **fail** (1.0.0, 1.1.0); pass (0.4.0) |",
        "| 3 | sentence 3 | not run |",
        "| 4 | sentence 4 | **fail** |",
        "",
        "## What some pair fails",
        "",
        "- **2** (1.0.0)  ",
        "  expected: the version 1.0.0  ",
        "  seen: a\\|b",
        "- **2** (1.1.0)  ",
        "  expected: x  ",
        "  seen: y",
        "- **4** (0.4.0, 1.0.0)  ",
        "  expected: as VERSION  ",
        "  seen: \\_x\\_",
    ]


def test_table_says_when_nothing_fails_and_counts() -> None:
    report = {1: [Verdict("1.1.0", True)]}
    assert to_markdown([make_case(1)], {"some pair": report}).endswith("## What some pair fails\n\nNothing.\n")
    assert count(report) == (1, 1)
    assert count(REPORT) == (1, 3)


def test_json_has_every_verdict() -> None:
    entries = to_json([make_case(1), make_case(3)], REPORT)
    assert [entry["number"] for entry in entries] == [1, 3]
    assert entries[0]["verdicts"] == [{"version": "1.1.0", "passed": True, "expected": "", "seen": ""}]


def run_script(*arguments: str, **options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(ROOT / "scripts" / "conformance"), *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_BOUND,
        check=False,
        env={**os.environ, **options},
    )


@pytest.mark.kernel
def test_script_passes_and_fails_and_writes_its_files(tmp_path: Path) -> None:
    table, data = tmp_path / "table.md", tmp_path / "all.json"
    plugins = ("--cni-path", REFERENCE_DIR, "--ipam", "host-local")
    good = run_script(*plugins, "--cases", "27,54", "--output", str(table), "--json", str(data))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "host-local: 1 of 1 cases passed, 1 not run" in good.stdout
    assert "| 27 |" in table.read_text() and "not run |" in table.read_text()
    assert [len(entry["verdicts"]) for entry in json.loads(data.read_text())] == [0, 6]
    bad = run_script(*plugins, "--cases", "46")
    assert bad.returncode == 1
    assert "expected  ipam: cniVersion of the answer: '0.1.0'" in bad.stdout
    assert "seen      1.0.0" in bad.stdout


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((), "--cni-path", id="nothing"),
        pytest.param(("--cni-path", "/usr/lib/cni"), "--ipam", id="no plugin"),
        pytest.param(("--cni-path", "/usr/lib/cni", "--ipam", "not-there"), "not-there", id="plugin not there"),
    ],
)
def test_script_refuses_a_wrong_call(arguments: tuple[str, ...], said: str) -> None:
    result = run_script(*arguments)
    assert result.returncode == 2
    assert said in result.stderr


@pytest.mark.kernel
def test_a_plugin_that_answers_nothing_fails_and_does_not_break_the_run(tmp_path: Path) -> None:
    plugin = tmp_path / "mute"
    plugin.write_text("#!/bin/sh\nexit 0\n")
    plugin.chmod(0o755)
    result = run_script("--cni-path", str(tmp_path), "--bridge", "mute", "--ipam", "mute", "--cases", "15,33,46,47,61")
    assert result.returncode == 1
    assert "0 of 5 cases passed" in result.stdout
    assert "Traceback" not in result.stderr
