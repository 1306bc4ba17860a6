"""Cuts established connections that are no longer allowed, by a bit in their conntrack mark, for which a rule drops.

The mark holds for both directions, so it does not matter which end sends next. The conntrack entry stays, so neither
end can pick the connection up again in the middle. A connection that is allowed again loses the bit and goes on.
Must not: know how the table is made.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from threading import Condition, Thread
from typing import NamedTuple

from cni_kernel.errors import asking
from cni_kernel.flows import Flow, Flows
from cni_node.policy.evaluator import Connection, Evaluator
from cni_node.policy.model import PROTOCOLS
from cni_node.policy.rules import CUT

AGAIN = 1.0  # seconds after a change; a connection may just have been on its way through the old rules
RETRY = 1.0  # seconds until what the kernel refused is tried again
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_REMEMBERED = 4096  # answers that are kept while connections are read, since many ask the same


class Rechecked(NamedTuple):
    """Connections that were cut, and that may go on."""

    cut: list[Flow]
    freed: list[Flow]


def judge(flows: Iterable[Flow], evaluator: Evaluator) -> Rechecked:
    """The connections whose mark is wrong: to be cut, and to be freed. Pure."""
    answers: dict[Connection, bool] = {}
    found = Rechecked([], [])
    for flow in flows:
        asked = Connection(flow.source, flow.destination, _NAMES.get(flow.protocol, str(flow.protocol)), flow.port)
        if asked not in answers:
            if len(answers) >= _REMEMBERED:
                answers.clear()
            answers[asked] = evaluator.allowed(asked).allowed
        if answers[asked] == bool(flow.mark & CUT):
            (found.freed if answers[asked] else found.cut).append(flow)
    return found


def recheck(flows: Flows, evaluator: Evaluator, newest: Callable[[], Evaluator] | None = None) -> Rechecked:
    """Cut and free connections. Returns which. Raises KernelError.

    Reading them takes a while; what is wrong is judged once more by the `newest` state that is in force by then.
    """
    with asking("established connections cannot be cut", "nf_conntrack_netlink"):
        with closing(flows.iterate({ip.packed for ip in evaluator.judged})) as listed:
            found = judge(listed, evaluator)
        if newest is not None:
            found = judge([*found.cut, *found.freed], newest())
        flows.mark(found.cut, CUT, CUT)
        flows.mark(found.freed, 0, CUT)
        return found


class Rechecker:
    """Looks at the connections in a thread of its own, since pods that start must not wait for that."""

    def __init__(self, flows: Flows, tell: Callable[[Rechecked | Exception], None]) -> None:
        """`tell` is called, in that thread, with what was done or why not."""
        self._flows, self._tell = flows, tell
        self._woken = Condition()
        self._newest: Evaluator | None = None
        self._asked = self._ended = False

    def start(self) -> None:
        """Begin, in a thread that ends with the process."""
        Thread(target=self._run, name="recheck", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        with self._woken:
            self._ended = True
            self._woken.notify_all()

    def ask(self, evaluator: Evaluator) -> None:
        """Have the connections judged by this state, which is in force; of several that wait the newest counts."""
        with self._woken:
            self._newest, self._asked = evaluator, True
            self._woken.notify_all()

    def _run(self) -> None:
        again = 0.0  # monotonic time of the next look without being asked, 0 for none
        while True:
            with self._woken:
                left = max(again - time.monotonic(), 0.0) if again else None
                self._woken.wait_for(lambda: self._asked or self._ended, left)
                if self._ended:
                    return
                asked, self._asked = self._asked, False
                evaluator = self._latest()
            again = time.monotonic() + AGAIN if asked else 0.0
            try:
                self._tell(recheck(self._flows, evaluator, self._latest))
            except Exception as error:  # a fault of ours must not end it either
                self._tell(error)
                again = time.monotonic() + RETRY

    def _latest(self) -> Evaluator:
        assert self._newest is not None  # it has been asked
        return self._newest
