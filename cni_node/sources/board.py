"""The shared state of a source's threads: they write nodes and problems here, and it publishes snapshots at a low rate.

Must not: query the source, or remove a node or problem by itself.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock, Timer

from cni_node.snapshot import Snapshot
from cni_node.sources.members import Member, Members, name_some

GAP = 0.1  # seconds between two snapshots; the first change after a pause is published at once
PROBLEMS = 20  # at most in a snapshot


class Board:
    """The nodes and problems of a source. All methods are for any thread.

    `own` is the key of this node. Once known, this node is never removed, since its pods are here. `own_missing` is the
    problem to publish while the source does not have it.
    """

    def __init__(self, own: str, publish: Callable[[Snapshot], None], own_missing: str = "") -> None:
        self._own, self._publish, self._own_missing = own, publish, own_missing
        self._lock = RLock()
        self._members = Members()
        self._problems: dict[str, str] = {}
        self._missing: dict[str, float] = {}  # key of a node reported as gone -> monotonic time at which to remove it
        self._listed = False
        self._closed = False
        self._together = 0  # open blocks of together()
        self._waiting = False  # a change is to be published at their end
        self._last: Snapshot | None = None
        self._published = -GAP
        self._timer: Timer | None = None
        self._reaper: Timer | None = None

    def replace(self, members: Mapping[str, Member], keep: Collection[str] = (), hold: float = 0.0) -> None:
        """Take a complete list. Nodes that are in neither `members` nor `keep` are removed after `hold` seconds."""
        with self.together():
            self._listed = True
            for key, member in members.items():
                self.put(key, member)
            for key in self._members.keys() - members.keys() - set(keep):
                self.remove(key, hold)
            self._changed()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Publish all changes of a block in one snapshot."""
        with self._lock:
            self._together += 1
            try:
                yield
            finally:
                self._together -= 1
                if self._waiting and not self._together:
                    self._changed()

    def put(self, key: str, member: Member) -> None:
        """Add a node, or replace it, or note that it is back."""
        with self._lock:
            back = self._missing.pop(key, None) is not None
            if self._members.put(key, member) or back:
                self._changed()

    def remove(self, key: str, hold: float = 0.0) -> None:
        """Remove a node after `hold` seconds. Meanwhile it loses its pod range to any other node that has it."""
        with self._lock:
            if key not in self._members or key in self._missing:
                return
            if key == self._own or hold:
                self._missing[key] = float("inf") if key == self._own else time.monotonic() + hold
                self._reap_later()
            else:
                self._members.remove(key)
            self._changed()

    def say(self, topic: str, sentence: str) -> None:
        """Set the problem of a topic; an empty text removes it."""
        with self._lock:
            if self._problems.get(topic, "") != sentence:
                self._problems[topic] = sentence
                self._changed()

    def is_empty(self) -> bool:
        """Whether no node is known."""
        with self._lock:
            return not len(self._members)

    def close(self) -> None:
        """Stop publishing."""
        with self._lock:
            self._closed = True
            for timer in (self._timer, self._reaper):
                if timer:
                    timer.cancel()

    def _changed(self) -> None:
        self._waiting = bool(self._together)
        if self._waiting or self._timer or self._closed:
            return
        wait = self._published + GAP - time.monotonic()
        if wait <= 0:
            self._show()
        else:
            self._timer = _start_timer(wait, self._show)

    def _show(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            self._published = time.monotonic()
            snapshot = self._snapshot()
            if snapshot != self._last:
                self._last = snapshot
                self._publish(snapshot)

    def _snapshot(self) -> Snapshot:
        problems = [sentence for sentence in self._problems.values() if sentence]
        if not self._listed:
            return Snapshot(None, (), tuple(dict.fromkeys(problems)), listed=False)
        found = self._members.snapshot(self._own, self._missing)
        if self._own_missing and (found.own is None or self._own in self._missing):
            problems.append(self._own_missing)
        others = [key for key in self._missing if key != self._own]
        if others:
            problems.append(f"kept for a while, although their entries are gone: {name_some(sorted(others))}")
        problems = list(dict.fromkeys([*problems, *found.problems]))
        if len(problems) > PROBLEMS:
            problems[PROBLEMS:] = [f"and {len(problems) - PROBLEMS} problems more"]
        return found._replace(problems=tuple(problems))

    def _reap_later(self) -> None:
        due = min(self._missing.values(), default=float("inf"))
        if due < float("inf") and self._reaper is None and not self._closed:
            self._reaper = _start_timer(max(due - time.monotonic(), 0.0), self._reap)

    def _reap(self) -> None:
        """Remove the missing nodes whose time is over."""
        with self._lock:
            self._reaper = None
            now = time.monotonic()
            for key in [key for key, due in self._missing.items() if due <= now]:
                del self._missing[key]
                self._members.remove(key)
            self._reap_later()
            self._changed()


def _start_timer(seconds: float, function: Callable[[], None]) -> Timer:
    timer = Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer
