"""The agent killed at its system calls, and started again: all is as if it had lived."""

import pytest

from tests.cni_node.agents import Agent, line
from tests.faults.agent import BOUND, FILES, OPTIONS, settle, start_and_kill, undo

pytestmark = pytest.mark.kernel


@pytest.fixture
def first(pair: tuple[Agent, Agent]) -> Agent:
    """The first node, whose peer is there."""
    pair[1].start(*OPTIONS)
    pair[1].await_ready()
    return pair[0]


@pytest.mark.parametrize("offset", range(4))
def test_killed_at_what_changes_the_kernel(first: Agent, offset: int) -> None:
    wanted = settle(first)
    number, lived = 1 + offset, False
    while not lived:
        undo(first)
        lived = start_and_kill(first, number)
        assert settle(first) == wanted, f"at call {number}"
        number += 8
    assert number > 20


@pytest.mark.parametrize("number", [1, 2])
def test_killed_at_what_changes_files(first: Agent, number: int) -> None:
    wanted = settle(first)
    first.configuration.unlink()
    assert not start_and_kill(first, number, FILES)
    assert settle(first) == wanted
    assert wanted["files"] == [first.configuration.name]


def test_killed_while_a_pod_is_on_trial(first: Agent) -> None:
    first.start(*OPTIONS)
    first.await_true(first.socket.with_name("trial").exists, BOUND)
    first.stop(kill=True)
    wanted = settle(first)
    assert not first.socket.with_name("trial").exists()
    assert first.host.reservations("pycni") == []
    assert [name for name in first.host.link_names() if name.startswith("veth")] == []
    undo(first)
    assert settle(first) == wanted


def test_killed_at_a_change_of_peers(first: Agent) -> None:
    wanted = settle(first)
    for number in (45, 50, 55):
        first.write_nodes(line(0), "10.240.3.0/24 192.168.1.13 node3\n")
        start_and_kill(first, number)
        first.write_nodes(line(0), line(1))
        assert settle(first) == wanted
