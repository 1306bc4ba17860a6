"""All nodes that a source knows, in a structure in which one change is cheap; it resolves overlapping pod ranges. Pure.

Must not: know the source, or remove a node by itself.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from cni_node.snapshot import Node, Snapshot
from cni_protocol.address import CIDR, IP

NAMED = 5  # nodes that one sentence names, at most


class Member(NamedTuple):
    """A node, and the age of its entry: a smaller value is older (a revision, or a time as sortable text)."""

    node: Node
    age: tuple[int, str]


class _Span(NamedTuple):
    """A pod range as numbers, and the key of the node that has it."""

    version: int
    first: int
    last: int
    key: str


class Members:
    """The nodes, by the keys that the source uses for them.

    The pod ranges are kept sorted, so that a change of one among 5,000 nodes takes some milliseconds.
    """

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._names: list[tuple[str, str]] = []  # name and key, in order
        self._spans: list[_Span] = []  # in order
        self._clashing = False  # spans may overlap
        self._addresses: Counter[IP] = Counter()
        self._shared: set[IP] = set()  # addresses that several nodes have

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __len__(self) -> int:
        return len(self._members)

    def keys(self) -> set[str]:
        """The keys of all nodes."""
        return set(self._members)

    def put(self, key: str, member: Member) -> bool:
        """Add or replace a node. Returns whether that changed anything."""
        before = self._members.get(key)
        if before == member:
            return False
        if before is not None:
            self._forget(key, before)
        self._members[key] = member
        insort(self._names, (member.node.name, key))
        for span in _spans_of(key, member.node):
            place = bisect_left(self._spans, span)
            self._spans.insert(place, span)
            # of spans that overlap, there are always two that are neighbours
            self._clashing |= bool(_overlapping(self._spans[max(place - 1, 0) : place + 2]))
        for ip in member.node.addresses:
            self._addresses[ip] += 1
            if self._addresses[ip] > 1:
                self._shared.add(ip)
        return True

    def remove(self, key: str) -> bool:
        """Remove a node. Returns whether it was there."""
        member = self._members.pop(key, None)
        if member is not None:
            self._forget(key, member)
        return member is not None

    def _forget(self, key: str, member: Member) -> None:
        del self._names[bisect_left(self._names, (member.node.name, key))]
        for span in _spans_of(key, member.node):
            del self._spans[bisect_left(self._spans, span)]
        for ip in member.node.addresses:
            self._addresses[ip] -= 1
            if self._addresses[ip] < 2:
                self._shared.discard(ip)
            if not self._addresses[ip]:
                del self._addresses[ip]

    def snapshot(self, own: str, doubtful: Collection[str] = ()) -> Snapshot:
        """The cluster at this moment. `own` is the key of this node.

        Where pod ranges overlap, the older node keeps its range. `doubtful` are the keys of nodes that may be gone:
        they lose overlapping ranges to any other node.
        """
        problems: list[str] = []
        lost = self._settle(doubtful, problems)
        members = self._members
        mine = members.get(own)
        keys = [key for _, key in self._names if key != own]
        nodes = [self._remaining(key, lost) if key in lost else members[key].node for key in keys]
        peers = [node for node in nodes if node.pods and node.addresses]
        if len(peers) < len(nodes):  # one without a pod range is a machine without pods: nothing is to lead there
            away = [node.name for node in nodes if node.pods and not node.addresses]
            if away:
                problems.append(f"without address, so no routes lead there: {name_some(away)}")
        if self._shared:
            peers = self._apart(mine.node.addresses if mine else (), peers, problems)
        return Snapshot(self._remaining(own, lost) if mine else None, tuple(peers), tuple(problems))

    def _remaining(self, key: str, lost: dict[str, set[CIDR]]) -> Node:
        node, gone = self._members[key].node, lost.get(key, ())
        return node._replace(pods=tuple(cidr for cidr in node.pods if cidr.network not in gone)) if gone else node

    def _apart(self, own: tuple[IP, ...], peers: list[Node], problems: list[str]) -> list[Node]:
        """The peers without those that have an address of this node. Other shared addresses are only problems."""
        holders: dict[IP, list[str]] = {ip: [] for ip in sorted(self._shared)}
        for peer in peers:
            for ip in self._shared.intersection(peer.addresses):
                holders[ip].append(peer.name)
        for ip, names in holders.items():
            if ip in own:
                problems.append(
                    f"the address of this node, {ip}, is also that of {name_some(names)}: no routes lead there"
                )
            else:
                problems.append(f"these nodes have one address, {ip}: {name_some(names)}")
        if not self._shared.isdisjoint(own):
            peers = [peer for peer in peers if set(own).isdisjoint(peer.addresses)]
        return peers

    def _settle(self, doubtful: Collection[str], problems: list[str]) -> dict[str, set[CIDR]]:
        """The pod ranges that nodes lose to older ones, by key."""
        lost: dict[str, set[CIDR]] = {}
        groups = _overlapping(self._spans) if self._clashing else []
        self._clashing = bool(groups)
        for group in groups:
            group.sort(key=lambda span: (span.key in doubtful, self._members[span.key].age, span))
            kept: list[tuple[int, int, str]] = []
            for span in group:
                winner = _find_overlap(kept, span.first, span.last)
                if winner is None:
                    insort(kept, (span.first, span.last, span.key))
                    continue
                cidr = _cidr_of(span)
                lost.setdefault(span.key, set()).add(cidr)
                loser, holder = self._members[span.key].node.name, self._members[winner].node.name
                problems.append(f"pod range {cidr} of node {loser} overlaps with what node {holder} has already")
        return lost


def name_some(names: Iterable[str]) -> str:
    """Names for a sentence: the first NAMED, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more


def one_of_a_family(addresses: Iterable[IP]) -> tuple[IP, ...]:
    """The first address of each family, IPv4 first."""
    found: dict[int, IP] = {}
    for ip in addresses:
        found.setdefault(ip.version, ip)
    return tuple(found[version] for version in sorted(found))


def _spans_of(key: str, node: Node) -> list[_Span]:
    return [_Span(cidr.version, cidr.first.value, cidr.last.value, key) for cidr in node.pods]


def _cidr_of(span: _Span) -> CIDR:
    ip = IP(span.version, span.first)
    return CIDR(ip, ip.bits - (span.last - span.first).bit_length())


def _overlapping(spans: list[_Span]) -> list[list[_Span]]:
    """Groups of overlapping ranges. `spans` are sorted; a range is in a group if it begins before that ends."""
    groups = []
    start, version, top = 0, 0, -1
    for index, (family, first, last, _) in enumerate(spans):
        if family == version and first <= top:
            top = max(top, last)
            continue
        if index - start > 1:
            groups.append(spans[start:index])
        start, version, top = index, family, last
    if len(spans) - start > 1:
        groups.append(spans[start:])
    return groups


def _find_overlap(kept: list[tuple[int, int, str]], first: int, last: int) -> str | None:
    """The key of the range in `kept` that overlaps this one. Those in `kept` do not overlap each other."""
    index = bisect_right(kept, (first,))
    for neighbour in kept[max(index - 1, 0) : index + 1]:
        if neighbour[0] <= last and neighbour[1] >= first:
            return neighbour[2]
    return None
