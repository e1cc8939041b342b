"""Launches on SQLite."""

from __future__ import annotations

import sqlite3

import msgspec

from infra.local.database import Database
from shared.launches import AWAITS, Launch, LaunchState

_decode = msgspec.json.Decoder(Launch).decode


class LocalLaunches:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, launch: Launch) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute("INSERT OR IGNORE INTO launches VALUES (?, ?, ?, ?, ?)", launch_row(launch))
            return done.rowcount > 0

        return self._database.write(work)

    def note(self, launch: Launch, was: LaunchState | None = None) -> bool:
        *name, waiting, document = launch_row(launch)

        def work(connection: sqlite3.Connection) -> bool:
            which = "WHERE integration = ? AND stream = ? AND id = ?"
            row = connection.execute(f"SELECT doc FROM launches {which}", name).fetchone()
            if row is None or was not in (None, _decode(row[0]).state):
                return False
            connection.execute(f"UPDATE launches SET waiting = ?, doc = ? {which}", (waiting, document, *name))
            return True

        return self._database.write(work)

    def get(self, integration: str, stream: str, id: int) -> Launch | None:
        found = self._found("AND id = ?", (integration, stream, id))
        return found[0] if found else None

    def recent(self, integration: str, stream: str, most: int, before: int | None = None) -> list[Launch]:
        return self._found("AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4", (integration, stream, before, most))

    def waiting(self, integration: str, stream: str) -> list[Launch]:
        return self._found("AND waiting ORDER BY id", (integration, stream))

    def _found(self, which: str, values: tuple[object, ...]) -> list[Launch]:
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT doc FROM launches WHERE integration = ?1 AND stream = ?2 {which}", values
            ).fetchall()
        return [_decode(row[0]) for row in rows]


def launch_row(launch: Launch) -> tuple[str, str, int, bool, str]:
    """In the order of the table's columns."""
    document = msgspec.json.encode(launch).decode()
    return launch.integration, launch.stream, launch.id, launch.state in AWAITS, document
