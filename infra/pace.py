"""Keeps below a rate limit: evenly, without a burst, for all threads and processes that share one allowance.

Nobody reserves a slot in advance. Whoever is there when the next slot comes takes it and writes down when the one
after it comes, so the distance is measured from what was really sent, and a process that is killed leaves nothing
behind but a slot in the past.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from infra.quantities import Rate
from shared.errors import GENERAL, StoreUnavailable, TransientError
from shared.ports import Clock
from shared.retry import LONGEST_WAIT

SLACK: Final = 1.025
"""Slots are this much further apart than the limit asks for: room for requests that travel at unequal speed."""
LATENESS: Final = 0.01
"""Of the limit's period: a slot taken so much too late does not put off the ones after it. Less than the slack."""
NAP: Final = 0.25
"""Seconds. The longest sleep before looking again whether to stop, or whether somebody asked for a pause."""

_SLOT: Final = struct.Struct("<d")


def never() -> bool:
    return False


class Pace:
    """Lets requests go so that no sliding `rate.seconds` sees more than `rate.count` of them.

    `file` holds the next free slot, in seconds of the monotonic clock that all processes of a machine share; without it
    only the threads of this process share the pace. Without a rate only `hold` makes anybody wait, in this process.
    """

    def __init__(
        self, rate: Rate | None, clock: Clock, file: Path | None = None, stopping: Callable[[], bool] = never
    ) -> None:
        self.stopping = stopping
        self._clock = clock
        self._step = rate.seconds / rate.count * SLACK if rate else 0.0
        self._grace = min(self._step, rate.seconds * LATENESS) if rate else 0.0
        self._file = file if rate else None
        self._descriptor: int | None = None
        self._slot = -math.inf
        self._state = Lock()
        self._turn = Lock()

    def acquire(self) -> None:
        """Returns when the next request may go. Raises TransientError rather than wait when the process is to stop."""
        if self.claim() <= 0:
            return
        with self._turn:
            waited_for = -math.inf
            while (wait := self.claim(waited_for)) > 0:
                waited_for = self._clock.monotonic() + wait
                self.pause(min(wait, NAP))

    def claim(self, waited_for: float = -math.inf) -> float:
        """Takes the next slot and gives 0, or gives the seconds until there is one.

        `waited_for` is the slot for which the caller slept: taken a little late, it does not put off the ones after it.
        """
        if not self._step and self._slot == -math.inf:
            return 0.0
        with self._state:
            now = self._clock.monotonic()
            descriptor = self._open()
            with _locked(descriptor):
                slot = self._read(descriptor, now)
                if slot > now:
                    return slot - now
                base = max(slot, now - self._grace) if abs(slot - waited_for) <= self._grace else now
                self._write(descriptor, base + self._step if self._step else -math.inf)
        return 0.0

    def hold(self, seconds: float) -> None:
        """Nobody goes for so long: the other side asked for it. Never shortens what is held already."""
        with self._state:
            now = self._clock.monotonic()
            descriptor = self._open()
            with _locked(descriptor):
                until = now + max(0.0, min(seconds, LONGEST_WAIT))
                self._write(descriptor, max(until, self._read(descriptor, now)))

    def pause(self, seconds: float) -> None:
        """Sleeps for so long. Raises TransientError once the process is to stop."""
        until = self._clock.monotonic() + seconds
        while True:
            if self.stopping():
                raise TransientError("stopped while waiting for the next request", number=GENERAL)
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.sleep(min(left, NAP))

    def close(self) -> None:
        with self._state:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int | None:
        if self._file is not None and self._descriptor is None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreUnavailable(f"the pace file {self._file} cannot be opened: {error.strerror}") from error
        return self._descriptor

    def _read(self, descriptor: int | None, now: float) -> float:
        """The next free slot. One that nobody can have meant (the machine was started anew) is one step from now."""
        slot = self._slot
        if descriptor is not None:
            stored = os.pread(descriptor, _SLOT.size, 0)
            slot = _SLOT.unpack(stored)[0] if len(stored) == _SLOT.size else -math.inf
        latest = now + max(LONGEST_WAIT, self._step)
        return now + self._step if math.isnan(slot) or slot > latest else slot

    def _write(self, descriptor: int | None, slot: float) -> None:
        if descriptor is None:
            self._slot = slot
        else:
            os.pwrite(descriptor, _SLOT.pack(slot), 0)


@contextmanager
def _locked(descriptor: int | None) -> Iterator[None]:
    """The file to ourselves among processes; the kernel frees it if we die. Raises StoreUnavailable."""
    if descriptor is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        raise StoreUnavailable(f"the pace file cannot be used: {error.strerror}") from error
