"""Delays after failures."""

from typing import Any

import pytest

from cni_node.api.backoff import Backoff


@pytest.fixture
def clock(mocker: Any) -> Any:
    """A clock that stands still, and chance that always takes the most."""
    mocker.patch("cni_node.api.backoff.by_chance", side_effect=max)
    return mocker.patch("cni_node.api.backoff.time.monotonic", return_value=1000.0)


def test_delays_double_up_to_the_cap(clock: Any) -> None:
    backoff = Backoff(cap=5.0, base=1.0)
    assert [backoff.after_failure() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_they_begin_anew_after_a_time_of_health(clock: Any) -> None:
    backoff = Backoff(cap=30.0, base=1.0, healthy=60.0)
    delays = []
    for moment in (1000.0, 1050.0, 1110.0, 1171.0, 1172.0):
        clock.return_value = moment
        delays.append(backoff.after_failure())
    assert delays == [1.0, 2.0, 4.0, 1.0, 2.0]


def test_each_is_by_chance() -> None:
    delays = {Backoff(base=1.0).after_failure() for _ in range(50)}
    assert len(delays) > 10
    assert all(0.0 <= delay <= 1.0 for delay in delays)
