"""Source NAT for what leaves the containers' subnets, in the nftables table `pycni`:

    map masquerade4 { type ipv4_addr : verdict
        elements = { 10.244.0.7 comment "mynet/CONTAINERID/eth0" : jump masquerade-mynet-10.244.0.0/16, ... } }
    chain postrouting { type nat hook postrouting priority srcnat
        ip saddr vmap @masquerade4
        ip6 saddr vmap @masquerade6 }
    chain masquerade-mynet-10.244.0.0/16 {
        ip daddr 10.244.0.0/16 return
        ip daddr 224.0.0.0/4 return
        masquerade }

A container is one element of a hash map, so a new connection costs the same with one container and with thousands. The
comment says whose the element is: DEL finds it without knowing the address, and takes away no one else's. What nobody
uses any more (a subnet's chain, then the table) goes with its last container.
Must not: know interfaces.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.errors import KERNEL_REFUSED, CNIError

from . import nftables
from .netlink import Message, NetlinkError
from .nftables import Element, Nftables
from .plan import Attachment, shortened

BASE_CHAIN = "postrouting"
MAPS = {4: "masquerade4", 6: "masquerade6"}
_MULTICAST = {4: parse_cidr("224.0.0.0/4"), 6: parse_cidr("ff00::/8")}
_TRIES = 5  # of a change that somebody else's change may come in between


def ensure_masquerade(attachment: Attachment, addresses: Sequence[CIDR]) -> None:
    """Have what these addresses (with their subnets) send out of their subnet masqueraded. Raises CNIError (100)."""
    with _table("masquerading cannot be set up") as nft:
        elements = [(address.version, _element(attachment, address)) for address in addresses]
        for _ in range(_TRIES):
            try:
                nft.commit([*_skeleton(attachment, addresses), *_replace(nft, elements)])
                return
            except NetlinkError as error:
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
        raise CNIError(
            KERNEL_REFUSED, f"masquerading cannot be set up: table {nftables.TABLE} keeps changing; try again"
        )


def delete_masquerade(attachment: Attachment) -> None:
    """Take away all that ensure_masquerade made for an attachment; nothing is fine. Raises CNIError (100)."""
    with _table("masquerading cannot be removed") as nft:
        chains: set[str] = set()
        for _ in range(_TRIES):
            found = [(version, element) for version in MAPS for element in _own(nft, version, attachment)]
            if not found:
                break
            _tolerate(nft, [nftables.delete_element(MAPS[version], element.key) for version, element in found])
            chains |= {element.chain for _, element in found}
        freed = [_tolerate(nft, [nftables.delete_chain(chain)]) for chain in chains]
        if any(freed):
            _delete_empty_table(nft)


def find_missing(attachment: Attachment, addresses: Sequence[CIDR]) -> list[str]:
    """What of ensure_masquerade's work is not there (any more), in words for CHECK. Raises CNIError (100)."""
    problems = []
    with _table("masquerading cannot be looked at") as nft:
        wanted_base = [_names(rule) for rule in _base_rules()]
        if nft.list_rules(BASE_CHAIN) != wanted_base:
            problems.append(f"chain {BASE_CHAIN} of table {nftables.TABLE} has not the rules that masquerade")
        for address in addresses:
            element = _element(attachment, address)
            if element not in _own(nft, address.version, attachment):
                problems.append(f"{address.ip} is not in map {MAPS[address.version]} of table {nftables.TABLE}")
            if nft.list_rules(element.chain) != [_names(rule) for rule in _chain_rules(address)]:
                problems.append(f"chain {element.chain} of table {nftables.TABLE} has not the rules that masquerade")
    return problems


def chain_of(network: str, address: CIDR) -> str:
    """The chain for the addresses of one subnet of a network; nft(8) takes no colon in a name."""
    return f"masquerade-{shortened(network)}-{address.network}".replace(":", "_")


def _element(attachment: Attachment, address: CIDR) -> Element:
    return Element(address.ip.packed, chain_of(attachment.network, address), attachment.owner)


def _base_rules() -> list[list[nftables.Expression]]:
    return [
        [*nftables.load_address(version, nftables.SOURCE), nftables.look_up_verdict(name)]
        for version, name in MAPS.items()
    ]


def _chain_rules(address: CIDR) -> list[list[nftables.Expression]]:
    stay = [address.network, _MULTICAST[address.version]]
    rules = [
        [
            *nftables.load_address(address.version, nftables.DESTINATION),
            *nftables.match_prefix(network.ip.packed, network.prefix),
            nftables.leave_chain(),
        ]
        for network in stay
    ]
    return [*rules, [nftables.masquerade()]]


def _skeleton(attachment: Attachment, addresses: Sequence[CIDR]) -> Iterator[Message]:
    """Table, maps and chains with their rules, whether or not they are there."""
    yield nftables.add_table()
    for version, name in MAPS.items():
        yield nftables.add_verdict_map(name, version)
    yield nftables.add_base_chain(BASE_CHAIN, nftables.POSTROUTING, nftables.SOURCE_NAT)
    yield from nftables.set_rules(BASE_CHAIN, _base_rules())
    for address in {address.network: address for address in addresses}.values():
        chain = chain_of(attachment.network, address)
        yield nftables.add_chain(chain)
        yield from nftables.set_rules(chain, _chain_rules(address))


def _replace(nft: Nftables, elements: Sequence[tuple[int, Element]]) -> Iterator[Message]:
    """The elements; one that a vanished container left under the same address gives way."""
    for version, element in elements:
        if nft.has_element(MAPS[version], element.key):
            yield nftables.delete_element(MAPS[version], element.key)
        yield nftables.add_element(MAPS[version], element)


def _own(nft: Nftables, version: int, attachment: Attachment) -> list[Element]:
    return nft.find_elements(MAPS[version], attachment.owner)


def _tolerate(nft: Nftables, messages: Sequence[Message]) -> bool:
    """Delete what may be gone or in use. Returns whether it was deleted."""
    try:
        nft.commit(messages)
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.EBUSY):
            return False
        raise
    return True


def _delete_empty_table(nft: Nftables) -> None:
    """Remove the table when the base chain is all that is left, and nobody puts something in meanwhile."""
    for _ in range(_TRIES):
        generation = nft.generation()
        if nft.list_chains() - {BASE_CHAIN}:
            return
        try:
            nft.commit([nftables.delete_table()], generation)
            return
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno != errno.ERESTART:
                raise


def _names(rule: list[nftables.Expression]) -> list[str]:
    return [dict(expression["attrs"])["NFTA_EXPR_NAME"] for expression in rule]


@contextmanager
def _table(what: str) -> Iterator[Nftables]:
    """The rule set for a block; what the kernel refuses becomes an error that says what was being done."""
    try:
        nft = Nftables()
        try:
            yield nft
        finally:
            nft.close()
    except OSError as error:
        remedy = "" if error.errno != errno.EPERM else "; run the plugin as root"
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT):
            remedy = "; this kernel lacks nf_tables with inet NAT (modules nf_tables, nft_chain_nat, nft_masq)"
        raise CNIError(KERNEL_REFUSED, f"{what}: {error.strerror}{remedy}") from None
