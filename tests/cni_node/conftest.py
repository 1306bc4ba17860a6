"""What the tests of the sources and of the agent share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cni_node.agents import Agent, agents_on
from tests.kit.host import Host


def _hardly(least: float, most: float) -> float:
    return min(most, 0.01)


@pytest.fixture
def soon(mocker: Any) -> None:
    """What fails is tried again soon."""
    mocker.patch("cni_node.api.backoff.by_chance", _hardly)


@pytest.fixture
def pair(new_host: Callable[[], Host], bin_dir: str, tmp_path: Path) -> Iterator[tuple[Agent, Agent]]:
    """Two agents, not started, with a file of both nodes each."""
    yield from agents_on((new_host(), new_host()), bin_dir, tmp_path)
