"""How long a call may take, and which failures are worth another try within that time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

SECONDS: Final = 10.0
"""A store that is away for longer is said to be unavailable; the message or the run comes again."""
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 1.0


class Patience:
    """The time that a call has, tries and waits together."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds

    def options(self) -> dict[str, Any]:
        """What every call of a Google client is given: the client's own default goes on trying for a minute."""
        from google.api_core import exceptions as core
        from google.api_core.retry import Retry, if_exception_type

        passing = if_exception_type(
            core.ServiceUnavailable, core.InternalServerError, core.DeadlineExceeded, core.TooManyRequests, core.Aborted
        )
        retry = Retry(passing, initial=FIRST_WAIT, maximum=LONGEST_WAIT, multiplier=2.0, timeout=self.seconds)
        return {"retry": retry, "timeout": self.seconds}

    def tries(self) -> Iterator[None]:
        """One step per try of something that others may get in the way of, with jittered waits, until time is up."""
        until = time.monotonic() + self.seconds
        longest = 0.01
        while True:
            yield None
            wait = random.random() * longest
            if time.monotonic() + wait > until:
                return
            time.sleep(wait)
            longest = min(0.2, longest * 1.5)


class Lazy(Generic[T]):
    """A client that is made at the first need, once for all threads of a process."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._lock = threading.Lock()

    def __call__(self) -> T:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        """Gives up its connections. A later call makes another one."""
        with self._lock:
            client: Any = self._made
            self._made = None
        if client is not None:
            client.close() if hasattr(client, "close") else client.transport.close()
