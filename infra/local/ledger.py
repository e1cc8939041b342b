"""The ledger on SQLite: one row per key."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from infra.local.database import Database
from infra.local.schema import instant, micros
from shared.ledger import TAKEN_BACK, Cell

_COLUMNS = "key, version, hash, target_id, origin, deleted, failed, run, at, shown, gave_way, shown_version"
_AT_ONCE = 500
_INSERT = (
    f"INSERT INTO cells (stream, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (stream, key) DO UPDATE SET "
)
_REPLACE = _INSERT + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])
_MARK = _INSERT + "failed = max(failed, excluded.failed)"
# As `shared.ledger.written_over` has it.
_STAYS = f"hash = '{TAKEN_BACK}' AND NOT coalesce(excluded.at > at, FALSE)"
_PUT = (
    _INSERT
    + ", ".join(
        f"{name} = CASE WHEN {_STAYS} THEN {name} ELSE excluded.{name} END"
        for name in _COLUMNS.split(", ")[1:]
        if name != "failed"
    )
    + f", failed = max(excluded.failed, CASE WHEN {_STAYS} OR failed > excluded.version THEN failed ELSE '' END)"
)


class LocalLedger:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        with self._database.reading() as connection:
            return self.read(connection, integration, stream, keys)

    def read(
        self, connection: sqlite3.Connection, integration: str, stream: str, keys: Sequence[str]
    ) -> dict[str, Cell]:
        """The cells of these keys as a transaction sees them."""
        found: dict[str, Cell] = {}
        number = self._number(connection, integration, stream)
        if number is None:
            return found
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM cells WHERE stream = ? AND key IN ({','.join('?' * len(part))})",
                (number, *part),
            )
            for row in rows:
                found[row[0]] = _cell(row)
        return found

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        for rows in self._each(_COLUMNS, integration, stream):
            for row in rows:
                yield _cell(row[:-1])

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        for rows in self._each("key, version", integration, stream):
            for key, version, _ in rows:
                yield key, version

    def _each(self, columns: str, integration: str, stream: str) -> Iterator[list[tuple[Any, ...]]]:
        """Parts of a stream's rows, in the order of their writing; the last column is the row's place in it."""
        last = 0
        while True:
            with self._database.reading() as connection:
                number = self._number(connection, integration, stream)
                rows = connection.execute(
                    # The + keeps SQLite from taking the index by key, which would sort and jump.
                    f"SELECT {columns}, rowid FROM cells WHERE +stream = ? AND rowid > ? ORDER BY rowid LIMIT 2000",
                    (number, last),
                ).fetchall()
            if not rows:
                return
            yield rows
            last = rows[-1][-1]

    def put(
        self,
        connection: sqlite3.Connection,
        integration: str,
        stream: str,
        cells: Sequence[Cell],
        *,
        marks: bool = False,
    ) -> None:
        """Writes cells inside a transaction of another table's. What was read of them may be old by now: a version that
        failed after the applied one stays marked, and with `marks` nothing but this mark is written over."""
        if cells:
            self._put(connection, integration, stream, cells, _MARK if marks else _PUT)

    def put_as_they_are(
        self, connection: sqlite3.Connection, integration: str, stream: str, cells: Sequence[Cell]
    ) -> None:
        """Writes cells inside a transaction, whatever is there."""
        self._put(connection, integration, stream, cells, _REPLACE)

    def _put(
        self, connection: sqlite3.Connection, integration: str, stream: str, cells: Sequence[Cell], statement: str
    ) -> None:
        number = self._number(connection, integration, stream)
        if number is None:
            connection.execute(
                "INSERT OR IGNORE INTO streams (integration, stream) VALUES (?, ?)", (integration, stream)
            )
            number = self._read_number(connection, integration, stream)
        # The cells of a batch were decided at a few instants, each of them one object.
        stamp = cache(micros)
        connection.executemany(
            statement,
            [
                (
                    *(number, c.key, c.version, c.hash, c.target_id, c.origin, c.deleted, c.failed, c.run),
                    *(stamp(c.at), c.shown, c.gave_way, c.shown_version),
                )
                for c in cells
            ],
        )

    def _number(self, connection: sqlite3.Connection, integration: str, stream: str) -> int | None:
        number = self._streams.get((integration, stream))
        if number is None and not connection.in_transaction:
            number = self._read_number(connection, integration, stream)
            if number is not None:
                with self._lock:
                    self._streams[integration, stream] = number
        elif number is None:
            number = self._read_number(connection, integration, stream)
        return number

    @staticmethod
    def _read_number(connection: sqlite3.Connection, integration: str, stream: str) -> int | None:
        row = connection.execute(
            "SELECT id FROM streams WHERE integration = ? AND stream = ?", (integration, stream)
        ).fetchone()
        return None if row is None else int(row[0])


def _cell(row: tuple[str, str, str, str, str, int, str, str, int | None, str, str, str]) -> Cell:
    key, version, fingerprint, target_id, origin, deleted, failed, run, at, *looks = row
    return Cell(key, version, fingerprint, target_id, origin, bool(deleted), failed, run, instant(at), *looks)
