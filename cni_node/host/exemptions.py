"""Keeps the sets of networks that are exempt from masquerading, in the nftables table inet pycni.

    set exempt4 { type ipv4_addr; flags interval
        elements = { 10.240.2.0/24 comment "node2", 192.168.1.12 comment "node2", ... } }

The plugin's rules look them up; with 5,000 peers they are as many as with none. What replaces an interval is in the
transaction that takes it away, so no packet is masqueraded because another node has come or gone.
Must not: know who masquerades, or touch anything else of the table.
"""

import errno
from collections.abc import Iterable, Sequence

from cni_kernel import expressions
from cni_kernel.errors import asking
from cni_kernel.expressions import Element, Map
from cni_kernel.netlink import Message, NetlinkError
from cni_kernel.nftables import Nftables
from cni_node.host.exempt import Interval, IntervalChange, compare
from cni_protocol.address import IP

SETS = {version: Map(f"exempt{version}", expressions.ADDRESS[version], interval=True) for version in (4, 6)}
_TRIES = 4  # more of a change that others' changes come between
_AT_ONCE = 250  # intervals of one transaction, where nothing speaks for more: it is encoded as a whole


class Exemptions:
    """The two sets, in the network namespace that the process is in."""

    def __init__(self) -> None:
        with asking("nftables cannot be used", "nf_tables"):
            self._nftables = Nftables(expressions.INET)

    @property
    def port(self) -> int:
        """The socket's address (nl_pid). The kernel's notifications name it as the origin of a change."""
        return self._nftables.port

    def close(self) -> None:
        """Close the socket."""
        self._nftables.close()

    def ensure(self, wanted: Iterable[Interval]) -> IntervalChange:
        """Create the sets if missing, and make their intervals these. Returns the change. Raises KernelError."""
        wanted = list(wanted)
        with asking("the sets of exempt networks cannot be written", "nf_tables"):
            for _ in range(_TRIES):
                try:
                    return self._ensure(wanted)
                except NetlinkError as error:
                    # another generation, or an element that somebody has added or deleted meanwhile
                    if error.errno not in (errno.ERESTART, errno.EEXIST, errno.ENOENT):
                        raise
            return self._ensure(wanted)

    def change(self, change: IntervalChange) -> None:
        """Change the sets without reading them: the last `ensure` or `change` must still hold. Raises KernelError."""
        with asking("the sets of exempt networks cannot be changed", "nf_tables"):
            self._commit(change, None)

    def _ensure(self, wanted: Iterable[Interval]) -> IntervalChange:
        generation = self._nftables.generation()
        change = compare(wanted, self._read())
        self._commit(change, generation)
        return change

    def _commit(self, change: IntervalChange, generation: int | None) -> None:
        """What goes first, since what comes may overlap with it."""
        frame = [self._nftables.add_table(), *(self._nftables.add_map(entry, number) for number, entry in SETS.items())]
        surplus, missing = change.surplus, change.missing
        if len(surplus) + len(missing) <= _AT_ONCE or (surplus and missing):
            self._nftables.commit([*frame, *self._delete(surplus), *self._add(missing)], generation)
            return
        self._nftables.commit(frame, generation)
        for start in range(0, len(surplus), _AT_ONCE):
            self._nftables.commit(self._delete(surplus[start : start + _AT_ONCE]))
        for start in range(0, len(missing), _AT_ONCE):
            self._nftables.commit(self._add(missing[start : start + _AT_ONCE]))

    def _add(self, intervals: Sequence[Interval]) -> list[Message]:
        parts = _by_set(intervals)
        return [message for name, part in parts for message in self._nftables.add_elements(name, part)]

    def _delete(self, intervals: Sequence[Interval]) -> list[Message]:
        parts = _by_set(intervals)
        return [message for name, part in parts for message in self._nftables.delete_elements(name, part)]

    def _read(self) -> list[Interval]:
        found = []
        for version, entry in SETS.items():
            found += _intervals(version, self._nftables.find_elements(entry.name, ""))
        return found


def _by_set(intervals: Sequence[Interval]) -> list[tuple[str, list[Element]]]:
    return [
        (entry.name, [element for one in intervals if one.version == version for element in _elements(entry.name, one)])
        for version, entry in SETS.items()
    ]


def _elements(name: str, interval: Interval) -> list[Element]:
    """The beginning, and the first address behind the end unless there is none."""
    begin = Element(name, IP(interval.version, interval.first).packed, interval.name)
    behind = IP(interval.version, interval.last + 1)
    return [begin, Element(name, behind.packed, "", end=True)] if behind.value >> behind.bits == 0 else [begin]


def _intervals(version: int, elements: Iterable[Element]) -> list[Interval]:
    """Intervals from what the kernel lists: beginnings and ends, in any order."""
    found: list[Interval] = []
    begin: Element | None = None
    # a beginning comes behind an end at the same address, which is that of its neighbour
    for element in sorted(elements, key=lambda one: (one.key, not one.end)):
        value = int.from_bytes(element.key, "big")
        if begin is not None:
            found.append(Interval(version, int.from_bytes(begin.key, "big"), value - 1, begin.comment))
        begin = None if element.end else element
    if begin is not None:
        last = (1 << IP(version, 0).bits) - 1
        found.append(Interval(version, int.from_bytes(begin.key, "big"), last, begin.comment))
    return found
