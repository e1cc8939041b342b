"""The ledger on SQLite: one row per key."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence

from infra.local.database import Database
from infra.local.schema import instant, micros
from shared.ledger import Cell

_COLUMNS = "key, version, hash, target_id, origin, deleted, failed, run, at"
_AT_ONCE = 500


class LocalLedger:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        found: dict[str, Cell] = {}
        with self._database.reading() as connection:
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
        last = ""
        while True:
            with self._database.reading() as connection:
                number = self._number(connection, integration, stream)
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM cells WHERE stream = ? AND key > ? ORDER BY key LIMIT 2000", (number, last)
                ).fetchall()
            if not rows:
                return
            yield from map(_cell, rows)
            last = rows[-1][0]

    def versions(self, integration: str, stream: str) -> Iterator[tuple[str, str]]:
        last = ""
        while True:
            with self._database.reading() as connection:
                number = self._number(connection, integration, stream)
                rows: list[tuple[str, str]] = connection.execute(
                    "SELECT key, version FROM cells WHERE stream = ? AND key > ? ORDER BY key LIMIT 5000",
                    (number, last),
                ).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def put(self, connection: sqlite3.Connection, integration: str, stream: str, cells: Sequence[Cell]) -> None:
        """Writes cells inside a transaction of another table's."""
        if not cells:
            return
        number = self._number(connection, integration, stream)
        if number is None:
            connection.execute(
                "INSERT OR IGNORE INTO streams (integration, stream) VALUES (?, ?)", (integration, stream)
            )
            number = self._read_number(connection, integration, stream)
        times = {at: micros(at) for at in {cell.at for cell in cells}}
        connection.executemany(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (number, c.key, c.version, c.hash, c.target_id, c.origin, c.deleted, c.failed, c.run, times[c.at])
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


def _cell(row: tuple[str, str, str, str, str, int, str, str, int | None]) -> Cell:
    key, version, fingerprint, target_id, origin, deleted, failed, run, at = row
    return Cell(key, version, fingerprint, target_id, origin, bool(deleted), failed, run, instant(at))
