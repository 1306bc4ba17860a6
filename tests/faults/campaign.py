"""All trials of a subject, in parallel, and their table."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.faults import trials
from tests.faults.points import CHILD, Point, mutating, on_netlink, on_store
from tests.faults.subjects import Network, Subject, networks_of
from tests.faults.trials import DUPLICATE, LEAK, Trial, Verdict, record, record_child, run_trial

COMMANDS = ("ADD", "DEL")
_TRIES = 3  # of a trial whose fault did not strike: the number of some calls varies, as when a lock is waited for


class Row(NamedTuple):
    """Figures of the trials of one kind, on one network, of one command."""

    kind: str
    network: str
    command: str
    points: int
    tried: int
    survived: int
    leaks: int
    duplicates: int
    others: int
    missed: int


class Finding(NamedTuple):
    """A trial and what came out."""

    trial: Trial
    verdict: Verdict


def list_trials(subject: Subject) -> list[Trial]:
    """Every trial there is, from fresh recordings."""
    found: list[Trial] = []
    for network in networks_of(subject):
        for command in COMMANDS:
            points = record(subject, network, command)
            found += list_kills(subject, network, command, points)
            found += list_errors(network, command, points)
            if command == "ADD":
                found += list_interruptions(network, points)
        if subject.forks:
            found += [Trial(network, "DEL", "KILL", point) for point in record_child(subject, network)]
    return found


def list_kills(subject: Subject, network: Network, command: str, points: Sequence[Point]) -> list[Trial]:
    """SIGKILL at every call that changes something, with each remedy."""
    remedies = trials.remedies_of(subject)
    return [Trial(network, command, "KILL", p, remedy) for p in mutating(points) for remedy in remedies]


def list_errors(network: Network, command: str, points: Sequence[Point]) -> list[Trial]:
    """Errors of the disk at every call on the store, errors of the kernel at every netlink request."""
    disk = [Trial(network, command, error, p) for p in on_store(points) for error in trials.DISK_ERRORS]
    kernel = [Trial(network, command, error, p) for p in on_netlink(points) for error in trials.KERNEL_ERRORS]
    return disk + kernel


def list_interruptions(network: Network, points: Sequence[Point]) -> list[Trial]:
    """SIGTERM and SIGINT at every call that changes something, but the very end."""
    places = [p for p in mutating(points) if p.call != "exit_group"]
    return [Trial(network, "ADD", name, point) for point in places for name in ("TERM", "INT")]


def sample(all_trials: Sequence[Trial], count: int) -> list[Trial]:
    """That many of them, evenly spread."""
    if count >= len(all_trials):
        return list(all_trials)
    return [all_trials[(2 * i + 1) * len(all_trials) // (2 * count)] for i in range(count)]


def run_all(
    subject: Subject, chosen: Sequence[Trial], workers: int, tell: Callable[[Finding], None] = lambda _: None
) -> list[Finding]:
    """Run trials in parallel. Returns the findings in the order of the trials."""
    findings = []
    with ProcessPoolExecutor(workers) as pool:
        for trial, verdict in zip(chosen, pool.map(_try, [subject] * len(chosen), chosen), strict=True):
            findings.append(Finding(trial, verdict))
            tell(findings[-1])
    return findings


def _try(subject: Subject, trial: Trial) -> Verdict:
    for _ in range(_TRIES):
        verdict = run_trial(subject, trial)
        if verdict.struck or verdict.problems:
            break
    return verdict


def kind_of(trial: Trial) -> str:
    """A kind of faults, as the table has it."""
    if trial.point.process == CHILD:
        return "the child that waits is killed"
    if trial.fault == "KILL":
        return f"killed, then {trial.remedy}"
    if trial.fault in trials.SIGNALS:
        return "SIGTERM, SIGINT"
    return "disk: ENOSPC, EIO" if trial.fault in trials.DISK_ERRORS else "kernel: ENOMEM, EPERM"


def tabulate(findings: Iterable[Finding]) -> list[Row]:
    """The figures by kind, network and command, in the order in which these come first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        trial = finding.trial
        groups.setdefault((kind_of(trial), trial.network.name, trial.command), []).append(finding)
    return [_row(key, group) for key, group in groups.items()]


def total(rows: Sequence[Row]) -> Row:
    """The sum of all rows; points are counted once for each row."""
    sums = {name: sum(getattr(row, name) for row in rows) for name in Row._fields[3:]}
    return Row("all", "", "", **sums)


def _row(key: tuple[str, str, str], group: Sequence[Finding]) -> Row:
    kinds = [{kind for kind, _ in finding.verdict.problems} for finding in group]
    struck = [finding for finding in group if finding.verdict.struck or finding.verdict.problems]
    return Row(
        *key,
        points=len({finding.trial.point for finding in group}),
        tried=len(struck),
        survived=sum(not finding.verdict.problems for finding in struck),
        leaks=sum(LEAK in found for found in kinds),
        duplicates=sum(DUPLICATE in found for found in kinds),
        others=sum(bool(found - {LEAK, DUPLICATE}) for found in kinds),
        missed=len(group) - len(struck),
    )


def to_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    head = ("fault", "network", "command", *Row._fields[3:])
    cells = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        texts = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)
