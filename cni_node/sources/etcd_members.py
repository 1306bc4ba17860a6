"""The member of an etcd cluster that all clients of a node ask.

The client that renews the lease sends requests often; the client that watches only waits. If both use the same member,
the first one notices for the second when that member is frozen.
Must not: talk to etcd.
"""

from cni_node.api.backoff import by_chance


class Members:
    """The endpoints, and the index of the one that is asked. For any thread.

    The first one is chosen at random, so that each member serves a share of the nodes.
    """

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self.endpoints = endpoints
        self.asked = int(by_chance(0, len(endpoints) - 0.5))

    def leave(self, member: int) -> None:
        """Switch to the next member, unless another client has done so already."""
        if self.asked == member:
            self.asked = (member + 1) % len(self.endpoints)
