"""What of a stream is not settled when a snapshot is taken, and what the snapshot says of it.

Records that wait are left out, with the runs that read them called over; the stream's cursor goes back to before the
oldest of these runs, so that whoever imports the snapshot reads them again. Records that an attempt may have sent are
failures of unknown fate: nobody sends them a second time without a human.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.books import Batch, Failure, Run, StreamState, failed_again
from shared.errors import IN_DOUBT, MalformedEnvelope
from shared.fetch import TICK
from shared.ledger import Cell
from shared.outcome import DOUBTFUL, LETTERS, Outcome, Verdict
from shared.ports import Blobs
from shared.record import Envelope, Record
from shared.snapshot.history import Head, Past

PENDING: Final = LETTERS[Outcome.PENDING]
UNKNOWN: Final = LETTERS[Outcome.UNKNOWN]
INTERRUPTED: Final = "a snapshot was taken while it was under way, and what was pending is not in it"
AGAIN: Final = "nothing: the next run reads it; a launch has to be asked for again"
_REASON: Final = "it was on its way when a snapshot was taken, and may have arrived"


class OnItsWay:
    """Of one stream at one moment. `failures` has to be gone through before batches and cells are asked for."""

    def __init__(self, past: Past, blobs: Blobs, integration: str, stream: str) -> None:
        self._at = past.at
        self._where = integration, stream
        self.left_out: dict[str, int] = {}
        """How many records of each run wait."""
        self._kept: dict[str, list[int]] = {}
        """The places that stay of a batch which leaves some out."""
        self._doubts: dict[str, Failure] = {}
        self._marks: dict[str, Failure] = {}
        self._letters: dict[str, dict[int, str]] = {}
        """The outcomes of records in doubt, in the batches where their own places are."""
        for batch in past.unsettled(integration, stream):
            self._look_at(batch, blobs)

    def _look_at(self, batch: Batch, blobs: Blobs) -> None:
        doubtful = {DOUBTFUL, PENDING} if batch.state == "sending" else {DOUBTFUL}
        kept = [place for place, letter in enumerate(batch.outcomes) if letter != PENDING or letter in doubtful]
        waiting = len(batch.keys) - len(kept)
        if waiting:
            self.left_out[batch.run] = self.left_out.get(batch.run, 0) + waiting
        self._kept[batch.id] = kept
        unsure = [place for place in kept if batch.outcomes[place] in doubtful]
        records, location = _archived(batch, blobs) if unsure else ({}, "")
        for place in unsure:
            record = records.get(place) or Record(batch.keys[place], batch.versions[place], "upsert", "", "", {})
            verdict = Verdict(Outcome.UNKNOWN, IN_DOUBT, _REASON)
            failure = Failure.of(record, verdict, batch, place, self._at, location)
            self._doubts[failure.id] = failure
            self._letters.setdefault(batch.id, {})[place] = UNKNOWN
            marked = self._marks.get(record.key)
            if marked is None or marked.version < record.version:
                self._marks[record.key] = failure

    def failures(self, failures: Iterable[Failure]) -> Iterator[Failure]:
        """These failures, all that are known, and those of the records in doubt."""
        doubts = dict(self._doubts)
        for failure in failures:
            doubt = doubts.pop(failure.id, None)
            if doubt is not None:
                if failure.closed_at is None:
                    self._letters.setdefault(failure.batch, {})[failure.place] = UNKNOWN
                failure = failed_again(failure, doubt)
            yield self._in_its_place(failure)
        yield from map(self._in_its_place, doubts.values())

    def _in_its_place(self, failure: Failure) -> Failure:
        kept = self._kept.get(failure.batch)
        if kept is None or failure.place not in kept:
            return failure
        return msgspec.structs.replace(failure, place=kept.index(failure.place))

    def head(self, head: Head) -> Head | None:
        """None for a batch of which nothing stays."""
        kept = self._kept.get(head.id)
        if kept == []:
            return None
        outcomes, amended = self._outcomes(head, kept)
        return msgspec.structs.replace(head, state="settled", outcomes=outcomes, amended=amended)

    def batch(self, batch: Batch) -> Batch:
        """Of which something stays."""
        kept = self._kept.get(batch.id)
        outcomes, amended = self._outcomes(Head.of(batch), kept)
        return msgspec.structs.replace(
            batch,
            state="settled",
            attempt="",
            attempts=0,
            outcomes=outcomes,
            amended=amended,
            keys=batch.keys if kept is None else [batch.keys[place] for place in kept],
            versions=batch.versions if kept is None else [batch.versions[place] for place in kept],
        )

    def _outcomes(self, head: Head, kept: list[int] | None) -> tuple[str, dict[str, str]]:
        letters = self._letters.get(head.id, {})
        if kept is None:
            return head.outcomes, head.amended | {str(place): letter for place, letter in letters.items()}
        outcomes, amended = "", {}
        for new, old in enumerate(kept):
            letter = head.outcomes[old]
            if letter in (PENDING, DOUBTFUL):
                outcomes += letters[old]
                continue
            outcomes += letter
            changed = letters.get(old) or head.amended.get(str(old))
            if changed is not None:
                amended[str(new)] = changed
        return outcomes, amended

    def cell(self, key: str, cell: Cell | None) -> Cell | None:
        """What is known of a key, with the mark of what is in doubt."""
        doubt = self._marks.get(key)
        if doubt is None:
            return cell
        if cell is None:
            return Cell(key, failed=doubt.version, run=doubt.run, at=self._at)
        return msgspec.structs.replace(cell, failed=max(cell.failed, doubt.version))

    def is_under_way(self, run: Run) -> bool:
        """Whether something of it is missing from the snapshot."""
        return not run.over and (run.resumable or run.id in self.left_out)

    def run(self, run: Run) -> Run:
        """The run as far as the snapshot holds it, at its end."""
        if run.over:
            return run
        ended = msgspec.structs.replace(run, finished_at=run.touched_at or run.started_at)
        if not self.is_under_way(run):
            ended.state = "settled" if run.fetch_done else "failed"
            return ended
        ended.fetched -= self.left_out.get(run.id, 0)
        ended.abandoned, ended.state = True, "failed"
        if not ended.error:
            ended.error, ended.error_class, ended.cure = (
                INTERRUPTED,
                "TransientError",
                "nothing: the next run reads it again; a launch has to be asked for again",
            )
        return ended

    def state(self, state: StreamState, runs: Iterable[Run], hold_back: timedelta) -> StreamState:
        """What the stream remembers, as it did before the oldest of `runs` (all that there were, oldest first) of which
        something is missing: the cursor, and from where ages are counted."""
        cursor: datetime | None = None
        aged_from: datetime | None = None
        since: datetime | None = None
        counted: datetime | None = None
        for run in runs:
            if run.kind != "fetch" or run.window is None:
                continue
            start = cursor or run.window.until - TICK + hold_back
            come_to = max(start, aged_from or start)
            if self.is_under_way(run):
                counted = counted or come_to
                since = min(since or run.window.since, run.window.since)
            if run.fetch_done and not run.abandoned:
                aged_from = come_to
                if run.cursor_after is not None:
                    cursor = max(run.cursor_after, cursor or run.cursor_after)
        if since is None:
            return state
        return msgspec.structs.replace(
            state,
            cursor=min(state.cursor or since, since),
            aged_from=min(filter(None, (state.aged_from, counted))),
        )


def _archived(batch: Batch, blobs: Blobs) -> tuple[dict[int, Record], str]:
    """The records of a batch by their places, and where they were read; nothing where they are not archived."""
    try:
        envelope = Envelope.from_bytes(blobs.read(batch.blob, batch.offset, batch.length))
    except (FileNotFoundError, MalformedEnvelope):
        return {}, ""
    return {
        place: record
        for place, record in enumerate(envelope.records)
        if place < len(batch.keys) and record.key == batch.keys[place]
    }, envelope.location
