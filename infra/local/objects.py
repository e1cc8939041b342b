"""The hub's own store of objects on SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from infra.local.database import Database
from infra.local.schema import INDEX, instant, micros
from shared.kinds import is_of
from shared.objects import ID, Object, check_findable, later
from shared.tabular.identity import beginning

_AT_ONCE: Final = 900
"""How many values a question has: every SQLite takes 999."""
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]*")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class LocalObjects:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._indexed: set[str] = set()
        self._known: dict[str, set[str]] = {}

    def get(self, kind: str, ids: Sequence[str]) -> dict[str, Object]:
        with self._database.reading() as connection:
            return _held(connection, kind, ids)

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        self._index(field)
        asked = {stored: value for value in values for stored in _stored(value)}
        with self._database.reading() as connection:
            # The plus keeps SQLite from going through all of a kind because that is in the order of the ids.
            rows = connection.execute(
                f"SELECT {_value(field)}, id FROM objects WHERE kind = ? AND {_value(field)} IN "
                "(SELECT value FROM json_each(?)) ORDER BY +id",
                (kind, _encode(list(asked)).decode()),
            )
            found: dict[str, list[str]] = {}
            for stored, id in rows:
                same = found.setdefault(asked[stored], [])
                if len(same) < 2:
                    same.append(id)
        return found

    def _index(self, field: str) -> None:
        """Objects are found by a field as soon as somebody asks for it."""
        check_findable(field)
        if field not in self._indexed:
            self._database.write(
                lambda connection: connection.execute(
                    # SQLite takes no difference between `Email` and `email` in the name of an index.
                    f"CREATE INDEX IF NOT EXISTS {INDEX}{field.encode().hex()} ON objects (kind, {_value(field)})"
                )
            )
            self._indexed.add(field)

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        names = dict.fromkeys(name for fields in objects.values() for name in fields)

        def work(connection: sqlite3.Connection) -> None:
            held = _held(connection, kind, list(objects))
            for id, fields in objects.items():
                before = held.get(id)
                after = {**(before.fields if before is not None else {}), **fields}
                if before is None or _encode(after) != _encode(before.fields):
                    changed_at = at if before is None else later(at, before.changed_at)
                    connection.execute(
                        "INSERT INTO objects VALUES (?1, ?2, ?3, ?4) ON CONFLICT (kind, id) DO UPDATE SET "
                        "changed_at = ?3, fields = ?4",
                        (kind, id, micros(changed_at), _encode(after).decode()),
                    )
            connection.executemany(
                "INSERT OR IGNORE INTO object_fields (kind, name) VALUES (?, ?)",
                [(kind, name) for name in names if name not in self._known.get(kind, ())],
            )

        self._database.write(work)
        self._known.setdefault(kind, set()).update(names)

    def remove(self, kind: str, ids: Sequence[str]) -> None:
        self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM objects WHERE kind = ? AND id = ?", [(kind, id) for id in ids]
            )
        )

    def page(self, kind: str, after: str, most: int) -> list[Object]:
        return self._found("id > ? ORDER BY id LIMIT ?", (kind, after, most))

    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        at, id = (since, "") if after is None or after[0] < since else after
        return self._found(
            "changed_at < ? AND (changed_at, id) > (?, ?) ORDER BY changed_at, id LIMIT ?",
            (kind, micros(until), micros(at), id, most),
        )

    def owned(self, customer: str) -> dict[str, list[str]]:
        """The ids of what is a customer's, by kind."""
        behind, stored = beginning(customer), _encode(list(_stored(customer))).decode()
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            kinds = [kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM objects").fetchall()]
            for kind in kinds:
                rows = connection.execute(
                    "SELECT id FROM objects WHERE kind = ? AND (id = ? OR substr(id, 1, ?) = ?)",
                    (kind, customer, len(behind), behind),
                ).fetchall()
                ids = [id for (id,) in rows if is_of(kind, id, customer)]
                rows = connection.execute(
                    f"SELECT id FROM objects WHERE kind = ? AND {_value(ID)} IN (SELECT value FROM json_each(?))",
                    (kind, stored),
                ).fetchall()
                if ids := list(dict.fromkeys([*ids, *(id for (id,) in rows)])):
                    found[kind] = ids
        return found

    def fields(self, kind: str) -> list[str]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT name FROM object_fields WHERE kind = ? ORDER BY seq", (kind,))
            return [name for (name,) in rows]

    def _found(self, which: str, values: tuple[Any, ...]) -> list[Object]:
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT id, changed_at, fields FROM objects WHERE kind = ? AND {which}", values)
            return [object_of(*row) for row in rows]


def _value(field: str) -> str:
    """The JSON of the field: asked for two paths, SQLite gives what is stored, so that 1 is not `true`, and a text goes
    on behind a NUL."""
    return f"json_extract(fields, '$.{field}', '$[0]')"


def _stored(value: str) -> Iterator[str]:
    """What `_value` is for a field that has to be found by this value (`text_of`)."""
    yield f"[{_encode(value).decode()},null]"
    if _WHOLE.fullmatch(value):
        yield f"[{value},null]"


def _held(connection: sqlite3.Connection, kind: str, ids: Sequence[str]) -> dict[str, Object]:
    held: dict[str, Object] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        rows = connection.execute(
            f"SELECT id, changed_at, fields FROM objects WHERE kind = ? AND id IN ({', '.join('?' * len(part))})",
            (kind, *part),
        )
        held |= {row[0]: object_of(*row) for row in rows}
    return held


def object_of(id: str, changed_at: int, fields: str) -> Object:
    """The object of a row."""
    changed = instant(changed_at)
    assert changed is not None
    return Object(id, _decode(fields), changed)
