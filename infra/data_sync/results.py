"""What became of each row of a launch, by its line: as JSON or as CSV, a group of batches in memory at a time.

Where a row stood is known from the archive. Once that is cleaned up, rows are named by their keys alone, but for those
that failed. A row is told with its present outcome: a replay or a newer row may have changed it since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import inf
from typing import Final

import msgspec

from infra.data_sync.syncs import Sync
from infra.systems.exports import Style
from shared.books import Batch, Failure, FailureQuery
from shared.launches import Launch
from shared.outcome import FAILED, OUTCOMES
from shared.ports import Home
from shared.record import Envelope

COLUMNS: Final = ("line", "key", "outcome", "number", "reason", "field")
KEYS_AT_ONCE: Final = 500


class RowResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One row of the file of a launch."""

    line: int | None = None
    key: str
    outcome: str
    number: int = 0
    reason: str = ""
    field: str = ""


def results_of(home: Home, sync: Sync, launch: Launch) -> Iterator[list[RowResult]]:
    """The rows of each group of batches, by line. Groups are in the order of the file."""
    for _, batches in groupby(home.batches.of_run(launch.run), lambda batch: batch.id.rsplit(".", 2)[1]):
        rows = [row for batch in batches for row in _rows_of(home, sync, batch)]
        yield sorted(rows, key=lambda row: inf if row.line is None else row.line)


def _rows_of(home: Home, sync: Sync, batch: Batch) -> Iterator[RowResult]:
    outcomes = [OUTCOMES[letter] for letter in batch.present]
    places = list(zip(batch.keys, batch.versions, outcomes, strict=True))
    positions = _positions(home, batch)
    failures = _failures(home, sync, [key for key, _, outcome in places if outcome in FAILED])
    nameless = f"{sync.stream.source_system}:"
    for key, version, outcome in places:
        row = RowResult(key=key, outcome=outcome.value)
        position = positions.get((key, version), "")
        failure = failures.get((key, version)) if outcome in FAILED else None
        if failure is not None:
            position = position or failure.position
            row.number, row.reason, row.field = failure.number, failure.reason, failure.field
        if not position and batch.lane is None and key.startswith(nameless):
            position = key.rpartition(":")[2]
        row.line = int(position) if position.isdecimal() else None
        yield row


def _positions(home: Home, batch: Batch) -> dict[tuple[str, str], str]:
    """Where the records of a batch stood, by key and version, as far as the archive still says so."""
    if not batch.blob:
        return {}
    try:
        data = home.blobs.read(batch.blob, batch.offset, batch.length)
    except FileNotFoundError:
        return {}
    records = Envelope.from_bytes(data).records if data else []
    return {(record.key, record.version): record.position for record in records}


def _failures(home: Home, sync: Sync, keys: Sequence[str]) -> dict[tuple[str, str], Failure]:
    """The open failures of these keys, by key and version."""
    found: dict[tuple[str, str], Failure] = {}
    for start in range(0, len(keys), KEYS_AT_ONCE):
        query = FailureQuery(sync.integration, sync.id, keys=tuple(keys[start : start + KEYS_AT_ONCE]))
        found |= {(failure.key, failure.version): failure for failure in home.failures.find(query)}
    return found


def as_json(launch: Launch, groups: Iterator[list[RowResult]]) -> Iterator[bytes]:
    """One document."""
    yield b'{"launch":%d,"rows":[' % launch.id
    before = b""
    for rows in groups:
        if rows:
            yield before + msgspec.json.encode(rows)[1:-1]
            before = b","
    yield b"]}"


def as_csv(groups: Iterator[list[RowResult]]) -> Iterator[bytes]:
    """A header and a line per row. What somebody sent is not for a spreadsheet to calculate."""
    style = Style()
    yield style.line(COLUMNS).encode()
    for rows in groups:
        yield "".join(style.line(_cells(row)) for row in rows).encode()


def _cells(row: RowResult) -> list[str]:
    return ["" if not (value := getattr(row, column)) else str(value) for column in COLUMNS]
