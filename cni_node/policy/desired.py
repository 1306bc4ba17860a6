"""What the table of a node should hold, as values: chains of rules that let through, sets, verdict maps. Pure.

    egress4, egress6, ingress4, ingress6   address of an isolated pod of this node -> its chain
    self4, self6                           address . address: a pod and itself
    iso4, iso6                             addresses of pods that are isolated in any direction
    e_DIGEST, i_DIGEST                     chains: what a set of policies lets through
    s4_, s6_                               addresses of the pods that selectors mean
    b4_, b6_                               networks of ipBlocks less their exceptions
    p_                                     protocol . ports
    n4_, n6_                               address . protocol . port of pods that give a name to a port
Must not: know messages of the kernel.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cni_kernel.policy_frame import PENDING as PENDING

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
    """A rule that lets through what is in all its sets; "" stands for a set with everything in it.

    `version` is the IP version that its sets are of, 0 for any. `peers` has the address at the other end, `ports`
    protocol and port, `named` the destination with both.
    """

    version: int = 0
    peers: str = ""
    ports: str = ""
    named: str = ""


class PolicyChain(NamedTuple):
    """What pods are let do in a direction; what none of the rules lets through is dropped.

    `names` are those of the policies where denied packets are logged, "" where they are not.
    """

    direction: str
    allows: tuple[Allow, ...]
    names: str = ""


class Desired(NamedTuple):
    """All chains and sets by their names. `judged` are the addresses of this node's pods that are known, isolated or
    not; any other pod that waits in PENDING waits on.
    """

    chains: dict[str, PolicyChain]
    sets: dict[str, Set]
    judged: frozenset[bytes]
