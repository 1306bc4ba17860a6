"""What the keeper says of MTUs, without a kernel."""

from types import SimpleNamespace
from typing import Any

import pytest

from cni_node.agent.keeper import Keeper
from cni_node.snapshot import Node


@pytest.mark.parametrize(
    ("own", "theirs", "told"),
    [
        (1450, (1450, 0), []),
        (0, (1400,), []),
        (1450, (1400, 1450, 1500), ["2 peers differs (node0 1400, node2 1500); set --mtu"]),
        (9000, range(1, 8), ["7 peers differs (node0 1, node1 2, node2 3, node3 4, node4 5); set --mtu"]),
    ],
    ids=["alike", "own not known", "two", "many"],
)
def test_peers_with_another_mtu_are_named(own: int, theirs: Any, told: list[str]) -> None:
    peers = [Node(f"node{number}", (), (), mtu) for number, mtu in enumerate(theirs)]
    keeper: Any = SimpleNamespace(mtu=own)
    words = f"the MTU of pods here is {own}, and that of "
    assert Keeper._compare_mtu(keeper, peers) == [words + text for text in told]
