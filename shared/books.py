"""What the books consist of: runs with their checkpoints, batches with an outcome per record, and failures.

Both homes keep them (`shared/ports.py`). Instants are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from shared.confirm import Awaited
from shared.ledger import Cell
from shared.monitoring import Monitored
from shared.outcome import Outcome, Verdict
from shared.record import Operation, Record, failure_id

RunState = Literal["running", "settled", "failed", "yielded", "stopped"]
RunKind = Literal["fetch", "replay"]
BatchState = Literal["open", "sending", "settled"]


class Window(msgspec.Struct, frozen=True):
    """What a run reads: changes from `since` (inclusive) to `until` (exclusive)."""

    since: datetime
    until: datetime


class Run(msgspec.Struct):
    """One execution of one stream, with its checkpoint: `after`, `groups`, `fetched` and `slice` move together."""

    id: str
    integration: str
    stream: str
    kind: RunKind
    state: RunState
    started_at: datetime
    window: Window | None = None
    cursor_after: datetime | None = None
    """Where the stream's cursor goes when the window is done; None leaves it (a partial or a replaying run)."""
    after: str = ""
    """Where in the window the next page starts: the source's own token, empty for the first."""
    groups: int = 0
    fetched: int = 0
    pass_rows: int = 0
    """Rows of this pass over the window, and `total`, what the source said at its first page."""
    total: int | None = None
    passes: int = 0
    slice: int = 0
    epoch: int = 0
    """The lease token under which the run was last handed over; a continuation of another epoch is dropped."""
    limit: int | None = None
    lanes: int = 0
    """How many lanes its unsettled batches were put into."""
    fetch_done: bool = False
    abandoned: bool = False
    """A guard tripped: what was committed is delivered, but nobody goes on reading."""
    touched_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    error_class: str = ""
    cure: str = ""
    reason: str = ""
    """Of a replay: why a human wanted it."""

    @property
    def resumable(self) -> bool:
        return not self.fetch_done and not self.abandoned

    @property
    def over(self) -> bool:
        """Nothing will ever happen in this run again."""
        return self.finished_at is not None


class StreamState(msgspec.Struct):
    """What is remembered of a stream between runs."""

    integration: str
    stream: str
    cursor: datetime | None = None
    last_run: str = ""
    consecutive_failures: int = 0
    aged_from: datetime | None = None
    """From where the last run counted ages. They never count from earlier again: what a rule left out stays out."""


class Batch(msgspec.Struct):
    """The records that travel in one message, and what became of each: the committed truth.

    Records that ended while fetching stand in a batch without a lane, settled from the start.
    """

    id: str
    run: str
    integration: str
    stream: str
    kind: RunKind
    lane: int | None
    keys: list[str]
    versions: list[str]
    outcomes: str
    """A letter per record (`shared/outcome.py`), what the run itself came to."""
    committed_at: datetime
    state: BatchState = "open"
    blob: str = ""
    offset: int = 0
    length: int = 0
    rules: dict[str, int] = {}
    published_at: datetime | None = None
    attempt: str = ""
    attempts: int = 0
    """How often records were left over because of passing failures while others passed."""
    touched_at: datetime | None = None
    amended: dict[str, str] = {}
    """Outcomes changed later by a replay or a newer version: place -> letter."""

    @property
    def present(self) -> str:
        """The outcomes as they are today."""
        if not self.amended:
            return self.outcomes
        letters = list(self.outcomes)
        for place, letter in self.amended.items():
            letters[int(place)] = letter
        return "".join(letters)


class Failure(msgspec.Struct):
    """A record whose outcome needs a human or a replay, kept whole with its reason."""

    id: str
    integration: str
    stream: str
    key: str
    version: str
    operation: Operation
    origin: str
    position: str
    data: dict[str, Any]
    outcome: Outcome
    number: int
    reason: str
    run: str
    batch: str
    place: int
    first_at: datetime
    last_at: datetime
    location: str = ""
    field: str = ""
    http_status: int | None = None
    attempts: int = 1
    closed_as: str = ""
    closed_by: str = ""
    closed_at: datetime | None = None

    @classmethod
    def of(
        cls, record: Record, verdict: Verdict, batch: Batch, place: int, at: datetime, location: str = ""
    ) -> Failure:
        """The failure of the record at a place of a batch."""
        return cls(
            id=failure_id(batch.integration, batch.stream, record.key, record.version),
            integration=batch.integration,
            stream=batch.stream,
            key=record.key,
            version=record.version,
            operation=record.operation,
            origin=record.origin,
            position=record.position,
            data=record.data,
            outcome=verdict.outcome,
            number=verdict.number,
            reason=verdict.reason,
            field=verdict.field,
            http_status=verdict.http_status,
            run=batch.run,
            batch=batch.id,
            place=place,
            first_at=at,
            last_at=at,
            location=location,
        )


def failed_again(earlier: Failure, later: Failure) -> Failure:
    """The failure after its record failed once more: while it is open it keeps its first time and the batch in which
    the record was fetched, so that closing it amends that batch."""
    if earlier.closed_at is not None:
        return later
    return msgspec.structs.replace(
        later,
        first_at=earlier.first_at,
        attempts=earlier.attempts + later.attempts,
        run=earlier.run,
        batch=earlier.batch,
        place=earlier.place,
        location=earlier.location or later.location,
    )


class Closure(msgspec.Struct, frozen=True):
    """A failure that is over, and what its record came to."""

    failure: str
    batch: str
    place: int
    outcome: Outcome


class Settlement(msgspec.Struct, frozen=True):
    """What one attempt at a batch came to, written as one: outcomes, cells, failures, closures, the requests whose end
    is awaited, and monitoring rows. Records of a request that is known already are added to it."""

    batch: str
    attempt: str
    outcomes: str
    settled: bool
    attempts: int
    keep: bool
    """Whether the attempt goes on with the batch (progress in the middle of it) or hands it back."""
    cells: Sequence[Cell]
    failures: Sequence[Failure]
    closures: Sequence[Closure]
    run: str
    at: datetime
    awaited: Sequence[Awaited] = ()
    monitored: Monitored | None = None


class FailureQuery(msgspec.Struct, frozen=True):
    """Which failures are meant; what is None is not asked."""

    integration: str
    stream: str | None = None
    outcome: str | None = None
    number: int | None = None
    status: int | None = None
    key: str | None = None
    before: datetime | None = None
    keys: tuple[str, ...] | None = None
    include_closed: bool = False
