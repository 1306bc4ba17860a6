"""Networks less their exceptions, held against sets of numbers."""

import itertools
import random

import pytest

from cni_node.policy.intervals import intervals_of, merge, subtract
from cni_node.policy.model import Block
from cni_protocol.address import parse_cidr


@pytest.mark.parametrize(
    ("whole", "parts", "left"),
    [
        ((0, 9), [], [(0, 9)]),
        ((0, 9), [(0, 9)], []),
        ((0, 9), [(0, 0)], [(1, 9)]),
        ((0, 9), [(9, 9)], [(0, 8)]),
        ((0, 9), [(3, 4), (5, 6)], [(0, 2), (7, 9)]),
        ((3, 5), [(0, 9)], []),
        ((3, 5), [(0, 2), (6, 9)], [(3, 5)]),
        ((3, 5), [(0, 3), (5, 9)], [(4, 4)]),
    ],
)
def test_subtract(whole: tuple[int, int], parts: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    assert subtract(whole, parts) == left


def test_random_intervals() -> None:
    chance = random.Random(1)
    for _ in range(300):
        parts = [(first := chance.randrange(20), first + chance.randrange(6)) for _ in range(chance.randrange(5))]
        numbers = {number for first, last in parts for number in range(first, last + 1)}
        merged = merge(parts)
        assert {number for first, last in merged for number in range(first, last + 1)} == numbers
        assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(merged))
        left = subtract((3, 17), parts)
        assert {number for first, last in left for number in range(first, last + 1)} == set(range(3, 18)) - numbers


def test_an_exception_counts_for_its_own_block() -> None:
    blocks = [
        Block(parse_cidr("10.0.0.0/30"), (parse_cidr("10.0.0.1/32"), parse_cidr("::/0"))),
        Block(parse_cidr("10.0.0.1/32")),
        Block(parse_cidr("::/0"), (parse_cidr("0.0.0.0/0"),)),
    ]
    base = 10 << 24
    assert intervals_of(blocks, 4) == ((base, base + 3),)
    assert intervals_of(blocks, 6) == ((0, (1 << 128) - 1),)
