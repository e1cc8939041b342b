"""Runs and their checkpoints on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from infra.local.batches import amend_batches, insert_batches
from infra.local.database import Database
from infra.local.failures import close_failures, upsert_failures
from infra.local.leases import check_lease
from infra.local.ledger import LocalLedger
from infra.local.monitoring import insert_rows
from shared.books import Batch, Closure, Failure, Run, StreamState
from shared.ledger import Cell
from shared.monitoring import Monitored
from shared.ports import Lease

_decode = msgspec.json.Decoder(Run).decode
_decode_state = msgspec.json.Decoder(StreamState).decode


def _encode(value: Run | StreamState) -> str:
    return msgspec.json.encode(value).decode()


class LocalRuns:
    def __init__(self, database: Database, ledger: LocalLedger) -> None:
        self._database = database
        self._ledger = ledger

    def commit(
        self,
        lease: Lease,
        run: Run,
        batches: Sequence[Batch] = (),
        failures: Sequence[Failure] = (),
        cells: Sequence[Cell] = (),
        closures: Sequence[Closure] = (),
        monitored: Monitored | None = None,
    ) -> None:
        document = _encode(run)

        def work(connection: sqlite3.Connection) -> None:
            check_lease(connection, lease)
            put_run(connection, run, document)
            insert_batches(connection, batches)
            amend_batches(connection, upsert_failures(connection, failures))
            self._ledger.put(connection, run.integration, run.stream, cells, marks=True)
            if closures:
                at = run.touched_at or run.started_at
                amend_batches(connection, close_failures(connection, closures, run.id, at))
            insert_rows(connection, run.integration, run.stream, monitored)

        self._database.write(work)

    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        document, stream_state = _encode(run), _encode(state)

        def work(connection: sqlite3.Connection) -> None:
            check_lease(connection, lease)
            put_run(connection, run, document)
            connection.execute(
                "INSERT INTO streams (integration, stream, state) VALUES (?, ?, ?) "
                "ON CONFLICT (integration, stream) DO UPDATE SET state = excluded.state",
                (run.integration, run.stream, stream_state),
            )

        self._database.write(work)

    def conclude(self, run: Run) -> None:
        document = _encode(run)

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT doc FROM runs WHERE id = ?", (run.id,)).fetchone()
            if row is not None and _decode(row[0]).fetched == run.fetched:
                put_run(connection, run, document)

        self._database.write(work)

    def get(self, run: str) -> Run | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT doc FROM runs WHERE id = ?", (run,)).fetchone()
        return None if row is None else _decode(row[0])

    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT doc FROM runs WHERE (?1 IS NULL OR integration = ?1) AND (?2 IS NULL OR stream = ?2) "
                "ORDER BY seq DESC LIMIT ?3",
                (integration, stream, most),
            ).fetchall()
        return [_decode(row[0]) for row in rows]

    def unfinished(self, integration: str, stream: str) -> list[Run]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT doc FROM runs WHERE integration = ? AND stream = ? AND open ORDER BY seq", (integration, stream)
            ).fetchall()
        return [_decode(row[0]) for row in rows]

    def state(self, integration: str, stream: str) -> StreamState:
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT state FROM streams WHERE integration = ? AND stream = ?", (integration, stream)
            ).fetchone()
        if row is None or row[0] == "{}":
            return StreamState(integration, stream)
        return _decode_state(row[0])


def put_run(connection: sqlite3.Connection, run: Run, document: str) -> None:
    """Writes a run inside a transaction."""
    connection.execute(
        "INSERT INTO runs (id, integration, stream, open, doc) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET open = excluded.open, doc = excluded.doc",
        (run.id, run.integration, run.stream, not run.over, document),
    )
