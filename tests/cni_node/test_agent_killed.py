"""The agent killed at its system calls, at every third one that may change something, and started again: all is as if
it had lived."""

from typing import Any

import pytest

from tests.cni_node.agents import Agent, line, state_of
from tests.host import wait_until

pytestmark = pytest.mark.kernel

CALLS = ("sendto", "sendmsg", "rename", "unlink")  # what changes the kernel, and files
STEP = 3
BOUND = 20.0  # seconds for an agent to be killed, or to be ready
OPTIONS = ("--overlay=vxlan", "--vni=42")


def killing(number: int) -> tuple[str, ...]:
    """What starts a program that is killed when it makes one of the calls for the `number`th time."""
    calls = ",".join(CALLS)
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
    """Take away all that an agent makes."""
    agent.host.run("sh", "-c", "ip route flush proto 80; ip -6 route flush proto 80; nft flush ruleset")
    agent.host.run("sh", "-c", "ip link del vxlan.42; ip link del cni0", check=False)
    agent.configuration.unlink(missing_ok=True)


def test_killed_at_its_system_calls_and_started_again(pair: tuple[Agent, Agent]) -> None:
    first, second = pair
    second.start(*OPTIONS)
    second.await_ready()
    wanted = settle(first)
    number, survived = 1, False
    while not survived:
        undo(first)
        first.start(*OPTIONS, before=killing(number))
        died = wait_until(lambda: first.ended() is not None or first.report().get("ready"), BOUND)
        assert died, f"at call {number}: {first.log.read_text()}"
        survived = first.ended() is None
        first.stop(kill=True)
        assert settle(first) == wanted, f"at call {number}"
        number += STEP
    assert number > 10
    assert not list(first.socket.parent.glob("trial"))


def test_killed_at_a_change_of_peers(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.write_nodes(line(0, 4), line(1, 4))
    wanted = settle(first)
    for number in range(1, 6):
        first.write_nodes(line(0, 4), "10.240.3.0/24 192.168.1.13 node3\n")
        first.start(*OPTIONS, before=killing(number))
        wait_until(lambda: first.ended() is not None or first.report().get("ready"), BOUND)
        first.stop(kill=True)
        first.write_nodes(line(0, 4), line(1, 4))
        assert settle(first) == wanted
