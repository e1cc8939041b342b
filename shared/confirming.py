"""The sweeper asks targets what became of what they accepted.

Order of effects, for each request: ask the target; if it failed as a whole, turn its records into failures, in portions
each of which is one write (with monitoring rows as in `shared/deliver.py`); then note what was said. After a crash in
between the request is asked about again, and records that are failures already are left out, since their cells are no
longer under the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from shared.books import Batch, Failure, FailureQuery
from shared.confirm import Awaited, Confirmation, looked_at, postponed
from shared.ends import Sink, confirming
from shared.errors import ConfigError, MalformedEnvelope, ProtocolError, WaybillError
from shared.ledger import refused_later
from shared.outcome import LETTERS, Outcome
from shared.ports import Home, Notice
from shared.record import Envelope, Record
from shared.stream import Stream

MOST_AT_ONCE: Final = 100
"""Requests of a stream that one sweep asks about."""
PORTION: Final = 200
"""Records that become failures in one write: with the data of a whole batch still within a commit of Firestore's."""
_DELIVERED: Final = LETTERS[Outcome.DELIVERED]
Identity = tuple[str, str]
"""Key and version."""


class Asked(msgspec.Struct):
    """What a round came to: requests that were confirmed, and records that were refused after all."""

    confirmed: int = 0
    refused: int = 0


class Place(NamedTuple):
    """Where a record was fetched: the place whose outcome the audit counts."""

    run: str
    batch: str
    place: int


def ask_targets(
    stream: Stream, home: Home, open_sink: Callable[[Stream], Sink], notice: Notice, stopping: Callable[[], bool]
) -> Asked:
    """Asks about the requests of a stream that are due. A target that cannot be asked ends the round and is noticed;
    raises StoreUnavailable only."""
    asked = Asked()
    due = home.confirmations.due(stream.integration, stream.name, home.clock.now())
    requests = list(islice(due, MOST_AT_ONCE))
    if not requests:
        return asked
    name = {"integration": stream.integration, "stream": stream.name}
    try:
        sink = open_sink(stream)
    except WaybillError as error:
        notice("confirmation_failed", **name, error=type(error).__name__)
        return asked
    try:
        for awaited in requests:
            if stopping():
                break
            found = _answer(sink, awaited, home, notice)
            if found is None:
                break
            ended = looked_at(awaited, found, home.clock.now())
            if ended.state == "failed":
                failures = take_back(awaited, found, home, stream.monitored)
                left = awaited.records - failures
                notice("refused_later", **name, records=awaited.records, failures=failures, left=left)
            home.confirmations.note(ended)
            asked.confirmed += ended.state == "confirmed"
            asked.refused += sum(ended.refused.values()) if ended.ended_at is not None else 0
    finally:
        sink.close()
    return asked


def _answer(sink: Sink, awaited: Awaited, home: Home, notice: Notice) -> Confirmation | None:
    """What the target says of a request, None if it could not be asked. An answer that its API does not document is a
    look that says nothing, so that it has an end."""
    name = {"integration": awaited.integration, "stream": awaited.stream}
    try:
        asked = confirming(sink)
        if asked is None:
            raise ConfigError("the stream has another sink by now")
        return asked.confirm(awaited.id)
    except ProtocolError as error:
        notice("confirmation_odd", **name, error=type(error).__name__)
        return Confirmation(awaited.id, "pending")
    except Exception as error:
        notice("confirmation_failed", **name, error=type(error).__name__)
        home.confirmations.note(postponed(awaited, home.clock.now()))
        return None


def take_back(awaited: Awaited, found: Confirmation, home: Home, table: str = "") -> int:
    """Turns the records of a request that failed as a whole into failures that a replay takes up; says how many.
    `table` is the stream's monitoring table, empty where there is none.

    What is left as it is: a record whose archive is gone, and one that was delivered anew since.
    """
    batch = home.batches.get(awaited.batch)
    envelope = None if batch is None else _archived(batch, home)
    if batch is None or envelope is None:
        return 0
    records = list(_carried(awaited, batch, envelope.records, home))
    if not records:
        return 0
    places = _places(batch, records, home)
    now, verdict = home.clock.now(), found.verdict
    failures = []
    for record in records:
        where = places.get((record.key, record.version))
        if where is not None:
            failure = Failure.of(record, verdict, batch, where.place, now, envelope.location)
            failures.append(msgspec.structs.replace(failure, run=where.run, batch=where.batch))
    return sum(
        home.batches.refuse_later(awaited.id, failures[start : start + PORTION], table)
        for start in range(0, len(failures), PORTION)
    )


def _archived(batch: Batch, home: Home) -> Envelope | None:
    try:
        return Envelope.from_bytes(home.blobs.read(batch.blob, batch.offset, batch.length))
    except (FileNotFoundError, MalformedEnvelope):
        return None


def _carried(awaited: Awaited, batch: Batch, records: Sequence[Record], home: Home) -> Iterator[Record]:
    """Those of a batch's archived records that were delivered by the request, and by nothing since."""
    letters = zip(batch.keys, batch.versions, batch.outcomes, strict=True)
    delivered = {(key, version) for key, version, letter in letters if letter == _DELIVERED}
    records = [record for record in records if (record.key, record.version) in delivered]
    cells = home.ledger.cells(awaited.integration, awaited.stream, list({record.key for record in records}))
    taken = set()
    for record in records:
        refused = refused_later(cells.get(record.key), awaited.id, record.version)
        if refused is not None and record.key not in taken:
            taken.add(record.key)
            yield record


def _places(batch: Batch, records: Sequence[Record], home: Home) -> dict[Identity, Place]:
    """Where these records were fetched. A replay carries records of other batches: their failures, closed by now, say
    of which, and where these are cleaned up, the books."""
    wanted = {(record.key, record.version) for record in records}
    if batch.kind == "fetch":
        identities = zip(batch.keys, batch.versions, batch.outcomes, strict=True)
        return {
            (key, version): Place(batch.run, batch.id, place)
            for place, (key, version, letter) in enumerate(identities)
            if letter == _DELIVERED and (key, version) in wanted
        }
    keys = tuple(dict.fromkeys(record.key for record in records))
    query = FailureQuery(batch.integration, batch.stream, keys=keys, include_closed=True)
    found = {(f.key, f.version): Place(f.run, f.batch, f.place) for f in home.failures.find(query)}
    missing = wanted - found.keys()
    if missing:
        for entries in home.books.entries(batch.integration, batch.stream):
            letters = zip(entries.keys, entries.versions, entries.outcomes, strict=True)
            for place, (key, version, letter) in enumerate(letters):
                if letter == _DELIVERED and (key, version) in missing:
                    found[key, version] = Place(entries.run, entries.batch, place)
    return found
