"""Forgetting a person: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards, so that nobody can tell whose it was. Archived records become blanks of the same length, so that
the other records of a blob stay where they are. At the end the databases are rewritten, since deleted rows linger in
free pages and in the write-ahead log.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from infra.local.database import Database
from infra.local.home import EmbeddedHome
from infra.report import stamp
from shared.errors import Leased
from shared.ports import Batch
from shared.record import Envelope


def find_traces(home: EmbeddedHome, key: str) -> dict[str, int]:
    """How often the key stands where, for the person who has to confirm."""
    with home.state.reading() as connection:
        cells = connection.execute("SELECT count(*) FROM cells WHERE key = ?", (key,)).fetchone()[0]
        failures = connection.execute("SELECT count(*) FROM failures WHERE key = ?", (key,)).fetchone()[0]
    batches = sum(1 for _ in _batches_with(home, key))
    return {"cells": cells, "failures": failures, "batches": batches}


def forget(home: EmbeddedHome, key: str) -> dict[str, Any]:
    """Erases a key in every integration and gives the receipt. Raises Leased while a record of it is on its way."""
    batches = list(_batches_with(home, key))
    if any(batch.state != "settled" for batch in batches):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstone = "forgotten:" + hmac.new(secrets.token_bytes(32), key.encode(), hashlib.sha256).hexdigest()[:24]
    blanked = 0
    for blob in sorted({batch.blob for batch in batches if batch.blob}):
        blanked += _blank(home, blob, key)
    home.transport.write(lambda connection: _drop_messages(connection, batches))
    erased = home.state.write(lambda connection: _rename(connection, batches, key, tombstone))
    for database in (home.state, home.transport):
        _rewrite(database)
    return {
        "receipt": tombstone,
        "at": stamp(home.clock.now()),
        "erased": {**erased, "archived records": blanked},
    }


def _batches_with(home: EmbeddedHome, key: str) -> Iterator[Batch]:
    with home.state.reading() as connection:
        streams = connection.execute("SELECT DISTINCT integration, stream FROM batches").fetchall()
    for integration, stream in streams:
        yield from home.ports.batches.naming(integration, stream, key)


def _rename(connection: sqlite3.Connection, batches: list[Batch], key: str, tombstone: str) -> dict[str, int]:
    for batch in batches:
        keys = [tombstone if each == key else each for each in batch.keys]
        connection.execute(
            "UPDATE batches SET idents = ? WHERE id = ?", (msgspec.json.encode((keys, batch.versions)), batch.id)
        )
    # What failed before the object had an identity stands under its makeshift key, <system>:<its id there>.
    failures = connection.execute(
        "DELETE FROM failures WHERE key = ? OR seq IN (SELECT f.seq FROM failures f JOIN streams s ON "
        "s.integration = f.integration AND s.stream = f.stream JOIN cells c ON c.stream = s.id "
        "WHERE c.key = ? AND c.origin <> '' AND f.key LIKE '%:' || c.origin)",
        (key, key),
    ).rowcount
    cells = connection.execute(
        "UPDATE cells SET key = ?, hash = '', target_id = '', origin = '' WHERE key = ?", (tombstone, key)
    ).rowcount
    return {"cells": cells, "failures": failures, "batches": len(batches)}


def _drop_messages(connection: sqlite3.Connection, batches: list[Batch]) -> None:
    """A settled batch may still wait on the bus, since it came twice or as a dead letter: nobody needs it any more."""
    connection.executemany("DELETE FROM messages WHERE batch = ?", [(batch.id,) for batch in batches])


def _blank(home: EmbeddedHome, blob: str, key: str) -> int:
    """Overwrites the key's records in an archive with blanks of the same length."""
    try:
        data = home.ports.blobs.read(blob)
    except FileNotFoundError:
        return 0
    parts, count = [], 0
    with home.state.reading() as connection:
        places = connection.execute("SELECT at, length FROM batches WHERE blob = ? ORDER BY at", (blob,)).fetchall()
    for offset, length in places:
        part = data[offset : offset + length]
        envelope = Envelope.from_bytes(part)
        kept = [record for record in envelope.records if record.key != key]
        if len(kept) < len(envelope.records):
            count += len(envelope.records) - len(kept)
            part = msgspec.structs.replace(envelope, records=kept).to_bytes().ljust(length)
        parts.append(part)
    if count:
        home.ports.blobs.write(blob, b"".join(parts))
    return count


def _rewrite(database: Database) -> None:
    with database.reading() as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
