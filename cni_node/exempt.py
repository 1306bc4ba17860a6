"""Which networks are exempt from masquerading: the other nodes' pod ranges and addresses. Pure.

Hosts there have a route back to the pod. One network may lie within another, but the kernel's interval sets allow no
overlap, so such networks are merged.
"""

from collections.abc import Iterable
from typing import NamedTuple

from cni_node.snapshot import Node
from cni_protocol.address import CIDR

COMMENT_BYTES = 128  # what nft(8) reads back


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


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The same without those that lie in others; neighbours stay apart, so that a change of one is no other's."""
    merged: list[Interval] = []
    version, last = 0, -1
    for interval in sorted(intervals, key=lambda one: (one.version, one.first, -one.last, one.name)):
        if interval.version == version and interval.last <= last:
            continue
        version, last = interval.version, interval.last
        merged.append(interval)
    return merged


def compare(wanted: Iterable[Interval], there: Iterable[Interval]) -> IntervalChange:
    """The change that makes the intervals `there` the wanted ones."""
    wanted, there = set(wanted), set(there)
    return IntervalChange(sorted(wanted - there), sorted(there - wanted))
