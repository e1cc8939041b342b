"""When to try again: a pure decision. Somebody else waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

LONGEST_WAIT: Final = 300.0
"""Seconds. A target that asks for more waits in the queue, not in a function."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """`attempts` tries in all, `wait` seconds as the base of the back-off."""

    attempts: int = 3
    wait: float = 5.0

    def next_wait(self, attempt: int, after: float | None, random: Callable[[], float]) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed, or None when the tries are used up.

        What the other side asked for (Retry-After) is honoured and jittered upwards only; otherwise full jitter:
        anything up to twice `wait` after the first try (so `wait` on average), twice that after each further one.
        `random` gives numbers in [0, 1).
        """
        if attempt >= self.attempts:
            return None
        if after is not None:
            return None if after > LONGEST_WAIT else after + random() * min(1.0, self.wait)
        return float(min(LONGEST_WAIT, self.wait * 2**attempt) * random())


def redelivery_wait(base: float, attempts: int, random: Callable[[], float]) -> float:
    """Seconds until a refused message comes again: exponential from `base`, at most 60 times it or 600 s, jittered."""
    return float(min(600.0, base * 2 ** min(max(0, attempts - 1), 6)) * (0.75 + 0.25 * random()))
