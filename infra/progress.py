"""Progress on stderr while a run goes on: one line, and none where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.wiring import Hub
from shared.accounting import Counts
from shared.stream import Stream

_LINE_SECONDS = 0.5


class Progress:
    """Shows how far a run is, from what is committed."""

    def __init__(self, hub: Hub, streams: list[Stream]) -> None:
        self._hub = hub
        self._streams = streams
        self._next = 0.0
        self._begun = hub.clock.monotonic()
        self._text = ""
        self._run = ""
        self._total: int | None = None

    def notice(self, action: str, **fields: Any) -> None:
        if action in ("run_started", "group_committed", "replay_started"):
            self._run, self._total = fields["run"], fields.get("total")
        elif action == "waiting":
            self._text = f" | waiting {fields['seconds']:.0f} s for the target"
        elif action == "batch_settled":
            self._text = ""

    def look(self) -> None:
        now = self._hub.clock.monotonic()
        if now < self._next or not self._run:
            return
        self._next = now + _LINE_SECONDS
        self._show(self._hub.home.books.counts(self._run), now - self._begun)

    def _show(self, counts: Counts, seconds: float) -> None:
        of = f" of {self._total:,}" if self._total else ""
        rate = counts.settled / seconds if seconds > 1 else 0.0
        left = max(counts.fetched, self._total or 0) - counts.settled
        eta = f" | about {_span(left / rate)} left" if rate and left else ""
        line = (
            f"fetched {counts.fetched:,}{of} | delivered {counts.delivered:,} | unchanged {counts.unchanged:,} | "
            f"failed {counts.failures:,} | pending {counts.pending:,}{eta}{self._text}"
        )
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()

    def clear(self) -> None:
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


class Unseen:
    """Where nobody watches."""

    notice = None

    def look(self) -> None:
        """Nothing to show."""


@contextmanager
def showing(hub: Hub, streams: list[Stream]) -> Iterator[Progress | Unseen]:
    """Progress for as long as the block lasts, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield Unseen()
        return
    progress = Progress(hub, streams)
    try:
        yield progress
    finally:
        progress.clear()


class Steps:
    """Shows what is being done, from what is told of each step. Raises KeyboardInterrupt once the process was asked to
    stop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._seen = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, step: str, done: int, total: int | None) -> None:
        if self._hub.clock.stopping:
            raise KeyboardInterrupt
        now = self._hub.clock.monotonic()
        if not self._seen or now < self._next:
            return
        self._next = now + _LINE_SECONDS
        of = f" of {total:,}" if total is not None else ""
        sys.stderr.write(f"\r\x1b[2K{step} | {done:,}{of}")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._seen:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextmanager
def steps(hub: Hub) -> Iterator[Steps]:
    """Progress of what goes on step by step, as `showing`."""
    told = Steps(hub)
    try:
        yield told
    except KeyboardInterrupt:
        told.clear()
        sys.stderr.write("stopped; whoever asks again does it anew, or finishes what was begun\n")
        raise
    finally:
        told.clear()


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
