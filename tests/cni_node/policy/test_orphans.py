"""Isolated pods that the API has forgotten: closed until it is known that they are gone, or for an hour."""

import pytest

from cni_node.policy.model import Pod
from cni_node.policy.orphans import HELD, Held, Orphans
from cni_protocol.address import IP
from tests.cni_node.policy.texts import ips, pod

[A, B] = ips("10.0.1.1", "10.0.1.2")
WEB, FREE = pod("x/web", "10.0.1.1", metadata={"uid": "one"}), pod("x/free", "10.0.1.2")
NONE = Held(frozenset(), frozenset())


@pytest.fixture
def orphans() -> Orphans:
    """Of two pods one is isolated."""
    made = Orphans("node1")
    assert made.find((WEB, FREE), set(), 0.0) == NONE
    made.note({A: WEB}, {A.packed, B.packed})
    return made


@pytest.mark.parametrize(
    ("pods", "told_of", "closed"),
    [
        pytest.param((FREE,), set(), {A}, id="vanished"),
        pytest.param((WEB,), set(), set(), id="one that was not isolated"),
        pytest.param((FREE,), {A}, set(), id="gone, or given again"),
        pytest.param((FREE, WEB._replace(uid="two")), set(), {A}, id="another of that name"),
        pytest.param((FREE, WEB._replace(finished=True)), set(), set(), id="finished"),
        pytest.param((FREE, WEB._replace(addresses=())), set(), set(), id="without its address"),
    ],
)
def test_which_stay_closed(orphans: Orphans, pods: tuple[Pod, ...], told_of: set[IP], closed: set[IP]) -> None:
    assert orphans.find(pods, told_of, 1.0) == Held(frozenset(closed), frozenset())


def test_they_stay_closed_until_it_is_known_that_they_are_gone(orphans: Orphans) -> None:
    for now in (1.0, HELD):
        assert orphans.find((FREE,), set(), now).closed == {A}
        orphans.note({}, {B.packed})
    assert orphans.find((FREE,), {A}, HELD) == NONE
    assert orphans.find((FREE,), set(), HELD) == NONE


def test_they_stay_closed_for_a_time_or_until_a_pod_of_the_node_has_the_address(orphans: Orphans) -> None:
    orphans.find((FREE,), set(), 1.0)
    for _ in range(2):  # the first attempt to write the table failed
        assert orphans.find((FREE,), set(), 1.0 + HELD) == Held(frozenset(), frozenset({A}))
    orphans.note({}, {A.packed, B.packed})
    assert orphans.find((FREE,), set(), 1.0 + HELD) == NONE
