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

from collections.abc import Iterator, Mapping
from functools import lru_cache

from cni_kernel import filter_expressions as filters
from cni_kernel.expressions import (
    ADDRESS,
    DESTINATION,
    INET_PROTO,
    INET_SERVICE,
    SOURCE,
    Rule,
    concatenated,
    leave_chain,
)
from cni_kernel.filter_expressions import Elements, SetType
from cni_kernel.packed_rules import PackedChain, digest_of, pack_rule
from cni_kernel.policy_frame import BASE, base_chain, dropping_chain
from cni_kernel.policy_frame import TABLE as TABLE
from cni_node.policy.desired import NAMED, NETWORKS, PAIRS, PENDING, PORTS, VERDICTS, Allow, Desired, PolicyChain, Set
from cni_node.policy.model import DIRECTIONS, EGRESS, PROTOCOLS

CUT = 1 << 27  # the bit of a connection's mark that says: no longer allowed
LOGGED, BURST = 10, 20  # denied packets of a chain that are logged in a second
_SERVICE = (INET_PROTO, INET_SERVICE)
_PREFIX_BYTES = 127
_NEIGHBOUR_DISCOVERY, _LISTENERS, _LISTENERS_2 = (133, 137), (130, 132), (143, 143)  # types of ICMPv6, RFC 4861, 3810


Digests = tuple[str, ...]  # of a chain's rules


class Ruleset:
    """What the table consists of: the digests of all chains by their names, and all sets with their elements.

    Chains that lead to others come behind these. One whose name, and so whose content, is `known` is not made again.
    """

    def __init__(self, desired: Desired, known: Mapping[str, Digests]) -> None:
        self._desired = desired
        self.sets: dict[str, tuple[SetType, Elements]] = {
            name: (TYPES[name.partition("_")[0]], entry.elements) for name, entry in desired.sets.items()
        }
        self.digests: dict[str, Digests] = {}
        for name in (*_fixed(), *desired.chains, BASE):
            self.digests[name] = known.get(name) or tuple(map(digest_of, self.chain(name).rules))

    def chain(self, name: str) -> PackedChain:
        """A chain with its rules."""
        if name == BASE:
            return base_chain(*_before_the_ends())
        if name in self._desired.chains:
            return PackedChain(name, tuple(_policy_rules(self._desired.chains[name])))
        return dropping_chain(name)


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


def _fixed() -> tuple[str, ...]:
    """The chains that count and drop."""
    return (*map(denied_chain, DIRECTIONS), "stray", "cut", PENDING)


def _before_the_ends() -> Iterator[Rule]:
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


def _policy_rules(chain: PolicyChain) -> Iterator[bytes]:
    for allow in chain.allows:
        yield _pack_allow(chain.direction, allow)
    if chain.names:
        prefix = f"pycni denied {chain.direction} {chain.names}".encode()[: _PREFIX_BYTES - 2].decode("utf-8", "ignore")
        yield pack_rule(filters.log(f"{prefix}: ", LOGGED, BURST))
    yield pack_rule([filters.goto(denied_chain(chain.direction))])


def _pack_allow(direction: str, allow: Allow) -> bytes:
    """A thousand policies have few forms of rules: each is packed once, and gets the names of its sets afterwards."""
    names = (allow.peers, allow.ports, allow.named)
    blanks = ["" if not name else str(place) * len(name) for place, name in enumerate(names)]
    peers, ports, named = blanks
    packed = _pack_form(direction, allow._replace(peers=peers, ports=ports, named=named))
    for blank, name in zip(blanks, names, strict=True):
        packed = packed.replace(blank.encode(), name.encode()) if name else packed
    return packed


@lru_cache(maxsize=1024)
def _pack_form(direction: str, form: Allow) -> bytes:
    return pack_rule([*_conditions(direction, form), leave_chain()])


def _conditions(direction: str, allow: Allow) -> Rule:
    found = []
    if allow.port:  # first: comparing costs less than a look in a set
        found += filters.match_service(PROTOCOLS[allow.port.protocol], allow.port.first, allow.port.last)
    if allow.peers:
        found += filters.find_address(allow.version, DESTINATION if direction == EGRESS else SOURCE, allow.peers)
    if allow.ports:
        found += filters.find_service(allow.ports)
    if allow.named:
        found += filters.find_destination_service(allow.version, allow.named)
    return found
