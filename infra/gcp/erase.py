"""Forgetting a person: every trace of a key goes, and the books still balance.

Wherever the key stood as an identity, a tombstone takes its place: the same one everywhere, made with a secret that is
thrown away afterwards. The order of the writes keeps the books balanced after a crash between any two: the tombstone's
cells come first, the person's own go last, and whoever forgets again finds what is left.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from infra.gcp.batches import rename
from infra.gcp.errors import Conflict
from infra.gcp.home import GoogleHome
from infra.gcp.ledger import cell_path, put_cells
from infra.gcp.store import Query, Write
from infra.report import stamp
from shared.errors import Leased, StoreUnavailable
from shared.ports import Batch, FailureQuery
from shared.record import Envelope

Streams = Iterable[tuple[str, str]]
"""Pairs of integration and stream."""


def find_traces(home: GoogleHome, streams: Streams, key: str) -> dict[str, int]:
    """How often the key stands where, for the person who has to confirm. `streams` are those that are configured;
    those that once were are looked up."""
    found = {"cells": 0, "failures": 0, "batches": 0}
    for integration, stream in _all_streams(home, streams):
        found["cells"] += len(home.ports.ledger.cells(integration, stream, [key]))
        found["failures"] += home.ports.failures.count(_failures_of(integration, stream, key))
        found["batches"] += sum(1 for _ in home.ports.batches.naming(integration, stream, key))
    return found


def forget(home: GoogleHome, streams: Streams, key: str) -> dict[str, Any]:
    """Erases a key in every stream and gives the receipt. Raises Leased while a record of it is on its way."""
    named = {each: list(home.ports.batches.naming(*each, key)) for each in _all_streams(home, streams)}
    if any(batch.state != "settled" for batches in named.values() for batch in batches):
        raise Leased("a record of this key is still on its way", cure="let the run end, or run again, then forget")
    tombstone = "forgotten:" + hmac.new(secrets.token_bytes(32), key.encode(), hashlib.sha256).hexdigest()[:24]
    erased = {"cells": 0, "failures": 0, "batches": 0, "archived records": 0}
    for (integration, stream), batches in named.items():
        cells = home.ports.ledger.cells(integration, stream, [key])
        nameless = [
            msgspec.structs.replace(cell, key=tombstone, hash="", target_id="", origin="") for cell in cells.values()
        ]
        if nameless:
            home.store.commit(put_cells(integration, stream, nameless))
        for batch in batches:
            erased["archived records"] += _blank(home, batch, key)
            _rename(home, batch, key, tombstone)
        failures = [each.id for each in home.ports.failures.find(_failures_of(integration, stream, key))]
        home.failures.remove(failures)
        if nameless:
            home.store.commit([Write(cell_path(integration, stream, key), {}, "delete")])
        erased["cells"] += len(nameless)
        erased["failures"] += len(failures)
        erased["batches"] += len(batches)
    return {"receipt": tombstone, "at": stamp(home.clock.now()), "erased": erased}


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


def _blank(home: GoogleHome, batch: Batch, key: str) -> int:
    """Overwrites the key's records in the archive with blanks of the same length: the others stay where they are."""
    try:
        data = home.ports.blobs.read(batch.blob) if batch.blob else b""
    except FileNotFoundError:
        return 0
    part = data[batch.offset : batch.offset + batch.length]
    if not part:
        return 0
    envelope = Envelope.from_bytes(part)
    kept = [record for record in envelope.records if record.key != key]
    if len(kept) < len(envelope.records):
        blank = msgspec.structs.replace(envelope, records=kept).to_bytes().ljust(batch.length)
        home.ports.blobs.write(batch.blob, data[: batch.offset] + blank + data[batch.offset + batch.length :])
    return len(envelope.records) - len(kept)
