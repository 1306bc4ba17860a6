"""The agent killed at its system calls, and started again: all is as if it had lived."""

from typing import Any

import pytest

from tests.cni_node.agents import Agent, line, state_of
from tests.kit.host import wait_until

pytestmark = pytest.mark.kernel

KERNEL, FILES = "sendto,sendmsg", "rename,unlink"  # system calls that change the one and the other
BOUND = 20.0  # seconds for an agent to be killed, or to be ready
OPTIONS = ("--overlay=vxlan", "--vni=42")


def killing(number: int, calls: str = KERNEL) -> tuple[str, ...]:
    """What starts a program that is killed when it makes one of the calls for the `number`th time."""
    return (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:signal=KILL:when={number}",
    )


def bare_state(agent: Agent) -> dict[str, Any]:
    """The state without the MAC of the bridge, which is made anew on each host."""
    state = state_of(agent)
    mac, *rest = state["devices"]["cni0"]
    assert mac
    return {**state, "devices": {**state["devices"], "cni0": tuple(rest)}}


def settle(agent: Agent) -> dict[str, Any]:
    agent.start(*OPTIONS)
    agent.await_ready()
    state = bare_state(agent)
    agent.stop()
    return state


def undo(agent: Agent) -> None:
    """Take away what an agent makes of the kernel's state."""
    agent.host.run("sh", "-c", "ip route flush proto 80; ip -6 route flush proto 80; nft flush ruleset")
    agent.host.run("sh", "-c", "ip link del vxlan.42; ip link del cni0", check=False)


def start_and_kill(agent: Agent, number: int, calls: str = KERNEL) -> bool:
    """Returns whether it lived until it was ready, and only then was killed."""
    agent.start(*OPTIONS, before=killing(number, calls))
    over = wait_until(lambda: agent.ended() is not None or bool(agent.report().get("ready")), BOUND)
    assert over, f"at call {number}: {agent.log.read_text()}"
    lived = agent.ended() is None
    agent.stop(kill=True)
    return lived


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
    wanted, configuration = settle(first), first.configuration.read_bytes()
    first.configuration.unlink()
    assert not start_and_kill(first, number, FILES)
    assert settle(first) == wanted
    assert first.configuration.read_bytes() == configuration
    assert sorted(path.name for path in first.configuration.parent.iterdir()) == [first.configuration.name]
    assert not first.socket.with_name("trial").exists()


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
