"""Putting an attachment's rules into the kernel, finding what is missing, and taking them away again.

Elements carry the owner of their attachment as comment: they are found without knowing their keys, and nobody's are
taken away but the owner's. What no element needs any more (a subnet's chain, then the table) goes with the last one.
What the rules are for does not matter here, but for UDP port mappings, whose flows have to go with them.
"""

import errno

from cni_kernel.errors import KernelError, asking
from cni_kernel.expressions import Element, Map, Rules
from cni_kernel.netlink import Message, NetlinkError
from cni_kernel.nftables import TABLE, Nftables, digest_of, expression_names
from cni_protocol.address import IP
from cni_protocol.attachment import Attachment, describe_owner, spelt_anew
from cni_protocol.errors import ALREADY_EXISTS, CNIError
from cni_protocol.light.standard import Callable, Iterator, Sequence, contextmanager

from .attachment_rules import ALL_MAPS, SHARED_MAPS
from .portmap import udp_ports, udp_targets

# The kernel takes some milliseconds to destroy what was deleted, and whoever closes a socket in that time waits until
# it is done (nft_rcv_nl_event in net/netfilter/nf_tables_api.c). What the end of the process closes holds nobody up who
# has the answer already.
_left_open: list[Nftables] = []
_PARTS = "nf_tables, nft_chain_nat, nft_masq, nft_fib_inet"  # modules
_TRIES = 8  # of a change that somebody else's change may come in between


def ensure_rules(wanted: Rules) -> None:
    """Have these rules in the kernel, whatever of them is there already.

    Raises CNIError: 102 naming the holder when another attachment has what an element claims; KernelError.
    """
    with _table(wanted.family, "packet filter rules cannot be set") as nft:
        for attempt in range(_TRIES):
            try:
                skeleton = [] if attempt == 0 and _stands(nft, wanted) else _skeleton(nft, wanted)
                nft.commit([*skeleton, *_take_over(nft, wanted.elements)])
                _forget_flows(udp_ports(wanted.elements), set())
                return
            except NetlinkError as error:
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
        raise KernelError(errno.EAGAIN, "packet filter rules cannot be set", f"table {TABLE} keeps changing; try again")


def delete_own_rules(attachment: Attachment) -> None:
    """Take away all rules of one attachment. Raises KernelError."""
    for family in ALL_MAPS:
        delete_rules(family, attachment.hint, attachment.owner.__eq__)


def delete_rules(family: int, hint: str, is_stale: Callable[[str], bool], *, at_end: bool = False) -> None:
    """Take away the elements whose owner is stale, and what only they needed; none is fine.

    `hint` is a text that each of these owners contains. UDP flows that port mappings among them directed are forgotten.
    `at_end` says that the process ends after this command: it leaves the socket open until then. Raises KernelError.
    """
    if at_end and len(_left_open) == len(ALL_MAPS):  # the process went on, and this is another command
        close_sockets()
    with _table(family, "packet filter rules cannot be removed", leave_open=at_end) as nft:
        if nft.has_table():
            deleted = _delete_elements(nft, family, hint, is_stale)
            _forget_flows(set(), udp_targets(deleted))


def close_sockets() -> None:
    """Close what delete_rules has left open for the end of the process."""
    while _left_open:
        _left_open.pop().close()


def find_missing(wanted: Rules) -> list[str]:
    """What of these rules is not in the kernel (any more), in words. Raises KernelError."""
    problems = []
    with _table(wanted.family, "packet filter rules cannot be read") as nft:
        for chain in wanted.chains:
            if [names for names, _ in nft.list_rules(chain.name)] != [expression_names(rule) for rule in chain.rules]:
                problems.append(f"chain {chain.name} of nftables table {TABLE} lacks its rules")
        for element in wanted.elements:
            there = nft.find_element(element)
            if there is None or there._replace(comment=spelt_anew(there.comment)) != element._replace(claim=""):
                problems.append(f"map {element.map} of nftables table {TABLE} lacks the element of this container")
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
        from cni_kernel.conntrack import forget_flows_from_port, forget_flows_to  # few attachments have any

        for version, port in ports:
            forget_flows_from_port(version, port)
        forget_flows_to(targets)


def _skeleton(nft: Nftables, wanted: Rules) -> Iterator[Message]:
    """Table, maps and chains with their rules, whether or not they are there."""
    yield nft.add_table()
    for number, entry in enumerate(wanted.maps, start=1):
        yield nft.add_map(entry, number)
    for chain in wanted.chains:
        yield nft.add_chain(chain)
    for chain in wanted.chains:
        yield from nft.set_rules(chain)


def _take_over(nft: Nftables, elements: Sequence[Element]) -> Iterator[Message]:
    """The elements; one that is there under the same key gives way, unless it is another owner's claim."""
    for element in elements:
        there = nft.find_element(element)
        if there is not None and element.claim and spelt_anew(there.comment) != element.comment:
            holder = describe_owner(spelt_anew(there.comment))
            raise CNIError(
                ALREADY_EXISTS,
                f"{element.claim} is taken by {holder}; choose another port, or delete that container",
            )
        if there is not None:
            yield nft.delete_element(there)
        yield nft.add_element(element)


def _delete_elements(nft: Nftables, family: int, hint: str, is_stale: Callable[[str], bool]) -> list[Element]:
    maps, deleted = ALL_MAPS[family], list[Element]()
    for _ in range(_TRIES):
        found = [element for entry in maps for element in nft.find_elements(entry.name, hint)]
        stale = [element for element in found if is_stale(spelt_anew(element.comment))]
        if not stale:
            break
        deleted += stale if _tolerate(nft, [nft.delete_element(element) for element in stale]) else []
    chains = {element.chain for element in deleted if element.chain}
    if not deleted:  # perhaps a DEL died before it came to this
        chains = {name for name, at_hook in nft.list_chains().items() if not at_hook}
    # a chain that is in use would not be deleted, but taking the attempt back makes the kernel wait for all its packets
    unused = [chain for chain in chains if not any(nft.may_lead_to(entry.name, chain) for entry in maps)]
    freed = [_tolerate(nft, [nft.delete_chain(chain)]) for chain in unused]
    if any(freed) or not chains:
        _delete_empty_table(nft, (*maps, *SHARED_MAPS[family]))
    return deleted


def _tolerate(nft: Nftables, messages: Sequence[Message]) -> bool:
    """Delete what may be gone or in use. Returns whether it was deleted."""
    try:
        nft.commit(messages)
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EBUSY):
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
def _table(family: int, what: str, *, leave_open: bool = False) -> Iterator[Nftables]:
    """Our table for a block; what the kernel refuses becomes an error that says what was being done."""
    with asking(what, _PARTS):
        nft = Nftables(family)
        try:
            yield nft
        finally:
            if leave_open:
                _left_open.append(nft)
            else:
                nft.close()
