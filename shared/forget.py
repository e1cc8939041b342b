"""Forgetting a person in records that tell of them under a key of their own, as a task tells of its customer.

Such a key names nobody, and what the books know under it keeps the record from being sent twice: identities, outcomes
and ledger cells stay as they are. What the record holds goes, from the archive and with its failure. All of it is found
by what it holds, so whoever forgets again after a crash finds what is left.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

import msgspec

from shared.books import Batch, Failure, FailureQuery
from shared.deliver import may_have_arrived
from shared.ports import Home
from shared.record import Envelope, Record

TOMBSTONE: Final = "forgotten:"
"""How what takes the place of a forgotten key begins. Neither end knows anything by it."""
FORGOTTEN: Final = "it may have arrived, and whose it was is forgotten"
"""The reason that is left of a failure."""


class Tombstones:
    """What takes the place of keys. Nobody can tell whose it was once the secret is thrown away."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, key: str) -> str:
        digest = hmac.new(self._secret, key.encode("utf8", "surrogatepass"), hashlib.sha256)
        return TOMBSTONE + digest.hexdigest()[:24]


class Telling(msgspec.Struct, frozen=True):
    """A stream whose records tell of the objects of another one, `of`, whose key `key_in` finds in them."""

    integration: str
    stream: str
    of: str
    source_system: str
    key_in: Callable[[dict[str, Any]], str]


Meant = Callable[[Record | Failure], bool]
"""Whether a record is to be forgotten."""
Told = dict[tuple[str, str], Meant]
"""By integration and stream."""


def who_is_meant(home: Home, tellings: Iterable[Telling], key: str) -> Told:
    """What to forget in these streams: records of this key, and those that tell of its object, even by the makeshift
    key of the time before it had this one."""
    told: Told = {}
    for telling in tellings:
        cell = home.ledger.cells(telling.integration, telling.of, [key]).get(key)
        names = {key} if cell is None or not cell.origin else {key, f"{telling.source_system}:{cell.origin}"}
        where = telling.integration, telling.stream
        told[where] = _either(_telling_of(names - {""}, telling.key_in), told.get(where))
    return told


def _telling_of(names: set[str], key_in: Callable[[dict[str, Any]], str]) -> Meant:
    return lambda record: record.key in names or key_in(record.data) in names


def _either(one: Meant, other: Meant | None) -> Meant:
    return one if other is None else lambda record: one(record) or other(record)


def on_its_way(home: Home, told: Told) -> bool:
    """Whether one of these records is not settled yet."""
    return any(
        find_archived(home, batch, meant) for name, meant in told.items() for batch in home.batches.unsettled(*name)
    )


def archived_batches(home: Home, integration: str, stream: str) -> Iterator[Batch]:
    """The settled batches of a stream whose runs have something in the archive, those of a blob one after another."""
    for run, _ in _archives(home, integration, stream):
        for batch in home.batches.of_run(run):
            if batch.blob and batch.state == "settled":
                yield batch


def find_archived(home: Home, batch: Batch, meant: Meant) -> int:
    """How many of a batch's records in the archive are meant."""
    envelope = _archived(home, batch)
    return 0 if envelope is None else sum(map(meant, envelope.records))


def blank(home: Home, batches: Iterable[Batch], meant: Meant) -> tuple[int, int]:
    """Overwrites records of settled batches in the archive: says how many, and of how many batches. Blanks of the same
    length take their place, so that the other batches of a blob stay where they are.

    What is meant of a blob goes in one write, so that a write that was cut off leaves a copy of none of it.
    """
    records = touched = 0
    for blob, carried in groupby(batches, lambda batch: batch.blob):
        parts: dict[int, bytes] = {}
        for batch in carried:
            envelope = _archived(home, batch)
            kept = [] if envelope is None else [record for record in envelope.records if not meant(record)]
            if envelope is not None and len(kept) < len(envelope.records):
                part = msgspec.structs.replace(envelope, records=kept).to_bytes()
                parts[batch.offset] = part.ljust(batch.length)
                records += len(envelope.records) - len(kept)
        if parts:
            data = bytearray(home.blobs.read(blob))
            for offset, part in parts.items():
                data[offset : offset + len(part)] = part
            home.blobs.write(blob, bytes(data))
            touched += len(parts)
    return records, touched


def drop_dead_archives(home: Home, integration: str, stream: str) -> None:
    """Deletes what crashed runs archived and never committed: no batch says where in it a record stands."""
    for run_id, names in _archives(home, integration, stream):
        run = home.runs.get(run_id)
        # A group that was committed since, or a run that is over, never comes back to the file.
        dead = {name for name in names if run is not None and (run.over or int(name.rpartition("-")[2]) < run.groups)}
        if dead:
            for name in dead - {batch.blob for batch in home.batches.of_run(run_id)}:
                home.blobs.delete(name)


def _archives(home: Home, integration: str, stream: str) -> Iterator[tuple[str, list[str]]]:
    """The runs of a stream that have something in the archive, and what."""
    names = (name for name, _ in home.blobs.names(f"archive/{integration}/{stream}/"))
    for run, found in groupby(names, lambda name: name.split("/")[3]):
        yield run, list(found)


def _archived(home: Home, batch: Batch) -> Envelope | None:
    try:
        data = home.blobs.read(batch.blob, batch.offset, batch.length) if batch.blob else b""
    except FileNotFoundError:
        return None
    return Envelope.from_bytes(data) if data else None


def failures_of(home: Home, integration: str, stream: str, meant: Meant) -> Iterator[Failure]:
    """The failures of these records, open or not, that were not forgotten yet."""
    for failure in home.failures.find(FailureQuery(integration, stream, include_closed=True)):
        if (failure.data or failure.reason != FORGOTTEN) and meant(failure):
            yield failure


def left_of(failure: Failure) -> Failure | None:
    """What stays of the failure of a forgotten record: nothing, unless the record may be at the target. Then the doubt
    stays, since for its sake the target is asked before a later version is sent."""
    if failure.closed_at is not None or not may_have_arrived(failure):
        return None
    return msgspec.structs.replace(failure, data={}, reason=FORGOTTEN)
