"""The difference between the kernel's table and the desired one, as messages of one transaction. Pure.

Must not: read or write the table.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cni_kernel.expressions import ADDRESS
from cni_kernel.filter_expressions import Elements, SetType
from cni_kernel.netlink import Message
from cni_kernel.nft_tables import Contents, TableSocket
from cni_node.policy.desired import PENDING
from cni_node.policy.model import DIRECTIONS
from cni_node.policy.rules import Ruleset


class Change(NamedTuple):
    """The size of a change: numbers of chains, sets and elements that are added or deleted."""

    chains: int = 0
    sets: int = 0
    elements: int = 0


class _SetChange(NamedTuple):
    """The elements to delete from a set, and those to add after that."""

    kind: SetType
    added: Elements
    deleted: Elements


class Difference:
    """One change of the table. A pod that waits in PENDING and is not among the `judged` addresses waits on.

    When an agent begins, all isolated pods that it does not know yet wait (`adopting`): it may be the API that has not
    heard yet which address a pod has.
    """

    def __init__(
        self,
        wanted: Ruleset,
        known: Contents,
        judged: frozenset[bytes],
        *,
        adopting: bool = False,
        anew: bool = False,
    ) -> None:
        """With `anew` the messages are for an empty table, but who waits in the `known` one waits on."""
        waiting = _waiting(wanted, known, judged, adopting)
        known = Contents({}, {}) if anew else known
        self._wanted, self._known = wanted, known
        self._chains = [name for name, rules in wanted.digests.items() if known.chains.get(name) != rules]
        self._old_chains = [name for name in known.chains if name not in wanted.digests]
        self._old_sets = [name for name in known.sets if name not in wanted.sets]
        elements = {name: found for name, (_, found) in wanted.sets.items()} | waiting
        self._new_sets = [name for name in elements if name not in known.sets]
        self._sets = dict(self._compare(elements))
        self.after = Contents(wanted.digests, elements)

    @property
    def change(self) -> Change:
        """How much it is."""
        elements = sum(len(each.added) + len(each.deleted) for each in self._sets.values())
        chains, sets = len(self._chains) + len(self._old_chains), len(self._new_sets) + len(self._old_sets)
        return Change(chains, sets, elements)

    def messages(self, socket: TableSocket) -> Iterator[Message]:
        """The messages, ordered so that chains and sets are added before their use, and deleted after it."""
        for number, name in enumerate(self._new_sets):
            yield socket.add_set(name, self._wanted.sets[name][0], number)
        chains = [self._wanted.chain(name) for name in self._chains]
        for chain in chains:
            yield socket.add_chain(chain)
        for chain in chains:
            if self._known.chains.get(chain.name):
                yield socket.delete_rules(chain.name)
            yield from socket.add_rules(chain)
        for name, (kind, added, deleted) in self._sets.items():
            yield from socket.delete_elements(name, kind, deleted)
            yield from socket.add_elements(name, kind, added)
        for name in self._old_chains:  # no rule and no element leads there any more
            if self._known.chains[name]:
                yield socket.delete_rules(name)
        for name in self._old_chains:
            yield socket.delete_chain(name)
        for name in self._old_sets:
            yield socket.delete_set(name)

    def _compare(self, wanted: dict[str, Elements]) -> Iterator[tuple[str, _SetChange]]:
        for name, elements in wanted.items():
            there = self._known.sets.get(name, {})
            if elements is not there and elements != there:
                added = {key: value for key, value in elements.items() if there.get(key) != value}
                deleted = {key: value for key, value in there.items() if elements.get(key) != value}
                yield name, _SetChange(self._wanted.sets[name][0], added, deleted)


def _waiting(wanted: Ruleset, known: Contents, judged: frozenset[bytes], adopting: bool) -> dict[str, Elements]:
    """The sets of isolated pods with those beside that wait."""
    found: dict[str, Elements] = {}
    for version in (4, 6):
        maps = [f"{direction}{version}" for direction in DIRECTIONS]
        waiting = {
            key
            for name in maps
            for key, chain in known.sets.get(name, {}).items()
            if (adopting or chain == PENDING)
            and key not in judged
            and key not in wanted.sets[name][1]
            and len(key) == ADDRESS[version][1]  # another version's map may have other keys
        }
        if waiting:
            added: dict[str, Elements] = {name: dict.fromkeys(waiting, PENDING) for name in maps}
            added[f"iso{version}"] = dict.fromkeys(waiting, b"")
            added[f"self{version}"] = {key * 2: b"" for key in waiting}
            found |= {name: {**wanted.sets[name][1], **more} for name, more in added.items()}
    return found
