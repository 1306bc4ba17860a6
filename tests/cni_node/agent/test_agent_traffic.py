"""Pods of two nodes with agents: who reaches whom, and as whom. Judged by TCP connections."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cni_node.agents import NODES, Agent
from tests.kit.runtime import Runtime, addresses_of, find_source

pytestmark = pytest.mark.kernel

PORT = 8080


def add_pods(agents: tuple[Agent, Agent], bin_dir: str) -> list[Any]:
    """A pod on each node, by the configuration that its agent wrote. Returns their results."""
    results = []
    for agent in agents:
        document = json.loads(agent.configuration.read_text())
        config = {**document["plugins"][0], "cniVersion": "1.1.0", "name": document["name"]}
        results.append(Runtime(agent.host, f"{bin_dir}/cni-bridge", (bin_dir,)).add("p", config))
    return results


@pytest.mark.parametrize(
    ("options", "version"),
    [
        pytest.param((), 4, id="routes"),
        pytest.param((), 6, id="IPv6 routes"),
        pytest.param(("--overlay=vxlan",), 4, id="overlay"),
        pytest.param(("--overlay=vxlan",), 6, id="IPv6 in an overlay over IPv4"),
        pytest.param(("--overlay=vxlan", "--direct"), 4, id="direct"),
    ],
)
def test_pods_of_two_nodes_reach_each_other_as_themselves(
    pair: tuple[Agent, Agent], bin_dir: str, options: tuple[str, ...], version: int
) -> None:
    for agent in pair:
        agent.start(*options)
    for agent in pair:
        agent.await_ready()
    results = add_pods(pair, bin_dir)
    pods = [next(a for a in addresses_of(result) if (":" in a) == (version == 6)) for result in results]
    first, second = (agent.host for agent in pair)
    assert find_source(first, "p", "p", (pods[1], PORT), server_host=second) == pods[0]
    assert find_source(second, "p", "p", (pods[0], PORT), server_host=first) == pods[1]
    assert find_source(first, None, "p", (pods[1], PORT), server_host=second)
    node = NODES[version][1]
    assert find_source(first, "p", None, (node, PORT), server_host=second) == pods[0]
    if options:
        mtus = [agent.host.ip("link", "show", "eth0", container="p")[0]["mtu"] for agent in pair]
        assert mtus == [1450, 1450]


def test_no_connection_breaks_while_an_agent_is_exchanged(pair: tuple[Agent, Agent], bin_dir: str) -> None:
    for agent in pair:
        agent.start("--overlay=vxlan")
    for agent in pair:
        agent.await_ready()
    target = next(a for a in addresses_of(add_pods(pair, bin_dir)[1]) if ":" not in a)
    first = pair[0]
    command = ("busybox", "ping", "-i", "0.02", "-w", "6", "-q", target)
    ping = first.host.start(*command, container="p", stdout=-1)
    steps: tuple[Callable[[], None], ...] = (first.stop, lambda: first.stop(kill=True))
    for stop in steps:
        stop()
        first.start("--overlay=vxlan")
        first.await_ready()
    assert " 0% packet loss" in ping.communicate(timeout=30)[0]
