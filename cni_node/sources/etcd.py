"""The source etcd: each node takes a pod range in etcd, publishes itself there, and finds the others.

There are two threads, each with a connection of its own: one keeps this node's lease, the other lists and watches. They
go on when etcd is away or the lease is lost.
Must not: remove nodes at once after an outage. Their leases may have ended during it, and they are about to register
again; so a node whose entry is gone is kept for the time of a lease.
"""

import time
from collections.abc import Callable
from threading import Event, Thread

from cni_node.api.backoff import Backoff
from cni_node.api.client import CallError
from cni_node.snapshot import Snapshot
from cni_node.sources.board import Board
from cni_node.sources.etcd_calls import AWAY, CompactedError, Etcd, explain
from cni_node.sources.etcd_keys import parse_node
from cni_node.sources.etcd_lease import EtcdSettings, Registration
from cni_node.sources.etcd_members import Members
from cni_node.sources.etcd_messages import Batch, Entry
from cni_node.sources.members import Member
from cni_protocol.address import IP
from cni_protocol.errors import CNIError

SHORT = 1.0  # seconds; a watch that ends sooner counts as a failure
LONGEST_DELAY = 4.0  # seconds between attempts: a lease must not end because etcd was not asked
JOIN_BOUND = 10.0  # seconds for a thread to notice that its connection is closed


class EtcdSource:
    """The Source of a cluster that has an etcd and nothing else. Raises CNIError where there is no endpoint."""

    def __init__(self, settings: EtcdSettings, renew: Callable[[tuple[IP, ...]], tuple[IP, ...]] = tuple) -> None:
        """`renew` is given the addresses that this node has told, and returns those that it has now."""
        self._settings, self._renew = settings, renew
        members = Members(settings.access.endpoints)
        self._watching = Etcd(settings.access, members)
        self._keeping = Etcd(settings.access, members, left=self._watching.interrupt)  # both leave together
        self._registration = Registration(self._keeping, settings)
        self._own = settings.nodes + settings.name
        self._revision = 0  # etcd's revision that the board is at; 0 when all entries must be listed
        self._interrupted = False  # the watch was interrupted, so that changes may have been missed
        self._refused: dict[str, str] = {}  # invalid entries, with the problem
        self._tried = Event()  # the first attempt to take a pod range is done; nothing is listed before
        self._look = Event()  # another client has changed our entries

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """See Source."""
        board = Board(self._own, publish)
        threads = [
            Thread(target=run, args=(board, stopping), name=f"etcd-{run.__name__.strip('_')}", daemon=True)
            for run in (self._keep, self._watch)
        ]
        for thread in threads:
            thread.start()
        stopping.wait()
        board.close()
        self._tried.set()
        self._look.set()
        self._keeping.close()
        self._watching.close()
        for thread in threads:
            thread.join(JOIN_BOUND)

    def _keep(self, board: Board, stopping: Event) -> None:
        """The thread that takes a pod range and renews the lease, three times in its length."""
        backoff = Backoff(LONGEST_DELAY)
        look = False
        while not stopping.is_set():
            delay = self._settings.lease / 3
            try:
                self._follow_addresses(board)
                self._registration.keep(look)
                board.say("lease", self._registration.remark)
            except CNIError as error:
                board.say("lease", error.msg)
            except CallError as error:
                board.say("lease", explain(error, self._settings.prefix))
                delay = backoff.after_failure()
            except Exception as error:  # a fault of ours must not end what others rely on
                board.say("lease", f"internal error while keeping the lease: {error!r}")
                delay = LONGEST_DELAY
            self._tried.set()
            look = self._look.wait(delay)
            self._look.clear()

    def _follow_addresses(self, board: Board) -> None:
        """Have this node's entry changed when its addresses are, such as by DHCP."""
        told = self._settings.addresses
        now = self._renew(told)
        if now == told or self._settings.fixed:
            old, new = (" ".join(map(str, each)) for each in (told, now))
            wrong = f"--node-ip says {old}, and this node has {new}: change the option, and start the agent anew"
            board.say("addresses", "" if now == told else wrong)
            return
        self._settings = self._settings._replace(addresses=now)
        self._registration.move(now)

    def _watch(self, board: Board, stopping: Event) -> None:
        """The thread that lists the nodes and then follows changes."""
        self._tried.wait()
        backoff = Backoff(LONGEST_DELAY)
        while not stopping.is_set():
            try:
                if not self._revision:
                    self._list(board)
                self._follow(board)
                continue
            except CompactedError:
                self._revision, self._interrupted = 0, True
            except CallError as error:
                self._interrupted = True
                if error.status not in AWAY:
                    self._revision = 0
                board.say("watch", explain(error, self._settings.prefix))
            except Exception as error:  # a fault of ours must not end what others rely on
                self._revision, self._interrupted = 0, True
                board.say("watch", f"internal error while following etcd: {error!r}")
            stopping.wait(backoff.after_failure())

    def _list(self, board: Board) -> None:
        entries, revision = self._watching.entries(self._settings.nodes)
        members: dict[str, Member] = {}
        self._refused = {}
        for entry in entries:
            key, member = self._understood(entry)
            if member is not None:
                members[key] = member
        with board.together():
            odd = self._own not in members  # such as after etcd was set up anew: then other nodes are missing too
            board.replace(members, keep=self._refused, hold=float(self._settings.lease) if odd else self._hold)
            board.say("nodes", "; ".join(sorted(self._refused.values())[:3]))
        self._revision = revision

    def _follow(self, board: Board) -> None:
        begun = time.monotonic()
        for batch in self._watching.watch(self._settings.nodes, self._revision + 1):
            with board.together():
                board.say("watch", "")
                self._apply(board, batch)
            if not batch.replayed:
                self._interrupted = False
            self._revision = max(self._revision, batch.revision)
        if time.monotonic() - begun < SHORT:
            raise CallError("etcd ends each watch at once")

    @property
    def _hold(self) -> float:
        """How many seconds to keep missing nodes: after an outage they need some time to register again."""
        return float(self._settings.lease) if self._interrupted else 0.0

    def _apply(self, board: Board, batch: Batch) -> None:
        hold = self._hold if batch.replayed else 0.0
        for name in batch.deleted:
            self._refused.pop(name, None)
            board.remove(name, hold)
            board.remove(_other(name), hold)
            if name == self._own:
                self._look.set()
        for entry in batch.put:
            key, member = self._understood(entry)
            if member is not None:
                board.put(key, member)
                if key == self._own:  # the entry is ours again
                    board.remove(_other(key))
            if entry.key == self._own and key != self._own:
                self._look.set()
        board.say("nodes", "; ".join(sorted(self._refused.values())[:3]))

    def _understood(self, entry: Entry) -> tuple[str, Member | None]:
        """Parse an entry. Returns the node's key on the board, and the node, None for an invalid entry.

        If another node has registered with our name, it gets another key, so that both are on the board. An entry with
        our lease is ours, also before a change of our addresses is in it.
        """
        name = entry.key.removeprefix(self._settings.nodes)
        try:
            node = parse_node(name, entry.value)
        except ValueError as error:
            self._refused[entry.key] = f"node {name} in etcd is left as it was: {error}"
            return entry.key, None
        self._refused.pop(entry.key, None)
        key = entry.key
        ours = entry.lease and entry.lease == self._registration.lease
        if key == self._own and node.addresses != self._settings.addresses and not ours:
            key, node = _other(key), node._replace(name=f"{name} (another)")
        return key, Member(node, (entry.created, ""))


def _other(key: str) -> str:
    return f"{key}/another"
