"""The agent killed at each of its system calls that change something, and started again: all is as if it had lived.

Must not: judge by what the agent says, but for whether it is ready.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.cni_node.agents import Agent, agents_on, state_of
from tests.kit.host import open_host, wait_until

KERNEL, FILES = "sendto,sendmsg", "rename,unlink,mkdir"  # system calls that change the one and the other
BOUND = 20.0  # seconds for an agent to be killed, or to be ready
AFTERWARDS = 0.5  # seconds in which an agent that is ready may still be killed
OPTIONS = ("--overlay=vxlan", "--vni=42")
_STRUCK = "+++ killed by SIGKILL +++"  # strace's words


class Kill(NamedTuple):
    """One agent that was killed at the `number`th of such calls that one of its threads made, and what was wrong."""

    calls: str
    number: int
    problem: str


def kill_at_every_call(bin_dir: str) -> Iterator[Kill]:
    """All of them, on two throw-away hosts: the first one's agent is killed, the other one's is its peer."""
    with ExitStack() as stack:
        hosts = (open_host(), open_host())
        for host in hosts:
            stack.callback(host.close)
        directory = Path(stack.enter_context(TemporaryDirectory()))
        first, second = stack.enter_context(contextmanager(agents_on)(hosts, bin_dir, directory))
        second.start(*OPTIONS)
        second.await_ready()
        wanted = settle(first)
        for calls in (KERNEL, FILES):
            for number in count(1):
                undo(first)
                if calls == FILES:  # all of them only before the first configuration
                    first.configuration.unlink()
                if start_and_kill(first, number, calls):
                    settle(first)
                    break
                found = settle(first)
                differing = [f"{key} is {found[key]}, not {wanted[key]}" for key in wanted if found[key] != wanted[key]]
                yield Kill(calls, number, "; ".join(differing))


def bare_state(agent: Agent) -> dict[str, Any]:
    """The state without the MAC of the bridge, which is made anew on each host; with the files that are left."""
    state = state_of(agent)
    mac, *rest = state["devices"]["cni0"]
    assert mac
    directory = agent.configuration.parent
    files = sorted(path.name for path in (*directory.iterdir(), *agent.socket.parent.iterdir()))
    return {
        **state,
        "devices": {**state["devices"], "cni0": tuple(rest)},
        "files": [name for name in files if name not in (agent.socket.name, "agent.lock")],
        "configuration": agent.configuration.read_text(),
    }


def settle(agent: Agent) -> dict[str, Any]:
    """The state after an agent has become ready, and was ended."""
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
    """Start an agent that is killed when one of its threads, or of a plugin that it calls, makes its `number`th call.

    Returns whether nobody was killed until it was ready; it is killed then.
    """
    log = agent.root / "strace"
    log.unlink(missing_ok=True)
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
    agent.start(*OPTIONS, before=("strace", "-f", "-qq", "-o", str(log), *inject))
    over = wait_until(lambda: agent.ended() is not None or bool(agent.report().get("ready")), BOUND)
    assert over, f"at call {number}: {agent.log.read_text()}"
    wait_until(lambda: agent.ended() is not None, AFTERWARDS)
    lived = agent.ended() is None and _STRUCK not in log.read_text()
    if pid := agent.report().get("pid"):  # strace goes with the agent, but not the other way round
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.stop(kill=True)
    return lived
