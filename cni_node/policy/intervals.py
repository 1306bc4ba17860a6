"""Sets of numbers as intervals: networks less their exceptions, merged, so that none overlap or touch. Pure."""

from collections.abc import Iterable

from cni_node.policy.model import Block

Interval = tuple[int, int]  # both ends included


def intervals_of(blocks: Iterable[Block], version: int) -> tuple[Interval, ...]:
    """The addresses of an IP version in any of the blocks. A block's exceptions apply to that block only."""
    found: list[Interval] = []
    for block in blocks:
        if block.network.version == version:
            excepted = [(each.first.value, each.last.value) for each in block.excepted if each.version == version]
            found += subtract((block.network.first.value, block.network.last.value), excepted)
    return merge(found)


def subtract(whole: Interval, parts: Iterable[Interval]) -> list[Interval]:
    """The parts of `whole` that are in none of the `parts`."""
    left = []
    begin, end = whole
    for first, last in merge(parts):
        if last < begin or first > end:
            continue
        if first > begin:
            left.append((begin, first - 1))
        begin = last + 1
    return [*left, (begin, end)] if begin <= end else left


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The same numbers in as few intervals as possible, in order."""
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
