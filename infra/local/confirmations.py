"""Requests whose end their targets tell later, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from infra.local.database import Database
from infra.local.schema import instant, micros
from shared.confirm import Awaited, together

FIELDS = "id, integration, stream, batch, records, sent_at, look_at, looks, state, refused, repeats, warnings, ended_at"
_OF = "integration = ? AND stream = ? AND id = ?"
_PAGE = 100
_counts = msgspec.json.Decoder(dict[str, int]).decode


class LocalConfirmations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        last: tuple[int, str] = (-1, "")
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    f"SELECT {FIELDS} FROM awaited WHERE integration = ? AND stream = ? AND state = 'pending' "
                    f"AND look_at <= ? AND (look_at, id) > (?, ?) ORDER BY look_at, id LIMIT {_PAGE}",
                    (integration, stream, micros(now), *last),
                ).fetchall()
            yield from map(read_awaited, rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1][6], rows[-1][0]

    def note(self, awaited: Awaited) -> None:
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE awaited SET look_at = ?, looks = ?, state = ?, refused = ?, repeats = ?, warnings = ?, "
                f"ended_at = ? WHERE {_OF}",
                (*awaited_row(awaited)[6:], awaited.integration, awaited.stream, awaited.id),
            )
        )

    def pending(self, integration: str, stream: str) -> tuple[int, int]:
        with self._database.reading() as connection:
            requests, records = connection.execute(
                "SELECT count(*), coalesce(sum(records), 0) FROM awaited "
                "WHERE integration = ? AND stream = ? AND state = 'pending'",
                (integration, stream),
            ).fetchone()
        return requests, records

    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        total: dict[str, int] = {}
        with self._database.reading() as connection:
            for (refused,) in connection.execute(
                "SELECT refused FROM awaited WHERE integration = ? AND stream = ? AND ended_at >= ? "
                "AND refused <> '{}'",
                (integration, stream, 0 if since is None else micros(since)),
            ):
                for reason, count in _counts(refused).items():
                    total[reason] = total.get(reason, 0) + count
        return total

    def remove_ended(self, integration: str, before: datetime) -> int:
        return self._database.write(
            lambda connection: (
                connection.execute(
                    "DELETE FROM awaited WHERE integration = ? AND ended_at < ?", (integration, micros(before))
                ).rowcount
            )
        )


def add_awaited(connection: sqlite3.Connection, awaited: Sequence[Awaited]) -> None:
    """Writes requests inside a transaction of another table's; records of one that is known are added to it."""
    for each in awaited:
        row = connection.execute(
            f"SELECT {FIELDS} FROM awaited WHERE {_OF}", (each.integration, each.stream, each.id)
        ).fetchone()
        stored = each if row is None else together(read_awaited(row), each)
        connection.execute(
            f"INSERT OR REPLACE INTO awaited ({FIELDS}) VALUES ({','.join('?' * 13)})", awaited_row(stored)
        )


def awaited_row(awaited: Awaited) -> tuple[Any, ...]:
    """In the order of `FIELDS`."""
    return (
        awaited.id,
        awaited.integration,
        awaited.stream,
        awaited.batch,
        awaited.records,
        micros(awaited.sent_at),
        micros(awaited.look_at),
        awaited.looks,
        awaited.state,
        msgspec.json.encode(awaited.refused).decode(),
        awaited.repeats,
        msgspec.json.encode(awaited.warnings).decode(),
        micros(awaited.ended_at),
    )


def read_awaited(row: tuple[Any, ...]) -> Awaited:
    """The request of a row of `FIELDS`."""
    sent_at, look_at = instant(row[5]), instant(row[6])
    assert sent_at is not None and look_at is not None
    return Awaited(
        id=row[0],
        integration=row[1],
        stream=row[2],
        batch=row[3],
        records=row[4],
        sent_at=sent_at,
        look_at=look_at,
        looks=row[7],
        state=row[8],
        refused=_counts(row[9]),
        repeats=row[10],
        warnings=_counts(row[11]),
        ended_at=instant(row[12]),
    )
