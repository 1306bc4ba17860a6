"""What the threads of a source write down, and what of it is published when."""

import time

import pytest

from cni_node.sources import board as module
from cni_node.sources.board import GAP, PROBLEMS, Board
from cni_node.sources.members import Member
from tests.cni_node.sources.test_members import member
from tests.kit.following import Followed, peer_names
from tests.kit.host import wait_until


def entry(name: str, number: int = 0, age: int = 0) -> Member:
    number = number or ord(name[0]) - 96
    return member(name, f"10.0.{number}.0/24", f"1.1.1.{ord(name[0]) - 96}", age)


def board_of(followed: Followed, *names: str) -> Board:
    """A board of node `a` that has these."""
    board = Board("a", followed.publish)
    board.replace({name: entry(name) for name in names})
    return board


@pytest.fixture
def long_gap(monkeypatch: pytest.MonkeyPatch) -> float:
    """Between two snapshots, so long that a machine that is busy makes some changes in it."""
    monkeypatch.setattr(module, "GAP", 0.5)
    return 0.5


def test_until_a_list_has_come_there_are_only_problems() -> None:
    followed = Followed()
    board = Board("a", followed.publish)
    board.put("b", entry("b"))
    board.say("api", "away")
    told = followed.until(lambda snapshot: bool(snapshot.problems))
    assert (told.listed, told.own, told.peers) == (False, None, ())
    board.replace({"a": entry("a")})
    assert followed.until(lambda snapshot: snapshot.listed).problems == ("away",)
    board.say("api", "")
    followed.until(lambda snapshot: not snapshot.problems)


def test_a_list_replaces_all_in_one_snapshot() -> None:
    followed = Followed()
    board = board_of(followed, "a", "b", "c")
    board.replace({name: entry(name) for name in "acd"})
    followed.until(lambda snapshot: peer_names(snapshot) == ["c", "d"])
    assert len(followed.snapshots) == 2


def test_a_list_keeps_who_is_named() -> None:
    followed = Followed()
    board = board_of(followed, "a", "b", "c")
    board.replace({"a": entry("a")}, keep={"b"})
    followed.until(lambda snapshot: peer_names(snapshot) == ["b"])


@pytest.mark.slow
def test_the_first_change_is_published_at_once_and_more_together(long_gap: float) -> None:
    followed = Followed()
    board = board_of(followed, "a")
    time.sleep(long_gap)
    begun = time.monotonic()
    for name in "bcdefgh":
        board.put(name, entry(name))
    assert peer_names(followed.last) == ["b"]
    followed.until(lambda snapshot: len(snapshot.peers) == 7)
    assert time.monotonic() - begun > long_gap / 2
    assert len(followed.snapshots) == 3


@pytest.mark.slow
def test_what_is_undone_at_once_is_not_published(long_gap: float) -> None:
    followed = Followed()
    board = board_of(followed, "a", "b")
    board.remove("b")
    board.put("b", entry("b"))
    board.say("done", "done")
    followed.until(lambda snapshot: bool(snapshot.problems))
    board.say("more", "more")
    board.say("more", "")
    assert not wait_until(lambda: len(followed.snapshots) > 2, 2 * long_gap)


def test_who_is_held_stays_for_a_while_and_gives_way_to_others() -> None:
    followed = Followed()
    board = board_of(followed, "a", "b")
    begun = time.monotonic()
    board.remove("b", hold=0.5)
    told = followed.until(lambda snapshot: bool(snapshot.problems))
    assert peer_names(told) == ["b"]
    assert told.problems == ("kept for a while, although their entries are gone: b",)
    board.put("c", entry("c", number=2, age=9))  # younger, with b's range
    followed.until(lambda snapshot: peer_names(snapshot) == ["c"])
    told = followed.until(lambda snapshot: not snapshot.problems)
    assert (peer_names(told), time.monotonic() - begun > 0.5) == (["c"], True)


@pytest.mark.slow
def test_who_comes_back_in_time_was_never_gone() -> None:
    followed = Followed()
    board = board_of(followed, "a", "b", "c")
    board.remove("b", hold=1.0)
    board.remove("c", hold=1.0)
    board.put("b", entry("b"))
    followed.until(lambda snapshot: peer_names(snapshot) == ["b"])
    assert all("b" in peer_names(snapshot) for snapshot in followed.snapshots)


def test_this_node_stays_but_gives_way() -> None:
    followed = Followed()
    board = board_of(followed, "a", "b")
    board.remove("a")
    board.put("b", entry("b", number=3))
    assert followed.until(lambda snapshot: str(snapshot.peers[0].pods[0]) == "10.0.3.0/24").own == entry("a").node
    board.put("b", entry("b", number=1, age=9))
    told = followed.until(lambda snapshot: snapshot.own is not None and not snapshot.own.pods)
    assert told.problems == ("pod range 10.0.1.0/24 of node a overlaps with what node b has already",)
    board.put("a", entry("a"))
    followed.until(lambda snapshot: snapshot.own == entry("a").node)


def test_problems_are_told_once_and_not_without_end() -> None:
    followed = Followed()
    board = board_of(followed, "a")
    with board.together():
        board.say("one", "the same")
        board.say("two", "the same")
        for index in range(100):
            board.say(f"t{index}", f"p{index}")
    told = followed.until(lambda snapshot: bool(snapshot.problems))
    assert told.problems[:2] == ("the same", "p0")
    assert told.problems[PROBLEMS:] == (f"and {101 - PROBLEMS} problems more",)


def test_a_closed_board_publishes_nothing() -> None:
    followed = Followed()
    board = board_of(followed, "a")
    board.put("b", entry("b"))
    board.close()
    board.put("c", entry("c"))
    time.sleep(2 * GAP)
    assert len(followed.snapshots) == 1


def test_a_board_that_is_closed_at_rest_publishes_nothing() -> None:
    followed = Followed()
    board = board_of(followed, "a")
    time.sleep(GAP)
    board.close()
    board.put("b", entry("b"))
    assert not wait_until(lambda: len(followed.snapshots) > 1, 2 * GAP)
