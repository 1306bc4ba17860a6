"""Waiting for a lock with a bound, and what it leaves behind."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_protocol.errors import CNIError
from cni_protocol.light.locks import take_lock


@pytest.fixture
def timer() -> Iterator[None]:
    """A timer of somebody else's that has long to go; the one of the test run goes on afterwards."""
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    running, started = signal.setitimer(signal.ITIMER_REAL, 1000, 500), time.monotonic()
    yield
    signal.signal(signal.SIGALRM, handler)
    left = max(running[0] - (time.monotonic() - started), 0.001) if running[0] else 0
    signal.setitimer(signal.ITIMER_REAL, left, running[1])


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file that somebody else has locked."""
    path = tmp_path / "lock"
    path.touch()
    holder, descriptor = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    yield descriptor
    os.close(holder)
    os.close(descriptor)


@pytest.mark.parametrize("mode", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["exclusive", "shared"])
def test_a_wait_has_a_bound_and_leaves_timer_and_handler_as_they_were(timer: None, held: int, mode: int) -> None:
    with pytest.raises(CNIError, match="somebody has it, for more than 0 s") as caught:
        take_lock(held, mode, 0.05, "somebody has it")
    assert caught.value.code == 11
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert (900 < left <= 1000, interval) == (True, 500)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN


def test_a_lock_that_is_free_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    descriptor, other = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    take_lock(descriptor, fcntl.LOCK_EX, 0, "nobody has it")
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
