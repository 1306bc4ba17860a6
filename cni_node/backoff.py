"""How long to wait after failures in a row: longer each time, and by chance, so that many nodes do not come together.

Must not: wait.
"""

import random
import time

_CHANCE = random.SystemRandom()


class Backoff:
    """Delays with full jitter: each between none and a limit that doubles from `base` to `cap` seconds.

    After `healthy` seconds without a failure it begins anew (the numbers of Kubernetes' client-go, but for its jitter).
    """

    def __init__(self, cap: float = 30.0, base: float = 0.8, healthy: float = 120.0) -> None:
        self._cap, self._base, self._healthy = cap, base, healthy
        self._limit = base
        self._last = time.monotonic()

    def after_failure(self) -> float:
        """How many seconds to wait now that something has failed once more."""
        now = time.monotonic()
        if now - self._last > self._healthy:
            self._limit = self._base
        self._last = now
        limit, self._limit = self._limit, min(self._limit * 2, self._cap)
        return by_chance(0, limit)


def by_chance(least: float, most: float) -> float:
    """Some number of seconds in between, so that many nodes do the same at different times."""
    return _CHANCE.uniform(least, most)
