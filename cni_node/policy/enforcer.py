"""The loop that enforces policies: it takes changes of the cluster and announced pods, and updates the kernel's table.

It is separate from the agent's loop, since pods wait for it when they start. It needs no state from before a restart:
the kernel's table stays until everything that is needed has been listed. Must not: know how the parts do their work.
"""

import time
from collections.abc import Callable, Iterable
from threading import Condition, Lock, Thread

from cni_kernel.errors import KernelError, asking
from cni_kernel.flows import Flows
from cni_node import logs
from cni_node.policy.announced import GONE, IN_FORCE, PENDING, Admission, Admitter, Announced
from cni_node.policy.change import Change
from cni_node.policy.compiler import Compiler
from cni_node.policy.desired import Desired
from cni_node.policy.evaluator import Connection, Evaluator, Verdict
from cni_node.policy.ipvs import ServiceProxy
from cni_node.policy.model import Cluster
from cni_node.policy.orphans import Orphans
from cni_node.policy.recheck import Rechecked, Rechecker
from cni_node.policy.state import PolicyState
from cni_node.policy.table import PolicyTable
from cni_node.policy.watch import ClusterWatch
from cni_node.sources.kubernetes import KubernetesSettings
from cni_protocol.address import IP

GATHER = 0.02  # seconds after an event in which others are waited for
RETRY = 1.0  # seconds until what the kernel refused is tried again


class Enforcer:
    """Keeps one node's table.

    `admit`, `judge`, `ready`, `state`, `wake` and `disturb` are for any thread, the rest for its own.
    """

    def __init__(self, settings: KubernetesSettings, own: Callable[[], Iterable[IP]], *, log: bool, cut: bool) -> None:
        """`own` lists the node's addresses; `log` denied packets; `cut` established connections. Raises KernelError."""
        self._table, self._own, self._cut = PolicyTable(), own, cut
        self._counters, self._counting = PolicyTable(), Lock()
        self._proxy = ServiceProxy()
        with asking("nftables cannot be used", "nf_conntrack_netlink"):
            self._rechecker = Rechecker(Flows(), self._take_rechecked)
        self._owed = False  # a look at the connections, as soon as everything that is needed is known
        self._rechecked, self._recheck_problem = 0, ""  # connections that were cut; for the thread that cuts them
        self._node = settings.node_name
        self._compiler = Compiler(settings.node_name, log=log)
        self._admitter, self._orphans = Admitter(), Orphans(self._node)
        self._woken = Condition()
        self._dirty = self._disturbed = self._urgent = False
        self._announced: list[Announced] = []  # until the API says the same; it may be away for hours
        self._answers: dict[Announced, str] = {}  # for who waits for one
        self._settings = settings
        self._again = 0.0  # monotonic time of the next run without an event, 0 for none
        self._ended = False
        self._complete = False  # everything that is needed was known once
        self._state = PolicyState()
        self._cluster: Cluster | None = None  # as it was put in force last

    @property
    def port(self) -> int:
        """The address that the kernel's notifications name for what this has changed."""
        return self._table.port

    @property
    def ready(self) -> bool:
        """Whether the cluster's policies have been in force once, for any thread."""
        return self._state.ready

    @property
    def known_state(self) -> PolicyState:
        """How it is, without what the kernel counts, for any thread."""
        state, own = self._state, (self._recheck_problem,) if self._recheck_problem else ()
        return state._replace(cut=self._rechecked, problems=(*state.problems, *own))

    @property
    def state(self) -> PolicyState:
        """How it is, for any thread. Raises KernelError."""
        with self._counting:
            denied, seen = self._counters.denied(), self._proxy.problems()
        state = self.known_state
        return state._replace(denied=denied, problems=(*state.problems, *seen))

    def start(self) -> None:
        """Begin, in threads that end with the process."""
        self._watch = ClusterWatch(self._settings, self.wake)
        Thread(target=self._run, name="policies", daemon=True).start()
        self._rechecker.start()

    def close(self) -> None:
        """End the threads. The kernel's table stays."""
        self._ended = True
        self._watch.close()
        self._rechecker.close()
        self.wake()

    def wake(self) -> None:
        """Have the loop run, since the watch has something new."""
        with self._woken:
            self._dirty = True
            self._woken.notify_all()

    def disturb(self) -> None:
        """Have the loop read the table again, since another program has changed it."""
        with self._woken:
            self._dirty = self._disturbed = True
            self._woken.notify_all()

    def admit(self, announced: Announced, bound: float) -> str:
        """Have a pod's policies in force before it starts: IN_FORCE; or PENDING, where nothing passes to or from it. Or
        have nothing there that is about one that is gone: GONE.

        Returns IN_FORCE; PENDING, when nothing passes to or from the pod yet; or "", when neither is certain.
        """
        with self._woken:
            self._announced = [each for each in self._announced if not announced.replaces(each)]
            self._announced.append(announced)
            self._answers[announced] = ""
            self._dirty = self._urgent = True
            self._woken.notify_all()
            self._woken.wait_for(lambda: self._answers.get(announced) in (IN_FORCE, GONE), bound)
            return self._answers.pop(announced, "")

    def judge(self, asked: Connection) -> Verdict | None:
        """What the policies in force say of a connection, and which of them; None where none were put in force yet."""
        return Evaluator(self._cluster, self._node).allowed(asked) if self._cluster is not None else None

    def _run(self) -> None:
        while not self._ended:
            with self._woken:
                left = self._again - time.monotonic() if self._again else None
                self._woken.wait_for(lambda: self._dirty, left)
                self._woken.wait_for(lambda: self._urgent, GATHER)
                disturbed = self._disturbed
                self._dirty = self._disturbed = self._urgent = False
                announced = list(self._announced)
            self._again = 0.0
            try:
                self._turn(announced, disturbed=disturbed)
            except KernelError as error:
                self._say((str(error),))
                self._again = time.monotonic() + RETRY
            except Exception as error:  # a fault of ours must not end what pods wait for
                self._say((f"internal error while policies are put in force: {error!r}",))
                self._again = time.monotonic() + RETRY

    def _turn(self, announced: list[Announced], *, disturbed: bool) -> None:
        if disturbed:
            self._table.forget()
        known = self._watch.look()
        if not (self._complete or known.complete):
            self._say(known.problems)
            return
        admission = self._admitter.admit(known.pods, known.policies, announced)
        cluster = Cluster(known.policies, admission.pods, known.namespaces, {self._node: tuple(self._own())})
        desired = self._compile(cluster, admission, announced)
        change = self._table.ensure(desired, adopting=not self._complete)
        self._orphans.note(self._compiler.isolated, desired.judged)
        self._cluster = cluster
        first, self._complete = not self._complete, True
        with self._woken:
            self._answers |= {each: said for each, said in admission.answers.items() if each in self._answers}
            self._woken.notify_all()
        if self._cut and (first or change != Change() or self._owed):
            self._owed = not known.complete  # a peer that is not known may be allowed
            if known.complete:
                self._rechecker.ask(Evaluator(cluster, self._node, self._compiler.owners))
        with self._woken:
            self._announced = [each for each in self._announced if each not in admission.settled]
        self._state = self._state._replace(
            ready=True,
            policies=len(known.policies),
            isolated=sum(len(desired.sets[f"iso{version}"].elements) for version in (4, 6)),
            changes=self._state.changes + (change != Change()),
        )
        self._say(known.problems)

    def _compile(self, cluster: Cluster, admission: Admission, announced: list[Announced]) -> Desired:
        """The desired table: closed for those of whom the API does not tell yet, or no longer."""
        told_of = {ip for each in announced for ip in each.addresses}
        held = self._orphans.find(cluster.pods, told_of, time.monotonic())
        desired = self._compiler.compile(cluster, (*admission.pending, *held.closed))
        settled = (ip for each, said in admission.answers.items() if said != PENDING for ip in each.addresses)
        return desired._replace(judged=desired.judged | {ip.packed for ip in (*settled, *held.over)})

    def _take_rechecked(self, found: Rechecked | Exception) -> None:
        if isinstance(found, Exception):
            self._recheck_problem = str(found) if isinstance(found, KernelError) else f"internal error: {found!r}"
            return
        self._recheck_problem = ""
        self._rechecked += len(found.cut)
        if found.cut or found.freed:
            logs.info("connections", cut=len(found.cut), freed=len(found.freed))

    def _say(self, problems: tuple[str, ...]) -> None:
        if problems != self._state.problems:
            self._state = self._state._replace(problems=problems)
