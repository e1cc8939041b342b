"""The books as a whole on SQLite: read in one transaction, and replaced in one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, islice
from typing import Any, Final

import msgspec

from infra.local import batches, confirmations
from infra.local.batches import LocalBatches, insert_batches, read_batch
from infra.local.confirmations import awaited_row, read_awaited
from infra.local.database import Database
from infra.local.failures import insert_failures
from infra.local.launches import launch_row
from infra.local.ledger import LocalLedger
from infra.local.objects import object_of
from infra.local.runs import put_run
from infra.local.schema import instant, micros
from shared.books import Batch, Failure, Run, StreamState
from shared.confirm import Awaited
from shared.errors import Fenced
from shared.launches import Launch
from shared.ledger import Cell
from shared.objects import Object
from shared.ports import Clock
from shared.snapshot.history import OVERTAKEN, Entry, Head, KindOfObject, Placed, Stored, Told, Unfinished

AT_ONCE: Final = 500
"""Rows that are in memory at the same time."""
_TABLES: Final = ("runs", "batches", "cells", "failures", "awaited", "launches", "objects")
_amended = msgspec.json.Decoder(dict[str, str]).decode


class LocalPast:
    """What one transaction sees."""

    def __init__(self, connection: sqlite3.Connection, ledger: LocalLedger, at: datetime) -> None:
        self._connection = connection
        self._ledger = ledger
        self.at = at

    def streams(self) -> list[tuple[str, str]]:
        found = self._connection.execute(
            "SELECT integration, stream FROM streams UNION SELECT integration, stream FROM runs "
            "UNION SELECT integration, stream FROM launches ORDER BY 1, 2"
        )
        return [(integration, stream) for integration, stream in found]

    def state(self, integration: str, stream: str) -> StreamState:
        row = self._connection.execute(
            "SELECT state FROM streams WHERE integration = ? AND stream = ? AND state <> '{}'", (integration, stream)
        ).fetchone()
        return StreamState(integration, stream) if row is None else msgspec.json.decode(row[0], type=StreamState)

    def heads(self, integration: str, stream: str) -> Iterator[Head]:
        rows = self._each(
            "rowid, id, run, state, outcomes, committed_at, touched_at, amended FROM batches", integration, stream
        )
        for _, id, run, state, outcomes, committed, touched, amended in rows:
            committed_at = instant(committed)
            assert committed_at is not None
            yield Head(id, run, state, outcomes, committed_at, instant(touched), _amended(amended))

    def unsettled(self, integration: str, stream: str) -> Iterator[Batch]:
        rows = self._connection.execute(
            f"SELECT {batches.FIELDS} FROM batches WHERE integration = ? AND stream = ? AND state <> 'settled' "
            "ORDER BY seq",
            (integration, stream),
        )
        return map(read_batch, rows)

    def batches(self, ids: Sequence[str]) -> Iterator[Batch]:
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            rows = self._connection.execute(
                f"SELECT {batches.FIELDS} FROM batches WHERE id IN ({','.join('?' * len(part))})", part
            )
            found = {row[0]: row for row in rows}
            yield from (read_batch(found[id]) for id in part if id in found)

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        return self._ledger.read(self._connection, integration, stream, keys)

    def told(self, kind: type[Told], integration: str, stream: str) -> Iterator[Told]:
        statements = {
            Run: "rowid, doc FROM runs",
            Failure: "rowid, doc FROM failures",
            Launch: "rowid, doc FROM launches",
            Awaited: f"rowid, {confirmations.FIELDS} FROM awaited",
        }
        for row in self._each(statements[kind], integration, stream):
            yield read_awaited(row[1:]) if kind is Awaited else msgspec.json.decode(row[1], type=kind)  # type: ignore[misc]

    def kinds(self) -> list[KindOfObject]:
        names = self._connection.execute("SELECT kind FROM objects UNION SELECT kind FROM object_fields ORDER BY 1")
        return [
            KindOfObject(
                kind,
                [
                    name
                    for (name,) in self._connection.execute(
                        "SELECT name FROM object_fields WHERE kind = ? ORDER BY seq", (kind,)
                    )
                ],
            )
            for (kind,) in names.fetchall()
        ]

    def objects(self, kind: str) -> Iterator[Object]:
        rows = self._connection.execute(
            "SELECT id, changed_at, fields FROM objects WHERE kind = ? ORDER BY id", (kind,)
        )
        return (object_of(*row) for row in rows)

    def counts(self) -> dict[str, int]:
        counted = {
            table: int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in _TABLES
        }
        return {"requests" if table == "awaited" else table: count for table, count in counted.items()}

    def _each(self, what: str, integration: str, stream: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a stream, in the order of their writing, read in portions."""
        last = -1
        while True:
            rows = self._connection.execute(
                f"SELECT {what} WHERE integration = ? AND stream = ? AND rowid > ? ORDER BY rowid LIMIT {AT_ONCE}",
                (integration, stream, last),
            ).fetchall()
            yield from rows
            if len(rows) < AT_ONCE:
                return
            last = rows[-1][0]


class LocalHistory:
    def __init__(self, database: Database, ledger: LocalLedger, batches: LocalBatches, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._batches = batches
        self._clock = clock

    @contextmanager
    def look(self) -> Iterator[LocalPast]:
        with self._database.frozen() as connection:
            yield LocalPast(connection, self._ledger, self._clock.now())

    def replace(
        self,
        intent: bytes,
        entries: Callable[[], Iterator[Placed]] | None,
        *,
        objects: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO replacement VALUES (1, ?)", (intent,))
            if entries is not None:
                self._batches.check_nobody_sends(connection)
                watch()
                self._replace(connection, entries(), objects=objects)

        self._database.write(work)

    def unfinished(self) -> Unfinished | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT intent FROM replacement").fetchone()
        return None if row is None else Unfinished(row[0], replaced=True)

    def finish(self, intent: bytes) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM replacement WHERE intent = ?", (intent,))
            if connection.execute("SELECT 1 FROM replacement").fetchone():
                raise Fenced(OVERTAKEN)

        self._database.write(work)

    def _replace(self, connection: sqlite3.Connection, entries: Iterator[Placed], *, objects: bool) -> None:
        for table in _TABLES:
            if table != "objects" or objects:
                connection.execute(f"DELETE FROM {table}")
        # Other processes know the streams by their numbers, and the names of fields that objects had.
        connection.execute("UPDATE streams SET state = '{}'")
        for (integration, stream, kind), group in groupby(entries, lambda p: (p.integration, p.stream, type(p.entry))):
            placed = (each.entry for each in group)
            while part := list(islice(placed, AT_ONCE)):
                self._insert(connection, integration, stream, kind, part)

    def _insert(
        self, connection: sqlite3.Connection, integration: str, stream: str, kind: type[Entry], entries: Sequence[Any]
    ) -> None:
        if kind is Cell:
            self._ledger.put_as_they_are(connection, integration, stream, entries)
        elif kind is Batch:
            insert_batches(connection, entries)
        elif kind is Failure:
            insert_failures(connection, entries)
        elif kind is Run:
            for run in entries:
                put_run(connection, run, msgspec.json.encode(run).decode())
        elif kind is Launch:
            _insert_rows(connection, "launches", map(launch_row, entries))
        elif kind is Awaited:
            _insert_rows(connection, "awaited", map(awaited_row, entries))
        elif kind is StreamState:
            connection.executemany(
                "INSERT INTO streams (integration, stream, state) VALUES (?, ?, ?) "
                "ON CONFLICT (integration, stream) DO UPDATE SET state = excluded.state",
                [(each.integration, each.stream, msgspec.json.encode(each).decode()) for each in entries],
            )
        elif kind is KindOfObject:
            connection.executemany(
                "INSERT OR IGNORE INTO object_fields (kind, name) VALUES (?, ?)",
                [(each.name, field) for each in entries for field in each.fields],
            )
        else:
            _insert_rows(connection, "objects", map(_object_row, entries))


def _object_row(stored: Stored) -> tuple[Any, ...]:
    fields = msgspec.json.encode(stored.object.fields).decode()
    return stored.kind, stored.object.id, micros(stored.object.changed_at), fields


def _insert_rows(connection: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    values = list(rows)
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * len(values[0]))})", values)
