"""Two streams that bring each other's changes across: no echo, and no change overwritten before it is in the books.

The two share their keys. What the target shows of an object is, in the words of the opposite stream, one of its own
records; so its fingerprint, made by the opposite's mapping, says whether somebody has changed the object there:

- content that the target shows already is not sent. That ends a change's journey: what arrived from the other side is
  found to be there when it is about to go back.
- otherwise the target's object may be overwritten if the hub knows what it shows: the opposite stream has carried it
  away, or has it in its books as a change that gave way or failed, or a rule of its keeps it from travelling, or this
  stream left it so.
- otherwise somebody changed it there since, and the record gives way: it is superseded, and the opposite stream, which
  finds that in the ledger, carries the target's change across.
- a record that was read before the opposite stream wrote its object is superseded too: sent, it would undo that.

So of two changes within one interval the one that is read second stays. Neither side is asked which came first, since
a polled source has no times; and whichever stream runs first, both end with the same content. As long as the opposite
stream never ran, nobody brings changes back, and this one's word counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from shared.books import Batch, Failure, FailureQuery
from shared.ledger import Cell
from shared.outcome import Found, Outcome
from shared.ports import Home
from shared.record import Record, content_hash

if TYPE_CHECKING:
    from shared.deliver import Health
    from shared.stream import Stream

_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)


class Beside:
    """What one delivery knows of the opposite stream of its own."""

    def __init__(self, stream: Stream, home: Home, health: Health) -> None:
        self.stream = stream
        self.home = home
        self.health = health
        self.opposite: Stream | None = None
        self.across: dict[str, Cell] = {}
        """The opposite stream's cells."""
        self._began: dict[str, datetime | None] = {}

    def look(self, batch: Batch, records: Sequence[Record]) -> None:
        """Reads what the opposite stream knows of these records, if it ever ran."""
        opposite = self.stream.opposite
        if opposite is None or not self._ever_ran(opposite, batch.run):
            return
        self.opposite = opposite
        keys = list(dict.fromkeys(record.key for record in records if record.operation == "upsert"))
        self.across = self.home.ledger.cells(opposite.integration, opposite.name, keys)

    def _ever_ran(self, opposite: Stream, run: str) -> bool:
        """Asked once per run as long as it did not."""
        if not self.health.opposite_ran and self.health.opposite_missed_in != run:
            self.health.opposite_ran = bool(self.home.runs.recent(opposite.integration, opposite.name, 1))
            self.health.opposite_missed_in = run
        return self.health.opposite_ran

    def concerns(self, record: Record) -> bool:
        return self.opposite is not None and record.operation == "upsert"

    def judge(
        self, record: Record, fingerprint: str, cell: Cell | None, outcome: Outcome | None, read_at: datetime
    ) -> Outcome | None:
        """The outcome of a record that the ledger alone judged so."""
        across = self.across.get(record.key)
        if is_stale(record, fingerprint, across, None if self.stream.rules.polled else record.version, read_at):
            return Outcome.SUPERSEDED
        return outcome if cell is None or mirrored(cell, across) else None

    def read_at(self, batch: Batch, failure: Failure | None) -> datetime:
        """When the run began that read a record: of a replayed one, the run that it failed in."""
        name = batch.run if failure is None else failure.run
        if name not in self._began:
            run = self.home.runs.get(name)
            self._began[name] = None if run is None else run.started_at
        return self._began[name] or (failure.first_at if failure is not None else batch.committed_at)

    def shown_by(self, found: Found) -> str:
        """The fingerprint of what the target shows."""
        assert self.opposite is not None
        return fingerprint_of(found.current, self.opposite)

    def may_overwrite(self, found: Found, shown: str, cell: Cell | None, key: str) -> bool:
        """Whether the target's object is no change that is still to be read."""
        assert self.opposite is not None
        across = self.across.get(key)
        if may_overwrite(shown, cell, across) or is_left_out(found.current, self.opposite):
            return True
        if across is None or not across.failed:
            return False
        query = FailureQuery(self.opposite.integration, self.opposite.name, key=key)
        return any(
            failure.data == found.current or (shown and fingerprint_of(failure.data, self.opposite) == shown)
            for failure in self.home.failures.find(query)
        )


def fingerprint_of(current: dict[str, Any], opposite: Stream) -> str:
    """What the opposite stream would record of the target's object; empty if it cannot carry it."""
    try:
        return content_hash(opposite.rules.to_target(current))
    except Exception:
        return ""


def is_left_out(current: dict[str, Any], opposite: Stream) -> bool:
    """Whether a rule of the opposite stream keeps the target's object from travelling."""
    try:
        return any(holds(current) for _, holds in opposite.rules.filters)
    except Exception:
        return False


def may_overwrite(shown: str, cell: Cell | None, across: Cell | None) -> bool:
    """Whether the hub knows the state that the target shows, by this stream's cell and by the opposite's."""
    known = {cell.shown} if cell is not None else set()
    if across is not None:
        known |= {across.hash, across.gave_way}
    if shown and shown in known:
        return True
    # This stream wrote it last, and nobody saw how it looked then.
    return cell is not None and bool(cell.version) and not cell.shown and applied_at(cell) > applied_at(across)


def mirrored(cell: Cell, across: Cell | None) -> bool:
    """Whether both streams speak of one state, so that what this one applied last is still what the target holds."""
    if across is None or not across.version:
        return True
    return bool(cell.shown and cell.shown == across.hash) or bool(cell.hash and cell.hash == across.shown)


def is_stale(record: Record, fingerprint: str, across: Cell | None, version: str | None, read_at: datetime) -> bool:
    """Whether the opposite stream has written the source's object since this record was read, and left it other.

    A version tells exactly. A polled source has none: there the beginning of the run that read it counts, and what was
    read after the writing, in the same run, is read again by the next one.
    """
    if across is None or not across.version or across.shown == fingerprint:
        return False
    if version is not None:
        return version < across.shown_version
    return applied_at(across) > read_at


def applied_at(cell: Cell | None) -> datetime:
    """When this cell's stream last found or left something at its target."""
    return cell.at if cell is not None and cell.version and cell.at is not None else _NEVER
