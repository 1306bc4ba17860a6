"""What the loop of policies says of itself. Values alone."""

from collections.abc import Mapping
from typing import NamedTuple


class PolicyState(NamedTuple):
    """The policies of a node at one moment.

    `ready`: what the cluster says was in force once. `isolated` counts addresses of this node's pods, `changes`
    transactions, `cut` established connections, `denied` packets by why.
    """

    ready: bool = False
    policies: int = 0
    isolated: int = 0
    changes: int = 0
    cut: int = 0
    denied: Mapping[str, int] = {}
    problems: tuple[str, ...] = ()
