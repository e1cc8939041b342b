"""The POVs of a stream, as a snapshot has them: first what each comes to, then the rows of those that are wanted.

Cells have no time of their own that would put them into a period: a cell stands wherever a run that changed it last
left a batch with its key, and wherever its key failed or had its outcome changed. Whatever changes a cell changes one
of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, TypeVar

import msgspec

from infra.snapshots.spool import Spool
from shared.books import Batch, Failure, Run, StreamState
from shared.confirm import Awaited
from shared.launches import AWAITS, EPOCH, Launch, LaunchState
from shared.outcome import FAILED, LETTERS, Outcome
from shared.ports import Blobs
from shared.snapshot.history import Past, Told
from shared.snapshot.on_its_way import OnItsWay
from shared.snapshot.periods import Periods
from shared.snapshot.rows import MICROSECOND, Row, place_of, place_of_batch, process_id, row_of, without_data
from shared.snapshot.summary import Summary

T = TypeVar("T")
BATCHES_AT_ONCE: Final = 20
WATCHED: Final = 500
_FAILED: Final = frozenset(LETTERS[outcome] for outcome in FAILED)
_TOUCHING: Final = _FAILED | {LETTERS[each] for each in (Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.SUPERSEDED)}
"""Outcomes that may come with a change of the cell."""
_encode = msgspec.json.Encoder().encode


class StreamPovs:
    """Of one stream at one moment."""

    def __init__(
        self,
        past: Past,
        blobs: Blobs,
        spool: Spool,
        periods: Periods,
        name: tuple[str, str],
        *,
        with_data: bool,
        watch: Callable[[], None],
    ) -> None:
        """Surveys the stream. `watch` is called every now and then meanwhile."""
        self.name = name
        self.way = OnItsWay(past, blobs, *name)
        self.summaries: dict[str, Summary] = {}
        """By period."""
        self.waiting: list[Launch] = []
        """Launches that a snapshot does not carry."""
        self._past = past
        self._spool = spool
        self._periods = periods
        self._with_data = with_data
        self._watch = watch
        self._runs_in: dict[str, set[str]] = {}
        self._survey()

    def state(self, hold_back: timedelta, *, launched: bool = False) -> StreamState:
        """What is remembered of the stream, as far as the snapshot goes. One that is launched reads no window again."""
        state = self._past.state(*self.name)
        return state if launched else self.way.state(state, self._past.told(Run, *self.name), hold_back)

    def under_way(self) -> list[Run]:
        """The runs of which something is missing."""
        return [run for run in self._past.told(Run, *self.name) if self.way.is_under_way(run)]

    def _survey(self) -> None:
        for run in self._watched(self._past.told(Run, *self.name)):
            at = process_id(run.started_at)
            self._spool.note_run(run.id, at)
            self._note("run", at, run.id, at, self.way.run(run))
        for failure in self._watched(self.way.failures(self._past.told(Failure, *self.name))):
            changed = process_id(max(failure.last_at, failure.closed_at or failure.last_at))
            bare = without_data(failure)
            kept = failure if self._with_data else bare
            self._note("failure", process_id(failure.first_at), failure.run, changed, kept, bare)
        for each in self._watched(self._past.heads(*self.name)):
            head = self.way.head(each)
            if head is not None:
                period = self._periods.of(head.touched_at or head.committed_at)
                self._runs_in.setdefault(period, set()).add(head.run)
                process = self._spool.process_of(head.run)
                at, place = process_id(head.committed_at), place_of_batch(head.id, process)
                self._spool.put(period, "batch", at, head.id, process, place=place)
                self._sum(period).add(process, head)
        for awaited in self._past.told(Awaited, *self.name):
            changed = process_id(max(awaited.sent_at, awaited.ended_at or awaited.sent_at))
            self._note("request", process_id(awaited.sent_at), "", changed, awaited)
        for launch in self._past.told(Launch, *self.name):
            # A run whose launch still waits has begun: only the mark came too late.
            if launch.state in AWAITS and not self._spool.process_of(launch.run):
                self.waiting.append(launch)
                continue
            at, bare_launch = process_id(launch.scheduled_at), _without_file(launch)
            self._note("launch", at, launch.run, at, bare_launch)

    def _watched(self, things: Iterable[T]) -> Iterator[T]:
        for number, thing in enumerate(things):
            if number % WATCHED == 0:
                self._watch()
            yield thing

    def _note(self, kind: str, at: int, run: str, changed: int, thing: Told, about: Told | None = None) -> None:
        """A thing of a time, that a run left and that was changed last when another one began; `about` is what tells it
        from what it was, where that is not all of it."""
        period, process = self._periods.of(_instant(at)), self._spool.process_of(run) or at
        place, document = place_of(thing, process), _encode(thing).decode()
        self._spool.put(period, kind, at, str(thing.id), process, document, place=place)
        self._sum(period).add(changed, [kind, thing if about is None else about])

    def _sum(self, period: str) -> Summary:
        return self.summaries.setdefault(period, Summary())

    def rows(self, period: str) -> Iterator[Row]:
        """All rows of one period, each thing once."""
        self._spool.forget_keys()
        yield from self._spooled(period, "run")
        ids = (id for id, _, _, _ in self._spool.each(period, "batch"))
        while part := list(islice(ids, BATCHES_AT_ONCE)):
            for stored in self._past.batches(part):
                batch = self.way.batch(stored)
                process = self._spool.process_of(batch.run)
                yield row_of("batch", batch.id, process, batch.touched_at or batch.committed_at, batch)
                yield from self._cells(batch, period)
        for kind in ("failure", "request", "launch"):
            yield from self._spooled(period, kind)

    def _spooled(self, period: str, kind: str) -> Iterator[Row]:
        for id, process, at, document in self._spool.each(period, kind):
            yield Row(kind, id, process, _instant(at).isoformat(), document)

    def _cells(self, batch: Batch, period: str) -> Iterator[Row]:
        """The cells of a batch's keys that belong here and were not given before."""
        present = batch.present
        wanted: dict[str, bool] = {}
        for place, key in enumerate(batch.keys):
            certain = present[place] in _FAILED or str(place) in batch.amended
            if certain or batch.outcomes[place] in _TOUCHING:
                wanted[key] = certain or wanted.get(key, False)
        known = self._spool.seen(list(wanted))
        looked_for = [key for key, certain in wanted.items() if key not in known or (certain and not known[key])]
        cells = self._past.cells(*self.name, looked_for)
        runs = self._runs_in[period]
        noted: list[tuple[str, bool]] = []
        for key in looked_for:
            cell = self.way.cell(key, cells.get(key))
            taken = cell is not None and (wanted[key] or cell.run in runs)
            noted.append((key, taken))
            if cell is not None and taken:
                yield row_of("cell", key, self._spool.process_of(cell.run), cell.at, cell)
        self._spool.note_keys(noted)


def _without_file(launch: Launch) -> Launch:
    state: LaunchState = "begun" if launch.state in AWAITS else launch.state
    return msgspec.structs.replace(launch, file="", state=state)


def _instant(process: int) -> datetime:
    return EPOCH + process * MICROSECOND
