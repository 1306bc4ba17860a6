"""Cuts established connections that are no longer allowed, by a bit in their conntrack mark, for which a rule drops.

The mark holds for both directions, so it does not matter which end sends next. The conntrack entry stays, so neither
end can pick the connection up again in the middle. A connection that is allowed again loses the bit and goes on.
Must not: know how the table is made.
"""

from collections.abc import Iterable
from typing import NamedTuple

from cni_kernel.errors import asking
from cni_kernel.flows import Flow, Flows
from cni_node.policy.evaluator import Connection, Evaluator
from cni_node.policy.model import PROTOCOLS
from cni_node.policy.rules import CUT

_NAMES = {number: name for name, number in PROTOCOLS.items()}


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
            answers[asked] = evaluator.allowed(asked).allowed
        if answers[asked] == bool(flow.mark & CUT):
            (found.freed if answers[asked] else found.cut).append(flow)
    return found


def recheck(flows: Flows, evaluator: Evaluator) -> Rechecked:
    """Cut and free connections. Returns which. Raises KernelError."""
    with asking("established connections cannot be cut", "nf_conntrack_netlink"):
        found = judge(flows.list(), evaluator)
        flows.mark(found.cut, CUT, CUT)
        flows.mark(found.freed, 0, CUT)
        return found
