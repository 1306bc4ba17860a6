"""The state of the cluster at one moment, as a source knows it: this node, its peers, and problems. Plain values.

Must not: know where they come from, or what is in the kernel.
"""

from typing import NamedTuple

from cni_protocol.address import CIDR, IP


class Node(NamedTuple):
    """A node of the cluster.

    `pods` are its pod ranges, `addresses` its addresses on the nodes' network; each has at most one per family, IPv4
    first. A peer has both. This node has no `pods` until the cluster gives it some, or while an older node has the
    same. `mtu` is that of its pods' interfaces, in bytes, 0 if it is not published.
    """

    name: str
    pods: tuple[CIDR, ...]
    addresses: tuple[IP, ...]
    mtu: int = 0


class Snapshot(NamedTuple):
    """The cluster at one moment. `own` is this node, None as long as the source does not know it.

    `peers` are the other nodes, sorted by name; pod ranges of different nodes do not overlap. `problems` are sentences
    about what the source could not read or had to leave out, for the log and for `pycni status`. `listed` is false
    until the source has listed all nodes once. Until then the nodes are unknown, and the kernel is left as it is.
    """

    own: Node | None
    peers: tuple[Node, ...]
    problems: tuple[str, ...] = ()
    listed: bool = True
