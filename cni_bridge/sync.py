"""Adding an attachment's rules to the kernel, checking them, and removing them.

An element has its attachment's owner as comment, so elements are found and removed by owner, without knowing their
keys. A subnet's chain is removed with the last element that jumps to it, and the table with its last element. This
module does not know what rules are for, except that UDP flows are deleted along with their port mappings.
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
    """Add rules to the kernel; parts of them may be there already.

    Raises CNIError (code 102) naming the holder when another container has a host port, and KernelError.
    """
    with _table(wanted.family, "packet filter rules cannot be set") as nft:
        for attempt in range(_TRIES):
            try:
                # first without reading what is there: the kernel refuses if a key is taken
                waiting = _put_in(nft, wanted) if attempt == 0 else _put_in_beside(nft, wanted)
                _forget_flows(udp_ports(wanted.elements), set())
                _warn(waiting)
                return
            except NetlinkError as error:
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
        raise KernelError(errno.EAGAIN, "packet filter rules cannot be set", f"table {TABLE} keeps changing; try again")


def _put_in(nft: Nftables, wanted: Rules) -> Sequence[Element]:
    skeleton = () if _is_there(nft, wanted) else _skeleton(nft, wanted)
    _commit(nft, [*skeleton, *nft.change_elements([], wanted.elements)])
    return []


def _put_in_beside(nft: Nftables, wanted: Rules) -> Sequence[Element]:
    """Add rules whose keys may be taken. Returns the host ports that have to wait."""
    from .claims import settle  # here, since collisions are rare

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
    """Remove all rules of one attachment. Raises KernelError."""
    for family in ALL_MAPS:
        delete_rules(family, attachment.hint, attachment.owner.__eq__)


def delete_rules(family: int, hint: str, is_stale: Callable[[str], bool], *, at_end: bool = False) -> None:
    """Remove the elements of stale owners, if there are any, and the chains and tables that are not needed any more.

    `hint` is a text that each of these owners contains. UDP flows that port mappings among them directed are forgotten.
    `at_end` says that the process ends after this command, and that the table is there. Raises KernelError.
    """
    with _table(family, "packet filter rules cannot be removed", open_socket() if at_end else None) as nft:
        if at_end or nft.has_table():
            deleted, inherited = _delete_elements(nft, family, hint, is_stale)
            _forget_flows(udp_ports(inherited), udp_targets(deleted))


def find_missing(wanted: Rules) -> list[str]:
    """The parts of these rules that the kernel lacks, in words. Raises KernelError."""
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
    """Try whether the kernel accepts rules: in a transaction whose last message must fail, so that nothing changes.

    If containers use such rules already, nothing is tried: rolling a transaction back makes the kernel wait until all
    packets in progress are done. Raises KernelError when the kernel does not accept the rules.
    """
    with _table(wanted.family, "packet filter rules cannot be set") as nft:
        if any(not nft.is_empty(element.map) for element in wanted.elements):
            return
        trial = [*_skeleton(nft, wanted), nft.delete_table(f"{TABLE}-is-never-there")]
        try:
            nft.commit(trial)
        except NetlinkError as error:
            if error.index != len(trial):  # not the last message; the batch has one more message in front
                raise


def _is_there(nft: Nftables, wanted: Rules) -> bool:
    """Whether all chains have their rules already. A missing map is noticed later, when an element is added to it."""
    return all(
        nft.list_rules(chain.name) == [(expression_names(rule), digest_of(rule)) for rule in chain.rules]
        for chain in wanted.chains
    )


def _forget_flows(ports: set[tuple[int, int]], targets: set[IP]) -> None:
    """Delete the UDP flows to these host ports, and those that containers with these addresses answer."""
    if ports or targets:
        from cni_kernel.conntrack import forget_flows  # here, since few attachments have UDP mappings

        forget_flows(ports, targets)


def _skeleton(nft: Nftables, wanted: Rules) -> Iterator[Message]:
    """Messages that add table, maps and chains, and set the chains' rules, whether or not they exist."""
    yield nft.add_table()
    for number, entry in enumerate(wanted.maps, start=1):
        yield nft.add_map(entry, number)
    for chain in wanted.chains:
        yield nft.add_chain(chain)
    for chain in wanted.chains:
        yield from nft.set_rules(chain)


def _commit(nft: Nftables, messages: Sequence[Message]) -> None:
    """Send messages as one transaction, or as several when they do not fit into the send buffer.

    Only an unprivileged process has such a limit; it sends two halves, each halved again if necessary. The order of the
    messages allows that: chains come before elements that jump to them, and deletions before additions. If a later part
    fails, the caller removes all rules of its owner.
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
    """Delete elements of stale owners. Returns these, and the waiting host ports that came into force instead."""
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
    if not deleted:  # an earlier DEL may have died before it removed the chains
        chains = {name for name, at_hook in nft.list_chains().items() if not at_hook}
    if _delete_unused_chains(nft, maps, chains) or not chains:
        _delete_empty_table(nft, (*maps, *SHARED_MAPS[family]))
    return deleted, inherited


def _delete_unused_chains(nft: Nftables, maps: Sequence[Map], chains: set[str]) -> bool:
    """Delete the chains that no element jumps to. Returns whether any was deleted.

    The kernel would refuse to delete a chain in use, but rolling that back makes it wait for packets in progress. So
    the chains in use are read first.
    """
    unused = sorted(chains.difference(*(nft.list_targets(entry.name) for entry in maps))) if chains else []
    if not unused or _tolerate(nft, [nft.delete_chain(chain) for chain in unused]):
        return bool(unused)
    freed = [_tolerate(nft, [nft.delete_chain(chain)]) for chain in unused]  # one of them has come into use meanwhile
    return any(freed)


def _tolerate(nft: Nftables, messages: Sequence[Message]) -> bool:
    """Send a change. Returns False when it fails because another process has changed the same objects meanwhile."""
    try:
        _commit(nft, messages)
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EBUSY, errno.EEXIST):
            return False
        raise
    return True


def _delete_empty_table(nft: Nftables, maps: Sequence[Map]) -> None:
    """Remove the table when it has no elements, unless another process adds one meanwhile."""
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
