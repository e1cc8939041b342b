"""The books as a whole in Firestore: read as they were at one moment, and replaced in many commits.

The moment may be an hour ago at most, which is as long as Firestore keeps what was changed since (point-in-time
recovery keeps it longer, but for whole minutes only): an export has to be done by then.

A replacement, in the order of its effects: its intent is noted, from where on nobody takes the lease of a stream; every
batch that is left over is taken, so that nobody begins to send one (`standstill.py`); the old books are deleted; the
entries are written; the intent says that they are in place. A crash leaves the intent, and the same replacement is made
once more. Each commit of it is based on the version of the intent that the one before left, like those of an attempt on
its batch: of two who replace the books, the one that was overtaken has all of its commits refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, islice
from typing import Any, Final

from infra.gcp.batches import batch_path, put_batches, read_batch
from infra.gcp.confirmations import put_awaited, read_awaited
from infra.gcp.errors import Conflict
from infra.gcp.failures import GoogleFailures
from infra.gcp.fence import Hold, commit_held, new_mark
from infra.gcp.launches import put_launches, read_launch
from infra.gcp.leases import REPLACEMENT
from infra.gcp.ledger import cell_path, put_cells, read_cell, stream_path
from infra.gcp.names import both
from infra.gcp.objects import objects_of, put_kinds, put_objects, read_object
from infra.gcp.runs import read_run, read_state, write_run, write_state
from infra.gcp.standstill import take_all
from infra.gcp.store import COMMIT_BYTES, Document, Path, Query, Store, Write, instant
from shared.books import Batch, Failure, Run, StreamState
from shared.confirm import Awaited
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.launches import Launch
from shared.ledger import Cell
from shared.objects import Object
from shared.ports import Blobs, Clock
from shared.snapshot.history import OVERTAKEN, Entry, Head, KindOfObject, Placed, Told, Unfinished

WRITES_AT_ONCE: Final = 400
CELLS_AT_ONCE: Final = 300
BATCHES_AT_ONCE: Final = 100
FAILURES_AT_ONCE: Final = 20
"""As much as their data leaves room for in memory."""
INTENT_BYTES: Final = 1_000
"""What the intent takes in a commit."""
_HEAD: Final = ("id", "run", "state", "outcomes", "committed_at", "touched_at", "amended")


class GooglePast:
    """What Firestore held at one moment."""

    def __init__(self, store: Store, failures: GoogleFailures, at: datetime, read_at: Any) -> None:
        self.at = at
        self._store = store
        self._failures = failures
        self._read_at = read_at

    def streams(self) -> list[tuple[str, str]]:
        found = set()
        for collection in ("streams", "runs", "launches"):
            for document in self._each(Query((collection,), fields=("of",))):
                integration, _, stream = document.fields["of"].partition("/")
                found.add((integration, stream))
        return sorted(found)

    def state(self, integration: str, stream: str) -> StreamState:
        path = stream_path(integration, stream)
        return read_state(self._store.get_all([path], read_at=self._read_at).get(path), integration, stream)

    def heads(self, integration: str, stream: str) -> Iterator[Head]:
        where = (("of", "==", both(integration, stream)),)
        for document in self._each(Query(("batches",), where, order="committed_at", fields=_HEAD)):
            fields = document.fields
            committed_at = instant(fields["committed_at"])
            assert committed_at is not None
            yield Head(
                id=fields["id"],
                run=fields["run"],
                state=fields["state"],
                outcomes=fields["outcomes"],
                committed_at=committed_at,
                touched_at=instant(fields["touched_at"]),
                amended=dict(fields["amended"]),
            )

    def unsettled(self, integration: str, stream: str) -> Iterator[Batch]:
        where = (("waiting", "array_contains", both(integration, stream)),)
        return map(read_batch, self._each(Query(("batches",), where, order="committed_at")))

    def batches(self, ids: Sequence[str]) -> Iterator[Batch]:
        for start in range(0, len(ids), BATCHES_AT_ONCE):
            paths = [batch_path(id) for id in ids[start : start + BATCHES_AT_ONCE]]
            found = self._store.get_all(paths, read_at=self._read_at)
            yield from (read_batch(found[path]) for path in paths if path in found)

    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        cells: dict[str, Cell] = {}
        for start in range(0, len(keys), CELLS_AT_ONCE):
            paths = [cell_path(integration, stream, key) for key in keys[start : start + CELLS_AT_ONCE]]
            for document in self._store.get_all(paths, read_at=self._read_at).values():
                cell = read_cell(document)
                cells[cell.key] = cell
        return cells

    def told(self, kind: type[Told], integration: str, stream: str) -> Iterator[Told]:
        of = (("of", "==", both(integration, stream)),)
        found: Iterator[Any]
        if kind is Run:
            found = map(read_run, self._each(Query(("runs",), of, order="started_at")))
        elif kind is Failure:
            found = map(self._whole, self._each(Query(("failures",), of), FAILURES_AT_ONCE))
        elif kind is Launch:
            found = map(read_launch, self._each(Query(("launches",), of)))
        else:
            where = (("integration", "==", integration),)
            awaited = map(read_awaited, self._each(Query(("awaited",), where, order="ended_at")))
            found = (each for each in awaited if each.stream == stream)
        return found

    def _whole(self, document: Document) -> Failure:
        """With its data. That of a failure that was cleaned away since is gone, since blobs know no past."""
        try:
            return self._failures.whole(document)
        except FileNotFoundError:
            return self._failures.bare(document)

    def kinds(self) -> list[KindOfObject]:
        found = [document.fields for document in self._each(Query(("kinds",)))]
        return sorted((KindOfObject(f["kind"], list(f["names"])) for f in found), key=lambda kind: kind.name)

    def objects(self, kind: str) -> Iterator[Object]:
        return map(read_object, self._each(Query(objects_of(kind), order="__name__")))

    def counts(self) -> dict[str, int]:
        """As they are now: Firestore counts no past."""
        cells = sum(self._store.count(Query(("streams", id, "cells"))) for id in self._store.ids(("streams",)))
        objects = sum(self._store.count(Query(("kinds", id, "objects"))) for id in self._store.ids(("kinds",)))
        of = {"runs": "runs", "batches": "batches", "failures": "failures", "requests": "awaited",
              "launches": "launches"}  # fmt: skip
        counted = {name: self._store.count(Query((collection,))) for name, collection in of.items()}
        return {**counted, "cells": cells, "objects": objects}

    def _each(self, query: Query, first: int | None = None) -> Iterator[Document]:
        more = {} if first is None else {"first": first}
        return self._store.each(query, read_at=self._read_at, **more)


class GoogleHistory:
    def __init__(self, store: Store, failures: GoogleFailures, blobs: Blobs, clock: Clock) -> None:
        self._store = store
        self._failures = failures
        self._blobs = blobs
        self._clock = clock

    @contextmanager
    def look(self) -> Iterator[GooglePast]:
        _, read_at = self._store.look(REPLACEMENT)
        at = instant(read_at)
        assert at is not None
        yield GooglePast(self._store, self._failures, at, read_at)

    def replace(
        self,
        intent: bytes,
        entries: Callable[[], Iterator[Placed]] | None,
        *,
        objects: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        is_first = self.unfinished() is None
        hold = self._note(intent, replaced=entries is None)
        if entries is None:
            return
        try:
            watch()
            with self.look() as past:
                names = past.streams()
            take_all(self._store, self._clock, names, watch)
        except (Leased, Fenced):
            if is_first:
                self.finish(intent)
            raise
        _Replacement(self._store, self._failures, self._blobs, hold, watch).make(entries, objects=objects)

    def unfinished(self) -> Unfinished | None:
        found = self._store.get(REPLACEMENT)
        return None if found is None else Unfinished(found.fields["intent"], found.fields["replaced"])

    def finish(self, intent: bytes) -> None:
        for _ in self._store.patience.tries():
            found = self._store.get(REPLACEMENT)
            if found is None:
                return
            if found.fields["intent"] != intent:
                raise Fenced(OVERTAKEN)
            try:
                self._store.commit([Write(REPLACEMENT, {}, "delete", found.version)])
            except Conflict:
                # It may be gone, and only the answer was lost.
                continue
            return
        raise StoreUnavailable("the end of an import: others kept getting in between")

    def _note(self, intent: bytes, *, replaced: bool) -> Hold:
        token = new_mark()

        def mine(fields: Mapping[str, Any]) -> bool:
            return bool(fields["token"] == token)

        fields = {"intent": intent, "replaced": replaced, "token": token, "mark": ""}
        (version,) = self._store.commit([Write(REPLACEMENT, fields)])
        return Hold(REPLACEMENT, "the replacement of the books", mine, version)


class _Replacement:
    """The commits of one replacement, under its intent."""

    def __init__(
        self, store: Store, failures: GoogleFailures, blobs: Blobs, hold: Hold, watch: Callable[[], None]
    ) -> None:
        self._store = store
        self._failures = failures
        self._blobs = blobs
        self._hold = hold
        self._watch = watch

    def make(self, entries: Callable[[], Iterator[Placed]], *, objects: bool) -> None:
        for collection in list(self._collections(objects=objects)):
            self._delete_all(collection)
        for name, _ in list(self._blobs.names("failures/")):
            self._watch()
            self._blobs.delete(name)
        for (integration, stream, kind), group in groupby(
            entries(), lambda p: (p.integration, p.stream, type(p.entry))
        ):
            placed = (each.entry for each in group)
            while part := list(islice(placed, WRITES_AT_ONCE)):
                self._cut(self._writes(integration, stream, kind, part))
        commit_held(self._store, self._hold, {"replaced": True})

    def _collections(self, *, objects: bool) -> Iterator[Path]:
        for id in self._store.ids(("streams",)):
            yield "streams", id, "cells"
        if objects:
            for id in self._store.ids(("kinds",)):
                yield "kinds", id, "objects"
        for name in ("streams", "runs", "batches", "failures", "awaited", "launches"):
            yield (name,)

    def _delete_all(self, collection: Path) -> None:
        documents = self._store.each(Query(collection, fields=("__name__",)), first=WRITES_AT_ONCE)
        while part := list(islice(documents, WRITES_AT_ONCE)):
            self._commit([Write((*collection, document.id), {}, "delete") for document in part])

    def _cut(self, writes: Iterable[Write]) -> None:
        """Makes these writes, in as many commits as their size takes."""
        part: list[Write] = []
        room = COMMIT_BYTES - INTENT_BYTES
        for write in writes:
            if part and write.size > room:
                self._commit(part)
                part, room = [], COMMIT_BYTES - INTENT_BYTES
            part.append(write)
            room -= write.size
        if part:
            self._commit(part)

    def _commit(self, writes: Sequence[Write]) -> None:
        self._watch()
        commit_held(self._store, self._hold, {}, lambda: writes)

    def _writes(self, integration: str, stream: str, kind: type[Entry], entries: Sequence[Any]) -> list[Write]:
        if kind is Cell:
            return put_cells(integration, stream, list({cell.key: cell for cell in entries}.values()))
        if kind is Batch:
            return put_batches(entries)
        if kind is Failure:
            return self._failures.as_they_are(entries)
        if kind is Run:
            return [write_run(run) for run in entries]
        if kind is Launch:
            return put_launches(entries)
        if kind is Awaited:
            return put_awaited(entries)
        if kind is StreamState:
            return [write_state(state) for state in entries]
        return put_kinds(self._store, entries) if kind is KindOfObject else put_objects(entries)
