"""What the tests of the sources share."""

from typing import Any

import pytest


def _hardly(least: float, most: float) -> float:
    return min(most, 0.01)


@pytest.fixture
def soon(mocker: Any) -> None:
    """What fails is tried again soon."""
    mocker.patch("cni_node.backoff.by_chance", _hardly)
