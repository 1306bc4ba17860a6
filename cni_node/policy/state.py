"""The state of policy enforcement, for the agent's report. Plain values."""

from collections.abc import Mapping
from typing import NamedTuple


class PolicyState(NamedTuple):
    """The policies of a node at one moment.

    `ready`: the cluster's policies have been in force at least once. `isolated` counts addresses of this node's pods,
    `changes` transactions, `cut` established connections, `denied` packets by the reason.
    """

    ready: bool = False
    policies: int = 0
    isolated: int = 0
    changes: int = 0
    cut: int = 0
    denied: Mapping[str, int] = {}
    problems: tuple[str, ...] = ()
