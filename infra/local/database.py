"""One SQLite file: many readers, one writer at a time, and writers that arrive together committed together."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from shared.errors import StoreUnavailable

T = TypeVar("T")

BUSY_SECONDS = 30.0
WRITER_CACHE_KIB = 4000
READER_CACHE_KIB = 1000
"""Every thread has a reader of its own; the operating system's cache serves them all."""


class _Job(Generic[T]):
    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.done = False
        self.value: T | None = None
        self.error: BaseException | None = None

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class _Connection(sqlite3.Connection):
    """Closed with the thread that had it, and (unlike its base) open to weak references."""

    def __del__(self) -> None:
        self.close()


class Database:
    """A file in WAL mode. `durable` survives loss of power at each commit; without it only a crash of the process."""

    def __init__(self, path: Path, schema: str, *, durable: bool, added: Sequence[tuple[str, str, str]] = ()) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._durable = durable
        self._local = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._queue: list[_Job[Any]] = []
        self._queue_lock = threading.Lock()
        self._writer_lock = threading.Lock()
        created = not path.exists()
        with _translated():
            self._writer = self._connect(WRITER_CACHE_KIB)
            if created:
                os.chmod(path, 0o600)
            self._writer.executescript("BEGIN IMMEDIATE;" + schema + "COMMIT;")
            for table, column, declaration in added:
                self._add(table, column, declaration)

    def _add(self, table: str, column: str, declaration: str) -> None:
        """Two processes may be the first ones to open the file, so the look is part of the change."""
        if any(row[1] == column for row in self._writer.execute(f"PRAGMA table_info({table})")):
            return
        self._writer.execute("BEGIN IMMEDIATE")
        if not any(row[1] == column for row in self._writer.execute(f"PRAGMA table_info({table})")):
            self._writer.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declaration}")
        self._writer.execute("COMMIT")

    def _connect(self, cache_kib: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        with self._queue_lock:
            self._connections.add(connection)
        return connection

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in a transaction of its own or together with others that wait; what it raises undoes only it.

        Returns once the transaction is committed. Raises StoreUnavailable for every trouble of the database.
        """
        job = _Job(work)
        with self._queue_lock:
            self._queue.append(job)
        with self._writer_lock:
            if not job.done:
                self._run_waiting()
        return job.result()

    def _run_waiting(self) -> None:
        with self._queue_lock:
            jobs, self._queue = self._queue, []
        try:
            with _translated():
                self._writer.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    self._run_one(job, alone=len(jobs) == 1)
                if self._writer.in_transaction:
                    self._writer.execute("COMMIT")
        except BaseException as error:
            # Whatever came in between, a signal too: none of these writers may believe that its work is committed.
            for job in jobs:
                job.error = job.error or StoreUnavailable(f"nothing of it is known to be written: {error}")
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            if not isinstance(error, StoreUnavailable):
                raise
        finally:
            for job in jobs:
                job.done = True

    def _run_one(self, job: _Job[Any], *, alone: bool) -> None:
        if not alone:
            self._writer.execute("SAVEPOINT job")
        try:
            with _translated():
                job.value = job.work(self._writer)
        except Exception as error:
            if not self._writer.in_transaction:
                raise
            job.error = error
            self._writer.execute("ROLLBACK" if alone else "ROLLBACK TO job")
        if not alone:
            self._writer.execute("RELEASE job")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread that sees what is committed."""
        connection = getattr(self._local, "connection", None)
        with _translated():
            if connection is None:
                connection = self._local.connection = self._connect(READER_CACHE_KIB)
            yield connection

    @contextmanager
    def frozen(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that sees what is committed at this moment, whatever is committed later."""
        with _translated():
            connection = self._connect(READER_CACHE_KIB)
            try:
                connection.execute("BEGIN")
                # Only what is read first fixes the moment.
                connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
                yield connection
            finally:
                connection.close()

    def close(self) -> None:
        with self._writer_lock, self._queue_lock:
            for connection in list(self._connections):
                connection.close()
            self._connections.clear()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the local store did not take it: {error}") from error
