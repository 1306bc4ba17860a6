"""The desired table as nftables' chains and sets. Pure.

    chain forward: drops cut connections; accepts established ones, what IPv6 needs on a link, and a pod's traffic to
        itself; drops TCP packets of isolated pods that belong to no known connection and open none; then jumps to the
        source's egress chain and to the destination's ingress chain
    chain e_..., i_...: a rule for each thing that is allowed (return); the rest goes to the chain denied_...
    chain pending: drops everything

The priority is filter + 10: after destination NAT and before source NAT, so that both addresses are those of pods; and
after kube-proxy's filter, so that services without endpoints are refused at once. Packets from and to the node itself
do not pass this hook.
Must not: decide what is allowed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cni_kernel import filter_expressions as filters
from cni_kernel.expressions import (
    ADDRESS,
    DESTINATION,
    INET_PROTO,
    INET_SERVICE,
    SOURCE,
    Chain,
    Rule,
    concatenated,
    drop,
    leave_chain,
)
from cni_kernel.filter_expressions import Elements, SetType
from cni_node.policy.desired import NAMED, NETWORKS, PAIRS, PENDING, PORTS, VERDICTS, Allow, Desired, PolicyChain, Set
from cni_node.policy.model import DIRECTIONS, EGRESS, INGRESS

TABLE = "pycni_policy"
CUT = 1 << 27  # the bit of a connection's mark that says: no longer allowed
LOGGED, BURST = 10, 20  # denied packets of a chain that are logged in a second
_SERVICE = (INET_PROTO, INET_SERVICE)
_PREFIX_BYTES = 127
_NEIGHBOUR_DISCOVERY, _LISTENERS, _LISTENERS_2 = (133, 137), (130, 132), (143, 143)  # types of ICMPv6, RFC 4861, 3810
_PRIORITY = filters.FILTER + 10


class Ruleset(NamedTuple):
    """All chains by their names, and all sets with their elements."""

    chains: dict[str, Chain]
    sets: dict[str, tuple[SetType, Elements]]


def ruleset_of(desired: Desired) -> Ruleset:
    """All chains and sets of the table. A chain that jumps to others comes after these."""
    chains = {chain.name: chain for chain in _fixed()}
    chains |= {name: Chain(name, tuple(_policy_rules(chain))) for name, chain in desired.chains.items()}
    chains["forward"] = Chain("forward", tuple(_forward()), "filter", filters.FORWARD, _PRIORITY)
    return Ruleset(chains, {name: (type_of(entry), entry.elements) for name, entry in desired.sets.items()})


def type_of(entry: Set) -> SetType:
    """The nftables type of a set."""
    if entry.kind == PORTS:
        return SetType(concatenated(*_SERVICE), intervals=True, parts=tuple(size for _, size in _SERVICE))
    address = ADDRESS[entry.version]
    if entry.kind == NAMED:
        return SetType(concatenated(address, *_SERVICE))
    if entry.kind == PAIRS:
        return SetType(concatenated(address, address))
    return SetType(address, verdicts=entry.kind == VERDICTS, intervals=entry.kind == NETWORKS)


# The types by the part of a set's name before "_", for TableSocket.read.
TYPES = {
    "p": type_of(Set(PORTS, 0, {})),
    **{
        f"{prefix}{version}": type_of(Set(kind, version, {}))
        for version in (4, 6)
        for prefix, kind in (
            *((direction, VERDICTS) for direction in DIRECTIONS),
            *(("self", PAIRS), ("iso", ""), ("s", ""), ("b", NETWORKS), ("n", NAMED)),
        )
    },
}


def denied_chain(direction: str) -> str:
    """The name of the chain that counts and drops."""
    return f"denied_{direction}"


def _fixed() -> Iterator[Chain]:
    for direction in DIRECTIONS:
        yield Chain(denied_chain(direction), ([filters.count(), drop()],))
    yield Chain("stray", ([filters.count(), drop()],))
    yield Chain("cut", ([filters.count(), drop()],))
    yield Chain(PENDING, ([filters.count(), drop()],))


def _forward() -> Iterator[Rule]:
    yield [*filters.match_mark(CUT), filters.goto("cut")]
    yield [*filters.match_established(), filters.accept()]
    for types in (_NEIGHBOUR_DISCOVERY, _LISTENERS, _LISTENERS_2):
        yield [*filters.match_icmpv6(*types), filters.accept()]
    for version in (4, 6):
        yield [*filters.find_ends(version, f"self{version}"), filters.accept()]
    for version in (4, 6):
        for offset in (SOURCE, DESTINATION):
            isolated = filters.find_address(version, offset, f"iso{version}")
            yield [*filters.match_no_syn(), *isolated, filters.goto("stray")]
    for direction, offset in ((EGRESS, SOURCE), (INGRESS, DESTINATION)):
        for version in (4, 6):
            yield filters.find_address(version, offset, f"{direction}{version}", verdict=True)


def _policy_rules(chain: PolicyChain) -> Iterator[Rule]:
    for allow in chain.allows:
        yield [*_conditions(chain.direction, allow), leave_chain()]
    if chain.names:
        prefix = f"pycni denied {chain.direction} {chain.names}".encode()[: _PREFIX_BYTES - 2].decode("utf-8", "ignore")
        yield filters.log(f"{prefix}: ", LOGGED, BURST)
    yield [filters.goto(denied_chain(chain.direction))]


def _conditions(direction: str, allow: Allow) -> Rule:
    found = []
    if allow.peers:
        found += filters.find_address(allow.version, DESTINATION if direction == EGRESS else SOURCE, allow.peers)
    if allow.ports:
        found += filters.find_service(allow.ports)
    if allow.named:
        found += filters.find_destination_service(allow.version, allow.named)
    return found
