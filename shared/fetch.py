"""Story 1, fetch: from a window of the source to committed and published batches.

Order of effects, and what a crash between two of them does:

1. Take the lease. A crash frees it (embedded) or lets it expire; the next taker resumes the run.
2. Open the run, or resume the one that crashed, from its checkpoint.
3. Read and judge pages until a group of batches is full. A crash forgets them; they are read again.
4. Write the group to the archive, under a name that carries the lease's token. A crash leaves a file nobody names.
5. Commit batches, checkpoint, failures and cells in one fenced write. From here on the records exist. Failures for
   which it has no room are committed before it, under the old checkpoint: after a crash in between, their rows are read
   again and are duplicates. Where the integration is monitored the rows of its failures, and the row that says that a
   replay begins, are part of this write (embedded), or are published and awaited before it (Google Cloud): a crash in
   between, or a later run that took over, brings them twice, never not at all.
6. Publish, then mark as published. A crash before the mark publishes a batch twice, which its batch document absorbs;
   a crash before the publishing leaves it to the resumed run or the sweeper.
7. When the window is done, advance the cursor and finish in one fenced write.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shared.books import Batch, Failure, FailureQuery, Run, StreamState, Window
from shared.ends import Page, Source
from shared.errors import AuthError, GuardTripped, ProtocolError, TransientError, WaybillError
from shared.group import Group, as_message
from shared.launching import ask_for_the_whole, begin, refuse_a_part
from shared.outcome import Outcome
from shared.ports import Home, Lease, Message, Notice, continuation_topic, lease_name, topic_of
from shared.rules import Filter
from shared.stream import Stream

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
    at: datetime | None = None
    """For when such a trigger was scheduled."""
    summoned: bool = False
    """Finishes what crashed and begins the launches that wait, and asks for nothing itself."""
    window: Window | None = None
    """Exactly what to read."""
    delivers: bool = False
    """Whoever asks waits until all is delivered, and says then how it went (`note_result`)."""


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
        self.delivers = False
        self.renewed = home.clock.monotonic()
        self.lanes = self.lanes_in_use()
        self.look_at_what_came_before()
        self.nameless: dict[str, list[Failure]] = {}
        """Open failures of objects without a usable identity, by their id at the source."""
        query = FailureQuery(stream.integration, stream.name, outcome=Outcome.INVALID)
        self.remember_nameless(home.failures.find(query))

    def lanes_in_use(self) -> int:
        """As configured, but for as long as records wait in another number of lanes: a newer version of a key would be
        put into another lane than the older one, and overtake it."""
        waiting = next(self.home.batches.unsettled(self.stream.integration, self.stream.name), None)
        run = None if waiting is None else self.home.runs.get(waiting.run)
        return (run.lanes if run is not None else 0) or self.stream.lanes

    def look_at_what_came_before(self) -> None:
        """What the stream had come to before the run that is read next: its own cursor moves at its end."""
        self.state = self.home.runs.state(self.stream.integration, self.stream.name)
        self._on_their_way: set[str] | None = None

    def dated_filters(self, run: Run) -> Sequence[Filter]:
        """The rules about age, as of where the stream had come to when this run began."""
        made = self.stream.rules.dated_filters
        return () if made is None or run.window is None else made(come_to(self.state, run.window, self.stream))

    def taken_up(self, keys: Sequence[str]) -> set[str]:
        """The keys that travelled before, or are on their way: a rule about age has no say in what becomes of them."""
        if not self.state.last_run:
            return set()
        name = self.stream.integration, self.stream.name
        if self._on_their_way is None:
            self._on_their_way = {key for batch in self.home.batches.unsettled(*name) for key in batch.keys}
        return self._on_their_way.intersection(keys) | self.home.ledger.cells(*name, list(dict.fromkeys(keys))).keys()

    def remember_nameless(self, failures: Iterable[Failure]) -> None:
        if self.stream.rules.launched == "sent":
            # A line of a file is read once, and no later one is the same object.
            return
        for failure in failures:
            if failure.key == f"{self.stream.source_system}:{failure.origin}":
                self.nameless.setdefault(failure.origin, []).append(failure)

    def carry_out(self, order: Order) -> list[Run]:
        """Finishes what crashed, then reads the new window. Gives every run that it worked on, the last one last."""
        home, stream = self.home, self.stream
        self.delivers = order.delivers
        runs: list[Run] = []
        for run in home.runs.unfinished(stream.integration, stream.name):
            self.publish_what_was_committed(run)
            if run.kind == "replay" and run.resumable:
                self.give_up(run)
            elif run.resumable:
                runs.append(self.read(run))
                # A launch that cannot be read keeps no other one waiting.
                if run.state != "running" and not (stream.rules.launched and run.abandoned):
                    return runs
        for each in self.orders(order):
            source = self.open_source()
            try:
                try:
                    run = self.open_run(each, source)
                except (AuthError, TransientError, ProtocolError) as error:
                    return [*runs, self.record_refusal(each, error)]
                runs.append(self.read(run, source))
            finally:
                source.close()
            if run.resumable:
                break
        return runs

    def orders(self, order: Order) -> Iterator[Order]:
        """What an order comes to: one run, none if it was carried out before, or one for each launch that waits."""
        stream, home = self.stream, self.home
        if not stream.rules.launched:
            if not order.summoned and (not order.run_id or home.runs.get(order.run_id) is None):
                yield order
            return
        refuse_a_part(stream, order.since, order.limit)
        if stream.rules.launched == "whole" and not order.summoned:
            ask_for_the_whole(stream, home, order.at)
        for launch in begin(stream, home):
            window = launch.window if stream.rules.launched == "sent" else None
            yield Order(full=True, run_id=launch.run, window=window, delivers=order.delivers)

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
        whole = order.limit is None and since <= start and not stream.rules.launched
        run = Run(
            id=order.run_id or new_run_id(stream.name, home.clock.now()),
            integration=stream.integration,
            stream=stream.name,
            kind="fetch",
            state="running",
            started_at=home.clock.now(),
            window=order.window or Window(since, max(since, horizon + TICK)),
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

    def give_up(self, run: Run) -> None:
        """A replay that crashed: what it committed is delivered, and the failures it did not come to are still open."""
        run.abandoned, run.state = True, "failed"
        run.error, run.error_class = "it crashed before it had taken up every failure", "TransientError"
        run.cure = "replay again: only what is still open goes"
        self.home.runs.commit(self.lease, run)

    def publish_what_was_committed(self, run: Run) -> None:
        batches = [b for b in self.home.batches.of_run(run.id) if b.state != "settled" and b.published_at is None]
        for start in range(0, len(batches), 100):
            publish_again(self.home, batches[start : start + 100])

    def read(self, run: Run, source: Source | None = None) -> Run:
        """Reads the run's window from its checkpoint to the end, and says in `run.state` how it ended."""
        own = source is None
        source = source or self.open_source()
        run.state, run.error, run.error_class, run.cure = "running", "", "", ""
        self.look_at_what_came_before()
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
        before = marked = run.after
        pages, until_next_mark = 0, 1
        for page in source.pages(run.window, run.after):
            if page.rows and page.after in (before, marked):
                raise GuardTripped(f"{source.system} gave the page after {page.after!r} twice")
            if not before:
                run.total = page.total
            before = page.after
            pages += 1
            if pages == until_next_mark:
                # Twice as far each time (Brent): a circle of any length is found without remembering every token.
                marked, pages, until_next_mark = page.after, 0, until_next_mark * 2
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
        if self.stream.rules.dated_filters is not None and run.window is not None:
            state.aged_from = come_to(self.state, run.window, self.stream)
        state.last_run = run.id
        if not self.delivers:
            state.consecutive_failures = 0
        self.home.runs.finish(self.lease, run, state)
        self.notice("run_read", run=run.id, fetched=run.fetched)
        return run


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


def come_to(state: StreamState, window: Window, stream: Stream) -> datetime:
    """Where a stream had come to when a run over this window began, by the source's clock: its cursor, or the start of
    the first run, which a hold-back leaves ahead of the cursor that it comes to."""
    start = state.cursor or window.until - TICK + stream.hold_back
    return max(start, state.aged_from or start)


def note_result(stream: Stream, home: Home, run: Run, *, well: bool) -> None:
    """Remembers how the delivery of a run went that was read to its end: so many failures in a row raise an alert.

    Raises Leased where another run holds the stream already, whose result counts then.
    """
    if well and not home.runs.state(stream.integration, stream.name).consecutive_failures:
        return
    lease = home.leases.take(lease_name(stream.integration, stream.name))
    try:
        state = home.runs.state(stream.integration, stream.name)
        state.consecutive_failures = 0 if well else state.consecutive_failures + 1
        # Somebody may have concluded it meanwhile, or replaced the books.
        known = home.runs.get(run.id)
        if known is not None:
            home.runs.finish(lease, known, state)
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


def publish_again(home: Home, batches: Sequence[Batch]) -> None:
    """Publishes committed batches from the archive, and marks them. A repeat is harmless: the batch knows its state."""
    messages = [as_message(b, home.blobs.read(b.blob, b.offset, b.length)) for b in batches]
    if messages:
        home.bus.publish(topic_of(batches[0].integration), messages)
        home.batches.published([batch.id for batch in batches], home.clock.now())


def new_run_id(stream: str, now: datetime) -> str:
    """A readable id that nobody else makes."""
    return f"{stream}-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def decode_continuation(data: bytes) -> Continuation:
    """Raises MalformedEnvelope."""
    from shared.errors import MalformedEnvelope

    try:
        return msgspec.json.decode(data, type=Continuation)
    except msgspec.DecodeError as error:
        raise MalformedEnvelope(f"the message is no continuation: {error}") from error
