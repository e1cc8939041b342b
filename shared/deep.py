"""The deep audit: what the ledger says against what the two ends hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from shared.books import Window
from shared.ends import Change, Row, Sink, Source
from shared.errors import TransientError
from shared.forget import TOMBSTONE
from shared.ledger import Cell
from shared.outcome import Absent, CannotAsk, Passing, Probe
from shared.plan import judge_row, left_out
from shared.ports import Home
from shared.record import Record
from shared.stream import Stream


def compare_with_source(stream: Stream, home: Home, source: Source) -> Iterator[dict[str, str]]:
    """Keys at the source that the hub never delivered nor recorded a failure of, and delivered keys gone from the
    source.

    Reads everything from the stream's first date to its cursor. Raises what the source raises.
    """
    state = home.runs.state(stream.integration, stream.name)
    cursor = state.cursor
    if cursor is None:
        return
    there: set[str] = set()
    made = stream.rules.dated_filters
    dated = () if made is None else made(max(cursor, state.aged_from or cursor))
    for page in source.pages(Window(stream.since, cursor), ""):
        there.update(keys_of(page.rows, stream))
        records = [record for row in page.rows if isinstance(record := judge_row(row, stream), Record)]
        records = [record for record in records if not left_out(record, dated)]
        known = home.ledger.cells(stream.integration, stream.name, list({record.key for record in records}))
        for record in records:
            if record.key not in known:
                yield {"key": record.key, "where": "ledger", "reason": "at the source, unknown to the ledger"}
    for page in source.pages(Window(cursor, source.now()), ""):
        there.update(keys_of(page.rows, stream))
    for cell in delivered_cells(stream, home):
        if cell.key not in there:
            yield {"key": cell.key, "where": "source", "reason": "delivered before, and gone from the source"}


def keys_of(rows: Sequence[Row], stream: Stream) -> Iterator[str]:
    """The keys of the rows that have one, whether or not a rule lets them travel."""
    for row in rows:
        with suppress(Exception):
            yield stream.rules.identify(row.data)


def compare_with_target(
    stream: Stream, home: Home, sink: Sink, stopping: Callable[[], bool]
) -> Iterator[dict[str, str]]:
    """Delivered keys that the target does not hold. Keys that it cannot be asked for are passed over, and so are all
    where others write to the target as well, who may have taken them out."""
    if stream.rules.verifies:
        return
    cells = delivered_cells(stream, home)
    while portion := list(islice(cells, max(1, min(sink.bulk, 100)))):
        if stopping():
            raise TransientError("stopped in the middle of the comparison")
        changes = [Change(cell.key, "upsert", {}, cell.target_id) for cell in portion]
        for cell, found in zip(portion, asked(changes, stream, home, sink), strict=False):
            if isinstance(found, Absent):
                yield {"key": cell.key, "where": "target", "reason": "delivered before, and not at the target"}


def delivered_cells(stream: Stream, home: Home) -> Iterator[Cell]:
    """What should be at both ends. Of whom nobody knows any more, nobody can be asked."""
    for cell in home.ledger.scan(stream.integration, stream.name):
        if cell.version and not cell.deleted and not cell.key.startswith(TOMBSTONE):
            yield cell


def asked(changes: list[Change], stream: Stream, home: Home, sink: Sink) -> list[Probe]:
    """What the target says of these keys, asked again by the stream's policy where it did not answer.

    Raises TransientError if it does not answer in the end: silence about a key says nothing of it.
    """
    answers: dict[int, Probe] = {}
    tries = 1
    while True:
        left = [place for place in range(len(changes)) if place not in answers]
        try:
            found = list(sink.find([changes[place] for place in left]))
            failed = next((each for each in found if isinstance(each, Passing)), None)
            error = None if failed is None else TransientError(failed.reason, after=failed.after)
        except TransientError as failure:
            found, error = [], failure
        heard = {place: each for place, each in zip(left, found, strict=False) if not isinstance(each, Passing)}
        answers |= heard
        if error is None:
            return [answers.get(place, CannotAsk()) for place in range(len(changes))]
        tries = 1 if heard else tries + 1
        wait = stream.retry.next_wait(tries - 1 or 1, error.after, home.clock.random)
        if wait is None:
            raise error
        home.clock.sleep(wait)
