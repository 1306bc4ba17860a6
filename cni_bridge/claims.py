"""Deciding who gets a host port that several attachments want, and who gets it next when its holder goes.

An element that is in the kernel already under a wanted key is
- replaced, if it is our own, has no `claim`, or its owner's interface is gone;
- kept, if another interface of the same container owns it: our port waits, and takes over when the holder goes;
- a reason to refuse, if another container owns it.
Must not: change anything in the kernel; the caller sends what is decided here, in one transaction.
"""

from cni_kernel.expressions import Element
from cni_kernel.nftables import Nftables
from cni_protocol.attachment import Attachment, describe_owner, spelt_anew
from cni_protocol.errors import ALREADY_EXISTS, CNIError
from cni_protocol.light.standard import Callable, NamedTuple, Sequence

from .portmap import WAITING, is_port, list_beside
from .waiting_ports import called_up, port_of, waiting_for

_OWNER_PARTS = 3  # network, container id, interface


class Settlement(NamedTuple):
    """Elements to delete and then to add, in one transaction. `waiting` are wanted ports that another one holds still.

    The kernel refuses the transaction (ENOENT, EEXIST) when another process has changed these elements meanwhile.
    """

    deleted: Sequence[Element]
    added: Sequence[Element]
    waiting: Sequence[Element] = ()


def settle(nft: Nftables, wanted: Sequence[Element]) -> Settlement:
    """Decide how to add the wanted elements. Raises CNIError (code 102) naming the container that holds a port."""
    there = nft.find_same(wanted)
    added, waiting = [], []
    is_alive: Callable[[str], bool] | None = None
    for element in wanted:
        holder = there.get((element.map, element.key))
        owner = spelt_anew(holder.comment) if holder is not None else ""
        if holder is None or not element.claim or owner == element.comment:
            added.append(element)
            continue
        is_alive = is_alive or _find_living()
        if not is_alive(owner):
            added.append(element)
        elif _container_of(owner) == _container_of(element.comment):
            added.append(holder)  # deleted and added again, so that the transaction fails if the holder goes meanwhile
            waiting.append(element)
        else:
            raise CNIError(
                ALREADY_EXISTS,
                f"{element.claim} is taken by {describe_owner(owner)}; choose another port, or delete that container",
            )
    places = [waiting_for(element) for element in waiting if is_port(element)]
    return Settlement([*there.values(), *nft.find_same(places).values()], [*added, *places], waiting)


def find_heirs(nft: Nftables, is_stale: Callable[[str], bool]) -> Settlement:
    """Decide which waiting host ports come into force: those whose holder is stale or gone, and whose waiter is not."""
    places = [place for waiting in WAITING.values() for place in nft.find_elements(waiting.name, "")]
    queue = {called_up(place): place for place in places if not is_stale(spelt_anew(place.comment))}
    beside = [element for port in queue for element in list_beside(port)]
    there = nft.find_same([*queue, *beside])
    held = {key for key, holder in there.items() if not is_stale(spelt_anew(holder.comment))}
    heirs = {port_of(port): port for port in queue if port_of(port) not in held}
    led = [
        element for port in heirs.values() for element in list_beside(port) if (element.map, element.key) not in held
    ]
    return Settlement([queue[port] for port in heirs.values()], [*heirs.values(), *led])


def find_absent(nft: Nftables, wanted: Sequence[Element]) -> list[Element]:
    """The wanted elements that the kernel lacks or has otherwise.

    A host port that waits for another interface of its container is not among them.
    """
    there = nft.find_same(wanted)
    absent = [element for element in wanted if not _is_same(there.get((element.map, element.key)), element)]
    shared = {element for element in absent if _is_shared(there.get((element.map, element.key)), element)}
    places = {port_of(element): waiting_for(element) for element in shared if is_port(element)}
    waiting = nft.find_same(list(places.values()))
    settled = {port for port, place in places.items() if _is_same(waiting.get((place.map, place.key)), place)}
    return [element for element in absent if element not in shared or port_of(element) not in settled]


def _is_same(there: Element | None, wanted: Element) -> bool:
    return there is not None and there._replace(comment=spelt_anew(there.comment)) == wanted._replace(claim="")


def _is_shared(there: Element | None, wanted: Element) -> bool:
    """Whether another interface of the same container has what an element claims."""
    owner = spelt_anew(there.comment) if there is not None else ""
    return bool(wanted.claim) and owner != wanted.comment and _container_of(owner) == _container_of(wanted.comment)


def _container_of(owner: str) -> str:
    """The container id in an owner. A text that is no owner gives a value that equals no container id."""
    parts = owner.split(",", _OWNER_PARTS - 1)
    return parts[1] if len(parts) == _OWNER_PARTS else f",{owner}"


def _find_living() -> Callable[[str], bool]:
    """A function that tells whether an owner's interface exists. It returns true for a text that is no owner."""
    from cni_kernel.kernel import Kernel

    with Kernel() as host:
        links = host.list_links()
    aliases, names = {spelt_anew(link.alias) for link in links}, {link.name for link in links}

    def is_alive(owner: str) -> bool:
        parts = owner.split(",", _OWNER_PARTS - 1)
        if len(parts) != _OWNER_PARTS or owner in aliases:
            return True
        return Attachment(*parts).host_name in names

    return is_alive
