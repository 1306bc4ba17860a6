"""Host ports that wait, since another interface of the same container has them, as elements of a map. Pure.

    map portmap_waiting4 { type ifname . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = { "veth8c1..." . 0.0.0.0 . tcp . 8080 comment "net2,CONTAINERID,eth1" : 10.245.0.7 . 80, ... } }

A runtime sends the port mappings of a container to each of its networks. No rule looks into this map: an element says
where a port is to lead when its holder goes, and stands under the name of the host's end of who waits.
"""

from cni_kernel import expressions
from cni_kernel.expressions import Element, Map
from cni_protocol.attachment import Attachment

from .portmap import ANY, EXACT, LOOPBACK

_WAITING = {
    version: Map(
        f"portmap_waiting{version}",
        expressions.concatenated(
            expressions.IFNAME, expressions.ADDRESS[version], expressions.INET_PROTO, expressions.INET_SERVICE
        ),
        ports.data,
    )
    for version, ports in ANY.items()
}
WAITING_MAPS = tuple(_WAITING.values())  # made when somebody has to wait
_PORTS = frozenset(entry.name for entry in (*EXACT.values(), *ANY.values()))
_PORTS_OF_LOOPBACK = {entry.name: name for name, entry in LOOPBACK.items()}
_SERVICE_BYTES = 8  # protocol and port


def is_port(element: Element) -> bool:
    """Whether this is a host port: what says where it leads, which cannot be two containers."""
    return element.map in _PORTS


def port_of(element: Element) -> tuple[str, bytes]:
    """Map and key of the host port that an element is, or stands beside."""
    return _PORTS_OF_LOOPBACK.get(element.map, element.map), element.key


def waiting_for(port: Element) -> Element:
    """The element that has a host port wait until whoever holds it goes."""
    version = int(port.map[-1])
    claimant = Attachment(*port.comment.split(",", 2)).host_name
    address = port.key[:-_SERVICE_BYTES] or bytes(expressions.ADDRESS[version][1])
    key = expressions.pack_name(claimant) + address + port.key[-_SERVICE_BYTES:]
    return Element(_WAITING[version].name, key, port.comment, port.data)


def called_up(waiting: Element) -> Element:
    """The host port that an element has waited for."""
    version = int(waiting.map[-1])
    address, service = waiting.key[expressions.IFNAME[1] : -_SERVICE_BYTES], waiting.key[-_SERVICE_BYTES:]
    exact = any(address)
    return Element((EXACT if exact else ANY)[version].name, address * exact + service, waiting.comment, waiting.data)
