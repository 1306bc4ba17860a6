"""Holds pods back in the table of network policies where no agent answers, and takes away what it has of pods that go.

Nothing passes to or from a pod that is held back, until an agent has judged it. The table is the agent's: where it is
not there yet, as after a boot, just the part is made that holds back, and the agent goes on from that. What an agent
that lives is told of by the kernel, it looks at again.
Must not: judge a pod, or touch the addresses of others.
"""

import errno

from cni_kernel.errors import asking
from cni_kernel.expressions import ADDRESS
from cni_kernel.filter_expressions import Elements
from cni_kernel.netlink import Message, NetlinkError
from cni_kernel.nft_tables import TableSocket
from cni_kernel.policy_frame import (
    DIRECTIONS,
    PENDING,
    TABLE,
    base_chain,
    dropping_chain,
    map_name,
    map_type,
)
from cni_protocol.address import IP
from cni_protocol.light.standard import Callable, Iterator, Sequence

_TRIES = 8  # others may change the rule set between our look and our change
_VERSIONS = (4, 6)


def hold_back(addresses: Sequence[IP]) -> None:
    """Have nothing pass to or from these addresses until an agent has judged them. Raises KernelError."""
    with asking("pods cannot be held back in the table of policies", "nf_tables"):
        _change(lambda socket: [*_frame(socket), *_delete(socket, addresses), *_add(socket, addresses)])


def let_go(addresses: Sequence[IP]) -> None:
    """Have nothing in the table that is about these addresses as those of isolated pods. Raises KernelError."""
    with asking("pods cannot be taken out of the table of policies", "nf_tables"):
        _change(lambda socket: list(_delete(socket, addresses)))


def _change(messages: Callable[[TableSocket], list[Message]]) -> None:
    socket = TableSocket(TABLE)
    try:
        for left in reversed(range(_TRIES)):
            generation = socket.generation()
            wanted = messages(socket)
            try:
                if wanted:
                    socket.commit(wanted, generation)
                return
            except NetlinkError as error:
                if error.errno != errno.ERESTART or not left:
                    raise
    finally:
        socket.close()


def _frame(socket: TableSocket) -> Iterator[Message]:
    """What is missing of the part that holds back."""
    yield socket.add_table()
    maps = [(map_name(direction, version), map_type(version)) for direction in DIRECTIONS for version in _VERSIONS]
    for number, (name, kind) in enumerate(maps):
        yield socket.add_set(name, kind, number)
    for chain in (dropping_chain(PENDING), base_chain()):
        yield socket.add_chain(chain)
        if not socket.has_rules(chain.name):
            yield from socket.add_rules(chain)


def _add(socket: TableSocket, addresses: Sequence[IP]) -> Iterator[Message]:
    for direction in DIRECTIONS:
        for version in _VERSIONS:
            held = {ip.packed: PENDING for ip in addresses if ip.version == version}
            yield from socket.add_elements(map_name(direction, version), map_type(version), held)


def _delete(socket: TableSocket, addresses: Sequence[IP]) -> Iterator[Message]:
    """Out of the maps of isolated pods, and of the sets that these are in: iso, and self with pairs of addresses."""
    for version in sorted({ip.version for ip in addresses}):
        keys = {ip.packed for ip in addresses if ip.version == version}
        half = ADDRESS[version][1]
        for name in (*(map_name(direction, version) for direction in DIRECTIONS), f"iso{version}", f"self{version}"):
            there = socket.find_elements(name)
            gone: Elements = {key: b"" for key in there if {key[:half], key[-half:]} & keys}
            yield from socket.delete_elements(name, map_type(version), gone)
