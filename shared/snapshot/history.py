"""The books as a whole: how a snapshot reads them, and how one takes their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from shared.books import Batch, BatchState, Failure, Run, StreamState
from shared.confirm import Awaited
from shared.launches import Launch
from shared.ledger import Cell
from shared.objects import Object

LEASES: Final = "snapshots."
"""How the leases of those who work on snapshots begin, which are taken whatever was left in the middle."""
EXPORT: Final = f"{LEASES}export"
IMPORT: Final = f"{LEASES}import"
UNFINISHED: Final = "a snapshot is being imported, or its import was interrupted: nobody works before it is at its end"
TO_FINISH: Final = "wait for it; if nobody imports any more, export or import a snapshot: either ends it first"
OVERTAKEN: Final = "another process replaces the books"

Told = TypeVar("Told", Run, Failure, Awaited, Launch)


class Head(msgspec.Struct, frozen=True, gc=False):
    """A batch without the identities of its records."""

    id: str
    run: str
    state: BatchState
    outcomes: str
    committed_at: datetime
    touched_at: datetime | None
    amended: dict[str, str]

    @classmethod
    def of(cls, batch: Batch) -> Head:
        return cls(
            batch.id, batch.run, batch.state, batch.outcomes, batch.committed_at, batch.touched_at, batch.amended
        )


class KindOfObject(msgspec.Struct, frozen=True):
    """A kind in the hub's own store, with the names of all fields that its objects ever had."""

    name: str
    fields: list[str]


class Stored(msgspec.Struct, frozen=True):
    """An object of the hub's own store."""

    kind: str
    object: Object


Entry = Run | Batch | Cell | Failure | Awaited | Launch | StreamState | KindOfObject | Stored


class Placed(NamedTuple):
    """What is known, and of which integration and stream: both are empty for what belongs to none."""

    integration: str
    stream: str
    entry: Entry


class Past(Protocol):
    """All that was known at one moment, whatever is written meanwhile. Runs and batches come oldest first."""

    at: datetime

    def streams(self) -> list[tuple[str, str]]:
        """Those of which anything is known, by integration and stream."""

    def state(self, integration: str, stream: str) -> StreamState: ...

    def heads(self, integration: str, stream: str) -> Iterator[Head]: ...

    def unsettled(self, integration: str, stream: str) -> Iterator[Batch]: ...

    def batches(self, ids: Sequence[str]) -> Iterator[Batch]:
        """Those of these that are there, in this order."""

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]: ...

    def told(self, kind: type[Told], integration: str, stream: str) -> Iterator[Told]:
        """Runs, failures (closed ones too), requests that were awaited, or launches of a stream."""

    def kinds(self) -> list[KindOfObject]: ...

    def objects(self, kind: str) -> Iterator[Object]: ...

    def counts(self) -> dict[str, int]:
        """How much is known, over all streams: runs, batches, cells, failures, requests, launches and objects."""


class Unfinished(msgspec.Struct, frozen=True):
    """A replacement that has not come to its end. `intent` is the caller's own; `replaced` says whether all of the
    entries are in place, so that what is left is the caller's."""

    intent: bytes
    replaced: bool


class History(Protocol):
    """The books as a whole. What is written here is written by one process at a time, which the caller sees to."""

    def look(self) -> AbstractContextManager[Past]: ...

    def replace(
        self,
        intent: bytes,
        entries: Callable[[], Iterator[Placed]] | None,
        *,
        objects: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Puts these entries in the place of all that is known (of the hub's own objects only with `objects`), and
        keeps the intent until `finish`: as long as it is there, nobody takes the lease of a stream. None replaces
        nothing, and keeps the intent. Of two entries for one thing the later one counts. The caller holds the leases of
        all streams; `watch` is called every now and then, and may raise.

        Raises Leased while an attempt has a batch in hand, whose outcome would be lost: then nothing has changed,
        unless an earlier replacement was interrupted. From then on nobody begins one of the batches that are there.

        Embedded it is one write. On Google Cloud the intent is written first: after a crash it is found with
        `unfinished`, and the same replacement is made once more. Raises Fenced there where another process makes one.
        """

    def unfinished(self) -> Unfinished | None: ...

    def finish(self, intent: bytes) -> None:
        """Takes the intent away. Raises Fenced where there is another one."""
