"""Which address comes next: round robin over the ranges of a set."""

import random
from collections.abc import Callable, Collection

import pytest

from cni_ipam.ranges import Range, RangeSet, find_next
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip


def make_range(subnet: str, start: str, end: str, gateway: str) -> Range:
    """A range that withholds its gateway, as one of a configuration does."""
    entry = Range(parse_cidr(subnet), parse_ip(start), parse_ip(end), parse_ip(gateway))
    return entry.without([parse_cidr(f"{gateway}/{entry.start.bits}")])


SMALL = RangeSet((make_range("10.1.0.0/29", "10.1.0.1", "10.1.0.6", "10.1.0.1"),))
TWO = RangeSet(
    (
        make_range("10.1.0.0/24", "10.1.0.10", "10.1.0.11", "10.1.0.1"),
        make_range("10.2.0.0/24", "10.2.0.5", "10.2.0.7", "10.2.0.6"),
    )
)
SIX = RangeSet((make_range("2001:db8::/126", "2001:db8::1", "2001:db8::3", "2001:db8::1"),))


def free_but(taken: Collection[IP]) -> Callable[[IP, IP], IP | None]:
    """What finds the lowest of some addresses that is not among those."""

    def find_free(first: IP, last: IP) -> IP | None:
        assert first.version == last.version
        addresses = (IP(first.version, value) for value in range(first.value, last.value + 1))
        return next((ip for ip in addresses if ip not in taken), None)

    return find_free


def taken(*texts: str) -> set[IP]:
    return {parse_ip(text) for text in texts}


@pytest.mark.parametrize(
    ("pool", "held", "last", "expected"),
    [
        (SMALL, (), None, "10.1.0.2"),
        (SMALL, (), "10.1.0.2", "10.1.0.3"),
        (SMALL, ("10.1.0.3", "10.1.0.4"), "10.1.0.2", "10.1.0.5"),
        (SMALL, (), "10.1.0.6", "10.1.0.2"),
        (SMALL, ("10.1.0.2",), "10.1.0.6", "10.1.0.3"),
        (SMALL, ("10.1.0.2",), None, "10.1.0.3"),
        # the one that was given last comes last, and may come again
        (SMALL, ("10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"), "10.1.0.2", "10.1.0.2"),
        (SMALL, ("10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"), "10.1.0.2", None),
        (SMALL, ("10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"), None, None),
        # a last address that lies in no range (the configuration was changed) starts at the beginning
        (SMALL, (), "10.9.0.1", "10.1.0.2"),
        (SMALL, (), "10.1.0.7", "10.1.0.2"),
        (SMALL, (), "::a01:2", "10.1.0.2"),
        # the gateway as the last address: a range may have got another gateway since
        (SMALL, (), "10.1.0.1", "10.1.0.2"),
        (TWO, (), None, "10.1.0.10"),
        (TWO, (), "10.1.0.11", "10.2.0.5"),
        (TWO, (), "10.2.0.5", "10.2.0.7"),
        (TWO, (), "10.2.0.7", "10.1.0.10"),
        (TWO, ("10.1.0.10", "10.1.0.11"), "10.2.0.7", "10.2.0.5"),
        (TWO, ("10.1.0.11", "10.2.0.5", "10.2.0.7"), "10.1.0.10", "10.1.0.10"),
        (TWO, ("10.1.0.10", "10.1.0.11", "10.2.0.5", "10.2.0.7"), "10.1.0.10", None),
        (SIX, (), None, "2001:db8::2"),
        (SIX, (), "2001:db8::2", "2001:db8::3"),
        (SIX, (), "2001:db8::3", "2001:db8::2"),
        (SIX, ("2001:db8::2", "2001:db8::3"), None, None),
    ],
)
def test_the_next_free_address(pool: RangeSet, held: tuple[str, ...], last: str | None, expected: str | None) -> None:
    found = find_next(pool, free_but(taken(*held)), parse_ip(last) if last else None)
    assert (str(found) if found else None) == expected


def test_the_same_number_in_the_other_family_is_not_taken() -> None:
    assert find_next(SMALL, free_but({IP(6, parse_ip("10.1.0.2").value)}), None) == parse_ip("10.1.0.2")


def test_a_large_subnet_is_not_walked_to_find_the_first_address() -> None:
    pool = RangeSet(
        (make_range("2001:db8::/32", "2001:db8::1", "2001:db8:ffff:" + "ffff:" * 4 + "ffff", "2001:db8::1"),)
    )
    assert str(find_next(pool, free_but(()), None)) == "2001:db8::2"
    assert str(find_next(pool, free_but(()), parse_ip("2001:db8:7::ffff"))) == "2001:db8:7::1:0"


def random_set(choose: random.Random) -> RangeSet:
    """One to three small ranges that do not overlap, in any order, with the gateway inside, at an end, or outside."""
    ranges = []
    for third_octet in choose.sample(range(250), choose.randint(1, 3)):
        base = parse_ip(f"10.1.{third_octet}.0").value
        start = base + choose.randint(1, 100)
        end = start + choose.randint(1, 9)
        gateway = base + choose.randint(1, 110)
        withheld = [CIDR(IP(4, gateway), 32)]
        withheld += [CIDR(IP(4, base + choose.randrange(120)), choose.choice((30, 31, 32))) for _ in range(3)]
        entry = Range(parse_cidr(f"10.1.{third_octet}.0/24"), IP(4, start), IP(4, end), IP(4, gateway))
        ranges.append(entry.without(withheld))
    return RangeSet(tuple(ranges))


@pytest.mark.parametrize("seed", range(40))
def test_every_address_of_a_set_is_given_exactly_once_whatever_came_last(seed: int) -> None:
    choose = random.Random(seed)
    pool = random_set(choose)
    usable = {
        IP(4, value)
        for entry in pool.ranges
        for value in range(entry.start.value, entry.end.value + 1)
        if entry.gives(IP(4, value))
    }
    last: IP | None = choose.choice([None, IP(4, 1), *sorted(usable)])
    given: list[IP] = []
    while (ip := find_next(pool, free_but(given), last)) is not None:
        given.append(ip)
        last = ip
    assert len(given) == len(set(given))
    assert set(given) == usable


@pytest.mark.parametrize("seed", range(10))
def test_an_address_that_came_back_is_given_again_only_after_all_others(seed: int) -> None:
    pool = random_set(random.Random(seed))
    held: set[IP] = set()
    first = last = find_next(pool, free_but(held), None)
    count = 0 if first else 1
    while first:  # each address is given back at once, as by a container that is restarted again and again
        last = find_next(pool, free_but(held), last)
        count += 1
        if last == first:
            break
    everything: list[IP] = []
    while (ip := find_next(pool, free_but(everything), None)) is not None:
        everything.append(ip)
    assert count == max(1, len(everything))


def test_a_range_contains_what_lies_between_its_ends() -> None:
    entry = TWO.ranges[0]
    texts = ["10.1.0.9", "10.1.0.10", "10.1.0.11", "10.1.0.12", "::a01:a"]
    assert [text for text in texts if parse_ip(text) in entry] == ["10.1.0.10", "10.1.0.11"]


@pytest.mark.parametrize(
    ("start", "end", "overlapping"),
    [
        ("10.1.0.1", "10.1.0.9", False),
        ("10.1.0.1", "10.1.0.10", True),
        ("10.1.0.11", "10.1.0.20", True),
        ("10.1.0.12", "10.1.0.20", False),
        ("10.1.0.1", "10.1.0.20", True),
        ("10.1.0.10", "10.1.0.10", True),
    ],
)
def test_ranges_overlap_when_they_share_an_address(start: str, end: str, overlapping: bool) -> None:
    entry, other = TWO.ranges[0], make_range("10.1.0.0/24", start, end, "10.1.0.1")
    assert (entry.overlaps(other), other.overlaps(entry)) == (overlapping, overlapping)


def test_a_set_reads_as_its_ranges() -> None:
    assert str(TWO) == "10.1.0.10-10.1.0.11,10.2.0.5-10.2.0.7"
    assert str(SIX) == "2001:db8::1-2001:db8::3"
