"""Which networks are exempt from masquerading: merged, and compared."""

import random
from functools import cache
from itertools import pairwise

import pytest

from cni_bridge import masquerade
from cni_node.host.exempt import FEW, Exempt, Interval, compare, intervals_of, merge
from cni_node.host.exemptions import SETS
from cni_node.snapshot import Node
from cni_protocol.address import parse_cidr, parse_ip


@cache
def interval(text: str, name: str = "n") -> Interval:
    cidr = parse_cidr(text)
    return Interval(cidr.version, cidr.first.value, cidr.last.value, name)


def test_a_node_brings_its_pods_and_itself() -> None:
    node = Node("n", (parse_cidr("10.1.0.0/24"), parse_cidr("fd00::/64")), (parse_ip("192.168.1.2"),))
    assert intervals_of(node) == [interval("10.1.0.0/24"), interval("fd00::/64"), interval("192.168.1.2/32")]


def test_a_name_that_nft_could_not_read_back_is_left_out() -> None:
    long = Node("n" * 129, (parse_cidr("10.1.0.0/24"),), ())
    assert [one.name for one in intervals_of(long)] == [""]
    assert [one.name for one in intervals_of(long._replace(name="n" * 128))] == ["n" * 128]


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        pytest.param(["10.1.0.0/24", "10.1.0.7/32"], ["10.1.0.0/24"], id="within"),
        pytest.param(["10.1.0.7/32", "10.1.0.0/24", "10.1.0.0/16"], ["10.1.0.0/16"], id="within what is within"),
        pytest.param(["10.1.0.0/24", "10.1.1.0/24"], ["10.1.0.0/24", "10.1.1.0/24"], id="neighbours"),
        pytest.param(["0.0.0.1/32", "::/64"], ["0.0.0.1/32", "::/64"], id="two families"),
        pytest.param(["::/64", "::1/128", "0.0.0.0/8"], ["0.0.0.0/8", "::/64"], id="each by itself"),
    ],
)
def test_what_lies_in_another_goes(given: list[str], merged: list[str]) -> None:
    assert merge(sorted(map(interval, given))) == list(map(interval, merged))


FAR = [f"172.16.{number}.1/32" for number in range(FEW)]  # none beside another


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        pytest.param(["10.1.0.0/24", "10.1.1.0/24"], [("10.1.0.0", "10.1.1.255", "")], id="neighbours"),
        pytest.param(["10.1.0.0/24", "10.1.2.0/24"], ["10.1.0.0/24", "10.1.2.0/24"], id="a gap"),
        pytest.param(["10.1.0.0/24", "10.1.0.7/32"], ["10.1.0.0/24"], id="within"),
        pytest.param(["10.1.0.0/32", "10.1.0.0/24"], [("10.1.0.0", "10.1.0.255", "")], id="within, at the beginning"),
        pytest.param(
            ["10.1.0.0/24", "10.1.0.7/32", "10.1.1.0/24"], [("10.1.0.0", "10.1.1.255", "")], id="within a neighbour"
        ),
        pytest.param(
            ["255.255.255.254/32", "255.255.255.255/32", "::/128", "::1/128"],
            [("255.255.255.254", "255.255.255.255", ""), ("::", "::1", "")],
            id="two families, at the end of one",
        ),
        pytest.param(
            ["fd00::/64", "fd00:0:0:1::/64"], [("fd00::", "fd00:0:0:1:ffff:ffff:ffff:ffff", "")], id="IPv6 neighbours"
        ),
    ],
)
def test_of_many_neighbours_are_one_and_nobody_s(given: list[str], merged: list[str | tuple[str, str, str]]) -> None:
    wanted = [
        interval(one)
        if isinstance(one, str)
        else Interval(parse_ip(one[0]).version, parse_ip(one[0]).value, parse_ip(one[1]).value, one[2])
        for one in merged
    ]
    far = set(map(interval, FAR))
    found = merge(sorted([*map(interval, given), *far]))
    assert [one for one in found if one not in far] == wanted
    assert len(found) == len(wanted) + FEW


def test_any_peers_come_and_go_and_the_kernel_is_told_what_differs() -> None:
    """Judged address by address; seeded, so that a failure can be had again."""
    chance = random.Random(7)
    exempt, there = Exempt(), set[Interval]()
    peers: list[Node] = []
    numbers: list[int] = []
    for turn in range(150):
        more, less = (16, 8) if turn < 75 else (8, 16)
        gone = [peers.pop(chance.randrange(len(peers))) for _ in range(min(len(peers), chance.randrange(less)))]
        come = [some_peer(chance, 100 * turn + index) for index in range(chance.randrange(more))]
        peers += come
        change = exempt.change(gone, come)
        assert set(change.surplus) <= there
        there = there - set(change.surplus) | set(change.missing)
        assert sorted(there) == exempt.intervals == merge(sorted({one for peer in peers for one in intervals_of(peer)}))
        wanted = {value for peer in peers for one in intervals_of(peer) for value in range(one.first, one.last + 1)}
        assert {value for one in there for value in range(one.first, one.last + 1)} == wanted
        assert all(one.last < other.first for one, other in pairwise(exempt.intervals))
        numbers.append(len(exempt))
    assert max(numbers[0], numbers[-1]) < FEW < max(numbers) - 100


def some_peer(chance: random.Random, number: int) -> Node:
    """A peer with a range of 8 addresses of 4,096, and an address perhaps in somebody's range, perhaps shared."""
    return Node(
        f"n{number}",
        (parse_cidr(f"10.0.{chance.randrange(16)}.{8 * chance.randrange(32)}/29"),),
        (parse_ip(f"10.0.{chance.randrange(32)}.{chance.randrange(256)}"),),
    )


def test_the_difference_is_what_is_missing_and_what_is_too_much() -> None:
    one, two, three = map(interval, ("10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"))
    assert compare([one, two], [two, three]) == ([one], [three])
    assert compare([one], [one._replace(name="other")]) == ([one], [one._replace(name="other")])


def test_the_plugin_and_the_agent_mean_the_same_sets() -> None:
    assert SETS == masquerade.EXEMPT
