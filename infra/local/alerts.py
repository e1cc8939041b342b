"""Alerts on SQLite."""

from __future__ import annotations

import sqlite3

from infra.local.database import Database
from infra.local.schema import micros
from shared.ports import Clock


class LocalAlerts:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def change(self, name: str, raised: bool, text: str) -> bool:
        at = micros(self._clock.now())

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT raised FROM alerts WHERE name = ?", (name,)).fetchone()
            if (row is not None and bool(row[0])) == raised:
                return False
            connection.execute("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?)", (name, raised, at, text))
            return True

        return self._database.write(work)

    def raised(self) -> dict[str, str]:
        with self._database.reading() as connection:
            return dict(connection.execute("SELECT name, text FROM alerts WHERE raised ORDER BY name").fetchall())
