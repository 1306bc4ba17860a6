"""How long to wait after repeated failures: longer each time, and randomized, so that nodes do not retry all at once.

Must not: wait.
"""

import random
import time

_CHANCE = random.SystemRandom()


class Backoff:
    """Delays with full jitter: each is a random time from 0 to a limit, which doubles from `base` to `cap` seconds.

    After `healthy` seconds without a failure the limit is `base` again. The numbers, not the jitter, are client-go's.
    """

    def __init__(self, cap: float = 30.0, base: float = 0.8, healthy: float = 120.0) -> None:
        self._cap, self._base, self._healthy = cap, base, healthy
        self._limit = base
        self._last = time.monotonic()

    def after_failure(self) -> float:
        """Note a failure. Returns how many seconds to wait before the next attempt."""
        now = time.monotonic()
        if now - self._last > self._healthy:
            self._limit = self._base
        self._last = now
        limit, self._limit = self._limit, min(self._limit * 2, self._cap)
        return by_chance(0, limit)


def by_chance(least: float, most: float) -> float:
    """A random number of seconds from `least` to `most`, so that nodes do the same at different times."""
    return _CHANCE.uniform(least, most)
