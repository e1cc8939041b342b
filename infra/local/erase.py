"""Forgetting a person: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards, so that nobody can tell whose it was. Archived records become blanks of the same length, so that
the other records of a blob stay where they are. Streams whose records only tell of the key keep their own identities
(`shared/forget.py`); they come first, since they are found with the help of the person's own cell. At the end the
databases are rewritten, since deleted rows linger in free pages and in the write-ahead log.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from infra.local.database import Database
from infra.local.home import EmbeddedHome
from infra.local.monitoring import MeantIn, count_rows, erase_rows
from infra.report import stamp
from shared.errors import Leased, MalformedEnvelope
from shared.forget import (
    TOMBSTONE,
    Meant,
    Telling,
    Told,
    archived_batches,
    blank,
    drop_dead_archives,
    failures_of,
    find_archived,
    left_of,
    on_its_way,
    who_is_meant,
)
from shared.ports import Batch, Failure
from shared.record import Envelope

_NOT_TOLD = "integration || '/' || stream NOT IN (SELECT value FROM json_each(?))"
_MESSAGES_AT_ONCE = 20
_decode = msgspec.json.Decoder(Failure).decode


def find_traces(home: EmbeddedHome, key: str, tellings: Sequence[Telling] = ()) -> dict[str, int]:
    """How often the key stands where, and what tells of it, for the person who has to confirm."""
    told = who_is_meant(home.ports, tellings, key)
    with home.state.reading() as connection:
        cells = connection.execute(
            f"SELECT count(*) FROM cells WHERE key = ? AND stream IN (SELECT id FROM streams WHERE {_NOT_TOLD})",
            (key, _names(told)),
        ).fetchone()[0]
        failures = connection.execute(
            f"SELECT count(*) FROM failures WHERE key = ? AND {_NOT_TOLD}", (key, _names(told))
        ).fetchone()[0]
    batches = sum(1 for _ in _batches_with(home, key, told))
    for name, meant in told.items():
        failures += sum(1 for _ in failures_of(home.ports, *name, meant))
        batches += sum(1 for batch in archived_batches(home.ports, *name) if find_archived(home.ports, batch, meant))
    with home.state.reading() as connection:
        rows = count_rows(connection, _meant_in(home, key, told))
    return {"cells": cells, "failures": failures, "batches": batches, "monitoring rows": rows}


def forget(
    home: EmbeddedHome, key: str, tellings: Sequence[Telling] = (), first: Callable[[], dict[str, int]] = dict
) -> dict[str, Any]:
    """Erases a key in every integration, and what tells of it, and gives the receipt. Raises Leased while such a record
    is on its way; else `first` is done, and says how much it erased where."""
    told = who_is_meant(home.ports, tellings, key)
    batches = list(_batches_with(home, key, told))
    if any(batch.state != "settled" for batch in batches) or on_its_way(home.ports, told):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstone = TOMBSTONE + hmac.new(secrets.token_bytes(32), key.encode(), hashlib.sha256).hexdigest()[:24]
    erased = first() | _erase_told(home, told)
    batches.sort(key=lambda batch: batch.blob)
    erased["archived records"] += blank(home.ports, batches, lambda record: record.key == key)[0]
    for name in _streams(home):
        drop_dead_archives(home.ports, *name)
    home.transport.write(lambda connection: _drop_messages(connection, batches))
    meant_in = _meant_in(home, key, told)
    renamed = home.state.write(lambda connection: _rename(connection, batches, key, tombstone, told, meant_in))
    for database in (home.state, home.transport):
        _rewrite(database)
    return {
        "receipt": tombstone,
        "at": stamp(home.clock.now()),
        "erased": {place: erased.get(place, 0) + renamed.get(place, 0) for place in {**erased, **renamed}},
    }


def _names(told: Told) -> bytes:
    return msgspec.json.encode(["/".join(name) for name in told])


def _streams(home: EmbeddedHome) -> list[tuple[str, str]]:
    with home.state.reading() as connection:
        return connection.execute("SELECT DISTINCT integration, stream FROM runs").fetchall()


def _batches_with(home: EmbeddedHome, key: str, told: Told) -> Iterator[Batch]:
    for name in _streams(home):
        if name not in told:
            yield from home.ports.batches.naming(*name, key)


def _meant_in(home: EmbeddedHome, key: str, told: Told) -> MeantIn:
    """Which records are meant where: those of the key, also under the makeshift key of the time before it had this one
    (<system>:<its id there>), and those that tell of it."""

    def meant_in(integration: str, stream: str) -> Meant:
        if (integration, stream) in told:
            return told[integration, stream]
        cell = home.ports.ledger.cells(integration, stream, [key]).get(key)
        makeshift = f":{cell.origin}" if cell is not None and cell.origin else ""
        return lambda record: record.key == key or bool(makeshift and record.key.endswith(makeshift))

    return meant_in


def _erase_told(home: EmbeddedHome, told: Told) -> dict[str, int]:
    """Erases what only tells of the key."""
    erased = {"cells": 0, "failures": 0, "batches": 0, "archived records": 0}
    for name, meant in told.items():
        records, batches = blank(home.ports, archived_batches(home.ports, *name), meant)
        erased["archived records"] += records
        erased["batches"] += batches
        for failure in failures_of(home.ports, *name, meant):
            home.state.write(partial(_erase_failure, id=failure.id))
            erased["failures"] += 1
    _drop_telling(home, told)
    return erased


def _erase_failure(connection: sqlite3.Connection, id: str) -> None:
    row = connection.execute("SELECT doc FROM failures WHERE id = ?", (id,)).fetchone()
    left = left_of(_decode(row[0])) if row is not None else None
    if left is None:
        connection.execute("DELETE FROM failures WHERE id = ?", (id,))
    else:
        connection.execute("UPDATE failures SET doc = ? WHERE id = ?", (msgspec.json.encode(left).decode(), id))


def _drop_telling(home: EmbeddedHome, told: Told) -> None:
    """Drops what the bus still carries of settled batches that tell of the key, whether or not they are archived."""
    last = 0
    while told:
        with home.transport.reading() as connection:
            rows = connection.execute(
                "SELECT id, data FROM messages WHERE id > ? ORDER BY id LIMIT ?", (last, _MESSAGES_AT_ONCE)
            ).fetchall()
        if not rows:
            return
        numbers = [(number,) for number, data in rows if _tells(home, told, data)]
        home.transport.write(partial(_drop_numbered, numbers=numbers))
        last = rows[-1][0]


def _drop_numbered(connection: sqlite3.Connection, numbers: list[tuple[int]]) -> None:
    connection.executemany("DELETE FROM messages WHERE id = ?", numbers)


def _tells(home: EmbeddedHome, told: Told, data: bytes) -> bool:
    try:
        envelope = Envelope.from_bytes(data)
    except MalformedEnvelope:
        return False
    meant = told.get((envelope.integration, envelope.stream))
    if meant is None or not any(map(meant, envelope.records)):
        return False
    batch = home.ports.batches.get(envelope.batch)
    return batch is None or batch.state == "settled"


def _rename(
    connection: sqlite3.Connection, batches: list[Batch], key: str, tombstone: str, told: Told, meant_in: MeantIn
) -> dict[str, int]:
    rows = erase_rows(connection, meant_in)
    for batch in batches:
        keys = [tombstone if each == key else each for each in batch.keys]
        connection.execute(
            "UPDATE batches SET idents = ? WHERE id = ?", (msgspec.json.encode((keys, batch.versions)), batch.id)
        )
    # What failed before the object had an identity stands under its makeshift key, <system>:<its id there>.
    failures = connection.execute(
        f"DELETE FROM failures WHERE {_NOT_TOLD} AND (key = ? OR seq IN (SELECT f.seq FROM failures f JOIN streams s "
        "ON s.integration = f.integration AND s.stream = f.stream JOIN cells c ON c.stream = s.id "
        "WHERE c.key = ? AND c.origin <> '' AND f.key LIKE '%:' || c.origin))",
        (_names(told), key, key),
    ).rowcount
    cells = connection.execute(
        "UPDATE cells SET key = ?, hash = '', target_id = '', origin = '', shown = '', gave_way = '', "
        f"shown_version = '' WHERE key = ? AND stream IN (SELECT id FROM streams WHERE {_NOT_TOLD})",
        (tombstone, key, _names(told)),
    ).rowcount
    return {"cells": cells, "failures": failures, "batches": len(batches), "monitoring rows": rows}


def _drop_messages(connection: sqlite3.Connection, batches: list[Batch]) -> None:
    """A settled batch may still wait on the bus, since it came twice or as a dead letter: nobody needs it any more."""
    connection.executemany("DELETE FROM messages WHERE batch = ?", [(batch.id,) for batch in batches])


def _rewrite(database: Database) -> None:
    with database.reading() as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
