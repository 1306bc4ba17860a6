"""Ranges of addresses, and which address to give out next. Pure: the caller passes a function that finds a free one.

Must not: read a file, or know who holds an address.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import Callable, Iterable, Iterator, NamedTuple

_SHOWN_RANGES = 8  # of a set, in messages


class Range(NamedTuple):
    """Addresses of one subnet, from `start` to `end` inclusive.

    `withheld` are the parts that are not given out (such as the gateway), as numbers (first, last), sorted by the
    first.
    """

    subnet: CIDR
    start: IP
    end: IP
    gateway: IP | None
    withheld: tuple[tuple[int, int], ...] = ()

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, IP) and ip.version == self.start.version and self.start <= ip <= self.end

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: "Range") -> bool:
        """Whether the ranges have an address in common."""
        return other.start in self or self.start in other

    def gives(self, ip: IP) -> bool:
        """Whether an address of the range may be given out: it is not withheld."""
        return not any(first <= ip.value <= last for first, last in self.withheld)

    def without(self, networks: Iterable[CIDR]) -> "Range":
        """The same range, which also withholds these networks. They must be of its family."""
        more = ((network.first.value, network.last.value) for network in networks)
        return self._replace(withheld=tuple(sorted({*self.withheld, *more})))

    def runs(self, start: int, end: int) -> Iterator[tuple[IP, IP]]:
        """The parts from `start` to `end` (numbers, inclusive) that may be given out, as (first, last)."""
        at = start
        for first, last in self.withheld:
            if first > end:
                break
            if at < first:
                yield IP(self.start.version, at), IP(self.start.version, first - 1)
            at = max(at, last + 1)
        if at <= end:
            yield IP(self.start.version, at), IP(self.start.version, end)


class RangeSet(NamedTuple):
    """Ranges of one family that serve as one pool: an attachment gets one address of it."""

    ranges: tuple[Range, ...]

    def __str__(self) -> str:
        more = len(self.ranges) - _SHOWN_RANGES
        return ",".join(map(str, self.ranges[:_SHOWN_RANGES])) + (f" and {more} more" if more > 0 else "")


class Place(NamedTuple):
    """A range, and the index of its range set."""

    entry: Range
    pool: int


class RangeTable:
    """All ranges of a configuration, for binary search by address: thousands of ranges stay cheap."""

    def __init__(self, pools: Iterable[RangeSet]) -> None:
        places = [Place(entry, index) for index, pool in enumerate(pools) for entry in pool.ranges]
        self._places = sorted(places, key=lambda place: (place.entry.start, place.entry.end, place.pool))

    def find(self, ip: IP) -> Place | None:
        """The range that an address lies in, and its set. None when it is in no range."""
        low, high = 0, len(self._places)
        while low < high:  # the number of ranges that start at the address or before it
            middle = (low + high) // 2
            if self._places[middle].entry.start <= ip:
                low = middle + 1
            else:
                high = middle
        place = self._places[low - 1] if low else None
        return place if place is not None and ip in place.entry else None

    def overlaps(self) -> Iterator[tuple[Place, Place]]:
        """Pairs of overlapping ranges: not all of them, but each range that overlaps an earlier one is in a pair."""
        widest = None
        for place in self._places:
            if widest is not None and widest.entry.overlaps(place.entry):
                yield (widest, place) if widest.pool <= place.pool else (place, widest)
            if widest is None or place.entry.end >= widest.entry.end:
                widest = place


def find_next(pool: RangeSet, find_free: Callable[[IP, IP], IP | None], last: IP | None) -> IP | None:
    """The next free address of a range set, round robin: the first one after `last`. None when all are taken.

    `find_free(first, last)` returns the lowest free address of an interval, both ends included. `last` is the address
    that the set gave out last; with None, or an address outside the set, the search starts at the beginning. So a
    container that is restarted gets another address each time, as with the reference.
    """
    found = (find_free(first, end) for first, end in _runs(pool, last))
    return next((ip for ip in found if ip is not None), None)


def _runs(pool: RangeSet, last: IP | None) -> Iterator[tuple[IP, IP]]:
    """The parts of a set that may be given out, as (first, last), in the order in which to search them."""
    ranges = pool.ranges
    at = next((i for i, entry in enumerate(ranges) if last is not None and last in entry), None)
    if at is None or last is None:
        for entry in ranges:
            yield from entry.runs(entry.start.value, entry.end.value)
        return
    home = ranges[at]
    yield from home.runs(last.value + 1, home.end.value)
    for entry in ranges[at + 1 :] + ranges[:at]:
        yield from entry.runs(entry.start.value, entry.end.value)
    yield from home.runs(home.start.value, last.value)
