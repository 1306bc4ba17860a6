"""Ranges of addresses, and which address comes next. Pure: what is taken comes in as a set.

Must not: read a file, or know who holds an address.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.lean import Collection, Iterator, NamedTuple


class Range(NamedTuple):
    """A run of addresses of one subnet, from start to end inclusive; the gateway is never given out."""

    subnet: CIDR
    start: IP
    end: IP
    gateway: IP

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, IP) and ip.version == self.start.version and self.start <= ip <= self.end

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: "Range") -> bool:
        """Whether an address is in both."""
        return other.start in self or self.start in other


class RangeSet(NamedTuple):
    """Ranges of one family that serve as one pool: an attachment gets one address out of it."""

    ranges: tuple[Range, ...]

    def __str__(self) -> str:
        return ",".join(str(entry) for entry in self.ranges)

    def can_give(self, ip: IP) -> bool:
        """Whether an address is one of the set and no gateway."""
        entry = self.find_range(ip)
        return entry is not None and ip != entry.gateway

    @property
    def size(self) -> int:
        """How many addresses it can give out."""
        return sum(_size(entry) for entry in self.ranges)

    def find_range(self, ip: IP) -> Range | None:
        """The range that an address lies in."""
        return next((entry for entry in self.ranges if ip in entry), None)


def is_exhausted(pool: RangeSet, taken: Collection[IP]) -> bool:
    """Whether no address of the set is free."""
    entries = pool.ranges
    used = sum(1 for ip in taken if any(ip in entry and ip != entry.gateway for entry in entries))
    return used >= pool.size


def find_next(pool: RangeSet, taken: Collection[IP], last: IP | None) -> IP | None:
    """The address after `last` that is free, going round all ranges of the set; None when all are taken.

    `last` is the address that was given out last; one outside the set (or None) starts at the beginning. A container
    that is restarted again and again so gets another address each time, as with the reference.
    """
    return next((ip for ip in _from(pool, last) if ip not in taken), None)


def _from(pool: RangeSet, last: IP | None) -> Iterator[IP]:
    """Every address that may be given out, in the order of trial."""
    ranges = pool.ranges
    first = next((i for i, entry in enumerate(ranges) if last is not None and last in entry), None)
    if first is None or last is None:
        for entry in ranges:
            yield from _addresses(entry, entry.start.value, entry.end.value)
        return
    home = ranges[first]
    yield from _addresses(home, last.value + 1, home.end.value)
    for entry in ranges[first + 1 :] + ranges[:first]:
        yield from _addresses(entry, entry.start.value, entry.end.value)
    yield from _addresses(home, home.start.value, last.value)


def _size(entry: Range) -> int:
    return entry.end.value - entry.start.value + 1 - (1 if entry.gateway in entry else 0)


def _addresses(entry: Range, start: int, end: int) -> Iterator[IP]:
    for value in range(start, end + 1):
        if value != entry.gateway.value:
            yield IP(entry.start.version, value)
