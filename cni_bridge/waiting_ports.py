"""Host ports that wait until another interface of the same container goes, as elements of portmap.WAITING. Pure.

Must not: know who holds a port.
"""

from cni_kernel import expressions
from cni_kernel.expressions import Element
from cni_protocol.attachment import Attachment

from .portmap import ANY, EXACT, LOOPBACK, WAITING

_PORTS_OF_LOOPBACK = {entry.name: name for name, entry in LOOPBACK.items()}
_SERVICE_BYTES = 8  # protocol and port


def port_of(element: Element) -> tuple[str, bytes]:
    """The map and key of a host port; `element` is the port itself, or its element in a loopback set."""
    return _PORTS_OF_LOOPBACK.get(element.map, element.map), element.key


def waiting_for(port: Element) -> Element:
    """The waiting element for a host port that another interface holds."""
    version = int(port.map[-1])
    claimant = Attachment(*port.comment.split(",", 2)).host_name
    address = port.key[:-_SERVICE_BYTES] or bytes(expressions.ADDRESS[version][1])
    key = expressions.pack_name(claimant) + address + port.key[-_SERVICE_BYTES:]
    return Element(WAITING[version].name, key, port.comment, port.data)


def called_up(waiting: Element) -> Element:
    """The host port for a waiting element: the inverse of waiting_for."""
    version = int(waiting.map[-1])
    address, service = waiting.key[expressions.IFNAME[1] : -_SERVICE_BYTES], waiting.key[-_SERVICE_BYTES:]
    exact = any(address)
    return Element((EXACT if exact else ANY)[version].name, address * exact + service, waiting.comment, waiting.data)
