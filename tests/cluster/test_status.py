"""STATUS on a node: the runtime is told when nobody follows the cluster there."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.installation import CONFLIST, SOCKET, Agent
from tests.cluster.worlds import World
from tests.kit.calls import bare_environment

pytestmark = pytest.mark.kernel

AWAY = 2.0  # seconds for which an agent may be away
ATTEMPTS = 5  # at an agent that is back in time, on a machine that is busy


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    """The agent of a node, which runs again afterwards."""
    agent = world.cluster.agents["node3"]
    yield agent
    agent.systemctl("start")
    agent.await_settled(2)


def ask_status(agent: Agent) -> dict[str, Any]:
    """What the plugin answers to STATUS with the configuration in place; nothing when all is well."""
    conflist = json.loads(agent.node.path(CONFLIST).read_text())
    config = {**conflist["plugins"][0], "cniVersion": "1.1.0", "name": conflist["name"]}
    env = bare_environment("STATUS", ["/opt/cni/bin"])
    said = agent.node.run("/opt/cni/bin/cni-bridge", input=json.dumps(config), env=env, check=False)
    return dict(json.loads(said.stdout)) if said.stdout else {}


def test_with_its_agent_a_node_is_well(agent: Agent) -> None:
    assert json.loads(agent.node.path(CONFLIST).read_text())["plugins"][0]["agent"] == SOCKET
    assert ask_status(agent) == {}


def test_without_its_agent_a_node_says_so(agent: Agent) -> None:
    agent.systemctl("stop")
    answer = ask_status(agent)
    assert answer["code"] == 51
    assert (
        answer["msg"]
        == f"the node's agent does not answer at {SOCKET}: nobody follows the cluster here (`pycni agent`)"
    )


def test_an_agent_that_is_back_in_time_is_not_missed(agent: Agent) -> None:
    for _ in range(ATTEMPTS):
        agent.systemctl("stop")
        began = time.monotonic()
        back = threading.Thread(target=lambda: agent.systemctl("start"))
        back.start()
        answer = ask_status(agent)
        asked = time.monotonic() - began
        back.join()
        agent.await_report(bool)
        if asked < AWAY:
            assert answer == {}
            return
    pytest.fail(f"{ATTEMPTS} times it took more than {AWAY} s until the agent was back")
