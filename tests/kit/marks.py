"""Parameters of tests of which `scripts/test --fast` runs some alone."""

from typing import Any

import pytest

_QUICK = 3  # seeds


def slow(*values: Any) -> Any:
    """A parameter, or a tuple of them, that is left out there."""
    return pytest.param(*values, marks=pytest.mark.slow)


def seeds(count: int) -> list[Any]:
    """The seeds of a test with random numbers, all but the first few left out there."""
    return [seed if seed < _QUICK else slow(seed) for seed in range(count)]
