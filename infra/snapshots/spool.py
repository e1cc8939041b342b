"""Where rows wait on disk for their turn, sorted: a database without a name, which is gone with the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache

_SCHEMA = """
CREATE TABLE things (
    n INTEGER PRIMARY KEY, period TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL,
    place TEXT NOT NULL, id TEXT NOT NULL, process INTEGER NOT NULL, document TEXT NOT NULL);
CREATE INDEX things_in_order ON things (period, kind, at, place, n);
CREATE TABLE runs (id TEXT PRIMARY KEY, process INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE seen (key TEXT PRIMARY KEY, taken INTEGER NOT NULL) WITHOUT ROWID;
"""
_AT_ONCE = 500
_CACHE_KIB = 8000


class Spool:
    """What was met of one stream. Use `spool`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.process_of = lru_cache(4096)(self._process_of)

    def put(
        self, period: str, kind: str, at: int, id: str, process: int, document: str = "", *, place: str = ""
    ) -> None:
        """`place` is that among things of the same time; where it says nothing, they stay in the order of their
        coming."""
        self._connection.execute(
            "INSERT INTO things (period, kind, at, place, id, process, document) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (period, kind, at, place, id, process, document),
        )

    def each(self, period: str, kind: str) -> Iterator[tuple[str, int, int, str]]:
        """Id, process, time and document of the things of a kind, oldest first."""
        last = (-(1 << 63), "", 0)
        while True:
            rows = self._connection.execute(
                "SELECT id, process, at, document, place, n FROM things WHERE period = ? AND kind = ? "
                f"AND (at, place, n) > (?, ?, ?) ORDER BY at, place, n LIMIT {_AT_ONCE}",
                (period, kind, *last),
            ).fetchall()
            for id, process, at, document, *_ in rows:
                yield id, process, at, document
            if len(rows) < _AT_ONCE:
                return
            last = rows[-1][2], rows[-1][4], rows[-1][5]

    def note_run(self, run: str, process: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (run, process))

    def _process_of(self, run: str) -> int:
        """Of a run that was noted, else 0."""
        row = self._connection.execute("SELECT process FROM runs WHERE id = ?", (run,)).fetchone()
        return 0 if row is None else int(row[0])

    def forget_keys(self) -> None:
        self._connection.execute("DELETE FROM seen")

    def seen(self, keys: Sequence[str]) -> dict[str, bool]:
        """Those of the keys that were noted, and whether they were taken."""
        found: dict[str, bool] = {}
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            found |= self._connection.execute(
                f"SELECT key, taken FROM seen WHERE key IN ({','.join('?' * len(part))})", part
            ).fetchall()
        return found

    def note_keys(self, keys: Iterable[tuple[str, bool]]) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", keys)


@contextmanager
def spool() -> Iterator[Spool]:
    """An empty one."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        connection.execute("BEGIN")
        yield Spool(connection)
