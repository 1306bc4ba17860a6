"""A sample of the trials that scripts/faults does in full."""

import os

import pytest

from tests.faults.campaign import kind_of, list_trials, run_all, sample
from tests.faults.subjects import SEED, Subject, ours
from tests.faults.trials import Trial

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="session")
def subject(bin_dir: str) -> Subject:
    return ours(bin_dir)


@pytest.fixture(scope="session")
def all_trials(subject: Subject) -> list[Trial]:
    return list_trials(subject)


def test_there_are_hundreds_of_points_in_both_processes_of_both_commands(all_trials: list[Trial]) -> None:
    kills = {(t.network.name, t.command, t.point) for t in all_trials if t.fault == "KILL"}
    for command in ("ADD", "DEL"):
        for process in ("bridge", "ipam"):
            assert [p for _, c, p in kills if (c, p.process) == (command, process)], (command, process)
    assert len(kills) > 100
    assert len(all_trials) > 800


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("killed, then DEL", 5),
        ("killed, then DEL, namespace gone", 5),
        ("killed, then GC alone", 5),
        ("killed, then ADD in a new namespace", 5),
        ("disk: ENOSPC, EIO", 6),
        ("kernel: ENOMEM, EPERM", 6),
        ("SIGTERM, SIGINT", 6),
        ("the child that waits is killed", 6),
    ],
)
def test_a_sample_of_faults_is_survived(subject: Subject, all_trials: list[Trial], kind: str, count: int) -> None:
    chosen = sample([trial for trial in all_trials if kind_of(trial) == kind], count)
    findings = run_all(subject, chosen, workers=os.cpu_count() or 1)
    assert len(findings) == count
    assert [(str(trial), verdict.problems) for trial, verdict in findings if verdict.problems] == []
    assert [str(trial) for trial, verdict in findings if not verdict.struck] == []


@pytest.mark.parametrize("fault", ["TERM", "INT"])
def test_a_signal_inside_the_containers_namespace_is_undone_from_outside(
    subject: Subject, all_trials: list[Trial], fault: str
) -> None:
    chosen = [t for t in all_trials if (t.fault, t.point.call, t.network) == (fault, "setns", SEED)]
    findings = run_all(subject, chosen, workers=os.cpu_count() or 1)
    assert findings
    assert [(str(trial), verdict.problems) for trial, verdict in findings if verdict.problems] == []


@pytest.mark.parametrize("fault", ["TERM", "INT"])
def test_a_signal_while_the_result_is_written_does_not_spoil_it(
    subject: Subject, all_trials: list[Trial], fault: str
) -> None:
    writes = [
        trial
        for trial in all_trials
        if (trial.fault, trial.point.call) == (fault, "write") and "pipe:" in trial.point.arguments
    ]
    findings = run_all(subject, writes, workers=os.cpu_count() or 1)
    assert findings
    assert [(str(trial), verdict.problems) for trial, verdict in findings if verdict.problems] == []
