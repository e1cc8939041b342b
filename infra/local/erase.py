"""Forgetting a person: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards, so that nobody can tell whose it was. Archived records become blanks of the same length, so that
the other records of a blob stay where they are. Streams whose records only tell of the key keep their own identities
(`shared/forget.py`); they come first, since they are found with the help of the person's own cell. Streams of the
hub's own store may know the person by other keys (`shared/forget_customer.py`), which are found with the help of the
books and of the person's object: files come before these, and objects go together with them. At the end the databases
are rewritten, since deleted rows linger in free pages and in the write-ahead log.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import msgspec

from infra.local.database import Database
from infra.local.home import EmbeddedHome
from infra.local.monitoring import MeantIn, count_rows, erase_rows
from infra.report import stamp
from shared.books import Batch, Failure
from shared.errors import Leased, MalformedEnvelope
from shared.forget import (
    Meant,
    Telling,
    Told,
    Tombstones,
    archived_batches,
    blank,
    drop_dead_archives,
    failures_of,
    find_archived,
    left_of,
    on_its_way,
)
from shared.forget_customer import Counting, Keeping, Person, Where, erase_places, failures_in, look_up, runs_at
from shared.forget_files import erase_files, look_into_files
from shared.record import Envelope

_ELSEWHERE = "integration || '/' || stream NOT IN (SELECT value FROM json_each(?))"
_MESSAGES_AT_ONCE = 20
_decode = msgspec.json.Decoder(Failure).decode


def find_traces(
    home: EmbeddedHome,
    key: str,
    tellings: Sequence[Telling] = (),
    keepings: Sequence[Keeping] = (),
    also: Counting = lambda person: {},
) -> dict[str, int]:
    """How often the key stands where, and what tells of it, for the person who has to confirm. `also` says more."""
    person = _person(home, key, tellings, keepings)
    with home.state.reading() as connection:
        cells = connection.execute(
            f"SELECT count(*) FROM cells WHERE key = ? AND stream IN (SELECT id FROM streams WHERE {_ELSEWHERE})",
            (key, _apart(person)),
        ).fetchone()[0]
        failures = connection.execute(
            f"SELECT count(*) FROM failures WHERE key = ? AND {_ELSEWHERE}", (key, _apart(person))
        ).fetchone()[0]
    batches = sum(1 for _ in _batches_of(home, person))
    for name, meant in person.told.items():
        failures += sum(1 for _ in failures_of(home.ports, *name, meant))
        batches += sum(1 for batch in archived_batches(home.ports, *name) if find_archived(home.ports, batch, meant))
    for name, theirs in person.theirs.items():
        cells += len(home.ports.ledger.cells(*name, list(theirs.keys)))
        failures += len(failures_in(home.ports, theirs))
    with home.state.reading() as connection:
        rows = count_rows(connection, _meant_in(home, person))
    objects = sum(map(len, person.owned.values()))
    files, _ = look_into_files(home.ports, person)
    counts = {"cells": cells, "failures": failures, "batches": batches, "monitoring rows": rows}
    return counts | {"objects": objects} | files | also(person)


def forget(
    home: EmbeddedHome,
    key: str,
    tellings: Sequence[Telling] = (),
    keepings: Sequence[Keeping] = (),
    first: Counting = lambda person: {},
) -> dict[str, Any]:
    """Erases a key in every integration, and what tells of it, and gives the receipt. Raises Leased while such a record
    is on its way; else `first` is done, and says how much it erased where."""
    person = _person(home, key, tellings, keepings)
    batches = list(_batches_of(home, person))
    _, may_be_read = look_into_files(home.ports, person)
    may_be_read = may_be_read or any(run.resumable for run in runs_at(home.ports, person))
    if may_be_read or any(batch.state != "settled" for batch in batches) or on_its_way(home.ports, person.told):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstones = Tombstones(secrets.token_bytes(32))
    erased = first(person) | erase_files(home.ports, person) | _erase_told(home, person.told)
    for name, found in groupby(batches, _stream_of):
        carried = sorted(found, key=lambda batch: batch.blob)
        erased["archived records"] += blank(home.ports, carried, _keyed(person.keys_in(name)))[0]
    for name in _streams(home):
        drop_dead_archives(home.ports, *name)
    erase_places(home.ports, person)
    home.blobs.remove_abandoned()
    home.transport.write(lambda connection: _drop_messages(connection, batches))
    meant_in = _meant_in(home, person)
    failed = [id for theirs in person.theirs.values() for id in failures_in(home.ports, theirs)]
    renamed = home.state.write(lambda connection: _rename(connection, person, batches, failed, tombstones, meant_in))
    for database in (home.state, home.transport):
        _rewrite(database)
    return {
        "receipt": tombstones.of(key),
        "at": stamp(home.clock.now()),
        "erased": {place: erased.get(place, 0) + renamed.get(place, 0) for place in {**erased, **renamed}},
    }


def _person(home: EmbeddedHome, key: str, tellings: Iterable[Telling], keepings: Iterable[Keeping]) -> Person:
    return look_up(home.ports, key, tellings, keepings, _streams(home), home.objects.owned(key))


def _apart(person: Person) -> str:
    return msgspec.json.encode(["/".join(name) for name in {**person.told, **person.theirs}]).decode()


def _streams(home: EmbeddedHome) -> list[tuple[str, str]]:
    with home.state.reading() as connection:
        return connection.execute("SELECT DISTINCT integration, stream FROM runs").fetchall()


def _batches_of(home: EmbeddedHome, person: Person) -> Iterator[Batch]:
    for name in _streams(home):
        if name not in person.told:
            yield from home.ports.batches.naming(*name, *person.keys_in(name))


def _stream_of(batch: Batch) -> Where:
    return batch.integration, batch.stream


def _keyed(keys: set[str]) -> Meant:
    return lambda record: record.key in keys


def _meant_in(home: EmbeddedHome, person: Person) -> MeantIn:
    """Which records are meant where: those of the key, also under the makeshift key of the time before it had this one
    (<system>:<its id there>), and those that tell of it or are theirs otherwise."""

    def meant_in(integration: str, stream: str) -> Meant:
        if (integration, stream) in person.told:
            return person.told[integration, stream]
        if (integration, stream) in person.theirs:
            return person.theirs[integration, stream].is_record
        key = person.key
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
    connection: sqlite3.Connection,
    person: Person,
    batches: list[Batch],
    failed: list[str],
    tombstones: Tombstones,
    meant_in: MeantIn,
) -> dict[str, int]:
    rows = erase_rows(connection, meant_in)
    for batch in batches:
        tombs = person.tombs_in(_stream_of(batch), tombstones)
        keys = [tombs.get(key, key) for key in batch.keys]
        connection.execute(
            "UPDATE batches SET idents = ? WHERE id = ?", (msgspec.json.encode((keys, batch.versions)), batch.id)
        )
    # What failed before the object had an identity stands under its makeshift key, <system>:<its id there>.
    key, apart = person.key, _apart(person)
    failures = connection.execute(
        f"DELETE FROM failures WHERE {_ELSEWHERE} AND (key = ? OR seq IN (SELECT f.seq FROM failures f JOIN streams s "
        "ON s.integration = f.integration AND s.stream = f.stream JOIN cells c ON c.stream = s.id "
        "WHERE c.key = ? AND c.origin <> '' AND f.key LIKE '%:' || c.origin))",
        (apart, key, key),
    ).rowcount
    connection.executemany("DELETE FROM failures WHERE id = ?", [(id,) for id in failed])
    cells = _rename_cells(connection, _ELSEWHERE, (apart,), key, tombstones)
    for name, theirs in person.theirs.items():
        for each in theirs.keys:
            cells += _rename_cells(connection, "integration = ? AND stream = ?", name, each, tombstones)
    for kind, ids in person.owned.items():
        connection.executemany("DELETE FROM objects WHERE kind = ? AND id = ?", [(kind, id) for id in ids])
    objects = sum(map(len, person.owned.values()))
    counts = {"cells": cells, "failures": failures + len(failed), "batches": len(batches)}
    return counts | {"monitoring rows": rows, "objects": objects}


def _rename_cells(
    connection: sqlite3.Connection, which: str, values: tuple[str, ...], key: str, tombstones: Tombstones
) -> int:
    return connection.execute(
        "UPDATE cells SET key = ?, hash = '', target_id = '', origin = '', shown = '', gave_way = '', "
        f"shown_version = '' WHERE key = ? AND stream IN (SELECT id FROM streams WHERE {which})",
        (tombstones.of(key), key, *values),
    ).rowcount


def _drop_messages(connection: sqlite3.Connection, batches: list[Batch]) -> None:
    """A settled batch may still wait on the bus, since it came twice or as a dead letter: nobody needs it any more."""
    connection.executemany("DELETE FROM messages WHERE batch = ?", [(batch.id,) for batch in batches])


def _rewrite(database: Database) -> None:
    with database.reading() as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
