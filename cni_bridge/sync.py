"""Putting an attachment's rules into the kernel, finding what is missing, and taking them away again.

Elements carry the owner of their attachment as comment: they are found without knowing their keys, and nobody's are
taken away but the owner's. What no element needs any more (a subnet's chain, then the table) goes with the last one.
What the rules are for does not matter here, but for UDP port mappings, whose flows have to go with them.
"""

import errno
import sys

from cni_kernel.errors import KernelError, asking
from cni_kernel.expressions import Element, Map, Rules
from cni_kernel.netlink import Message, NetlinkError, NetlinkSocket
from cni_kernel.nft_presence import PARTS, TABLE, open_socket
from cni_kernel.nftables import Nftables, digest_of, expression_names
from cni_protocol.address import CIDR, IP
from cni_protocol.attachment import Attachment, spelt_anew
from cni_protocol.light.standard import Callable, Iterator, Sequence, contextmanager

from .attachment_rules import ALL_MAPS, SHARED_MAPS, list_rules
from .config import BridgeConfig
from .portmap import is_port, udp_ports, udp_targets
from .undo import Undo

_TRIES = 8  # of a change that somebody else's change may come in between


def ensure_own_rules(
    config: BridgeConfig, attachment: Attachment, addresses: Sequence[CIDR], *, mac: str, undo: Undo
) -> None:
    """Have all rules of an attachment in the kernel, with their way back. Raises as ensure_rules."""
    undo.on_failure(delete_own_rules, attachment)
    for rules in list_rules(config, attachment, addresses, mac):
        ensure_rules(rules)


def ensure_rules(wanted: Rules) -> None:
    """Have these rules in the kernel, whatever of them is there already.

    Raises CNIError: 102 naming the holder when another attachment has what an element claims; KernelError.
    """
    with _table(wanted.family, "packet filter rules cannot be set") as nft:
        for attempt in range(_TRIES):
            try:
                # first as if nothing were in the way: that shows
                waiting = _put_in(nft, wanted) if attempt == 0 else _put_in_beside(nft, wanted)
                _forget_flows(udp_ports(wanted.elements), set())
                _warn(waiting)
                return
            except NetlinkError as error:
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
        raise KernelError(errno.EAGAIN, "packet filter rules cannot be set", f"table {TABLE} keeps changing; try again")


def _put_in(nft: Nftables, wanted: Rules) -> Sequence[Element]:
    skeleton = () if _stands(nft, wanted) else _skeleton(nft, wanted)
    _commit(nft, [*skeleton, *nft.change_elements([], wanted.elements)])
    return []


def _put_in_beside(nft: Nftables, wanted: Rules) -> Sequence[Element]:
    """Returns the host ports that have to wait."""
    from .claims import settle  # little is in anybody's way

    settled = settle(nft, wanted.elements)
    _commit(nft, [*_skeleton(nft, wanted), *nft.change_elements(settled.deleted, settled.added)])
    return settled.waiting


def _warn(waiting: Sequence[Element]) -> None:
    claims = list(dict.fromkeys(element.claim for element in waiting))  # of both IP versions once
    if claims:
        more = f" (and {len(claims) - 1} more)" if claims[1:] else ""
        what = "stays with another interface of this container, and leads here when that is gone"
        print(f"cni-bridge: {claims[0]}{more} {what}", file=sys.stderr)


def delete_own_rules(attachment: Attachment) -> None:
    """Take away all rules of one attachment. Raises KernelError."""
    for family in ALL_MAPS:
        delete_rules(family, attachment.hint, attachment.owner.__eq__)


def delete_rules(family: int, hint: str, is_stale: Callable[[str], bool], *, at_end: bool = False) -> None:
    """Take away the elements whose owner is stale, and what only they needed; none is fine.

    `hint` is a text that each of these owners contains. UDP flows that port mappings among them directed are forgotten.
    `at_end` says that the process ends after this command, and that the table is there. Raises KernelError.
    """
    with _table(family, "packet filter rules cannot be removed", open_socket() if at_end else None) as nft:
        if at_end or nft.has_table():
            deleted, inherited = _delete_elements(nft, family, hint, is_stale)
            _forget_flows(udp_ports(inherited), udp_targets(deleted))


def find_missing(wanted: Rules) -> list[str]:
    """What of these rules is not in the kernel (any more), in words. Raises KernelError."""
    problems = []
    with _table(wanted.family, "packet filter rules cannot be read") as nft:
        for chain in wanted.chains:
            if not nft.has_rules(chain):
                problems.append(f"chain {chain.name} of nftables table {TABLE} lacks its rules")
        from .claims import find_absent

        absent = [element.map for element in find_absent(nft, wanted.elements)]
        for name in dict.fromkeys(absent):
            what = f"{absent.count(name)} elements" if absent.count(name) > 1 else "the element"
            problems.append(f"map {name} of nftables table {TABLE} lacks {what} of this container")
    return problems


def probe_rules(wanted: Rules) -> None:
    """Try a transaction with these rules that cannot succeed, and so changes nothing.

    Where rules of the kind are at work for a container there is nothing to try: taking a transaction back makes the
    kernel wait for all of its packets. Raises KernelError when the kernel would not take them.
    """
    with _table(wanted.family, "packet filter rules cannot be set") as nft:
        if any(not nft.is_empty(element.map) for element in wanted.elements):
            return
        trial = [*_skeleton(nft, wanted), nft.delete_table(f"{TABLE}-is-never-there")]
        try:
            nft.commit(trial)
        except NetlinkError as error:
            if error.index != len(trial):  # the batch begins with one message more
                raise


def _stands(nft: Nftables, wanted: Rules) -> bool:
    """Whether every chain has its rules already; a map that is missing shows when an element is put into it."""
    return all(
        nft.list_rules(chain.name) == [(expression_names(rule), digest_of(rule)) for rule in chain.rules]
        for chain in wanted.chains
    )


def _forget_flows(ports: set[tuple[int, int]], targets: set[IP]) -> None:
    """Forget the UDP flows towards these host ports, and those that these containers answer."""
    if ports or targets:
        from cni_kernel.conntrack import forget_flows  # few attachments have any

        forget_flows(ports, targets)


def _skeleton(nft: Nftables, wanted: Rules) -> Iterator[Message]:
    """Table, maps and chains with their rules, whether or not they are there."""
    yield nft.add_table()
    for number, entry in enumerate(wanted.maps, start=1):
        yield nft.add_map(entry, number)
    for chain in wanted.chains:
        yield nft.add_chain(chain)
    for chain in wanted.chains:
        yield from nft.set_rules(chain)


def _commit(nft: Nftables, messages: Sequence[Message]) -> None:
    """Do all of this in one transaction, or in as few as the kernel takes from a process without the right to more.

    What is larger than its buffer is halved: then chains stand before what leads to them, and what is old goes before
    what is new comes; whoever fails in between takes all that is its own away again.
    """
    try:
        nft.commit(messages)
    except OSError as error:
        if error.errno != errno.EMSGSIZE or len(messages) < 2:
            raise
        half = len(messages) // 2
        _commit(nft, messages[:half])
        _commit(nft, messages[half:])


def _delete_elements(
    nft: Nftables, family: int, hint: str, is_stale: Callable[[str], bool]
) -> tuple[list[Element], list[Element]]:
    """Returns what was deleted, and what others of the same container got in its place."""
    maps, deleted, inherited = ALL_MAPS[family], list[Element](), list[Element]()
    for _ in range(_TRIES):
        found = [element for entry in maps for element in nft.find_elements(entry.name, hint)]
        stale = [element for element in found if is_stale(spelt_anew(element.comment))]
        freed: Sequence[Element] = ()
        heirs: Sequence[Element] = ()
        if any(is_port(element) for element in (*stale, *deleted)):
            from .claims import find_heirs

            freed, heirs, _ = find_heirs(nft, is_stale)
        if not stale and not heirs:
            break
        if _tolerate(nft, list(nft.change_elements([*stale, *freed], heirs))):
            deleted += stale
            inherited += heirs
    chains = {element.chain for element in deleted if element.chain}
    if not deleted:  # perhaps a DEL died before it came to this
        chains = {name for name, at_hook in nft.list_chains().items() if not at_hook}
    if _delete_unused_chains(nft, maps, chains) or not chains:
        _delete_empty_table(nft, (*maps, *SHARED_MAPS[family]))
    return deleted, inherited


def _delete_unused_chains(nft: Nftables, maps: Sequence[Map], chains: set[str]) -> bool:
    """Delete those of the chains that nothing leads to. Returns whether any was.

    One in use would not be deleted, but taking the attempt back makes the kernel wait for all its packets.
    """
    unused = sorted(chains.difference(*(nft.list_targets(entry.name) for entry in maps))) if chains else []
    if not unused or _tolerate(nft, [nft.delete_chain(chain) for chain in unused]):
        return bool(unused)
    freed = [_tolerate(nft, [nft.delete_chain(chain)]) for chain in unused]  # one of them is in use by now
    return any(freed)


def _tolerate(nft: Nftables, messages: Sequence[Message]) -> bool:
    """Change what others may change meanwhile (delete what may be gone or in use). Returns whether it was done."""
    try:
        _commit(nft, messages)
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EBUSY, errno.EEXIST):
            return False
        raise
    return True


def _delete_empty_table(nft: Nftables, maps: Sequence[Map]) -> None:
    """Remove the table when no element is left, unless somebody puts one in meanwhile."""
    for _ in range(_TRIES):
        generation = nft.generation()
        if not all(nft.list_chains().values()) or not all(nft.is_empty(entry.name) for entry in maps):
            return
        try:
            nft.commit([nft.delete_table()], generation)
            return
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno != errno.ERESTART:
                raise


@contextmanager
def _table(family: int, what: str, socket: NetlinkSocket | None = None) -> Iterator[Nftables]:
    """Our table for a block; what the kernel refuses becomes an error that says what was being done."""
    with asking(what, PARTS):
        nft = Nftables(family, socket)
        try:
            yield nft
        finally:
            if socket is None:
                nft.close()
