"""What people call the ends of a question: pods, containers, services, nodes, addresses. Pure.

Must not: ask a cluster; what is known here is what the node knows.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from cni_node.why.decode import address_of
from cni_node.why.routing import is_local
from cni_node.why.values import NODE, PROTOCOLS, ChainKey, Filter, Rule, World
from cni_protocol.address import IP, parse_ip

_SERVICE = re.compile(r"service-[A-Z0-9]+-(?P<name>[^/]+/[^/]+)/")  # kube-proxy's chains of nftables
_COMMENT = re.compile(r"(?P<name>[^/ ]+/[^:/ ]+)(:\S*)? cluster IP")  # its comments of iptables
_ID = 6  # characters of a container id, at least
_PORTS = 65535


class End(NamedTuple):
    """An end of a question. `owner` is that of a stack, None beyond the node; `picks`: any of its addresses will do."""

    name: str
    owner: str | None
    addresses: tuple[IP, ...]
    picks: bool = False


def find_end(text: str, world: World) -> End:
    """The end that a text names. Raises ValueError."""
    try:
        return _by_address(parse_ip(text), world)
    except ValueError:
        pass
    if text in ("node", world.node):
        return End(world.node, NODE, _of_node(world), picks=True)
    places = [place for place in world.places if text == place.pod or text == place.container_id]
    if not places and len(text) >= _ID:
        places = [place for place in world.places if place.container_id.startswith(text)]
    if len({place.container_id for place in places}) > 1:
        raise ValueError(f"{text} stands for {' and '.join(sorted({place.container_id for place in places}))}")
    if places:
        addresses = tuple(ip for place in places for ip in place.addresses)
        return End(places[0].name, places[0].owner, addresses, picks=True)
    for name, _, address in world.peers:
        if name == text and address is not None:
            return End(text, None, (address,))
    services = tuple(dict.fromkeys(ip for name, ip in _services(world.stacks[NODE].filter) if name == text))
    if services:
        return End(text, None, services)
    raise ValueError(f"{text} is no pod, container, service or node that is known here, and no address")


def _by_address(ip: IP, world: World) -> End:
    holder = next((place for place in world.places if ip in place.addresses), None)
    if holder is not None:
        return End(f"{holder.name} ({ip})", holder.owner, (ip,))
    if is_local(world.stacks[NODE], ip):
        return End(f"{world.node} ({ip})", NODE, (ip,))
    return End(str(ip), None, (ip,))


def _of_node(world: World) -> tuple[IP, ...]:
    """The addresses of the node, those of the way out first."""
    node = world.stacks[NODE]
    ways = {route.ifindex for route in node.routes if not route.dst.prefix}
    own = [entry for entry in node.addresses if entry.cidr.ip.value >> (entry.cidr.ip.bits - 8) not in (0, 127, 0xFE)]
    return tuple(entry.cidr.ip for entry in sorted(own, key=lambda entry: entry.ifindex not in ways))


def place_name(pod: str, container_id: str) -> str:
    """What a pod is called in answers."""
    return pod or f"container {container_id[:12]}"


def _services(found: Filter) -> Iterator[tuple[str, IP]]:
    for key, entry in found.sets.items():
        size = 16 if key[0] == "ip6" or key[2].endswith("6") else 4
        for element in entry.elements:
            match = _SERVICE.match(element.verdict[1]) if element.verdict is not None else None
            if match is not None and entry.length > size:
                yield match["name"], address_of(element.key[:size])
    for chain, rules in found.chains.items():
        yield from _in_comments(chain, rules)


def _in_comments(chain: ChainKey, rules: tuple[Rule, ...]) -> Iterator[tuple[str, IP]]:
    """Names in the comments of a chain of iptables, with the destination that is compared there."""
    for rule in rules if chain[2] == "KUBE-SERVICES" else ():
        values = [expression.values or {} for expression in rule.expressions]
        comments = [one["INFO"].split(b"\0")[0].decode() for one in values if one.get("NAME") == "comment"]
        matches = [match for text in comments if (match := _COMMENT.match(text))]
        addresses = [
            data
            for one in values
            if isinstance(one.get("DATA"), dict) and len(data := one["DATA"].get("NFTA_DATA_VALUE", b"")) in (4, 16)
        ]
        if matches and addresses:
            yield matches[0]["name"], address_of(addresses[0])


def parse_service(text: str) -> tuple[int, int]:
    """Protocol and port from PORT/PROTOCOL, or "icmp". Raises ValueError."""
    if text == "icmp":
        return PROTOCOLS["icmp"], 0
    port, slash, protocol = text.partition("/")
    if not slash or protocol not in ("tcp", "udp", "sctp") or not port.isdecimal() or not 0 < int(port) <= _PORTS:
        raise ValueError(f"{text} is no PORT/PROTOCOL, as in 80/tcp or 53/udp, and not icmp")
    return PROTOCOLS[protocol], int(port)
