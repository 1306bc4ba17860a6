"""Where the state of the cluster comes from: a file or options, the Kubernetes API, or etcd.

A source lists once and then follows. It feeds a queue from a thread of its own, and decides nothing.
"""

from collections.abc import Callable
from threading import Event
from typing import Protocol

from cni_node.snapshot import Snapshot


class Source(Protocol):
    """One place that knows the cluster's nodes."""

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """Publish the cluster as it is, then again at each change, until `stopping` is set.

        It never ends by an error: what cannot be reached or read is tried again, and stands in `problems` of the next
        snapshot, whose nodes are then the last ones known. Before the first whole list only problems are published,
        in snapshots that are not `listed`. `publish` is called by threads of the source, one call after another.
        """
