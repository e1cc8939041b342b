"""What a run would do: reads, judges and compares as a run does, and writes nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.accounting import Counts
from shared.books import Window
from shared.ends import Change, Row, Sink, Source
from shared.errors import RecordError, TransientError
from shared.fetch import CLOCK_TOLERANCE, TICK, come_to
from shared.ledger import judge_appended, judge_content, judge_once, judge_version, undone_since
from shared.outcome import CannotAsk, Found, Outcome, Probe
from shared.ports import Home
from shared.record import Record, content_hash
from shared.rules import Filter
from shared.stream import Stream

MOST_SAMPLES = 5


class Sample(msgspec.Struct, frozen=True):
    """A record that would be sent: what is at the target (None: nothing), and what would be there, field by field."""

    key: str
    action: str
    fields: dict[str, tuple[Any, Any]]


class StreamPlan(msgspec.Struct):
    """Counts per outcome as they would be; `delivered` stands for what would be sent."""

    counts: Counts
    creates: int = 0
    updates: int = 0
    pages: int = 0
    asks: bool = False
    """Whether the target can be asked for a record, and so is before it creates one."""
    samples: list[Sample] = []


def plan_stream(stream: Stream, home: Home, source: Source, sink: Sink) -> StreamPlan:
    """Reads the window that a run would read now. Raises what the source raises."""
    state = home.runs.state(stream.integration, stream.name)
    since = stream.since if state.cursor is None else max(stream.since, state.cursor - stream.overlap)
    until = (min(source.now(), home.clock.now() + CLOCK_TOLERANCE) - stream.hold_back).replace(microsecond=0) + TICK
    plan = StreamPlan(Counts(), samples=[])
    if until <= since:
        return plan
    made = stream.rules.dated_filters
    window = Window(since, until)
    dated = () if made is None else made(come_to(state, window, stream))
    for page in source.pages(window, ""):
        plan.pages += 1
        judge_page(page.rows, stream, home, sink, plan, dated)
    return plan


def judge_page(rows: Any, stream: Stream, home: Home, sink: Sink, plan: StreamPlan, dated: Sequence[Filter]) -> None:
    records: list[Record] = []
    for row in rows:
        plan.counts.fetched += 1
        verdict = judge_row(row, stream)
        if isinstance(verdict, Outcome):
            _count(plan, verdict)
        else:
            records.append(verdict)
    keys = list({record.key for record in records})
    cells = home.ledger.cells(stream.integration, stream.name, keys)
    theirs = [home.ledger.cells(stream.integration, other, keys) for other in stream.others]
    for record in records:
        # A launch that gives everything gives it anew, whatever was delivered before.
        cell = cells.get(record.key) if stream.rules.launched != "whole" else None
        outcome = judge_version(record, cell, stream.on_conflict, replaying=False)
        if cell is None and left_out(record, dated):
            outcome = Outcome.FILTERED
        elif outcome is None and stream.rules.once is not None and cell is not None:
            outcome = judge_once(record, cell, "", stream.rules.once)
        elif outcome is None and stream.rules.appends and cell is not None:
            outcome = judge_appended(record, cell, "")
        content: dict[str, Any] = {}
        if outcome is None:
            try:
                content = stream.rules.to_target(record.data)
            except Exception:
                outcome = Outcome.INVALID
        if outcome is None and not any(undone_since(record, cell, others.get(record.key)) for others in theirs):
            outcome = judge_content(record, content_hash(content), cell, "")
        if outcome is not None:
            _count(plan, outcome)
            continue
        _count(plan, Outcome.DELIVERED)
        target_id = cell.target_id if cell is not None else ""
        if target_id:
            plan.updates += 1
        else:
            plan.creates += 1
        if len(plan.samples) < MOST_SAMPLES:
            change = Change(record.key, record.operation, content, target_id)
            found = look(change, sink)
            plan.asks = plan.asks or not isinstance(found, CannotAsk)
            plan.samples.append(compare(change, found))


def left_out(record: Record, filters: Sequence[Filter]) -> bool:
    """Whether one of these rules keeps a record back; one that falls over its input does too, as invalid."""
    try:
        return any(holds(record.data) for _, holds in filters)
    except Exception:
        return True


def judge_row(row: Row, stream: Stream) -> Outcome | Record:
    """The outcome that a row would have while being read, or its record."""
    try:
        if row.problem is not None:
            raise RecordError(row.problem[1], number=row.problem[0])
        if any(holds(row.data) for _, holds in stream.rules.filters):
            return Outcome.FILTERED
        key = stream.rules.identify(row.data)
    except Exception:
        return Outcome.INVALID
    operation = stream.rules.operation_of(row)
    return Record(key, row.version, operation, row.origin, row.position, row.data) if key else Outcome.INVALID


def look(change: Change, sink: Sink) -> Probe | None:
    """What the target has of a change, None if it does not answer."""
    try:
        return next(iter(sink.find([change])), None)
    except TransientError:
        return None


def compare(change: Change, found: Probe | None) -> Sample:
    """What would change at the target, as far as it can be asked."""
    if isinstance(found, Found):
        fields = {
            name: (found.current.get(name), value)
            for name, value in change.content.items()
            if name in found.current and found.current[name] != value
        }
        return Sample(change.key, "update", fields)
    return Sample(change.key, "create", {name: (None, value) for name, value in change.content.items()})


def _count(plan: StreamPlan, outcome: Outcome) -> None:
    setattr(plan.counts, outcome.value, getattr(plan.counts, outcome.value) + 1)
