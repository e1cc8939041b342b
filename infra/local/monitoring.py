"""The monitoring table on SQLite, in `state.db`: its rows are part of the write that they tell of.

The table has the columns of `shared/monitoring.py` and nothing else, so what a row is forgotten by stands beside it, in
`monitored`: the record's key under a fingerprint of the row. A row's number would not do, since VACUUM renumbers the
rows of a table without a key of its own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from infra.local.database import Database
from infra.local.schema import is_taken
from shared.errors import SENT, ConfigError
from shared.monitoring import COLUMNS, Monitored, dag_name, instant_text
from shared.record import Record, content_hash

if TYPE_CHECKING:
    from shared.forget import Meant

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LISTED: Final = ", ".join(COLUMNS)


class LocalMonitoring:
    def __init__(self, database: Database) -> None:
        self._database = database

    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        """A database file has no datasets."""
        name, prefix, until = _quoted(table), dag_name(integration, ""), instant_text(before)

        def work(connection: sqlite3.Connection) -> int:
            if not _is_there(connection, table):
                return 0
            removed = connection.execute(
                f"DELETE FROM {name} WHERE timestamp < ?1 AND substr(dag_name, 1, length(?2)) = ?2", (until, prefix)
            ).rowcount
            connection.execute(
                "DELETE FROM monitored WHERE name = ? AND integration = ? AND at < ?", (table, integration, until)
            )
            return removed

        return self._database.write(work)


def insert_rows(connection: sqlite3.Connection, integration: str, stream: str, monitored: Monitored | None) -> None:
    """Writes rows inside a transaction of another table's. The first one makes the table."""
    if monitored is None:
        return
    name = _quoted(monitored.table)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {name} (dag_name TEXT NOT NULL, timestamp TEXT NOT NULL, "
        "type_id INTEGER NOT NULL, location TEXT, position TEXT, info TEXT)"
    )
    rows = [tuple(row.columns().values()) for row in monitored.rows]
    connection.executemany(f"INSERT INTO {name} ({_LISTED}) VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO monitored (name, integration, stream, key, at, digest) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (monitored.table, integration, stream, row.key, instant_text(row.timestamp), content_hash(columns))
            for row, columns in zip(monitored.rows, rows, strict=True)
            if row.key
        ],
    )


class _Found(NamedTuple):
    """A row about a record that is meant."""

    table: str
    number: int
    sent: bool
    digest: str


MeantIn = Callable[[str, str], "Meant"]
"""By integration and stream, which of its records are to be forgotten."""


def count_rows(connection: sqlite3.Connection, meant_in: MeantIn) -> int:
    """How many rows are about these records."""
    return sum(1 for _ in _find(connection, meant_in))


def erase_rows(connection: sqlite3.Connection, meant_in: MeantIn) -> int:
    """Removes the rows about these records inside a transaction, and says how many. A row of what was sent counts
    others too, so that it stays and only loses its position."""
    found = list(_find(connection, meant_in))
    for each in found:
        change = f"UPDATE {each.table} SET position = ''" if each.sent else f"DELETE FROM {each.table}"
        connection.execute(f"{change} WHERE rowid = ?", (each.number,))
        connection.execute("DELETE FROM monitored WHERE digest = ?", (each.digest,))
    return len(found)


def _find(connection: sqlite3.Connection, meant_in: MeantIn) -> Iterator[_Found]:
    for table, integration, stream in connection.execute(
        "SELECT DISTINCT name, integration, stream FROM monitored"
    ).fetchall():
        if not _is_there(connection, table):
            continue
        meant, name = meant_in(integration, stream), _quoted(table)
        keys = _keys(connection, table, integration, stream)
        for number, *columns in connection.execute(
            f"SELECT rowid, {_LISTED} FROM {name} WHERE dag_name = ?", (dag_name(integration, stream),)
        ):
            digest = content_hash(columns)
            if any(meant(_record(key, columns)) for key in keys.get(digest, ())):
                yield _Found(name, number, columns[2] == SENT, digest)


def _keys(connection: sqlite3.Connection, table: str, integration: str, stream: str) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = {}
    for key, digest in connection.execute(
        "SELECT key, digest FROM monitored WHERE name = ? AND integration = ? AND stream = ?",
        (table, integration, stream),
    ):
        keys.setdefault(digest, set()).add(key)
    return keys


def _record(key: str, columns: list[Any]) -> Record:
    """As far as the table knows it. What was sent is counted only."""
    data = {} if columns[2] == SENT else msgspec.json.decode(columns[5], type=dict[str, Any])
    return Record(key, "", "upsert", "", columns[4], data)


def _is_there(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", (table,))
    return found.fetchone() is not None


def _quoted(table: str) -> str:
    """The name as it may stand in a statement. Raises ConfigError."""
    if not _NAME.fullmatch(table) or is_taken(table):
        raise ConfigError(
            f"{table!r} cannot be the monitoring table",
            cure="set monitoring.table to another name, such as tcrm_monitoring_table",
        )
    return f'"{table}"'
