"""What the two stories need of the world: small ports, in the project's words.

Both homes (`infra/local`, `infra/gcp`) implement them and pass one contract suite (`tests/contract`). Every call may
raise StoreUnavailable, after which nothing may be assumed of what is stored. A write that takes a lease or an attempt
is refused with Fenced, and leaves nothing behind, once another holder took over. Instants are aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from shared.accounting import Counts, Entries
from shared.confirm import Awaited, Confirmation
from shared.ledger import Cell
from shared.monitoring import Monitored
from shared.outcome import Answer, Outcome, Probe, Verdict
from shared.record import Operation, Record, failure_id

if TYPE_CHECKING:
    from shared.launches import Launches
    from shared.objects import Objects
    from shared.snapshot.history import History
    from shared.tokens import Tokens

RunState = Literal["running", "settled", "failed", "yielded", "stopped"]
RunKind = Literal["fetch", "replay"]
BatchState = Literal["open", "sending", "settled"]


class Lease(msgspec.Struct, frozen=True):
    """The right to write for one stream. `token` grows with each taker: a later token fences off an earlier one."""

    name: str
    token: int
    holder: str


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


class Message(msgspec.Struct, frozen=True):
    """What a bus carries: bytes, an ordering key (empty for none) and attributes."""

    data: bytes
    ordering_key: str = ""
    attributes: dict[str, str] = {}


class Clock(Protocol):
    """Time, passed in."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None:
        """Returns early when the process was asked to stop."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Leases(Protocol):
    """One holder per name. A lease ends when it is released, when it expires, or (embedded) when its holder dies."""

    def take(self, name: str) -> Lease:
        """Raises Leased while another holder is alive."""

    def renew(self, lease: Lease) -> None:
        """Raises Fenced if another took over."""

    def release(self, lease: Lease) -> None:
        """Does nothing if another took over."""

    def holder(self, name: str) -> str | None:
        """Who holds it, for people."""


class Runs(Protocol):
    """Runs, their checkpoints, and what a stream remembers."""

    def commit(
        self,
        lease: Lease,
        run: Run,
        batches: Sequence[Batch] = (),
        failures: Sequence[Failure] = (),
        cells: Sequence[Cell] = (),
        closures: Sequence[Closure] = (),
        monitored: Monitored | None = None,
    ) -> None:
        """Writes all of it or none, if the lease still holds. Creates the run the first time.

        Monitoring rows come with it exactly once, or (Google Cloud) at least once: they are published before.

        A delivery may end meanwhile: of a cell that is there already only the failed version is raised.
        """

    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        """Writes the run and what its stream remembers together, if the lease still holds."""

    def conclude(self, run: Run) -> None:
        """Writes how a run ended, once it is read or given up and nothing of it is pending. Nothing is written where it
        is not there any more, or as it was read: the books may have been replaced meanwhile."""

    def get(self, run: str) -> Run | None: ...

    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        """Newest first."""

    def unfinished(self, integration: str, stream: str) -> list[Run]:
        """Runs that are not over, oldest first."""

    def state(self, integration: str, stream: str) -> StreamState: ...


class Batches(Protocol):
    """The committed batches: the truth about what travels and what became of it."""

    def published(self, batches: Sequence[str], at: datetime) -> None: ...

    def begin(self, batch: str, attempt: str) -> tuple[Batch | None, str]:
        """Marks a batch as being sent by this attempt, and gives it with the earlier attempt that left it so ("" if
        none).

        Gives None for a batch that is settled or not there. Raises Leased while another live attempt has it.
        """

    def settle(self, settlement: Settlement) -> None:
        """Writes all of it or none. Raises Fenced if the attempt no longer has the batch. Monitoring rows as in
        `Runs.commit`."""

    def renew(self, batch: str, attempt: str) -> None:
        """Keeps a batch in this attempt's hands. Raises Fenced if another took over."""

    def let_go(self, batch: str, attempt: str) -> None:
        """This attempt is over. What it left in `sending` is in doubt for the next one, which need not wait for it."""

    def of_run(self, run: str) -> Iterator[Batch]:
        """Oldest first."""

    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        """Oldest first, so that what is published again keeps the order of its lane."""

    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        """The batches that carry a record of one of these keys, oldest first."""

    def get(self, batch: str) -> Batch | None: ...

    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        """Turns delivered records into these failures, one per key of one stream: each failure, its cell (as
        `shared.ledger.refused_later` has it) and the present outcome of its place are written as one, all of them or
        none. Those whose cell is not under the request are left out. Says how many were not. `table` is the stream's
        monitoring table, whose rows come with them as in `Runs.commit`."""


class Books(Protocol):
    """Reading over all batches, for audit and accounts."""

    def counts(self, run: str) -> Counts:
        """The outcomes that the batches of a run settled on, and what the run fetched."""

    def rules(self, run: str) -> dict[str, int]:
        """How many records each rule filtered."""

    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        """The present outcomes of all fetching runs, oldest batch first."""

    def fetched(self, integration: str, stream: str) -> int:
        """What all fetching runs say that they fetched."""


class Ledger(Protocol):
    """One cell per key."""

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        """The cells of these keys, in one round trip; keys without one are left out."""

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        """All cells, in no particular order."""

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        """Key and applied version of all cells: what an audit compares with."""


class Failures(Protocol):
    """Records that need a human or a replay."""

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        """Oldest first, open ones unless asked otherwise."""

    def count(self, query: FailureQuery) -> int: ...

    def remove_closed(self, integration: str, before: datetime) -> int:
        """Removes failures that were closed before then, and says how many. Open ones stay."""


class Confirmations(Protocol):
    """Requests whose end their targets tell later. Settlements write them."""

    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        """Those that are pending and whose next look is due, the longest due first."""

    def note(self, awaited: Awaited) -> None:
        """Writes what the target said, and when it is asked again. What the request carried stays as it is stored. Does
        nothing for one that is not there."""

    def pending(self, integration: str, stream: str) -> tuple[int, int]:
        """How many requests have not ended, and how many records they carried."""

    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        """The records that were refused by reason, over the requests that have ended, or have since then."""

    def remove_ended(self, integration: str, before: datetime) -> int:
        """Removes requests that ended before then, and says how many. Pending ones stay."""


class Bus(Protocol):
    """Carries messages at least once, in order per ordering key."""

    def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Returns when all of them are safe with the bus."""

    def carries(self, topic: str, batches: Sequence[str]) -> set[str] | None:
        """Which of these batches it still has a message of; None where a bus cannot say."""


class Blobs(Protocol):
    """Files by name. A name that was written holds either nothing or all of what was written."""

    def write(self, name: str, data: bytes) -> None: ...

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        """Writes what comes piece by piece, never all of it in memory, and says how many bytes it was. Where the pieces
        end with an exception, the name holds what it held before."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Raises FileNotFoundError."""

    def size(self, name: str) -> int:
        """In bytes. Raises FileNotFoundError."""

    def delete(self, name: str) -> None: ...

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Names with this prefix, each with the time of its writing."""


class Schedule(Protocol):
    """When a stream runs by itself."""

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        """None while paused or without a schedule."""

    def pause(self, integration: str) -> None: ...

    def resume(self, integration: str) -> None: ...

    def paused(self, integration: str) -> bool: ...


class Alerts(Protocol):
    """What is wrong at the moment, so that people hear of a change once."""

    def change(self, name: str, raised: bool, text: str) -> bool:
        """Raises or clears an alert; True if that changed anything."""

    def raised(self) -> dict[str, str]:
        """The alerts that are up, with their texts."""


class Monitoring(Protocol):
    """The monitoring tables, as far as they are not written with what they tell of (`Runs.commit`)."""

    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        """Removes an integration's rows that were written before then, and says how many."""


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


class Home(msgspec.Struct, frozen=True):
    """Everything a story needs, from one of the two homes."""

    leases: Leases
    runs: Runs
    batches: Batches
    books: Books
    ledger: Ledger
    failures: Failures
    confirmations: Confirmations
    bus: Bus
    blobs: Blobs
    snapshots: Blobs
    """The folders of the snapshots, and nothing else."""
    history: History
    schedule: Schedule
    launches: Launches
    tokens: Tokens
    objects: Objects
    alerts: Alerts
    monitoring: Monitoring
    clock: Clock


Notice = Callable[..., None]
"""Told what happens: `notice(action, **fields)`; fields carry ids and counts, never a person or a token."""


def topic_of(integration: str) -> str:
    """The topic of an integration's batches."""
    return f"{integration}-records"


def continuation_topic(integration: str) -> str:
    """The topic that brings a run back to its source function."""
    return f"{integration}-continue"


def monitoring_topic(integration: str) -> str:
    """The topic of an integration's monitoring rows."""
    return f"{integration}-monitoring"


def dead_topic(topic: str) -> str:
    """Where messages go that ended whoever took them, or that nobody understands."""
    return f"{topic}-dead"


def lease_name(integration: str, stream: str) -> str:
    """The name of a stream's lease."""
    return f"{integration}.{stream}"
