"""Which networks are exempt from masquerading: the other nodes' pod ranges and addresses. Pure.

Who answers there has a way back to the pod. Networks never overlap in part, but one may lie in another; the kernel's
interval sets take each address once. It looks every new connection up in them, a tree, and they are read as a whole: so
of many networks neighbours are one interval. Ranges that were given out one after the other are one element instead of
thousands.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cni_node.host.same import differing
from cni_node.snapshot import Node
from cni_protocol.address import CIDR

COMMENT_BYTES = 128  # what nft(8) reads back
FEW = 256  # networks that stand each by itself, with the name of its node for who reads the set


class Interval(NamedTuple):
    """Addresses of an IP version as numbers, both ends included, and whose they are."""

    version: int
    first: int
    last: int
    name: str


class IntervalChange(NamedTuple):
    """The intervals to add to a set, and those to delete from it first."""

    missing: list[Interval]
    surplus: list[Interval]


def intervals_of(node: Node) -> list[Interval]:
    """The intervals of one node: its pod ranges and its addresses."""
    name = node.name if len(node.name.encode()) <= COMMENT_BYTES else ""
    networks = (*node.pods, *(CIDR(ip, ip.bits) for ip in node.addresses))
    return [Interval(net.version, net.first.value, net.last.value, name) for net in networks]


class Exempt:
    """The networks of all peers, counted, so that a change of one among thousands costs little.

    `intervals` is what the kernel should have, in order.
    """

    def __init__(self) -> None:
        self._counts: Counter[Interval] = Counter()  # two nodes with one address share an interval
        self._ordered: list[Interval] = []
        self.intervals: list[Interval] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def change(self, gone: Iterable[Node], come: Iterable[Node]) -> IntervalChange:
        """Take the networks of some peers out and those of others in. Returns what that is for the kernel."""
        for interval in (interval for node in come for interval in intervals_of(node)):
            self._counts[interval] += 1
            if self._counts[interval] == 1:
                insort(self._ordered, interval)
        for interval in (interval for node in gone for interval in intervals_of(node)):
            self._counts[interval] -= 1
            if not self._counts[interval]:
                del self._counts[interval]
                del self._ordered[bisect_left(self._ordered, interval)]
        before, self.intervals = self.intervals, merge(self._ordered)
        return compare(*differing(self.intervals, before))


def merge(intervals: Sequence[Interval]) -> list[Interval]:
    """Intervals that are in order without those that lie in others; of more than FEW neighbours are one."""
    if len(intervals) > FEW:
        return _join(intervals)
    merged: list[Interval] = []
    version, last = 0, -1
    for interval in sorted(intervals, key=lambda one: (one.version, one.first, -one.last, one.name)):
        if interval.version == version and interval.last <= last:
            continue
        version, last = interval.version, interval.last
        merged.append(interval)
    return merged


def _join(ordered: Iterable[Interval]) -> list[Interval]:
    """As few intervals as possible; one that has its end from a neighbour is nobody's. A loop over thousands."""
    joined: list[Interval] = []
    whole, end, alone = Interval(0, 0, -1, ""), -1, True
    for interval in ordered:
        version, first, last, _ = interval
        if version == whole.version and first <= end + 1:
            if last > end:
                end, alone = last, False
            continue
        joined.append(whole if alone else Interval(whole.version, whole.first, end, ""))
        whole, end, alone = interval, last, True
    joined.append(whole if alone else Interval(whole.version, whole.first, end, ""))
    return joined[1:]


def compare(wanted: Iterable[Interval], there: Iterable[Interval]) -> IntervalChange:
    """The change that makes the intervals `there` the wanted ones."""
    wanted, there = set(wanted), set(there)
    return IntervalChange(sorted(wanted - there), sorted(there - wanted))
