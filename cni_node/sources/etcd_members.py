"""Which member of an etcd cluster is asked: one for all clients of a node.

The client that renews the lease asks often, the one that watches only waits. On the same member the first notices for
the second that the member is frozen.
Must not: talk to etcd.
"""

from cni_node.backoff import by_chance


class Members:
    """The endpoints, and which of them is asked (an index); any thread may use it. The first is drawn, so that each
    member has its share of the nodes.
    """

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self.endpoints = endpoints
        self.asked = int(by_chance(0, len(endpoints) - 0.5))

    def leave(self, member: int) -> None:
        """Ask the one behind it, unless another client has left it already."""
        if self.asked == member:
            self.asked = (member + 1) % len(self.endpoints)
