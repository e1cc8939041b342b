"""Launches: one execution each of a stream that is launched (`Rules.launched`), known by a number from when it was
asked for. What became of it is told by its run; here stands what is known before there is one, and what outlives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol

import msgspec

from shared.books import Window

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
AT_ONCE: Final = 50

LaunchState = Literal["waiting", "taken", "begun", "cancelled"]
AWAITS: Final = ("waiting", "taken")
"""Those whose run is still to be begun. One is taken before there is a run, and not cancelled from then on."""


class Launch(msgspec.Struct, frozen=True):
    """One execution of one stream, from when it was asked for."""

    integration: str
    stream: str
    id: int
    """Milliseconds since 1970 of when it was asked for, or one more than the newest has where that is not less: so
    launches of a stream are in the order of their numbers."""
    scheduled_at: datetime
    state: LaunchState = "waiting"
    """`taken` may be said of one whose run has begun (a crash came before the mark), never the other way round."""
    file: str = ""
    """The blob that was sent for it, empty for a launch that produces one, or once the file is not kept any more."""
    size: int = 0
    """Of the file, in bytes."""
    columns: tuple[str, ...] = ()
    """Of the file that it produces."""
    cancelled_by: str = ""

    @property
    def run(self) -> str:
        """The id of its run: the same however often it is begun."""
        return f"{self.stream}-{self.id}"

    @property
    def window(self) -> Window:
        """What its run reads: nothing but this launch."""
        since = EPOCH + self.id * MILLISECOND
        return Window(since, since + MILLISECOND)


def newest_first(launches: Launches, integration: str, stream: str) -> Iterator[Launch]:
    """All launches of a stream, read as they are asked for."""
    before = None
    while found := launches.recent(integration, stream, AT_ONCE, before):
        yield from found
        before = found[-1].id


def launch_id(instant: datetime) -> int:
    """The number of a launch that is asked for at this instant, unless it is given already."""
    return (instant - EPOCH) // MILLISECOND


class Launches(Protocol):
    """The launches of all streams, each written as one document."""

    def add(self, launch: Launch) -> bool:
        """Writes a launch that is not there. False, and nothing written, where the stream has one of this number."""

    def note(self, launch: Launch, was: LaunchState | None = None) -> bool:
        """Writes over a launch that is there, and stands as it is said to, if that is. Whether it did so."""

    def get(self, integration: str, stream: str, id: int) -> Launch | None: ...

    def recent(self, integration: str, stream: str, most: int, before: int | None = None) -> list[Launch]:
        """Newest first, only those with a smaller number than `before` where it is given."""

    def waiting(self, integration: str, stream: str) -> list[Launch]:
        """Those whose run is still to be begun (`AWAITS`), oldest first."""
