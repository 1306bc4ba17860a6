"""The parts that one policy contributes to the kernel's table: allowing rules, and the content of their sets. Pure.

Must not: know pods, so that a policy's parts stay the same while pods come and go.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from cni_kernel.expressions import pad
from cni_node.policy.desired import NETWORKS, PORTS, Allow, PolicyChain, Set
from cni_node.policy.intervals import intervals_of, merge
from cni_node.policy.model import PROTOCOLS, Block, PodPeer, PortName, PortRange, Rule
from cni_node.policy.names import name_of
from cni_protocol.address import IP

VERSIONS = (4, 6)
_SHARED = 4  # selectors of one rule that have a set each, which other policies use too; more become one set


class Parts(NamedTuple):
    """The parts of a policy. `peers` and `named` have the selectors and port names that fill a set, by the set's name.

    `fixed` are sets that do not depend on pods.
    """

    allows: tuple[Allow, ...]
    peers: dict[str, tuple[PodPeer, ...]]
    named: dict[str, tuple[PortName, ...]]
    fixed: dict[str, Set]


def parts_of(rules: Iterable[Rule]) -> Parts:
    """The parts of a policy's rules of one direction."""
    parts = Parts((), {}, {}, {})
    allows: list[Allow] = []
    for rule in rules:
        services = _services(rule, parts)
        for end in _ends(rule, parts):
            allows += [
                service._replace(version=end.version or service.version, peers=end.peers)
                for service in services
                if 0 in (end.version, service.version) or end.version == service.version
            ]
    return parts._replace(allows=tuple(dict.fromkeys(allows)))


def chain_of(direction: str, version: int, parts: Iterable[Parts], names: Iterable[str]) -> tuple[str, PolicyChain]:
    """The name and the chain of several policies together, for packets of an IP version."""
    allows = dict.fromkeys(allow for part in parts for allow in part.allows if allow.version in (0, version))
    ordered = sorted(allows, key=lambda allow: allow.peers.startswith("b"))  # a look in intervals takes the longest
    chain = PolicyChain(direction, tuple(ordered), ", ".join(names))
    return name_of(direction[0], chain), chain


def _ends(rule: Rule, parts: Parts) -> list[Allow]:
    """The conditions on the other end: one Allow for each set of addresses."""
    if rule.peers is None:
        return [Allow()]
    found = []
    pods = tuple(sorted({peer for peer in rule.peers if isinstance(peer, PodPeer)}, key=name_of_peer))
    blocks = [peer for peer in rule.peers if isinstance(peer, Block)]
    shared = [(pod,) for pod in pods] if len(pods) <= _SHARED else [pods]
    for version in VERSIONS:
        for each in shared if pods else ():
            name = name_of(f"s{version}", each)
            parts.peers[name] = each
            found.append(Allow(version, peers=name))
        if intervals := intervals_of(blocks, version):
            name = name_of(f"b{version}", intervals)
            elements = {IP(version, first).packed: IP(version, last).packed for first, last in intervals}
            parts.fixed[name] = Set(NETWORKS, version, elements)
            found.append(Allow(version, peers=name))
    return found


def _services(rule: Rule, parts: Parts) -> list[Allow]:
    """The conditions on ports: one Allow for each set of ports."""
    if rule.ports is None:
        return [Allow()]
    found = []
    names = tuple(sorted({port for port in rule.ports if isinstance(port, PortName)}))
    ranges = _merged(port for port in rule.ports if isinstance(port, PortRange))
    if len(ranges) == 1:
        found.append(Allow(port=ranges[0]))
    elif ranges:
        name = name_of("p", ranges)
        elements = {pack_service(*port[:2]): pack_service(port.protocol, port.last) for port in ranges}
        parts.fixed[name] = Set(PORTS, 0, elements)
        found.append(Allow(ports=name))
    for version in VERSIONS if names else ():
        name = name_of(f"n{version}", names)
        parts.named[name] = names
        found.append(Allow(version, named=name))
    return found


def _merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    by_protocol: dict[str, list[tuple[int, int]]] = {}
    for port in ranges:
        by_protocol.setdefault(port.protocol, []).append((port.first, port.last))
    return tuple(PortRange(each, *span) for each in sorted(by_protocol) for span in merge(by_protocol[each]))


def name_of_peer(peer: PodPeer) -> str:
    """A text that is the same for the same peer in every process."""
    return name_of("", peer)


@lru_cache(maxsize=1024)
def pack_service(protocol: str, port: int) -> bytes:
    """Protocol and port as a key."""
    return pad(bytes([PROTOCOLS[protocol]]), port.to_bytes(2, "big"))
