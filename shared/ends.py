"""The two ends of a stream: a source that gives pages of rows, and a sink that carries out changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol, cast

import msgspec

from shared.books import Window
from shared.confirm import Confirmation
from shared.outcome import Answer, Probe
from shared.record import Operation


class Row(msgspec.Struct, frozen=True, gc=False):
    """One object as a source gave it. `problem` says why it has no usable id or version (number and reason)."""

    origin: str
    version: str
    position: str
    data: dict[str, Any]
    operation: Operation = "upsert"
    problem: tuple[int, str] | None = None


class Page(msgspec.Struct, frozen=True):
    """A page of a source, the token after it, and how many rows the source says that the window holds."""

    rows: Sequence[Row]
    after: str
    total: int | None = None


class Source(Protocol):
    """Where records come from. Raises AuthError, TransientError, ProtocolError or GuardTripped for a whole page."""

    system: str
    location: str
    """Where the records are, for people: an address without its secrets."""

    def now(self) -> datetime:
        """The source's own clock."""

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """The rows of the window after a token, in the order of the token. Ends after the last page, which is said by
        an empty page or an explicit mark of the source, never by a short one."""

    def total(self, window: Window) -> int | None:
        """How many rows the window holds at this moment, None if the source cannot say."""

    def close(self) -> None: ...


class Change(msgspec.Struct, frozen=True):
    """What a sink is asked to do for one key."""

    key: str
    operation: Operation
    content: dict[str, Any]
    target_id: str = ""
    absent: bool = False
    """The target was asked a moment ago and does not hold the key."""


class Sink(Protocol):
    """Where records go. Whole calls raise AuthError, or TransientError if certainly nothing took effect."""

    system: str
    bulk: int
    """How many changes one `write` takes at most."""

    def repeatable(self, change: Change) -> bool:
        """Whether sending this change twice does no more than sending it once."""

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        """Asks the target for each key, by its identity."""

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        """Carries out each change; one answer each, at the same place. A missing answer counts as unknown."""

    def close(self) -> None: ...


class Confirms(Protocol):
    """What a sink has besides where its target accepts first and tells later what became of it. The target's id of what
    such a sink delivers is the request, so that there is no asking for a key."""

    def confirm(self, request: str) -> Confirmation:
        """What became of an accepted request so far. Raises as a whole call of a sink, and ProtocolError."""


class TakesBatches(Protocol):
    """What a sink has besides that keeps what belongs to one batch together."""

    def enter(self, run: str, batch: str) -> None:
        """What is written from here on belongs to this batch, which may have come before."""


def by_batch(sink: Sink) -> TakesBatches | None:
    """The sink, if it is to be told of each batch."""
    return cast(TakesBatches, sink) if callable(getattr(sink, "enter", None)) else None


def confirming(sink: Sink) -> Confirms | None:
    """The sink, if its target is to be asked later."""
    return cast(Confirms, sink) if callable(getattr(sink, "confirm", None)) else None
