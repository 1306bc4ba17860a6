"""A source that is being followed by a test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cni_node.snapshot import Snapshot
from cni_node.sources import Source

BOUND = 20.0  # seconds, for anything
SOON = 5.0  # seconds, for what an event tells: milliseconds on an idle machine, and no source looks again that early


class Followed:
    """What a source has published so far."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._new = threading.Condition()

    def publish(self, snapshot: Snapshot) -> None:
        """Take a snapshot from the source."""
        with self._new:
            self.snapshots.append(snapshot)
            self._new.notify_all()

    @property
    def last(self) -> Snapshot:
        """The newest snapshot."""
        return self.snapshots[-1]

    def until(self, condition: Callable[[Snapshot], bool], seconds: float = BOUND) -> Snapshot:
        """The newest snapshot as soon as it is so."""
        with self._new:
            came = self._new.wait_for(lambda: bool(self.snapshots) and condition(self.last), seconds)
            assert came, f"not within {seconds} s: {self.snapshots[-3:]}"
            return self.last


def anything(snapshot: Snapshot) -> bool:
    """As a condition: whatever has come."""
    return snapshot is not None


def peer_names(snapshot: Snapshot) -> list[str]:
    """The names of the peers."""
    return [peer.name for peer in snapshot.peers]


@contextmanager
def following(source: Source) -> Iterator[Followed]:
    """Follow a source in a thread, which has to end when it is told to."""
    followed, stopping = Followed(), threading.Event()
    thread = threading.Thread(target=source.follow, args=(followed.publish, stopping), daemon=True)
    thread.start()
    try:
        yield followed
    finally:
        stopping.set()
        thread.join(BOUND)
    assert not thread.is_alive(), "the source goes on"
