"""Story 1, fetch: from a window of the source to committed and published batches.

Order of effects, and what a crash between two of them does:

1. Take the lease. A crash frees it (embedded) or lets it expire; the next taker resumes the run.
2. Open the run, or resume the one that crashed, from its checkpoint.
3. Read and judge pages until a group of batches is full. A crash forgets them; they are read again.
4. Write the group to the archive, under a name that carries the lease's token. A crash leaves a file nobody names.
5. Commit batches, checkpoint, failures and cells in one fenced write. From here on the records exist.
6. Publish, then mark as published. A crash before the mark publishes a batch twice, which its batch document absorbs;
   a crash before the publishing leaves it to the resumed run or the sweeper.
7. When the window is done, advance the cursor and finish in one fenced write.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shared.errors import (
    NO_IDENTITY,
    TOO_LARGE,
    UNMAPPABLE,
    AuthError,
    GuardTripped,
    ProtocolError,
    RecordError,
    TransientError,
    WaybillError,
)
from shared.ledger import Cell, failed
from shared.outcome import LETTERS, Outcome
from shared.ports import (
    Batch,
    Closure,
    Failure,
    FailureQuery,
    Home,
    Lease,
    Message,
    Notice,
    Page,
    Row,
    Run,
    RunKind,
    Source,
    StreamState,
    Window,
    continuation_topic,
    lease_name,
    topic_of,
)
from shared.record import Envelope, Record, failure_id, identities, lane_of
from shared.stream import MESSAGE_BYTES, Stream

GROUP_FILL: Final = 4
"""Full batches per lane in a group: the larger, the fuller the batches and the fewer the commits."""
GROUP_SECONDS: Final = 2.0
"""A slow source's records wait no longer than this for their group to fill."""
RENEW_SECONDS: Final = 20.0
TICK: Final = timedelta(seconds=1)
CLOCK_TOLERANCE: Final = timedelta(minutes=10)


class Order(msgspec.Struct, frozen=True):
    """What somebody asked of a stream."""

    full: bool = False
    since: datetime | None = None
    limit: int | None = None
    run_id: str = ""
    """Given by a trigger that may repeat itself: the same id never starts a second run."""
    resume_only: bool = False


class Continuation(msgspec.Struct, frozen=True):
    """The message that brings a run back after its time budget was used up."""

    integration: str
    stream: str
    run: str
    slice: int
    epoch: int


class Fetcher:
    """One stream being read under one lease. Use `fetch` or `go_on`."""

    def __init__(
        self,
        stream: Stream,
        source: Callable[[], Source],
        home: Home,
        lease: Lease,
        notice: Notice,
        time_is_up: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        self.stream = stream
        self.open_source = source
        self.home = home
        self.lease = lease
        self.notice = notice
        self.time_is_up = time_is_up
        self.stopping = stopping
        self.renewed = home.clock.monotonic()
        self.nameless = self.open_nameless_failures()

    def open_nameless_failures(self) -> dict[str, list[Failure]]:
        """Open failures of objects without a usable identity, by their id at the source."""
        query = FailureQuery(self.stream.integration, self.stream.name, outcome=Outcome.INVALID)
        found: dict[str, list[Failure]] = {}
        for failure in self.home.failures.find(query):
            if failure.key == f"{self.stream.source_system}:{failure.origin}":
                found.setdefault(failure.origin, []).append(failure)
        return found

    def carry_out(self, order: Order) -> list[Run]:
        """Finishes what crashed, then reads the new window. Gives every run that it worked on, the last one last."""
        home, stream = self.home, self.stream
        runs: list[Run] = []
        for run in home.runs.unfinished(stream.integration, stream.name):
            self.publish_what_was_committed(run)
            if run.kind == "fetch" and run.resumable:
                runs.append(self.read(run))
                if run.state != "running":
                    return runs
        if order.resume_only or (order.run_id and home.runs.get(order.run_id) is not None):
            return runs
        source = self.open_source()
        try:
            try:
                run = self.open_run(order, source)
            except (AuthError, TransientError, ProtocolError) as error:
                run = self.record_refusal(order, error)
                return [*runs, run]
            runs.append(self.read(run, source))
        finally:
            source.close()
        return runs

    def open_run(self, order: Order, source: Source) -> Run:
        """A run over the window from the cursor, less the overlap, to the source's own clock, less the hold-back.

        The second that is not over yet is read, so that what was just changed travels, but the cursor stops before it:
        what it still brings is met by the next window, and what was read already is known then.
        """
        stream, home = self.stream, self.home
        state = home.runs.state(stream.integration, stream.name)
        start = stream.since if state.cursor is None else max(stream.since, state.cursor - stream.overlap)
        since = order.since or (stream.since if order.full else start)
        horizon = self.horizon(source)
        whole = order.limit is None and since <= start
        run = Run(
            id=order.run_id or new_run_id(stream.name, home.clock.now()),
            integration=stream.integration,
            stream=stream.name,
            kind="fetch",
            state="running",
            started_at=home.clock.now(),
            window=Window(since, max(since, horizon + TICK)),
            cursor_after=max(horizon, state.cursor or horizon) if whole else None,
            limit=order.limit,
        )
        home.runs.commit(self.lease, run)
        self.notice("run_started", run=run.id, stream=stream.name)
        return run

    def horizon(self, source: Source) -> datetime:
        """Up to where the source can be trusted to be complete: a whole second of its clock, and never far ahead of our
        own, so that one wrong clock delays records but does not carry the cursor past any."""
        theirs, ours = source.now(), self.home.clock.now()
        if abs(theirs - ours) > CLOCK_TOLERANCE:
            self.notice("clocks_disagree", stream=self.stream.name, seconds=round((theirs - ours).total_seconds()))
        return (min(theirs, ours + CLOCK_TOLERANCE) - self.stream.hold_back).replace(microsecond=0)

    def record_refusal(self, order: Order, error: WaybillError) -> Run:
        """A run that could not even ask the source: on record, with nothing read and no cursor moved."""
        run = Run(
            id=order.run_id or new_run_id(self.stream.name, self.home.clock.now()),
            integration=self.stream.integration,
            stream=self.stream.name,
            kind="fetch",
            state="running",
            started_at=self.home.clock.now(),
            abandoned=True,
        )
        return self.fail(run, error)

    def publish_what_was_committed(self, run: Run) -> None:
        batches = [b for b in self.home.batches.of_run(run.id) if b.state != "settled" and b.published_at is None]
        for start in range(0, len(batches), 100):
            publish_again(self.home, batches[start : start + 100])

    def read(self, run: Run, source: Source | None = None) -> Run:
        """Reads the run's window from its checkpoint to the end, and says in `run.state` how it ended."""
        own = source is None
        source = source or self.open_source()
        run.state, run.error, run.error_class, run.cure = "running", "", "", ""
        group = Group(self, run, source.location)
        try:
            while True:
                for page in self.pages(run, source):
                    group.add(page)
                    if group.is_full():
                        group.commit()
                        if self.stopping():
                            return self.stop(run)
                        if self.time_is_up():
                            return self.hand_over(run)
                    elif self.stopping():
                        group.commit()
                        return self.stop(run)
                    if run.limit is not None and run.fetched + group.rows >= run.limit:
                        break
                group.commit()
                if not self.total_disagrees(run, source):
                    return self.finish(run)
                run.after, run.pass_rows, run.passes = "", 0, run.passes + 1
        except GuardTripped as error:
            group.commit()
            run.abandoned = True
            return self.fail(run, error)
        except (AuthError, TransientError, ProtocolError) as error:
            group.commit()
            return self.stop(run) if self.stopping() else self.fail(run, error)
        finally:
            if own:
                source.close()

    def pages(self, run: Run, source: Source) -> Iterator[Page]:
        """The pages from the checkpoint on, refusing a token that comes again."""
        assert run.window is not None
        if run.window.until <= run.window.since:
            return
        before = run.after
        for page in source.pages(run.window, run.after):
            if page.rows and page.after == before:
                raise GuardTripped(f"{source.system} gave the page after {before!r} twice")
            if not before:
                run.total = page.total
            before = page.after
            self.keep_lease()
            yield page

    def keep_lease(self) -> None:
        now = self.home.clock.monotonic()
        if now - self.renewed >= RENEW_SECONDS:
            self.home.leases.renew(self.lease)
            self.renewed = now

    def total_disagrees(self, run: Run, source: Source) -> bool:
        """Whether the window has to be read once more, since the source steadily says that it holds more rows.

        A total that moved while the window was read is left to the next window. Raises GuardTripped after a second
        pass.
        """
        assert run.window is not None
        if run.limit is not None or run.total is None or run.pass_rows >= run.total:
            return False
        total = source.total(run.window)
        if total is None or total != run.total or run.pass_rows >= total:
            return False
        if run.passes:
            raise GuardTripped(
                f"{source.system} says that the window holds {total} rows and gave {run.pass_rows}, twice",
                cure="the source hides rows behind a cap or a filter: narrow the window with --since",
            )
        self.notice("total_disagrees", run=run.id, total=total, read=run.pass_rows)
        return True

    def hand_over(self, run: Run) -> Run:
        """The time budget is used up: the checkpoint is saved, and a message brings the run back."""
        run.slice, run.epoch, run.state = run.slice + 1, self.lease.token, "yielded"
        self.home.runs.commit(self.lease, run)
        message = Continuation(run.integration, run.stream, run.id, run.slice, run.epoch)
        self.home.bus.publish(
            continuation_topic(run.integration), [Message(msgspec.json.encode(message), ordering_key=run.stream)]
        )
        self.notice("run_handed_over", run=run.id, slice=run.slice)
        return run

    def stop(self, run: Run) -> Run:
        run.state = "stopped"
        self.home.runs.commit(self.lease, run)
        self.notice("run_stopped", run=run.id)
        return run

    def fail(self, run: Run, error: WaybillError) -> Run:
        run.state, run.error, run.error_class, run.cure = "failed", str(error), type(error).__name__, error.cure
        state = self.home.runs.state(run.integration, run.stream)
        state.consecutive_failures, state.last_run = state.consecutive_failures + 1, run.id
        self.home.runs.finish(self.lease, run, state)
        self.notice("run_failed", run=run.id, error=run.error_class)
        return run

    def finish(self, run: Run) -> Run:
        """The window is done: the cursor moves in the write that says so."""
        run.fetch_done = True
        state: StreamState = self.home.runs.state(run.integration, run.stream)
        if run.cursor_after is not None:
            state.cursor = max(run.cursor_after, state.cursor or run.cursor_after)
        state.last_run, state.consecutive_failures = run.id, 0
        self.home.runs.finish(self.lease, run, state)
        self.notice("run_read", run=run.id, fetched=run.fetched)
        return run


class Group:
    """The records that are committed together: batches by lane, and those that ended while being read."""

    def __init__(self, fetcher: Fetcher, run: Run, location: str, kind: RunKind = "fetch") -> None:
        self.fetcher = fetcher
        self.stream = fetcher.stream
        self.home = fetcher.home
        self.run = run
        self.location = location
        self.kind: RunKind = kind
        self.clear()

    def clear(self) -> None:
        self.rows = 0
        self.size = 0
        self.after = self.run.after
        self.begun: float | None = None
        self.lanes: dict[int, list[Record]] = {}
        self.ended: list[tuple[str, str, Outcome]] = []
        self.rules: dict[str, int] = {}
        self.invalid: list[tuple[Record, RecordError]] = []
        self.corrections: list[Closure] = []

    def add(self, page: Page) -> None:
        """Judges each row of a page: it ends here, or goes into its lane."""
        self.begin()
        rows: Sequence[Row] = page.rows
        if self.run.limit is not None:
            rows = rows[: max(0, self.run.limit - self.run.fetched - self.rows)]
        identify, filters = self.stream.rules.identify, self.stream.rules.filters
        nameless = self.fetcher.nameless
        for row in rows:
            try:
                if row.problem is not None:
                    raise RecordError(row.problem[1], number=row.problem[0])
                rule = next((name for name, holds in filters if holds(row.data)), None) if filters else None
                key = identify(row.data) if rule is None else ""
            except RecordError as error:
                self.invalid.append((self.nameless(row), error))
                continue
            except Exception as error:
                self.invalid.append((self.nameless(row), unforeseen(error)))
                continue
            if rule is not None:
                self.ended.append((self.nameless(row).key, row.version, Outcome.FILTERED))
                self.rules[rule] = self.rules.get(rule, 0) + 1
                continue
            if not key:
                self.invalid.append((self.nameless(row), RecordError("it has no identity", number=NO_IDENTITY)))
                continue
            record = Record(key, row.version, row.operation, row.origin, row.position, row.data)
            if nameless and row.origin in nameless:
                self.correct(nameless[row.origin], record)
            self.put(record)
        self.rows += len(rows)
        self.after = page.after

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.home.clock.monotonic()

    def put(self, record: Record) -> None:
        """Puts a record into its lane."""
        lane = lane_of(record.key, self.stream.lanes)
        try:
            self.lanes[lane].append(record)
        except KeyError:
            self.lanes[lane] = [record]
        self.size += 1

    def nameless(self, row: Row) -> Record:
        """The record of a row without a usable identity: named by its system and its id there."""
        key = f"{self.stream.source_system}:{row.origin or row.position}"
        return Record(key, row.version, row.operation, row.origin, row.position, row.data)

    def correct(self, failures: list[Failure], record: Record) -> None:
        """An object that had no usable identity has one in this version: what failed without one is superseded."""
        for failure in [f for f in failures if f.version < record.version]:
            self.corrections.append(Closure(failure.id, failure.batch, failure.place, Outcome.SUPERSEDED))
            failures.remove(failure)

    def is_full(self) -> bool:
        if self.begun is None:
            return False
        if self.size >= self.stream.lanes * self.stream.batch_size * GROUP_FILL:
            return True
        return self.home.clock.monotonic() - self.begun >= GROUP_SECONDS

    def commit(self) -> None:
        """Steps 4 to 6 of the story for what was gathered."""
        if self.begun is None:
            return
        run, home = self.run, self.home
        name = f"archive/{run.integration}/{run.stream}/{run.id}/{self.fetcher.lease.token}-{run.groups:06d}"
        batches, parts = self.travelling(name)
        ended, failures, cells = self.ended_here(len(batches))
        if parts:
            home.blobs.write(name, b"".join(parts))
        run.fetched += self.rows
        run.pass_rows += self.rows
        run.groups += 1
        run.after = self.after
        run.touched_at = home.clock.now()
        home.runs.commit(self.fetcher.lease, run, [*batches, *ended], failures, cells, self.corrections)
        if batches:
            home.bus.publish(topic_of(run.integration), [as_message(b, p) for b, p in zip(batches, parts, strict=True)])
            home.batches.published([batch.id for batch in batches], home.clock.now())
        self.fetcher.notice("group_committed", run=run.id, stream=run.stream, fetched=run.fetched, total=run.total)
        self.clear()

    def travelling(self, blob: str) -> tuple[list[Batch], list[bytes]]:
        """The batches of each lane, and their bytes as they stand in the archive and in the messages."""
        batches: list[Batch] = []
        parts: list[bytes] = []
        offset = 0
        for lane in sorted(self.lanes):
            records = self.lanes[lane]
            pieces = -(-len(records) // self.stream.batch_size)
            size = -(-len(records) // pieces)
            for start in range(0, len(records), size):
                for chunk, data in self.sized(lane, records[start : start + size], len(batches)):
                    keys, versions = identities(chunk)
                    batches.append(
                        Batch(
                            id=self.batch_id(len(batches)),
                            run=self.run.id,
                            integration=self.run.integration,
                            stream=self.run.stream,
                            kind=self.kind,
                            lane=lane,
                            keys=keys,
                            versions=versions,
                            outcomes=LETTERS[Outcome.PENDING] * len(chunk),
                            committed_at=self.home.clock.now(),
                            blob=blob,
                            offset=offset,
                            length=len(data),
                        )
                    )
                    parts.append(data)
                    offset += len(data)
        return batches, parts

    def sized(self, lane: int, records: list[Record], number: int) -> Iterator[tuple[list[Record], bytes]]:
        """The records in messages that are small enough; one that is too large alone is set aside."""
        data = Envelope(
            self.run.integration, self.run.stream, self.run.id, self.batch_id(number), lane, records
        ).to_bytes()
        if len(data) <= MESSAGE_BYTES:
            yield records, data
        elif len(records) == 1:
            self.invalid.append((records[0], RecordError(f"it has {len(data)} bytes", number=TOO_LARGE)))
        else:
            half = len(records) // 2
            for part in (records[:half], records[half:]):
                for chunk, data in self.sized(lane, part, number):
                    yield chunk, data
                    number += 1

    def batch_id(self, number: int) -> str:
        return f"{self.run.id}.{self.run.groups}.{number}"

    def ended_here(self, number: int) -> tuple[list[Batch], list[Failure], list[Cell]]:
        """The batch of what ended while being read: filtered, invalid, or invalid as it already was (a duplicate)."""
        if not self.ended and not self.invalid:
            return [], [], []
        run, now = self.run, self.home.clock.now()
        known = self.home.ledger.cells(run.integration, run.stream, [record.key for record, _ in self.invalid])
        batch_id = self.batch_id(number)
        ended = list(self.ended)
        failures: list[Failure] = []
        cells: dict[str, Cell] = {}
        for record, error in self.invalid:
            cell = cells.get(record.key) or known.get(record.key)
            if self.kind == "fetch" and cell is not None and cell.failed == record.version:
                ended.append((record.key, record.version, Outcome.DUPLICATE))
                continue
            failures.append(self.failure(record, error, batch_id, len(ended), now))
            ended.append((record.key, record.version, Outcome.INVALID))
            cells[record.key] = failed(record, cell, run.id, now)
        batch = Batch(
            id=batch_id,
            run=run.id,
            integration=run.integration,
            stream=run.stream,
            kind=self.kind,
            lane=None,
            keys=[key for key, _, _ in ended],
            versions=[version for _, version, _ in ended],
            outcomes="".join(LETTERS[outcome] for _, _, outcome in ended),
            committed_at=now,
            state="settled",
            rules=self.rules,
            published_at=now,
        )
        return [batch], failures, list(cells.values())

    def failure(self, record: Record, error: RecordError, batch: str, place: int, now: datetime) -> Failure:
        run = self.run
        return Failure(
            id=failure_id(run.integration, run.stream, record.key, record.version),
            integration=run.integration,
            stream=run.stream,
            key=record.key,
            version=record.version,
            operation=record.operation,
            origin=record.origin,
            position=record.position,
            data=record.data,
            outcome=Outcome.INVALID,
            number=error.number,
            reason=error.reason,
            field=error.field,
            run=run.id,
            batch=batch,
            place=place,
            first_at=now,
            last_at=now,
            location=self.location,
        )


def fetch(
    stream: Stream,
    source: Callable[[], Source],
    home: Home,
    order: Order,
    notice: Notice,
    time_is_up: Callable[[], bool] = lambda: False,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Run]:
    """Carries out an order under the stream's lease and gives the runs it worked on, resumed ones first.

    Raises Leased while another run holds the stream, and Fenced if another took over in the middle.
    """
    lease = home.leases.take(lease_name(stream.integration, stream.name))
    try:
        return Fetcher(stream, source, home, lease, notice, time_is_up, stopping).carry_out(order)
    finally:
        home.leases.release(lease)


def go_on(
    continuation: Continuation,
    stream: Stream,
    source: Callable[[], Source],
    home: Home,
    notice: Notice,
    time_is_up: Callable[[], bool],
    stopping: Callable[[], bool] = lambda: False,
) -> Run | None:
    """Reads on where the run was handed over; drops a continuation that the checkpoint does not expect.

    Raises Leased while another run holds the stream.
    """
    lease = home.leases.take(lease_name(stream.integration, stream.name))
    try:
        run = home.runs.get(continuation.run)
        if (
            run is None
            or not run.resumable
            or (run.state, run.slice, run.epoch) != ("yielded", continuation.slice, continuation.epoch)
        ):
            notice("continuation_dropped", run=continuation.run, slice=continuation.slice)
            return None
        return Fetcher(stream, source, home, lease, notice, time_is_up, stopping).read(run)
    finally:
        home.leases.release(lease)


def as_message(batch: Batch, data: bytes) -> Message:
    """The message of a batch. Its ordering key keeps a lane's batches in order, and apart from other streams' lanes."""
    return Message(data, ordering_key=f"{batch.stream}-{batch.lane}", attributes={"run": batch.run, "batch": batch.id})


def publish_again(home: Home, batches: Sequence[Batch]) -> None:
    """Publishes committed batches from the archive, and marks them. A repeat is harmless: the batch knows its state."""
    messages = [as_message(b, home.blobs.read(b.blob, b.offset, b.length)) for b in batches]
    if messages:
        home.bus.publish(topic_of(batches[0].integration), messages)
        home.batches.published([batch.id for batch in batches], home.clock.now())


def new_run_id(stream: str, now: datetime) -> str:
    """A readable id that nobody else makes."""
    return f"{stream}-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def unforeseen(error: Exception) -> RecordError:
    """A rule that fell over its input. The text of the exception may quote the record, so only its kind is kept."""
    return RecordError(f"a rule failed with {type(error).__name__}", number=UNMAPPABLE)


def decode_continuation(data: bytes) -> Continuation:
    """Raises MalformedEnvelope."""
    from shared.errors import MalformedEnvelope

    try:
        return msgspec.json.decode(data, type=Continuation)
    except msgspec.DecodeError as error:
        raise MalformedEnvelope(f"the message is no continuation: {error}") from error
