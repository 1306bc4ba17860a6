"""Where two long sequences differ that mostly hold the same objects: a change of one among thousands. Pure."""

from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def differing(before: Sequence[_Item], now: Sequence[_Item]) -> tuple[Sequence[_Item], Sequence[_Item]]:
    """What is left of both without the objects that they share at their beginnings and at their ends."""
    most = min(len(before), len(now))
    head = next((index for index in range(most) if before[index] is not now[index]), most)
    tail = next((index for index in range(most - head) if before[~index] is not now[~index]), most - head)
    return before[head : len(before) - tail], now[head : len(now) - tail]
