"""Where the state of the cluster comes from: a file or options, the Kubernetes API, or etcd.

A source lists the nodes once, and then follows changes. It publishes snapshots from threads of its own, and does not
decide what follows from them.
"""

from collections.abc import Callable
from threading import Event
from typing import Protocol

from cni_node.snapshot import Snapshot


class Source(Protocol):
    """One place that knows the cluster's nodes."""

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """Publish the cluster as it is, then again at each change, until `stopping` is set.

        It never raises: it retries what it cannot reach or read, and meanwhile publishes the last known nodes with the
        failure in `problems`. Before the first complete list it publishes only problems, in snapshots that are not
        `listed`. Threads of the source call `publish`, one call after another.
        """
