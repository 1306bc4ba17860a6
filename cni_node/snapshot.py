"""What a source knows of the cluster at one moment: this node, its peers, and what is wrong. Values alone.

Must not: know where they come from, or what the kernel holds.
"""

from typing import NamedTuple

from cni_protocol.address import CIDR, IP


class Node(NamedTuple):
    """A node of the cluster, as its source has it.

    `pods` are its pod ranges and `addresses` its own addresses on the nodes' network, each at most one of a family,
    IPv4 first. A peer has both; this node is without `pods` as long as it has been given none, or an older node has
    them, too. `mtu` is what its pods' interfaces have, in bytes, 0 where it is not published.
    """

    name: str
    pods: tuple[CIDR, ...]
    addresses: tuple[IP, ...]
    mtu: int = 0


class Snapshot(NamedTuple):
    """The cluster at one moment. `own` is this node, None as long as the source does not know it.

    `peers` are the other nodes in the order of their names; no two pod ranges of nodes overlap. `problems` has a
    sentence for everything that the source could not read or had to leave out, for the log and for `pycni status`.
    `listed` is false until the first whole list: the nodes are unknown then, and what the kernel holds stays as it is.
    """

    own: Node | None
    peers: tuple[Node, ...]
    problems: tuple[str, ...] = ()
    listed: bool = True
