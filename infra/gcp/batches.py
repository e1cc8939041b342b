"""The committed batches in Firestore. An attempt has a batch for 60 seconds, renewed by whatever it writes.

Like a lease, a batch is its own fence: every write of an attempt is based on the version of the document that the
attempt itself wrote last.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from infra.gcp.confirmations import GoogleConfirmations
from infra.gcp.cutting import cut
from infra.gcp.errors import Conflict
from infra.gcp.failures import GoogleFailures
from infra.gcp.fence import Hold, commit_held, new_mark
from infra.gcp.ledger import GoogleLedger
from infra.gcp.monitoring import publish_or_tell
from infra.gcp.names import both, document_id
from infra.gcp.store import COMMIT_BYTES, Document, Path, Query, Store, Write, instant
from shared.books import Batch, Closure, Failure, Settlement
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.monitoring import failure_rows, monitored
from shared.ports import Bus, Clock

TIME_TO_LIVE: Final = timedelta(seconds=60)
PUBLISHED_AT_ONCE: Final = 300
BATCH_BYTES: Final = 2_000
"""What the fields of a settled batch take in a commit, its outcomes apart."""
_idents = msgspec.json.Decoder(tuple[list[str], list[str]]).decode
_rules = msgspec.json.Decoder(dict[str, int]).decode


class Hand:
    """A batch in an attempt's hands, and what is stored of its outcomes."""

    def __init__(self, hold: Hold, batch: Batch) -> None:
        self.hold = hold
        self.batch = batch
        self.outcomes = batch.outcomes


class GoogleBatches:
    def __init__(
        self,
        store: Store,
        ledger: GoogleLedger,
        failures: GoogleFailures,
        confirmations: GoogleConfirmations,
        clock: Clock,
        bus: Bus,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._failures = failures
        self._confirmations = confirmations
        self._clock = clock
        self._bus = bus
        self._hands: dict[tuple[str, str], Hand] = {}
        self._lock = threading.Lock()

    def published(self, batches: Sequence[str], at: datetime) -> None:
        for start in range(0, len(batches), PUBLISHED_AT_ONCE):
            part = batches[start : start + PUBLISHED_AT_ONCE]
            try:
                self._store.commit([Write(batch_path(batch), {"published_at": at}, "update") for batch in part])
            except Conflict as error:
                raise StoreUnavailable("a batch that was published is gone") from error

    def begin(self, batch: str, attempt: str) -> tuple[Batch | None, str]:
        path, mark = batch_path(batch), new_mark()
        earlier: str | None = None
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            if found is None or found.fields["state"] == "settled":
                return None, ""
            fields = found.fields
            if fields["mark"] == mark and earlier is not None:
                # It is ours, and only the answer was lost.
                return self._take(read_batch(found), attempt, found.version), earlier
            if fields["state"] == "sending" and self._is_live(found):
                raise Leased(f"batch {batch} is being sent", holder=fields["attempt"])
            earlier = fields["attempt"] if fields["state"] == "sending" else ""
            begun = {"state": "sending", "attempt": attempt, "mark": mark, **self._until()}
            try:
                (version,) = self._store.commit([Write(path, begun, "update", found.version)])
            except Conflict:
                continue
            return self._take(read_batch(found), attempt, version), earlier
        raise StoreUnavailable(f"batch {batch}: others kept getting in between")

    def settle(self, settlement: Settlement) -> None:
        """A settlement that is more than one commit takes is written as several, each true by itself: all that is known
        of some of the records, while the attempt goes on with the others."""
        hand = self._hand(settlement.batch, settlement.attempt)
        publish_or_tell(self._bus, hand.batch.integration, settlement.monitored)
        room = COMMIT_BYTES - BATCH_BYTES - 2 * len(settlement.outcomes)
        for part in cut(settlement, hand.batch, hand.outcomes, self._failures, room):
            self._write(hand, part)
            hand.outcomes = part.outcomes
        if not settlement.keep:
            self._drop(settlement.batch, settlement.attempt)

    def renew(self, batch: str, attempt: str) -> None:
        commit_held(self._store, self._hand(batch, attempt).hold, self._until())

    def let_go(self, batch: str, attempt: str) -> None:
        """Best effort: without it the next attempt waits until this one expires."""
        hand = self._drop(batch, attempt)
        if hand is None:
            return
        try:
            commit_held(self._store, hand.hold, {"until": None})
        except (Fenced, StoreUnavailable):
            return

    def of_run(self, run: str) -> Iterator[Batch]:
        return self._each(Query(("batches",), (("run", "==", run),), order="committed_at"))

    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        name = integration if stream is None else both(integration, stream)
        return self._each(Query(("batches",), (("waiting", "array_contains", name),), order="committed_at"))

    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        wanted = frozenset(keys)
        where = (("of", "==", both(integration, stream)),)
        for batch in self._each(Query(("batches",), where, order="committed_at")):
            if not wanted.isdisjoint(batch.keys):
                yield batch

    def get(self, batch: str) -> Batch | None:
        found = self._store.get(batch_path(batch))
        return None if found is None else read_batch(found)

    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        if not failures:
            return 0
        integration, stream = failures[0].integration, failures[0].stream
        taken: list[Failure] = []
        told_of: set[str] = set()
        for _ in self._store.patience.tries():
            cells = self._ledger.refusing(integration, stream, request, {each.key: each.version for each in failures})
            if not cells:
                # None was under the request, or those of the try before came through, and only the answer was lost.
                return len(taken)
            taken = [failure for failure in failures if failure.key in cells]
            untold = [failure for failure in taken if failure.id not in told_of]
            rows = monitored(table, partial(failure_rows, untold, taken[0].last_at))
            publish_or_tell(self._bus, integration, rows)
            told_of |= {failure.id for failure in untold}
            told = [Closure(each.id, each.batch, each.place, each.outcome) for each in taken]
            room = COMMIT_BYTES - sum(write.size for write in cells.values())
            others = self._failures.changes(taken, (), "", taken[0].last_at, room=room, told=told)
            try:
                self._store.commit([*cells.values(), *others])
            except Conflict:
                continue
            return len(taken)
        raise StoreUnavailable("what was refused later: others kept getting in between")

    def _each(self, query: Query) -> Iterator[Batch]:
        return map(read_batch, self._store.each(query))

    def _write(self, hand: Hand, settlement: Settlement) -> None:
        batch = hand.batch
        fields: dict[str, Any] = {
            "state": "settled" if settlement.settled else "sending" if settlement.keep else "open",
            "outcomes": settlement.outcomes,
            "attempts": settlement.attempts,
            "touched_at": settlement.at,
        }
        fields |= self._until() if settlement.keep else {"until": None}
        if settlement.settled:
            fields["waiting"] = []
        cells = self._ledger.applying(batch.integration, batch.stream, settlement.cells)
        awaited = self._confirmations.adding(settlement.awaited)

        def others() -> list[Write]:
            writes = cells() + awaited()
            room = COMMIT_BYTES - BATCH_BYTES - sum(write.size for write in writes)
            return writes + self._failures.changes(
                settlement.failures, settlement.closures, settlement.run, settlement.at, room=room
            )

        commit_held(self._store, hand.hold, fields, others)

    def _take(self, batch: Batch, attempt: str, version: Any) -> Batch:
        hand = Hand(_hold(batch.id, attempt, version), batch)
        with self._lock:
            self._hands[batch.id, attempt] = hand
        return batch

    def _hand(self, batch: str, attempt: str) -> Hand:
        """What this process knows of the attempt, else what is stored of it. Raises Fenced."""
        with self._lock:
            hand = self._hands.get((batch, attempt))
        if hand is not None:
            return hand
        found = self._store.get(batch_path(batch))
        hold = _hold(batch, attempt, None if found is None else found.version)
        if found is None or not hold.mine(found.fields):
            raise Fenced(f"{hold.what} was taken over")
        return Hand(hold, read_batch(found))

    def _drop(self, batch: str, attempt: str) -> Hand | None:
        with self._lock:
            return self._hands.pop((batch, attempt), None)

    def _until(self) -> dict[str, Any]:
        return {"until": self._clock.now() + TIME_TO_LIVE}

    def _is_live(self, found: Document) -> bool:
        until = instant(found.fields["until"])
        return until is not None and until > self._clock.now()


def _hold(batch: str, attempt: str, version: Any) -> Hold:
    def mine(fields: Mapping[str, Any]) -> bool:
        return fields["state"] == "sending" and bool(fields["attempt"] == attempt)

    return Hold(batch_path(batch), f"batch {batch}", mine, version)


def create_batches(batches: Iterable[Batch]) -> list[Write]:
    """The writes that commit new batches; one that is there already is refused, since it may have been sent."""
    return [Write(batch_path(batch.id), _fields(batch), "create") for batch in batches]


def put_batches(batches: Iterable[Batch]) -> list[Write]:
    """Writes batches whatever is there."""
    return [Write(batch_path(batch.id), _fields(batch)) for batch in batches]


def present(outcomes: str, amended: Mapping[str, str]) -> str:
    letters = list(outcomes)
    for place, letter in amended.items():
        letters[int(place)] = letter
    return "".join(letters)


def rename(store: Store, batch: str, others: Mapping[str, str]) -> None:
    """Puts other keys in the place of these. Raises Conflict where somebody changed the batch meanwhile."""
    found = store.get(batch_path(batch))
    if found is not None:
        keys, versions = identities(found.fields)
        keys = [others.get(each, each) for each in keys]
        store.commit([Write(batch_path(batch), {"idents": _packed(keys, versions)}, "update", found.version)])


def identities(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The keys and versions of a batch's records."""
    return _idents(zlib.decompress(fields["idents"]))


def _packed(keys: Sequence[str], versions: Sequence[str]) -> bytes:
    return zlib.compress(msgspec.json.encode((keys, versions)), 1)


def batch_path(batch: str) -> Path:
    return "batches", document_id(batch)


def _fields(batch: Batch) -> dict[str, Any]:
    of = both(batch.integration, batch.stream)
    return {
        "id": batch.id,
        "run": batch.run,
        "integration": batch.integration,
        "stream": batch.stream,
        "of": of,
        "waiting": [] if batch.state == "settled" else [batch.integration, of],
        "kind": batch.kind,
        "lane": batch.lane,
        "state": batch.state,
        "outcomes": batch.outcomes,
        "amended": dict(batch.amended),
        "idents": _packed(batch.keys, batch.versions),
        "rules": msgspec.json.encode(batch.rules).decode(),
        "blob": batch.blob,
        "offset": batch.offset,
        "length": batch.length,
        "committed_at": batch.committed_at,
        "published_at": batch.published_at,
        "touched_at": batch.touched_at,
        "attempt": batch.attempt,
        "attempts": batch.attempts,
        "until": None,
        "mark": "",
    }


def read_batch(document: Document) -> Batch:
    """The batch of a document with all of its fields."""
    fields = document.fields
    keys, versions = identities(fields)
    committed = instant(fields["committed_at"])
    assert committed is not None
    return Batch(
        id=fields["id"],
        run=fields["run"],
        integration=fields["integration"],
        stream=fields["stream"],
        kind=fields["kind"],
        lane=fields["lane"],
        keys=keys,
        versions=versions,
        outcomes=fields["outcomes"],
        committed_at=committed,
        state=fields["state"],
        blob=fields["blob"],
        offset=fields["offset"],
        length=fields["length"],
        rules=_rules(fields["rules"]),
        published_at=instant(fields["published_at"]),
        attempt=fields["attempt"],
        attempts=fields["attempts"],
        touched_at=instant(fields["touched_at"]),
        amended=dict(fields["amended"]),
    )
