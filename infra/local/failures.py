"""Failures on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from infra.local.database import Database
from infra.local.schema import micros
from shared.books import Closure, Failure, FailureQuery, failed_again

_decode = msgspec.json.Decoder(Failure).decode
_PAGE = 500


class LocalFailures:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        where, values = _where(query)
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    f"SELECT seq, doc FROM failures WHERE {where} AND seq > ? ORDER BY seq LIMIT {_PAGE}",
                    (*values, last),
                ).fetchall()
            for _, document in rows:
                yield _decode(document)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def count(self, query: FailureQuery) -> int:
        where, values = _where(query)
        with self._database.reading() as connection:
            return int(connection.execute(f"SELECT count(*) FROM failures WHERE {where}", values).fetchone()[0])

    def remove_closed(self, integration: str, before: datetime) -> int:
        return self._database.write(
            lambda connection: (
                connection.execute(
                    "DELETE FROM failures WHERE integration = ? AND closed_at < ?", (integration, micros(before))
                ).rowcount
            )
        )


def _where(query: FailureQuery) -> tuple[str, list[Any]]:
    terms, values = ["integration = ?"], [query.integration]
    for column, value in (
        ("stream", query.stream),
        ("outcome", query.outcome),
        ("number", query.number),
        ("http_status", query.status),
        ("key", query.key),
    ):
        if value is not None:
            terms.append(f"{column} = ?")
            values.append(value)  # type: ignore[arg-type]
    if query.before is not None:
        terms.append("last_at < ?")
        values.append(micros(query.before))  # type: ignore[arg-type]
    if query.keys is not None:
        terms.append(f"key IN ({','.join('?' * len(query.keys))})")
        values.extend(query.keys)
    if not query.include_closed:
        terms.append("closed_at IS NULL")
    return " AND ".join(terms), values


def upsert_failures(connection: sqlite3.Connection, failures: Sequence[Failure]) -> list[Closure]:
    """Writes failures inside a transaction; one that is open already goes on as `failed_again` says.

    One that was closed is a new failure, and the youngest: its row makes way for another at the end. Gives what the
    batches that fetched the records have to be told: open failures whose outcome is another one than before.
    """
    changed = []
    for failure in failures:
        row = connection.execute("SELECT doc FROM failures WHERE id = ?", (failure.id,)).fetchone()
        if row is not None:
            earlier = _decode(row[0])
            failure = failed_again(earlier, failure)
            if earlier.closed_at is not None:
                connection.execute("DELETE FROM failures WHERE id = ?", (failure.id,))
            elif earlier.outcome is not failure.outcome:
                changed.append(Closure(failure.id, failure.batch, failure.place, failure.outcome))
        insert_failures(connection, [failure])
    return changed


def insert_failures(connection: sqlite3.Connection, failures: Sequence[Failure]) -> None:
    """Writes failures as they are inside a transaction."""
    connection.executemany(
        "INSERT INTO failures (id, integration, stream, key, version, outcome, number, http_status, first_at, "
        "last_at, closed_at, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "outcome = excluded.outcome, number = excluded.number, http_status = excluded.http_status, "
        "last_at = excluded.last_at, closed_at = excluded.closed_at, doc = excluded.doc",
        [
            (
                failure.id,
                failure.integration,
                failure.stream,
                failure.key,
                failure.version,
                failure.outcome,
                failure.number,
                failure.http_status,
                micros(failure.first_at),
                micros(failure.last_at),
                micros(failure.closed_at),
                msgspec.json.encode(failure).decode(),
            )
            for failure in failures
        ],
    )


def close_failures(
    connection: sqlite3.Connection, closures: Sequence[Closure], run: str, at: datetime
) -> list[Closure]:
    """Closes failures inside a transaction; gives the closures of those that were open, the others say nothing new."""
    effective = []
    for closure in closures:
        row = connection.execute(
            "SELECT doc FROM failures WHERE id = ? AND closed_at IS NULL", (closure.failure,)
        ).fetchone()
        if row is None:
            continue
        closed = msgspec.structs.replace(_decode(row[0]), closed_as=closure.outcome.value, closed_by=run, closed_at=at)
        connection.execute(
            "UPDATE failures SET closed_at = ?, doc = ? WHERE id = ?",
            (micros(at), msgspec.json.encode(closed).decode(), closure.failure),
        )
        effective.append(closure)
    return effective
