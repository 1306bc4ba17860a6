"""The loop of the agent: it takes events of the source and of the kernel from a queue, and has the keeper repair.

Other threads only feed the queue. The loop needs no state from before a restart, and when it ends it leaves the kernel
as it is.
Must not: know how a stage does its work.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any

from cni_node import logs
from cni_node.agent.keeper import EXEMPT, LOCAL, STAGES, SYSCTLS, Done, Keeper
from cni_node.agent.notify import Notifier
from cni_node.agent.report import Report
from cni_node.agent.server import Page, serve
from cni_node.agent.setup import persist
from cni_node.agent.watch import POLICIES, Disturbance, View, Watcher
from cni_node.host.bridge import BRIDGE
from cni_node.host.links import Links
from cni_node.policy.enforcer import Enforcer
from cni_node.readiness.admission import Admission, Admitted
from cni_node.readiness.runtime import list_strangers
from cni_node.settings import OFF, RECHECK, Settings
from cni_node.snapshot import Snapshot
from cni_node.sources import Source
from cni_node.sources.kubernetes import KubernetesSettings
from cni_node.sources.members import name_some
from cni_node.sources.static import StaticSettings

GATHER = 0.02  # seconds after an event during which further events are collected
POLL = 0.75  # seconds between two checks of what the kernel does not announce (sysctls)
RESYNC = 600.0  # seconds between two checks of all stages
ALIVE = 30.0  # seconds without a turn of the loop after which /healthz fails
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0  # seconds until a failed stage is tried again: the first time, and at most
_FAILED = 1  # exit status
_TOLD = 20  # log lines of one stage in one turn, at most


class Agent:
    """One agent of one node."""

    def __init__(self, settings: Settings, source: Source, name: str) -> None:
        """Open sockets and make the parts; changes nothing. Raises KernelError, OSError."""
        self._settings, self._source = settings, source
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._keeper = Keeper(settings)
        names = {BRIDGE, *({settings.overlay.name} if settings.overlay else ())}
        self._view = View(self._keeper.ports, frozenset(names), lambda: self._keeper.wanted)
        self._watcher = Watcher(self._view, self._queue.put)
        self._admission = Admission(settings, self._queue.put)
        self._enforcer = self._make_enforcer()
        self._notifier = Notifier(os.environ)
        self._stopping = threading.Event()
        self._status = 0
        self._snapshot: Snapshot | None = None  # the last one that was listed
        self._told: tuple[str, ...] = ()  # problems of the source
        self._retry, self._wait = 0.0, _FIRST_RETRY
        self._resync = time.monotonic() + RESYNC
        self._turned = time.monotonic()
        self._strangers: tuple[str, ...] = ()
        self._repairs: Counter[str] = Counter()
        self._problems: tuple[str, ...] = ()
        self.report = Report(node=name, source=_kind_of(source), started=time.monotonic(), pid=os.getpid())

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until one of the threads fails. Returns the exit status.

        Raises OSError when the socket cannot be made.
        """
        threading.excepthook = self._end_without
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._queue.put(None))
        page = Page(lambda: self.report, self._is_alive, self._enforcer)
        serve(page, self._settings.socket, self._settings.metrics)
        if self._enforcer:
            self._enforcer.start()
        threading.Thread(target=self._watcher.run, name="watch", daemon=True).start()
        follow = threading.Thread(
            target=self._source.follow, args=(self._queue.put, self._stopping), name="source", daemon=True
        )
        follow.start()
        logs.info("started", node=self.report.node, source=self.report.source, pid=os.getpid())
        self._notifier.send(READY=1, STATUS="waiting for the source")
        while (events := self._wait_for_events()) is not None:
            self._turn(events)
        self._notifier.send(STOPPING=1)
        self._stopping.set()
        logs.info("ended", left="everything stays as it stands in the kernel")
        return self._status

    def _end_without(self, dead: threading.ExceptHookArgs) -> None:
        """End, since a thread has: systemd or the kubelet starts a process that has all of them."""
        name = dead.thread.name if dead.thread else "of no name"
        logs.warn("problem", what=f"the thread {name} has ended, and so the agent does: {dead.exc_value!r}")
        self._status = _FAILED
        self._queue.put(None)

    def _make_enforcer(self) -> Enforcer | None:
        source = self._settings.source
        if self._settings.policies == OFF or not isinstance(source, KubernetesSettings):
            return None
        links = Links()
        enforcer = Enforcer(
            source,
            lambda: [local.cidr.ip for local in links.list_addresses()],
            log=self._settings.log_denied,
            cut=self._settings.policies == RECHECK,
        )
        self._view.ports |= {enforcer.port}
        return enforcer

    def _is_alive(self) -> bool:
        return time.monotonic() - self._turned < ALIVE

    def _wait_for_events(self) -> list[Any] | None:
        """The events since the last turn, possibly none. None when the agent has to end."""
        bound = min(POLL, self._notifier.interval or POLL)
        events = []
        try:
            events.append(self._queue.get(timeout=bound))
            deadline = time.monotonic() + GATHER
            while (left := deadline - time.monotonic()) > 0:
                events.append(self._queue.get(timeout=left))
        except Empty:
            pass
        return None if None in events else events

    def _turn(self, events: Iterable[Any]) -> None:
        now = self._turned = time.monotonic()
        stages = {SYSCTLS}
        causes: set[str] = set()
        for event in events:
            if isinstance(event, Disturbance) and event.stage == POLICIES:
                if self._enforcer:
                    self._enforcer.disturb()
            elif isinstance(event, Disturbance):
                stages.add(event.stage)
                causes.add(event.by)
            elif isinstance(event, Snapshot):
                stages |= self._take(event)
            elif isinstance(event, Admitted):
                self._admission.take(event, now)
        if now >= self._resync:
            stages, self._resync = set(STAGES), now + RESYNC
            if self._enforcer:
                self._enforcer.disturb()
        elif self._keeper.unsettled and now >= self._retry:
            stages |= self._keeper.unsettled
        acted = self._settle(self._snapshot, stages, causes, now) if self._snapshot is not None else False
        if acted or events or len(stages) > 1 or self._is_ready() != self.report.ready:
            self._publish(stages)
        if self._notifier.interval:
            self._notifier.send(WATCHDOG=1)

    def _take(self, snapshot: Snapshot) -> set[str]:
        """Take a snapshot, unless it has no list of nodes. Returns the stages that must run as a whole."""
        self._told = snapshot.problems
        if not snapshot.listed:
            return set()
        if snapshot.own is None and not snapshot.peers:
            self._told += ("the source lists no node, not even this one: the kernel stays as it is",)
            return set()
        before, self._snapshot = self._snapshot, snapshot
        if snapshot.own is not None and snapshot.own != (before.own if before else None):
            for problem in persist(self._settings.root, {cidr.version for cidr in snapshot.own.pods}):
                logs.warn("notice", what=problem)
        if before is None or snapshot.own != before.own:
            return set(STAGES) if before is None else {SYSCTLS, LOCAL}
        lacking = self._settings.overlay is not None and not self._keeper.place.overlay
        return {LOCAL} if lacking else set()

    def _settle(self, snapshot: Snapshot, stages: set[str], causes: set[str], now: float) -> bool:
        """Run stages and the admission. Returns whether the report has to be published."""
        before = self._keeper.problems.get(SYSCTLS), self._admission.serving, self._strangers
        done = self._keeper.settle(snapshot, stages)
        self._view.overlay, self._view.interfaces = self._keeper.place.overlay, self._keeper.interfaces
        if self._keeper.unsettled:
            if now >= self._retry:
                self._retry, self._wait = now + self._wait, min(self._wait * 2, _LAST_RETRY)
        else:
            self._wait = _FIRST_RETRY
        self._tell(done, causes, only_polled=stages == {SYSCTLS})
        pods = snapshot.own.pods if snapshot.own else ()
        settled = bool(pods) and not {LOCAL, EXEMPT} & self._keeper.unsettled
        if settled and self._admission.step(pods, snapshot.peers, self._keeper.mtu, now):
            logs.info("ready", configuration=self._admission.path, silent=name_some(self._admission.silent))
        if self._strangers or any(entry.stage == LOCAL for entry in done):
            self._name_strangers(pods)
        after = self._keeper.problems.get(SYSCTLS), self._admission.serving, self._strangers
        return bool(done) or before != after

    def _tell(self, done: list[Done], causes: set[str], *, only_polled: bool) -> None:
        """Log what was done. It counts as a repair if a change by another program made it necessary."""
        by = ", ".join(sorted(causes - {""}))
        for entry in done:
            others = bool(causes) or (only_polled and entry.stage == SYSCTLS)
            if others:
                self._repairs[entry.stage] += len(entry.what)
                self.report = self.report._replace(last_repair=f"{entry.what[0]}{f' ({by})' if by else ''}")
            for what in entry.what[:_TOLD]:
                (logs.warn if others else logs.info)("repaired" if others else "changed", what=what, by=by)
            if len(entry.what) > _TOLD:
                logs.info("changed", what=f"and {len(entry.what) - _TOLD} more", stage=entry.stage)

    def _name_strangers(self, pods: Iterable[Any]) -> None:
        before, self._strangers = self._strangers, tuple(list_strangers(self._settings.root, tuple(pods)))
        for stranger in self._strangers:
            if stranger not in before:
                logs.warn(
                    "old-address", pod=stranger, remedy="delete the pod, so that it gets one of this node's range"
                )

    def _publish(self, stages: Iterable[str]) -> None:
        keeper, admission, snapshot = self._keeper, self._admission, self._snapshot
        problems = [*self._told, *(text for texts in keeper.problems.values() for text in texts), admission.problem]
        self._say(tuple(dict.fromkeys(text for text in problems if text)))
        own = snapshot.own if snapshot else None
        overlay = ""
        if self._settings.overlay and keeper.underlay:
            wanted, under = self._settings.overlay, keeper.underlay
            overlay = f"{wanted.name}, UDP {wanted.port}, from {under.local}{', direct on links' * wanted.direct}"
        report = self.report._replace(
            state=self._state(),
            ready=self._is_ready(),
            pods=tuple(map(str, own.pods)) if own else (),
            addresses=tuple(map(str, own.addresses)) if own else (),
            peers=len(snapshot.peers) if snapshot else 0,
            overlay=overlay,
            mtu=keeper.mtu,
            routes=keeper.routes,
            missing=keeper.missing,
            exempt=keeper.exempted,
            configuration=str(admission.path) if admission.serving else "",
            problems=self._problems,
            silent=admission.silent,
            strangers=self._strangers,
            repairs=dict(self._repairs),
            syncs=self.report.syncs + sum(stage != SYSCTLS for stage in stages),
        )
        if report != self.report:
            self.report = report._replace(changed=time.monotonic())
            self._notifier.send(STATUS=report.state)

    def _is_ready(self) -> bool:
        """Whether the runtime may start pods here. Unreachable peers are a problem, but do not make the node unready.

        Where policies are enforced, they have been in force once. With the static source, a machine without a pod range
        is ready too: it has routes to the peers only.
        """
        own = self._snapshot.own if self._snapshot else None
        if own is None or {LOCAL, EXEMPT} & self._keeper.unsettled or self._lacks_policies():
            return False
        return self._admission.serving if own.pods else isinstance(self._settings.source, StaticSettings)

    def _lacks_policies(self) -> bool:
        return self._enforcer is not None and not self._enforcer.ready

    def _state(self) -> str:
        if self._snapshot is None:
            return "waiting for the source"
        if self._snapshot.own is None or not self._snapshot.own.pods:
            return "routes only: this node has no pod range"
        if not self._admission.serving:
            return "not ready: trying, and asking the peers" if not self._admission.problem else "not ready"
        if self._lacks_policies():
            return "not ready: the cluster's policies have not been in force yet"
        return "ready, with problems" if self._problems else "ready"

    def _say(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._problems:
                logs.warn("problem", what=problem)
        for problem in self._problems:
            if problem not in problems:
                logs.info("over", what=problem)
        self._problems = problems


def _kind_of(source: Source) -> str:
    return type(source).__name__.removesuffix("Source").lower()
