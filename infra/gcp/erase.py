"""Forgetting a person: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards. Streams whose records only tell of the key keep their own identities (`shared/forget.py`); they
come first, since they are found with the help of the person's own cell. The order of the writes keeps the books
balanced after a crash between any two: the tombstone's cells come before the names, the person's own go last, and
whoever forgets again finds what is left.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from infra.gcp.batches import rename
from infra.gcp.errors import Conflict
from infra.gcp.home import GoogleHome
from infra.gcp.ledger import cell_path, put_cells
from infra.gcp.names import document_id
from infra.gcp.store import Query, Write, instant
from infra.report import stamp
from shared.errors import Leased, StoreUnavailable
from shared.forget import (
    TOMBSTONE,
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
from shared.ports import Batch, Failure, FailureQuery

Streams = Iterable[tuple[str, str]]
"""Pairs of integration and stream."""
_decode = msgspec.json.Decoder(Failure).decode


def find_traces(home: GoogleHome, streams: Streams, key: str, tellings: Sequence[Telling] = ()) -> dict[str, int]:
    """How often the key stands where, and what tells of it, for the person who has to confirm. `streams` are those that
    are configured; those that once were are looked up."""
    ports, told = home.ports, who_is_meant(home.ports, tellings, key)
    found = {"cells": 0, "failures": 0, "batches": 0}
    for name in _all_streams(home, streams):
        if name not in told:
            found["cells"] += len(ports.ledger.cells(*name, [key]))
            found["failures"] += ports.failures.count(_failures_of(*name, key))
            found["batches"] += sum(1 for _ in ports.batches.naming(*name, key))
    for name, meant in told.items():
        found["failures"] += sum(1 for _ in failures_of(ports, *name, meant))
        found["batches"] += sum(1 for batch in archived_batches(ports, *name) if find_archived(ports, batch, meant))
    return found


def forget(
    home: GoogleHome,
    streams: Streams,
    key: str,
    tellings: Sequence[Telling] = (),
    first: Callable[[], dict[str, int]] = dict,
) -> dict[str, Any]:
    """Erases a key in every stream, and what tells of it, and gives the receipt. Raises Leased while such a record is
    on its way; else `first` is done, and says how much it erased where."""
    ports, told = home.ports, who_is_meant(home.ports, tellings, key)
    named = {each: list(ports.batches.naming(*each, key)) for each in _all_streams(home, streams) if each not in told}
    waiting = any(batch.state != "settled" for batches in named.values() for batch in batches)
    if waiting or on_its_way(ports, told):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstone = TOMBSTONE + hmac.new(secrets.token_bytes(32), key.encode(), hashlib.sha256).hexdigest()[:24]
    erased = first() | _erase_told(home, told)
    for (integration, stream), batches in named.items():
        cells = ports.ledger.cells(integration, stream, [key])
        nameless = [
            msgspec.structs.replace(
                cell, key=tombstone, hash="", target_id="", origin="", shown="", gave_way="", shown_version=""
            )
            for cell in cells.values()
        ]
        if nameless:
            home.store.commit(put_cells(integration, stream, nameless))
        batches.sort(key=lambda batch: batch.blob)
        erased["archived records"] += blank(ports, batches, lambda record: record.key == key)[0]
        for batch in batches:
            _rename(home, batch, key, tombstone)
        failures = [each.id for each in ports.failures.find(_failures_of(integration, stream, key))]
        home.failures.remove(failures)
        if nameless:
            home.store.commit([Write(cell_path(integration, stream, key), {}, "delete")])
        erased["cells"] += len(nameless)
        erased["failures"] += len(failures)
        erased["batches"] += len(batches)
    for name in {**named, **told}:
        drop_dead_archives(ports, *name)
    return {"receipt": tombstone, "at": stamp(home.clock.now()), "erased": erased}


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


def _failures_of(integration: str, stream: str, key: str) -> FailureQuery:
    return FailureQuery(integration, stream, key=key, include_closed=True)


def _rename(home: GoogleHome, batch: Batch, key: str, tombstone: str) -> None:
    """Based on the batch as it is: somebody may be amending it."""
    for _ in home.patience.tries():
        try:
            rename(home.store, batch.id, key, tombstone)
        except Conflict:
            continue
        return
    raise StoreUnavailable(f"batch {batch.id}: others kept getting in between")
