"""The desired table of a node as plain values: chains of allowing rules, sets, verdict maps. Pure.

    egress4, egress6, ingress4, ingress6   address of an isolated pod of this node -> its chain
    self4, self6                           address . address: a pod and itself
    iso4, iso6                             addresses of pods that are isolated in any direction
    e_DIGEST, i_DIGEST                     chains: what a group of policies allows, for egress and for ingress
    s4_, s6_                               addresses of the pods that selectors match
    b4_, b6_                               networks of ipBlocks less their exceptions
    p_                                     protocol . ports, of rules that have more than one range of them
    n4_, n6_                               address . protocol . port of pods that give a name to a port
Must not: know messages of the kernel.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cni_kernel.policy_frame import PENDING as PENDING
from cni_node.policy.model import PortRange

ADDRESSES, NETWORKS, PORTS, NAMED, VERDICTS, PAIRS = "addresses", "networks", "ports", "named", "verdicts", "pairs"

Elements = Mapping[bytes, bytes | str]


class Set(NamedTuple):
    """A set of one of the kinds above. `version` is 0 for PORTS.

    The elements of VERDICTS lead to a chain's name; those of NETWORKS and PORTS to the last key of their interval;
    those of other kinds to nothing.
    """

    kind: str
    version: int
    elements: Elements


class Allow(NamedTuple):
    """A rule that allows packets that match all its conditions. "" stands for no set, None for any port.

    `version` is the IP version of the sets, 0 for any. `peers` is a set of addresses of the other end, `ports` one of
    protocols and ports, `named` one of destination addresses with protocol and port. `port` needs no set.
    """

    version: int = 0
    peers: str = ""
    ports: str = ""
    named: str = ""
    port: PortRange | None = None


class PolicyChain(NamedTuple):
    """What pods are allowed in a direction. Packets that no rule allows are dropped.

    `names` are those of the policies if denied packets are logged, otherwise "".
    """

    direction: str
    allows: tuple[Allow, ...]
    names: str = ""


class Desired(NamedTuple):
    """All chains and sets by their names. `judged` are the addresses of this node's known pods, isolated or not.

    An address in PENDING that is not among them stays there.
    """

    chains: dict[str, PolicyChain]
    sets: dict[str, Set]
    judged: frozenset[bytes]
