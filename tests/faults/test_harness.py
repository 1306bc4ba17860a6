"""The harness itself: what it takes for a point, what it takes for left behind, and that it finds faults at all."""

from typing import Any

import pytest

from suites import agent_faults
from tests.faults.agent import Kill
from tests.faults.campaign import Finding, Row, list_kills, run_all, sample, tabulate, total
from tests.faults.document import write_document
from tests.faults.points import BRIDGE, IPAM, Point, mutating, on_netlink, on_store, parse_log
from tests.faults.state import State, leftovers
from tests.faults.subjects import SEED, reference
from tests.faults.trials import DUPLICATE, LEAK, STUCK, Trial, Verdict, record

LOG = """\
execve("/opt/cni/bin/cni-ipam", ["/opt/cni/bin/cni-ipam"], 0x7ffd /* 8 vars */) = 0
openat(AT_FDCWD</>, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3</etc/ld.so.cache>
openat(3</var/lib/cni/networks/seed>, "lock", O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC, 0600) = 4
write(5</proc/sys/net/ipv4/ip_forward>, "1", 1) = ? ERESTARTNOINTR (To be restarted)
write(5</proc/sys/net/ipv4/ip_forward>, "1", 1) = 1
sendto(4<socket:[1]>, [{nlmsg_len=40, nlmsg_type=RTM_GETLINK, nlmsg_flags=0x5}, "x"], 40, 0, NULL, 0) = 40
sendto(4<socket:[1]>, [{nlmsg_len=40, nlmsg_type=RTM_NEWLINK, nlmsg_flags=0x605}, "x"], 40, 0, NULL, 0) = 40
unlinkat(3</var/lib/cni/networks/seed>, "10.1.0.2", 0) = 0
exit_group(0) = ?
+++ exited with 0 +++
"""
EMPTY = State({}, {}, (), ())
POINT = Point(BRIDGE, "setns", 1, "")


def names(points: list[Point]) -> list[tuple[str, int]]:
    return [(point.call, point.number) for point in points]


def test_points_are_counted_by_name_and_only_what_changes_something_counts() -> None:
    points = parse_log(IPAM, LOG.splitlines())
    assert len(points) == 8
    changing = [("openat", 2), ("write", 1), ("sendto", 2), ("unlinkat", 1), ("exit_group", 1)]
    assert names(mutating(points)) == changing
    assert names(on_store(points)) == [("openat", 2), ("unlinkat", 1)]
    assert names(on_netlink(points)) == [("sendto", 1), ("sendto", 2)]


def test_each_thread_counts_for_itself() -> None:
    lines = ["7 write(1, 1) = 1", "8 write(1, 2) = 1", "7 write(1, 3) = 1", "7 <... write resumed>) = 1"]
    assert names(parse_log(IPAM, lines)) == [("write", 1), ("write", 2)]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (EMPTY, EMPTY, []),
        (EMPTY, EMPTY._replace(files=("networks/seed/10.1.0.2",)), ["file left: networks/seed/10.1.0.2"]),
        (EMPTY._replace(files=("networks/seed/10.1.0.2",)), EMPTY, ["file lost: networks/seed/10.1.0.2"]),
        (EMPTY, EMPTY._replace(rules=("table pycni",)), ["rule left: table pycni"]),
        (EMPTY, EMPTY._replace(links={"cni0": ("10.1.0.1",)}), []),
        (EMPTY, EMPTY._replace(links={"veth1": ()}), ["host: interface veth1 absent -> with no address"]),
        (EMPTY, EMPTY._replace(inside={"eth0": ("10.1.0.2",)}), ["container: interface eth0 absent -> with 10.1.0.2"]),
    ],
    ids=["nothing", "reservation", "lost reservation", "rule", "bridge", "host end", "container end"],
)
def test_what_is_left_is_found(before: State, after: State, found: list[str]) -> None:
    assert leftovers(before, after, with_bridge=False) == found


def test_a_new_bridge_is_left_behind_by_an_add_that_failed() -> None:
    after = EMPTY._replace(links={"cni0": ()})
    assert leftovers(EMPTY, after, with_bridge=True) == ["host: interface cni0 absent -> with no address"]


def test_a_sample_is_spread_evenly() -> None:
    trials = [Trial(SEED, "ADD", "KILL", POINT._replace(number=number)) for number in range(100)]
    assert [trial.point.number for trial in sample(trials, 4)] == [12, 37, 62, 87]
    assert sample(trials, 100) == sample(trials, 1000) == trials


def findings() -> list[Finding]:
    trial = Trial(SEED, "ADD", "KILL", POINT, "DEL")
    verdicts = [
        Verdict(True, ()),
        Verdict(True, ((LEAK, "a"), (LEAK, "b"))),
        Verdict(True, ((DUPLICATE, "c"), (STUCK, "d"))),
        Verdict(False, ()),
    ]
    return [Finding(trial, verdict) for verdict in verdicts]


def test_the_table_counts_trials_not_problems() -> None:
    row = Row("killed, then DEL", "seed", "ADD", 1, tried=3, survived=1, leaks=1, duplicates=1, others=1, missed=1)
    assert tabulate(findings()) == [row]
    assert total([row, row])[3:] == (2, 6, 2, 2, 2, 2, 2)


def test_the_document_shows_both_sides_and_does_not_depend_on_the_day() -> None:
    rows = tabulate(findings())
    text = write_document(rows, rows)
    assert text == write_document(rows, rows)
    assert text.count("| killed, then DEL | seed | ADD | 1 | 3 | 1 | 1 | 1 | 1 |") == 2


@pytest.mark.kernel
def test_the_harness_finds_faults_in_the_reference() -> None:
    subject = reference()
    kills = list_kills(subject, SEED, "ADD", record(subject, SEED, "ADD"))
    rows = total(tabulate(run_all(subject, sample(kills, 12), workers=2)))
    assert rows.tried > 0
    assert rows.leaks + rows.others > 0


def test_an_agent_that_is_not_right_after_a_kill_is_shown_and_fails(mocker: Any, capsys: Any) -> None:
    kills = [Kill("unlink", 1, ""), Kill("sendto", 1, ""), Kill("sendto", 2, "routes is {}, not {...}")]
    tried = mocker.patch.object(agent_faults, "kill_at_every_call")
    for number, status in ((0, 1), (2, 0), (3, 1)):
        tried.return_value = iter(kills[:number])
        assert agent_faults.main("/opt/cni/bin") == status
    said = capsys.readouterr().out
    assert "FAULT       killed at sendto 2: routes is {}, not {...}\n" in said
    assert "agent killed at each unlink, then started again: 1 of 1 survived\n" in said
    assert said.endswith("agent killed at each sendto, then started again: 1 of 2 survived\n")
