"""The committed batches on SQLite, and the books that are read from them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from infra.local.confirmations import add_awaited
from infra.local.database import Database
from infra.local.failures import close_failures, upsert_failures
from infra.local.ledger import LocalLedger
from infra.local.monitoring import insert_rows
from infra.local.owners import Owners
from infra.local.schema import instant, micros
from shared.accounting import Counts, Entries
from shared.books import Batch, Closure, Failure, Run, Settlement
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.ledger import refused_later
from shared.monitoring import failure_rows, monitored
from shared.outcome import LETTERS

FIELDS = (
    "id, run, integration, stream, kind, lane, state, published_at, attempt, attempts, committed_at, touched_at, "
    "blob, at, length, rules, amended, outcomes, idents"
)
_idents = msgspec.json.Decoder(tuple[list[str], list[str]]).decode
_map = msgspec.json.Decoder(dict[str, Any]).decode


class LocalBatches:
    def __init__(self, database: Database, ledger: LocalLedger, owners: Owners) -> None:
        self._database = database
        self._ledger = ledger
        self._owners = owners
        self._live: set[str] = set()
        self._lock = threading.Lock()

    def published(self, batches: Sequence[str], at: datetime) -> None:
        self._database.write(
            lambda connection: connection.executemany(
                "UPDATE batches SET published_at = ? WHERE id = ?", [(micros(at), batch) for batch in batches]
            )
        )

    def begin(self, batch: str, attempt: str) -> tuple[Batch | None, str]:
        owner = self._owners.mine()

        def work(connection: sqlite3.Connection) -> tuple[Batch | None, str]:
            row = connection.execute(f"SELECT {FIELDS}, owner FROM batches WHERE id = ?", (batch,)).fetchone()
            if row is None or row[6] == "settled":
                return None, ""
            found = read_batch(row[:-1])
            if found.state == "sending" and self._is_live(found.attempt, row[-1]):
                raise Leased(f"batch {batch} is being sent", holder=row[-1])
            earlier = found.attempt if found.state == "sending" else ""
            connection.execute(
                "UPDATE batches SET state = 'sending', attempt = ?, owner = ? WHERE id = ?", (attempt, owner, batch)
            )
            with self._lock:
                self._live.add(attempt)
            return found, earlier

        try:
            return self._database.write(work)
        except StoreUnavailable:
            # Whoever did not get the batch never lets go of it, so it must not count as live.
            self._forget(attempt)
            raise

    def settle(self, settlement: Settlement) -> None:
        state = "settled" if settlement.settled else "sending" if settlement.keep else "open"

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "SELECT attempt, integration, stream FROM batches WHERE id = ? AND state = 'sending'",
                (settlement.batch,),
            ).fetchone()
            if row is None or row[0] != settlement.attempt:
                raise Fenced(f"batch {settlement.batch} was taken over")
            connection.execute(
                "UPDATE batches SET state = ?, outcomes = ?, attempts = ?, touched_at = ? WHERE id = ?",
                (state, settlement.outcomes, settlement.attempts, micros(settlement.at), settlement.batch),
            )
            self._ledger.put(connection, row[1], row[2], settlement.cells)
            changed = upsert_failures(connection, settlement.failures)
            closed = close_failures(connection, settlement.closures, settlement.run, settlement.at)
            amend_batches(connection, [*changed, *closed])
            add_awaited(connection, settlement.awaited)
            insert_rows(connection, row[1], row[2], settlement.monitored)

        self._database.write(work)
        if not settlement.keep:
            self._forget(settlement.attempt)

    def renew(self, batch: str, attempt: str) -> None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT attempt FROM batches WHERE id = ?", (batch,)).fetchone()
        if row is None or row[0] != attempt:
            raise Fenced(f"batch {batch} was taken over")

    def let_go(self, batch: str, attempt: str) -> None:
        if self._forget(attempt):
            self._database.write(
                lambda connection: connection.execute(
                    "UPDATE batches SET owner = '' WHERE id = ? AND attempt = ?", (batch, attempt)
                )
            )

    def check_nobody_sends(self, connection: sqlite3.Connection) -> None:
        """Raises Leased inside a transaction while a live attempt has a batch in hand."""
        for id, attempt, owner in connection.execute("SELECT id, attempt, owner FROM batches WHERE state = 'sending'"):
            if self._is_live(attempt, owner):
                raise Leased(f"batch {id} is being sent", holder=owner)

    def of_run(self, run: str) -> Iterator[Batch]:
        return self._each("run = ?", (run,))

    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        return self._each(
            "integration = ? AND state <> 'settled' AND (? IS NULL OR stream = ?)", (integration, stream, stream)
        )

    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        wanted = frozenset(keys)
        which = "integration = ? AND stream = ?"
        values: tuple[Any, ...] = (integration, stream)
        if len(wanted) == 1:
            which, values = f"{which} AND instr(idents, ?)", (*values, msgspec.json.encode(*wanted))
        for batch in self._each(which, values):
            if not wanted.isdisjoint(batch.keys):
                yield batch

    def get(self, batch: str) -> Batch | None:
        return next(self._each("id = ?", (batch,)), None)

    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        if not failures:
            return 0
        integration, stream = failures[0].integration, failures[0].stream

        def work(connection: sqlite3.Connection) -> int:
            stored = self._ledger.read(connection, integration, stream, [failure.key for failure in failures])
            cells, taken = [], []
            for failure in failures:
                cell = refused_later(stored.get(failure.key), request, failure.version)
                if cell is not None:
                    cells.append(cell)
                    taken.append(failure)
            self._ledger.put(connection, integration, stream, cells)
            upsert_failures(connection, taken)
            amend_batches(connection, [Closure(each.id, each.batch, each.place, each.outcome) for each in taken])
            rows = monitored(table, lambda: failure_rows(taken, taken[0].last_at) if taken else [])
            insert_rows(connection, integration, stream, rows)
            return len(taken)

        return self._database.write(work)

    def _each(self, where: str, values: tuple[Any, ...]) -> Iterator[Batch]:
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    f"SELECT {FIELDS}, seq FROM batches WHERE {where} AND seq > ? ORDER BY seq LIMIT 100",
                    (*values, last),
                ).fetchall()
            for row in rows:
                yield read_batch(row[:-1])
            if len(rows) < 100:
                return
            last = rows[-1][-1]

    def _forget(self, attempt: str) -> bool:
        """Whether the attempt had a batch in hand until now."""
        with self._lock:
            live = attempt in self._live
            self._live.discard(attempt)
        return live

    def _is_live(self, attempt: str, owner: str) -> bool:
        if not self._owners.alive(owner):
            return False
        if owner != self._owners.mine():
            return True
        with self._lock:
            return attempt in self._live


class LocalBooks:
    """Counts are read from the batches each time: a batch that is written twice cannot count twice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self, run: str) -> Counts:
        counts = Counts()
        with self._database.reading() as connection:
            # One statement sees one moment: between two, a commit would put the books out of balance.
            for document, outcomes in connection.execute(
                "SELECT NULL, outcomes FROM batches WHERE run = ?1 UNION ALL SELECT doc, '' FROM runs WHERE id = ?1",
                (run,),
            ):
                counts.add_letters(outcomes)
                if document is not None:
                    counts.fetched = msgspec.json.decode(document, type=Run).fetched
        return counts

    def rules(self, run: str) -> dict[str, int]:
        total: dict[str, int] = {}
        with self._database.reading() as connection:
            for (rules,) in connection.execute("SELECT rules FROM batches WHERE run = ? AND rules <> '{}'", (run,)):
                for name, count in _map(rules).items():
                    total[name] = total.get(name, 0) + count
        return total

    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    "SELECT seq, id, run, outcomes, amended, idents FROM batches WHERE integration = ? AND stream = ? "
                    "AND kind = 'fetch' AND seq > ? ORDER BY seq LIMIT 20",
                    (integration, stream, last),
                ).fetchall()
            for _, batch, run, outcomes, amended, idents in rows:
                keys, versions = _idents(idents)
                yield Entries(batch, run, keys, versions, _present(outcomes, amended))
            if len(rows) < 20:
                return
            last = rows[-1][0]

    def fetched(self, integration: str, stream: str) -> int:
        with self._database.reading() as connection:
            return sum(
                run.fetched
                for (document,) in connection.execute(
                    "SELECT doc FROM runs WHERE integration = ? AND stream = ?", (integration, stream)
                )
                if (run := msgspec.json.decode(document, type=Run)).kind == "fetch"
            )


def _present(outcomes: str, amended: str) -> str:
    if amended == "{}":
        return outcomes
    letters = list(outcomes)
    for place, letter in _map(amended).items():
        letters[int(place)] = letter
    return "".join(letters)


def insert_batches(connection: sqlite3.Connection, batches: Sequence[Batch]) -> None:
    """Writes batches inside a transaction of another table's."""
    connection.executemany(
        f"INSERT INTO batches ({FIELDS}, owner) VALUES ({','.join('?' * 19)}, '')",
        [
            (
                b.id,
                b.run,
                b.integration,
                b.stream,
                b.kind,
                b.lane,
                b.state,
                micros(b.published_at),
                b.attempt,
                b.attempts,
                micros(b.committed_at),
                micros(b.touched_at),
                b.blob,
                b.offset,
                b.length,
                msgspec.json.encode(b.rules).decode(),
                msgspec.json.encode(b.amended).decode(),
                b.outcomes,
                msgspec.json.encode((b.keys, b.versions)),
            )
            for b in batches
        ],
    )


def amend_batches(connection: sqlite3.Connection, closures: Sequence[Closure]) -> None:
    """Writes the present outcome of records whose failures closed or changed beside the outcome of their time."""
    for closure in closures:
        row = connection.execute("SELECT amended FROM batches WHERE id = ?", (closure.batch,)).fetchone()
        if row is None:
            continue
        amended = _map(row[0])
        amended[str(closure.place)] = LETTERS[closure.outcome]
        connection.execute(
            "UPDATE batches SET amended = ? WHERE id = ?", (msgspec.json.encode(amended).decode(), closure.batch)
        )


def read_batch(row: tuple[Any, ...]) -> Batch:
    """The batch of a row of `FIELDS`."""
    keys, versions = _idents(row[18])
    committed = instant(row[10])
    assert committed is not None
    return Batch(
        id=row[0],
        run=row[1],
        integration=row[2],
        stream=row[3],
        kind=row[4],
        lane=row[5],
        state=row[6],
        published_at=instant(row[7]),
        attempt=row[8],
        attempts=row[9],
        committed_at=committed,
        touched_at=instant(row[11]),
        blob=row[12],
        offset=row[13],
        length=row[14],
        rules=_map(row[15]),
        amended=_map(row[16]),
        outcomes=row[17],
        keys=keys,
        versions=versions,
    )
