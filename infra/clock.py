"""The real clock, which wakes up when the process is asked to stop."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime


class SystemClock:
    """Wall time in UTC, monotonic seconds, sleep and randomness. `stop` ends every sleep, present and later."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._random = random.Random()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._stop.wait(seconds)

    def random(self) -> float:
        return self._random.random()

    def stop(self) -> None:
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()
