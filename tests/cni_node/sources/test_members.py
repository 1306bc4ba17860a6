"""Who has which range: order, overlaps, and addresses that two have."""

import time

import pytest

from cni_node.snapshot import Node, Snapshot
from cni_node.sources.members import Member, Members, name_some
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip


def member(name: str, pods: str, address: str, age: int = 0) -> Member:
    ranges = tuple(parse_cidr(text) for text in pods.split())
    return Member(Node(name, ranges, tuple(parse_ip(text) for text in address.split())), (age, ""))


def members(*entries: Member) -> Members:
    found = Members()
    for entry in entries:
        found.put(entry.node.name, entry)
    return found


def shown(snapshot: Snapshot) -> dict[str, str]:
    return {node.name: " ".join(map(str, node.pods)) for node in snapshot.peers}


def test_peers_are_in_the_order_of_their_names_without_this_node() -> None:
    found = members(
        member("c", "10.0.3.0/24", "1.1.1.3"),
        member("a", "10.0.1.0/24", "1.1.1.1"),
        member("b", "10.0.2.0/24", "1.1.1.2"),
    )
    snapshot = found.snapshot("b")
    assert snapshot.own == member("b", "10.0.2.0/24", "1.1.1.2").node
    assert shown(snapshot) == {"a": "10.0.1.0/24", "c": "10.0.3.0/24"}
    assert list(shown(found.snapshot("x"))) == ["a", "b", "c"]


def test_changes_are_told_from_none() -> None:
    found = Members()
    assert found.put("a", member("a", "10.0.1.0/24", "1.1.1.1"))
    assert not found.put("a", member("a", "10.0.1.0/24", "1.1.1.1"))
    assert found.put("a", member("a", "10.0.2.0/24", "1.1.1.1"))
    assert shown(found.snapshot("")) == {"a": "10.0.2.0/24"}
    assert found.remove("a")
    assert not found.remove("a")
    assert found.snapshot("") == Snapshot(None, ())


@pytest.mark.parametrize(
    ("entries", "kept", "losers"),
    [
        (("a 10.0.1.0/24 2", "b 10.0.1.0/24 1"), {"b": "10.0.1.0/24"}, ["10.0.1.0/24 of node a|node b"]),
        (("a 10.0.1.0/24 1", "b 10.0.1.0/24 1"), {"a": "10.0.1.0/24"}, ["10.0.1.0/24 of node b|node a"]),
        (("a 10.0.0.0/16 1", "b 10.0.1.0/24 2"), {"a": "10.0.0.0/16"}, ["10.0.1.0/24 of node b|node a"]),
        (
            ("a 10.0.0.0/16 3", "b 10.0.1.0/24 2", "c 10.0.200.0/24 1"),
            {"b": "10.0.1.0/24", "c": "10.0.200.0/24"},
            ["10.0.0.0/16 of node a|node b"],
        ),
        (
            ("a 10.0.0.0/16 3", "b 10.0.1.0/24 2", "c 10.0.1.128/25 1"),
            {"c": "10.0.1.128/25"},
            ["10.0.1.0/24 of node b|node c", "10.0.0.0/16 of node a|node c"],
        ),
        (
            ("a 10.0.1.0/24,fd00::/64 1", "b 10.0.1.0/24,fd00:0:0:1::/64 2"),
            {"a": "10.0.1.0/24 fd00::/64", "b": "fd00:0:0:1::/64"},
            ["10.0.1.0/24 of node b|node a"],
        ),
        (
            ("a 10.0.1.0/24 1", "b 10.0.2.0/24 1", "c a00:100::/24 1"),
            {"a": "10.0.1.0/24", "b": "10.0.2.0/24", "c": "a00:100::/24"},
            [],
        ),
    ],
    ids=["older", "by-name", "inside", "youngest-is-largest", "nested", "one-family", "none"],
)
def test_the_older_node_has_a_range_that_two_have(
    entries: tuple[str, ...], kept: dict[str, str], losers: list[str]
) -> None:
    found = Members()
    for index, entry in enumerate(entries):
        name, pods, age = entry.split()
        found.put(name, member(name, pods.replace(",", " "), f"1.1.1.{index}", int(age)))
    snapshot = found.snapshot("")
    assert shown(snapshot) == kept
    wanted = ["pod range {} overlaps with what {} has already".format(*loser.split("|")) for loser in losers]
    assert list(snapshot.problems) == wanted


def test_a_node_that_may_be_gone_gives_way() -> None:
    found = members(member("a", "10.0.1.0/24", "1.1.1.1", 1), member("b", "10.0.1.0/24", "1.1.1.2", 2))
    assert shown(found.snapshot("", {"a"})) == {"b": "10.0.1.0/24"}


def test_this_node_loses_its_range_to_an_older_one() -> None:
    found = members(member("a", "10.0.1.0/24", "1.1.1.1", 1), member("b", "10.0.1.0/24", "1.1.1.2", 2))
    own = found.snapshot("b").own
    assert own is not None
    assert own.pods == ()


def test_peers_with_the_address_of_this_node_are_left_out_and_named() -> None:
    found = members(member("a", "10.0.1.0/24", "10.0.2.15"), member("b", "10.0.2.0/24", "10.0.2.15 fd00::2"))
    snapshot = found.snapshot("a")
    assert snapshot.peers == ()
    assert snapshot.problems == ("the address of this node, 10.0.2.15, is also that of b: no routes lead there",)


def test_peers_with_one_address_are_kept_and_named() -> None:
    found = members(
        member("a", "10.0.1.0/24", "1.1.1.1"),
        member("b", "10.0.2.0/24", "1.1.1.1"),
        member("c", "10.0.3.0/24", "1.1.1.3"),
    )
    snapshot = found.snapshot("c")
    assert list(shown(snapshot)) == ["a", "b"]
    assert snapshot.problems == ("these nodes have one address, 1.1.1.1: a, b",)


def test_peers_without_address_are_left_out_and_named_and_machines_without_pods_are_nothing_odd() -> None:
    found = members(
        member("a", "", "1.1.1.1"),
        member("b", "10.0.2.0/24", ""),
        member("c", "10.0.3.0/24", "1.1.1.3"),
        member("d", "", ""),
    )
    snapshot = found.snapshot("")
    assert list(shown(snapshot)) == ["c"]
    assert snapshot.problems == ("without address, so no routes lead there: b",)


def test_ranges_that_overlap_are_seen_whenever_they_come_and_forgotten_when_they_go() -> None:
    found = members(*(member(f"n{index}", f"10.0.{index}.0/24", f"1.1.1.{index}", 1) for index in range(9)))
    assert found.snapshot("").problems == ()
    found.put("big", member("big", "10.0.0.0/16", "1.1.2.1", 2))
    found.put("late", member("late", "10.0.200.0/24", "1.1.2.2", 3))
    told = ["pod range 10.0.0.0/16 of node big overlaps with what node n0 has already"]
    assert [list(found.snapshot("").problems) for _ in range(2)] == [told] * 2
    found.remove("big")
    assert [list(found.snapshot("").problems) for _ in range(2)] == [[]] * 2
    found.put("n3b", member("n3b", "10.0.3.0/25", "1.1.2.3", 2))
    assert found.snapshot("").problems == ("pod range 10.0.3.0/25 of node n3b overlaps with what node n3 has already",)


def test_many_names_are_cut_short() -> None:
    assert name_some("abcde") == "a, b, c, d, e"
    assert name_some("abcdefg") == "a, b, c, d, e and 2 more"


def test_one_change_among_5000_nodes_costs_less_than_10_ms() -> None:
    found = Members()
    for index in range(5000):
        pods = (CIDR(IP(4, (10 << 24) + (index << 8)), 24), CIDR(IP(6, (0xFD << 120) + (index << 64)), 64))
        found.put(f"n{index}", Member(Node(f"n{index}", pods, (IP(4, (172 << 24) + index), IP(6, index))), (0, "")))
    found.snapshot("n7")
    costs = []
    for index in range(9):
        begun = time.process_time()
        found.put("n70", Member(Node("n70", (CIDR(IP(4, (11 << 24) + (index << 8)), 24),), (IP(4, 7),)), (0, "")))
        assert len(found.snapshot("n7").peers) == 4999
        costs.append(time.process_time() - begun)
    assert min(costs) < 0.010
