"""Forgetting a person on Google Cloud: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards. Streams whose records only tell of the key keep their own identities (`shared/forget.py`); they
come first, since they are found with the help of the person's own cell. Streams of the hub's own store may know the
person by other keys (`shared/forget_customer.py`), which are found with the help of the books and of the person's
object: files come before these, and objects go last. The order of the writes keeps the books balanced after a crash
between any two: the tombstones' cells come before the names, the person's own go last, and whoever forgets again finds
what is left.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from infra.gcp.batches import rename
from infra.gcp.errors import Conflict
from infra.gcp.home import GoogleHome
from infra.gcp.ledger import cell_path, put_cells
from infra.gcp.names import document_id
from infra.gcp.store import Query, Write, instant
from infra.report import stamp
from shared.books import Batch, Failure, FailureQuery
from shared.errors import Leased, StoreUnavailable
from shared.forget import (
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

Streams = Iterable[Where]
CELLS_AT_ONCE: Final = 300
_decode = msgspec.json.Decoder(Failure).decode


def find_traces(
    home: GoogleHome,
    streams: Streams,
    key: str,
    tellings: Sequence[Telling] = (),
    keepings: Sequence[Keeping] = (),
    also: Counting = lambda person: {},
) -> dict[str, int]:
    """How often the key stands where, and what tells of it, for the person who has to confirm. `streams` are those that
    are configured; those that once were are looked up. `also` says more."""
    ports, known = home.ports, list(_all_streams(home, streams))
    person = look_up(ports, key, tellings, keepings, known, home.objects.owned(key))
    found = {"cells": 0, "failures": 0, "batches": 0}
    for name in {**dict.fromkeys(known), **person.theirs}:
        if name not in person.told:
            keys = person.keys_in(name)
            found["cells"] += len(ports.ledger.cells(*name, list(keys)))
            found["failures"] += len(_failures_in(home, person, name))
            found["batches"] += sum(1 for _ in ports.batches.naming(*name, *keys))
    for name, meant in person.told.items():
        found["failures"] += sum(1 for _ in failures_of(ports, *name, meant))
        found["batches"] += sum(1 for batch in archived_batches(ports, *name) if find_archived(ports, batch, meant))
    files, _ = look_into_files(ports, person)
    return found | {"objects": sum(map(len, person.owned.values()))} | files | also(person)


def forget(
    home: GoogleHome,
    streams: Streams,
    key: str,
    tellings: Sequence[Telling] = (),
    keepings: Sequence[Keeping] = (),
    first: Counting = lambda person: {},
) -> dict[str, Any]:
    """Erases a key in every stream, and what tells of it, and gives the receipt. Raises Leased while such a record is
    on its way; else `first` is done, and says how much it erased where."""
    ports, known = home.ports, list(_all_streams(home, streams))
    person = look_up(ports, key, tellings, keepings, known, home.objects.owned(key))
    names = [name for name in {**dict.fromkeys(known), **person.theirs} if name not in person.told]
    named = {name: list(ports.batches.naming(*name, *person.keys_in(name))) for name in names}
    waiting = any(batch.state != "settled" for batches in named.values() for batch in batches)
    _, may_be_read = look_into_files(ports, person)
    waiting = waiting or any(run.resumable for run in runs_at(ports, person))
    if waiting or may_be_read or on_its_way(ports, person.told):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstones = Tombstones(secrets.token_bytes(32))
    erased = first(person) | erase_files(ports, person) | _erase_told(home, person.told)
    for name, batches in named.items():
        _erase(home, person, name, batches, tombstones, erased)
    for name in {**named, **person.told}:
        drop_dead_archives(ports, *name)
    erase_places(ports, person)
    for kind, ids in person.owned.items():
        ports.objects.remove(kind, ids)
    erased["objects"] = sum(map(len, person.owned.values()))
    return {"receipt": tombstones.of(key), "at": stamp(home.clock.now()), "erased": erased}


def _erase(
    home: GoogleHome, person: Person, name: Where, batches: list[Batch], tombstones: Tombstones, erased: dict[str, int]
) -> None:
    """Erases what a stream knows under their keys, and counts it."""
    tombs = person.tombs_in(name, tombstones)
    cells = home.ports.ledger.cells(*name, list(tombs))
    nameless = [
        msgspec.structs.replace(
            cell, key=tombs[key], hash="", target_id="", origin="", shown="", gave_way="", shown_version=""
        )
        for key, cell in cells.items()
    ]
    for start in range(0, len(nameless), CELLS_AT_ONCE):
        home.store.commit(put_cells(*name, nameless[start : start + CELLS_AT_ONCE]))
    batches.sort(key=lambda batch: batch.blob)
    erased["archived records"] += blank(home.ports, batches, lambda record: record.key in tombs)[0]
    for batch in batches:
        _rename(home, batch, tombs)
    failures = _failures_in(home, person, name)
    home.failures.remove(failures)
    paths = [cell_path(*name, key) for key in cells]
    for start in range(0, len(paths), CELLS_AT_ONCE):
        home.store.commit([Write(path, {}, "delete") for path in paths[start : start + CELLS_AT_ONCE]])
    erased["cells"] += len(nameless)
    erased["failures"] += len(failures)
    erased["batches"] += len(batches)


def _erase_told(home: GoogleHome, told: Told) -> dict[str, int]:
    """Erases what only tells of the key."""
    erased = {"cells": 0, "failures": 0, "batches": 0, "archived records": 0}
    for name, meant in told.items():
        records, batches = blank(home.ports, archived_batches(home.ports, *name), meant)
        erased["archived records"] += records
        erased["batches"] += batches
        for failure in failures_of(home.ports, *name, meant):
            _erase_failure(home, failure)
            erased["failures"] += 1
    return erased


def _erase_failure(home: GoogleHome, failure: Failure) -> None:
    """Based on the failure as it is. What is stored apart goes last: as long as it is there, the failure is found."""
    path = ("failures", document_id(failure.id))
    for _ in home.patience.tries():
        found = home.store.get(path)
        if found is None:
            return
        stored = msgspec.structs.replace(_decode(found.fields["doc"]), closed_at=instant(found.fields["closed_at"]))
        left = left_of(stored)
        try:
            if left is None:
                home.failures.remove([failure.id])
            else:
                doubt = {"doc": msgspec.json.encode(left).decode(), "data": "{}"}
                home.store.commit([Write(path, doubt, "update", found.version)])
        except Conflict:
            continue
        for name, _ in list(home.ports.blobs.names(f"failures/{failure.integration}/{failure.stream}/{failure.id}/")):
            if left is not None and name == found.fields["blob"]:
                home.ports.blobs.write(name, b"{}")
            else:
                home.ports.blobs.delete(name)
        return
    raise StoreUnavailable(f"failure {failure.id}: others kept getting in between")


def _all_streams(home: GoogleHome, streams: Streams) -> Iterator[tuple[str, str]]:
    known = dict.fromkeys(streams)
    for document in home.store.each(Query(("streams",), fields=("of",))):
        integration, _, stream = document.fields["of"].partition("/")
        known[integration, stream] = None
    yield from known


def _failures_in(home: GoogleHome, person: Person, name: Where) -> list[str]:
    """The ids of what failed there."""
    if name in person.theirs:
        return failures_in(home.ports, person.theirs[name])
    query = FailureQuery(*name, key=person.key, include_closed=True)
    return [failure.id for failure in home.ports.failures.find(query)]


def _rename(home: GoogleHome, batch: Batch, tombs: dict[str, str]) -> None:
    """Based on the batch as it is: somebody may be amending it."""
    for _ in home.patience.tries():
        try:
            rename(home.store, batch.id, tombs)
        except Conflict:
            continue
        return
    raise StoreUnavailable(f"batch {batch.id}: others kept getting in between")
