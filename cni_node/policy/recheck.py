"""Established connections: what is no longer allowed is cut, by a bit in the mark that the kernel keeps for it.

The bit counts in both directions, so it does not matter who speaks next; and the kernel's entry stays, so neither end
can begin the connection anew from its middle. A connection that is allowed again goes on.
Must not: know how a table comes about.
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
    """Which connections the mark of is wrong. Pure."""
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
