"""Which pods a node has to know: its own, and those that the policies of its own pods select as peers. Pure.

In a large cluster this decides how much memory and traffic the agent needs.
Must not: query the API.
"""

from collections.abc import Collection, Iterable, Mapping

from cni_node.policy.model import DIRECTIONS, EGRESS, Labels, Pod, PodPeer, Policy, PortName, Rule, Selector

EVERYWHERE = "*"
MANY, FEW = 20, 10  # namespaces; for more, one watch of all pods costs the API server less, until they are few again


def needed_namespaces(
    policies: Iterable[Policy], local: Iterable[Pod], namespaces: Mapping[str, Labels], followed: Collection[str] = ()
) -> frozenset[str]:
    """The namespaces whose pods have to be known, EVERYWHERE instead of very many. `followed` are those at present."""
    bound = FEW if EVERYWHERE in followed else MANY
    own: dict[str, set[Labels]] = {}
    for pod in local:
        own.setdefault(pod.namespace, set()).add(pod.labels)
    found: set[str] = set()
    matching: dict[Selector, set[str]] = {}
    for policy in policies:
        if any(policy.pods.matches(labels) for labels in own.get(policy.namespace, ())):
            for direction in DIRECTIONS:
                for rule in policy.rules(direction) or ():
                    found |= _named_by(rule, direction, namespaces, matching)
            if len(found) > bound or EVERYWHERE in found:
                return frozenset({EVERYWHERE})
    return frozenset(found)


def _named_by(
    rule: Rule, direction: str, namespaces: Mapping[str, Labels], matching: dict[Selector, set[str]]
) -> set[str]:
    """`matching` has what selectors of namespaces match, since many policies have the same ones."""
    found: set[str] = set()
    for peer in rule.peers or ():
        if not isinstance(peer, PodPeer):
            continue
        if isinstance(peer.namespaces, str):
            found.add(peer.namespaces)
        else:
            selector = peer.namespaces
            if selector not in matching:
                matching[selector] = {name for name, labels in namespaces.items() if selector.matches(labels)}
            found |= matching[selector]
    names = any(isinstance(port, PortName) for port in rule.ports or ())
    blocks = rule.peers is None or not all(isinstance(peer, PodPeer) for peer in rule.peers)
    if direction == EGRESS and names and blocks:  # the destination pod, wherever it is, defines the port's number
        found.add(EVERYWHERE)
    return found
