"""Ranges of addresses, and which address comes next. Pure: what is free comes in as a function.

Must not: read a file, or know who holds an address.
"""

from cni_protocol.address import CIDR, IP
from cni_protocol.light.standard import Callable, Iterator, NamedTuple


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

    def find_range(self, ip: IP) -> Range | None:
        """The range that an address lies in."""
        return next((entry for entry in self.ranges if ip in entry), None)


def find_next(pool: RangeSet, find_free: Callable[[IP, IP], IP | None], last: IP | None) -> IP | None:
    """The address after `last` that is free, going round all ranges of the set; None when all are taken.

    `find_free` gives the lowest free address of those from one to another inclusive. `last` is the address that was
    given out last; one outside the set (or None) starts at the beginning. A container that is restarted again and again
    so gets another address each time, as with the reference.
    """
    found = (find_free(first, end) for first, end in _runs(pool, last))
    return next((ip for ip in found if ip is not None), None)


def _runs(pool: RangeSet, last: IP | None) -> Iterator[tuple[IP, IP]]:
    """First and last of the addresses that may be given out, in the order of trial."""
    ranges = pool.ranges
    at = next((i for i, entry in enumerate(ranges) if last is not None and last in entry), None)
    if at is None or last is None:
        for entry in ranges:
            yield from _without_gateway(entry, entry.start.value, entry.end.value)
        return
    home = ranges[at]
    yield from _without_gateway(home, last.value + 1, home.end.value)
    for entry in ranges[at + 1 :] + ranges[:at]:
        yield from _without_gateway(entry, entry.start.value, entry.end.value)
    yield from _without_gateway(home, home.start.value, last.value)


def _without_gateway(entry: Range, start: int, end: int) -> Iterator[tuple[IP, IP]]:
    gateway = entry.gateway.value
    for first, last in ((start, min(end, gateway - 1)), (max(start, gateway + 1), end)):
        if first <= last:
            yield IP(entry.start.version, first), IP(entry.start.version, last)
