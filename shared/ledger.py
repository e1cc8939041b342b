"""The rules of the ledger: what the hub knows of each key at the target, and what that says of a new version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from shared.outcome import Outcome
from shared.record import Record

FIRST_WINS = "first"
NEWEST_WINS = "newest"
NOBODY_WINS = "invalid"

ALREADY_THERE = "already_at_target"
"""The rule that keeps a later version of a record back that goes to the target once."""


TAKEN_BACK = "-"
"""Stands for the fingerprint of content that the target refused after it had accepted it: no content has it."""


class Cell(msgspec.Struct, frozen=True):
    """What is known of one key of one stream at the target.

    `version` and `hash` are those last applied, empty while nothing was. `failed` is the newest version with an open
    failure, so that the next schedule does not send it again.

    Where an opposite stream brings the target's changes back: `shown` is the fingerprint, in the opposite stream's
    terms, of the target's object as it read back after the last write, empty if nobody looked, and `shown_version` its
    version there, empty if it has none. `gave_way` is the fingerprint of the content that last gave way to a change
    made at the target (`shared/opposite.py`). `at` is when something was applied last, or what failed if nothing was.
    """

    key: str
    version: str = ""
    hash: str = ""
    target_id: str = ""
    origin: str = ""
    deleted: bool = False
    failed: str = ""
    run: str = ""
    at: datetime | None = None
    shown: str = ""
    gave_way: str = ""
    shown_version: str = ""

    @property
    def refused_later(self) -> bool:
        """Whether the target refused the applied version after it had accepted it: what it holds is not known."""
        return self.hash == TAKEN_BACK


def judge_version(record: Record, cell: Cell | None, on_conflict: str, *, replaying: bool) -> Outcome | None:
    """What the ledger says of a record before its content is known, or None.

    A version whose failure is open waits for a replay and is a duplicate; an older one is superseded, and so is a
    second object of the same identity where the first one keeps it.
    """
    if cell is None:
        return None
    if cell.failed and cell.failed == record.version and not replaying:
        return Outcome.DUPLICATE
    if not cell.version:
        return None
    if on_conflict == FIRST_WINS and cell.origin != record.origin and not cell.deleted:
        return Outcome.SUPERSEDED
    return Outcome.SUPERSEDED if cell.version > record.version else None


def judge_content(record: Record, fingerprint: str, cell: Cell | None, run: str) -> Outcome | None:
    """What the ledger says of a record's content, or None if it has to be sent.

    Content that the target already has is unchanged; the same version read twice in one run is a duplicate. A version
    equal to the applied one with other content is sent: the source changed it twice within one tick of its clock, or
    the mapping changed.
    """
    if cell is None or not cell.version:
        return None
    same = cell.deleted if record.operation == "delete" else cell.hash == fingerprint and not cell.deleted
    if not same:
        return None
    return Outcome.DUPLICATE if cell.version == record.version and cell.run == run else Outcome.UNCHANGED


def undone_since(record: Record, cell: Cell | None, other: Cell | None) -> bool:
    """Whether another stream took out what this one had put in, or the other way round, by what its source had said
    before this record's source said it once more. What was said before that is no news."""
    if cell is None or other is None or not cell.version or not other.version or cell.deleted == other.deleted:
        return False
    if cell.at is None or other.at is None or other.at <= cell.at:
        return False
    return record.version > other.version


def judge_appended(record: Record, cell: Cell, run: str) -> Outcome | None:
    """What becomes of a version that was added to the target before."""
    if cell.version != record.version or cell.refused_later:
        return None
    return Outcome.DUPLICATE if cell.run == run else Outcome.UNCHANGED


def judge_once(record: Record, cell: Cell, run: str, later: Outcome) -> Outcome | None:
    """What becomes of a record whose first version at the target is the only one that ever goes there."""
    if not cell.version or cell.refused_later:
        return None
    if cell.version != record.version:
        return later
    return Outcome.DUPLICATE if cell.run == run else Outcome.UNCHANGED


def applied(
    record: Record,
    fingerprint: str,
    cell: Cell | None,
    target_id: str,
    run: str,
    at: datetime,
    shown: str = "",
    shown_version: str = "",
) -> Cell:
    """The cell after this version reached the target. An open failure of a newer version stays marked."""
    failed = cell.failed if cell is not None and cell.failed > record.version else ""
    return Cell(
        key=record.key,
        version=record.version,
        hash=fingerprint,
        target_id=target_id or (cell.target_id if cell is not None else ""),
        origin=record.origin,
        deleted=record.operation == "delete",
        failed=failed,
        run=run,
        at=at,
        shown=shown,
        shown_version=shown_version,
    )


def failed(record: Record, cell: Cell | None, run: str, at: datetime) -> Cell:
    """The cell after this version failed: what was applied stays, the newest failed version is marked."""
    known = cell or Cell(key=record.key)
    at = known.at if known.version and known.at is not None else at
    return msgspec.structs.replace(known, failed=max(known.failed, record.version), run=run, at=at)


def refused_later(cell: Cell | None, request: str, version: str) -> Cell | None:
    """The cell after the target refused what it had accepted by a request: the version failed, and nothing says what
    the target holds, so whatever comes next is sent. None if the cell is not under the request, or the version has
    failed with other content since.

    An unchanged version that was read since is no newer one at the target, so the cell goes back to the one that was
    sent.
    """
    if cell is None or cell.target_id != request or cell.version < version or cell.failed == version:
        return None
    return msgspec.structs.replace(
        cell,
        version=version,
        hash=TAKEN_BACK,
        target_id="",
        deleted=False,
        failed=max(cell.failed, version),
        shown="",
        gave_way="",
        shown_version="",
    )


def written_over(stored: Cell, cell: Cell) -> Cell:
    """What stands in the ledger after a cell is written, by what stands there now, which may not be what was read.

    A version that failed after the applied one stays marked. What the target took back since stays taken back, unless
    something was applied after it: whoever only found its content unchanged had read the cell before.
    """
    if stored.refused_later and (stored.at is None or cell.at is None or cell.at <= stored.at):
        return msgspec.structs.replace(stored, failed=max(stored.failed, cell.failed))
    later = stored.failed if stored.failed > cell.version else ""
    return msgspec.structs.replace(cell, failed=max(cell.failed, later))


def contested(records: list[Record], cells: Mapping[str, Cell]) -> set[str]:
    """The keys that more than one object of the source claims, by these records and by what the ledger holds."""
    origins: dict[str, set[str]] = {}
    for record in records:
        origins.setdefault(record.key, set()).add(record.origin)
    for key, found in origins.items():
        cell = cells.get(key)
        if cell is not None and cell.version and not cell.deleted:
            found.add(cell.origin)
    return {key for key, found in origins.items() if len(found) > 1}


def collapse(records: list[Record], on_conflict: str, cells: Mapping[str, Cell] | None = None) -> dict[int, Outcome]:
    """Which records of one batch give way to another of the same key, by their place in the batch.

    The newest version of a key stays, of equal ones the last read. With `first` the object stays that has the identity
    by these cells, else the first one. Those with the version of what stays are duplicates, the others superseded.
    """
    if len({record.key for record in records}) == len(records):
        return {}
    stays: dict[str, int] = {}
    for place, record in enumerate(records):
        other = stays.get(record.key)
        if other is None:
            stays[record.key] = place
        elif on_conflict == FIRST_WINS and records[other].origin != record.origin:
            cell = (cells or {}).get(record.key)
            if cell is not None and cell.version and not cell.deleted and cell.origin == record.origin:
                stays[record.key] = place
        elif record.version >= records[other].version:
            stays[record.key] = place
    return {
        place: (
            Outcome.DUPLICATE
            if record.version == records[stays[record.key]].version
            and record.origin == records[stays[record.key]].origin
            else Outcome.SUPERSEDED
        )
        for place, record in enumerate(records)
        if stays[record.key] != place
    }
