"""The index by itself, in memory and in its file, against plain sets."""

import os
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from cni_ipam.index import BLOCK_SIZE, NAME, Index, IndexDamagedError
from cni_protocol.address import IP, parse_ip
from tests.kit.marks import seeds

STAMP = "1 2 3 4"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def write(index: Index, directory: int, stamp: str = STAMP) -> None:
    index.write(directory)
    index.sign(stamp)
    index.close()


def read(directory: int, stamp: str = STAMP) -> Index:
    index = Index()
    assert index.read(directory, stamp, os.O_RDWR)
    return index


def reads(directory: int, stamp: str = STAMP) -> bool:
    index = Index()
    try:
        return index.read(directory, stamp, os.O_RDONLY)
    finally:
        index.close()


def draw_addresses(choose: random.Random) -> list[IP]:
    """Some next to each other, some at the ends of blocks, some far from all others, of both families."""
    base4, base6 = parse_ip("10.1.0.0").value, parse_ip("2001:db8::").value
    values = [choose.randrange(64) for _ in range(20)]
    values += [choose.randrange(1, 4) * BLOCK_SIZE + choose.choice((-1, 0, 1)) for _ in range(10)]
    values += [choose.randrange(1 << 24) for _ in range(5)]
    addresses = {IP(4, base4 + value) for value in values} | {IP(6, base6 + value) for value in values}
    return sorted(addresses | {IP(6, base6 + choose.randrange(1 << 64)) for _ in range(5)})


@pytest.mark.parametrize("seed", seeds(20))
def test_it_answers_as_sets_would(seed: int, directory: int) -> None:
    choose = random.Random(seed)
    addresses = draw_addresses(choose)
    held: dict[IP, str] = {}
    index = Index(choose.choice((100, 1000)))
    labels = [*(f"c{i},eth0" for i in range(30)), "c3,"]
    for turn in range(300):
        ip = choose.choice(addresses)
        if ip in held:
            index.remove(ip, held.pop(ip))
        else:
            held[ip] = choose.choice((*labels, ""))
            index.add(ip, held[ip])
        if turn % 7 == 0:
            write(index, directory)
            index = read(directory)
        for label in (*labels, "nobody,eth0"):
            assert sorted(index.find(label)) == sorted(ip for ip in held if held[ip] == label)
        first, last = sorted(choose.sample(addresses, 2))
        if first.version == last.version and last.value - first.value < 1 << 14:
            values = (IP(first.version, value) for value in range(first.value, last.value + 1))
            assert index.find_free(first, last) == next((ip for ip in values if ip not in held), None)
        assert [ip for ip in addresses if index.is_taken(ip)] == sorted(held)
    index.close()


def test_the_lowest_free_address_is_found_over_full_blocks() -> None:
    index = Index()
    first = parse_ip("10.1.0.5")
    end = IP(4, first.value + 3 * BLOCK_SIZE)
    for value in range(first.value, end.value):
        index.add(IP(4, value), "")
    assert index.find_free(first, end) == end
    assert index.find_free(first, IP(4, end.value - 1)) is None
    hole = IP(4, first.value + 2 * BLOCK_SIZE + 7)
    index.remove(hole, "")
    assert index.find_free(first, end) == hole
    assert index.find_free(parse_ip("10.1.0.4"), end) == parse_ip("10.1.0.4")


def test_a_range_of_any_size_costs_no_more_than_what_is_taken_in_it() -> None:
    index = Index()
    assert index.find_free(parse_ip("2001:db8::2"), parse_ip("2001:db8:ffff::")) == parse_ip("2001:db8::2")
    index.add(parse_ip("2001:db8::2"), "")
    assert index.find_free(parse_ip("2001:db8::2"), parse_ip("2001:db8:ffff::")) == parse_ip("2001:db8::3")


def test_the_last_addresses_of_all_are_addresses() -> None:
    index = Index()
    last6, last4 = parse_ip("ffff:" * 7 + "ffff"), parse_ip("255.255.255.255")
    for ip in (last4, last6):
        assert index.find_free(ip, ip) == ip
        index.add(ip, "c1,eth0")
        assert index.find_free(ip, ip) is None
    assert index.find("c1,eth0") == [last4, last6]
    assert index.find_free(last4, last4) is None


def test_the_boots_are_kept_apart() -> None:
    index = Index()
    index.add(parse_ip("10.1.0.2"), "c1,eth0")
    index.add_previous(parse_ip("10.1.0.3"), "c1,eth0")
    assert index.find("c1,eth0") == [parse_ip("10.1.0.2")]
    assert index.find_previous("c1,eth0") == [parse_ip("10.1.0.3")]
    assert not index.is_taken(parse_ip("10.1.0.3"))


def test_an_address_that_looks_like_a_key_is_none() -> None:
    index = Index()
    ip = IP(6, int.from_bytes(sha256(b"now c2,eth0").digest()[:16], "big"))
    index.add(ip, "c1,eth0")
    assert index.find("c2,eth0") == []
    index.add(parse_ip("10.1.0.2"), "c2,eth0")
    assert index.find("c2,eth0") == [parse_ip("10.1.0.2")]


def test_it_says_the_same_as_another_whatever_the_order_and_the_size() -> None:
    ips = [parse_ip(text) for text in ("10.1.0.2", "10.9.0.2", "2001:db8::2")]
    first, second = Index(1), Index(100)
    for index, order in ((first, ips), (second, reversed(ips))):
        for ip in order:
            index.add(ip, f"c{ip.version},eth0")
    assert first.says_the_same(second)
    for change in (Index.add, Index.add_previous):
        other = Index()
        for ip in ips:
            other.add(ip, f"c{ip.version},eth0")
        change(other, parse_ip("10.1.0.3"), "")
        assert not other.says_the_same(first)
        assert not first.says_the_same(other)
    second.remove(ips[0], "c4,eth0")
    assert not first.says_the_same(second)
    second.add(ips[0], "c5,eth0")
    assert not first.says_the_same(second)


def test_a_change_made_twice_is_one() -> None:
    index = Index()
    ip = parse_ip("10.1.0.2")
    for _ in range(2):
        index.add(ip, "c1,eth0")
    assert index.find("c1,eth0") == [ip]
    index.remove(ip, "c1,eth0")
    assert index.find("c1,eth0") == []
    for _ in range(2):
        index.remove(ip, "c1,eth0")
        assert not index.is_taken(ip)


def test_a_full_bucket_is_not_written_and_the_next_index_has_more_of_them(directory: int) -> None:
    index = Index()
    labels = {f"c{i},eth0": IP(4, i + 1) for i in range(40)}
    for label, ip in labels.items():
        index.add(ip, label)
    with pytest.raises(OSError, match="no room"):
        index.write(directory)
    assert {label: index.find(label) for label in labels} == {label: [ip] for label, ip in labels.items()}
    larger = Index(len(labels))
    for label, ip in labels.items():
        larger.add(ip, label)
    write(larger, directory)
    index = read(directory)
    assert {label: index.find(label) for label in labels} == {label: [ip] for label, ip in labels.items()}
    index.close()


def test_it_counts_under_its_own_stamp_and_only_when_it_is_signed(directory: int) -> None:
    index = Index()
    index.write(directory)
    assert not reads(directory)
    index.sign(STAMP)
    assert reads(directory)
    for stamp in ("1 2 3 5", "1 2 3", "1 2 3 4 5", "", f"{STAMP} 1"):
        assert not reads(directory, stamp)
    index.close()


@pytest.mark.parametrize("damage", ["bit", "zeros", "short", "exchanged"])
def test_every_part_tells_that_it_is_not_what_was_written(damage: str, directory: int, tmp_path: Path) -> None:
    addresses = [parse_ip("10.1.0.2"), parse_ip("2001:db8::2")]
    index = Index(100)
    for ip in addresses:
        index.add(ip, f"c{ip.version},eth0")
    write(index, directory)
    whole = (tmp_path / NAME).read_bytes()
    silent = []
    for at in range(0, len(whole), 97):
        content = bytearray(whole)
        if damage == "bit":
            content[at] ^= 1
        elif damage == "zeros":
            content[at:] = bytes(len(whole) - at)
        elif damage == "short":
            content = content[:at]
        else:
            content[512:1536], content[1536:2560] = content[1536:2560], content[512:1536]
        (tmp_path / NAME).write_bytes(content)
        index = Index()
        try:
            if index.read(directory, STAMP, os.O_RDWR):
                assert [index.find(f"c{ip.version},eth0") for ip in addresses] == [[ip] for ip in addresses]
                assert all(map(index.is_taken, addresses))
                silent.append(at)
        except IndexDamagedError:
            pass
        finally:
            index.close()
    assert len(silent) < len(whole) / 97  # what is not asked for is not read
