"""What the node's agent and the plugin both know of the table of network policies: where pods wait in it. Pure.

    chain forward   at priority filter + 10: ... then the source's egress chain, and the destination's ingress chain
    map egress4, egress6, ingress4, ingress6     address of an isolated pod of this node -> its chain
    chain pending   nothing passes: for pods that nothing is known of yet
Must not: know policies, or talk to the kernel.
"""

from cni_protocol.light.standard import Iterator

from .expressions import ADDRESS, DESTINATION, SOURCE, Rule, drop
from .filter_expressions import FILTER, FORWARD, SetType, count, find_address
from .packed_rules import PackedChain, pack_rule

TABLE, BASE, PENDING = "pycni_policy", "forward", "pending"
DIRECTIONS = ("egress", "ingress")  # in the order in which a packet meets them
_PRIORITY = FILTER + 10  # behind destination NAT and kube-proxy's filter, before source NAT


def map_name(direction: str, version: int) -> str:
    """The map of pods that are isolated in a direction, of an IP version."""
    return f"{direction}{version}"


def map_type(version: int) -> SetType:
    """What such a map is."""
    return SetType(ADDRESS[version], verdicts=True)


def base_chain(*before: Rule) -> PackedChain:
    """The chain that the kernel runs: some rules, then the chains of both ends."""
    return PackedChain(BASE, tuple(map(pack_rule, (*before, *_follow_ends()))), "filter", FORWARD, _PRIORITY)


def dropping_chain(name: str) -> PackedChain:
    """A chain that counts packets and drops them."""
    return PackedChain(name, (pack_rule([count(), drop()]),))


def _follow_ends() -> Iterator[Rule]:
    for direction, offset in zip(DIRECTIONS, (SOURCE, DESTINATION), strict=True):
        for version in (4, 6):
            yield find_address(version, offset, map_name(direction, version), verdict=True)
