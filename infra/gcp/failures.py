"""Failures in Firestore: the fields that are asked for stand beside the failure itself, which is one text.

A failure whose record is too large for a document keeps the record's data in a blob of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from infra.gcp.errors import Conflict
from infra.gcp.names import both, document_id, key_id
from infra.gcp.store import COMMIT_BYTES, Document, Path, Query, Store, Where, Write, instant
from shared.books import Closure, Failure, FailureQuery, failed_again
from shared.outcome import LETTERS
from shared.ports import Blobs

INLINE_BYTES: Final = 700_000
"""Data that is larger goes into a blob: a document takes a mebibyte, keys and reason included."""
OLDER_THAN_ANY_CLEANUP: Final = timedelta(days=400)
"""Firestore removes what was closed so long ago by itself, should nobody ever clean up."""
AT_ONCE: Final = 100
KEYS_AT_ONCE: Final = 30
"""Firestore takes so many alternatives in one query."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Failure).decode
_decode_data = msgspec.json.Decoder(dict[str, Any]).decode


class GoogleFailures:
    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        found = sorted(self._times(query))
        for start in range(0, len(found), AT_ONCE):
            paths = [("failures", id) for _, id in found[start : start + AT_ONCE]]
            documents = self._store.get_all(paths)
            for path in paths:
                document = documents.get(path)
                if document is not None and (document.fields["open"] or query.include_closed):
                    yield self._failure(document)

    def count(self, query: FailureQuery) -> int:
        if query.before is not None:
            return sum(1 for _ in self._times(query))
        return sum(self._store.count(asked) for asked in _queries(query))

    def remove_closed(self, integration: str, before: datetime) -> int:
        query = Query(
            ("failures",),
            (("integration", "==", integration), ("closed_at", "<", before)),
            order="closed_at",
            fields=("closed_at", "blob"),
        )
        removed = 0
        for _ in self._store.patience.tries():
            overtaken = False
            for part in _portions(self._store.each(query)):
                try:
                    self._remove(part)
                    removed += len(part)
                except Conflict:
                    # One of them failed again meanwhile and is open; the others are found again.
                    overtaken = True
            if not overtaken:
                break
        return removed

    def remove(self, ids: Sequence[str]) -> None:
        """Removes these failures, open or not, with all that was kept of them."""
        found = self._store.get_all(("failures", document_id(id)) for id in ids)
        for part in _portions(iter(found.values())):
            self._remove(part)

    def changes(
        self,
        failures: Sequence[Failure],
        closures: Sequence[Closure],
        run: str,
        at: datetime,
        *,
        room: int = COMMIT_BYTES,
        told: Sequence[Closure] = (),
    ) -> list[Write]:
        """The writes that open or close these failures, and tell the batches that fetched the records; `told` is what
        they are told in any case.

        What is open already goes on as `failed_again` says; what is not open is not closed again. Data for which there
        is no room goes into blobs, the largest first.
        """
        paths = {id: _path(id) for id in [f.id for f in failures] + [c.failure for c in closures]}
        stored = self._store.get_all(paths.values())
        present = {id: self._failure(stored[path], whole=False) for id, path in paths.items() if path in stored}
        opened: dict[str, Failure] = {}
        amended = list(told)
        for failure in failures:
            earlier = present.get(failure.id)
            failure = failed_again(earlier, failure) if earlier else failure
            if earlier and earlier.closed_at is None and earlier.outcome is not failure.outcome:
                amended.append(Closure(failure.id, failure.batch, failure.place, failure.outcome))
            present[failure.id] = opened[failure.id] = failure
        closed: dict[str, dict[str, Any]] = {}
        for closure in closures:
            known = present.get(closure.failure)
            if known is not None and known.closed_at is None and closure.failure not in closed:
                closed[closure.failure] = _closed(closure.outcome.value, run, at)
                amended.append(closure)
        fields = self._fields(list(opened.values()), room)
        writes = []
        for id, path in paths.items():
            changed = fields.get(id, {}) | closed.get(id, {})
            if changed:
                known_as = stored.get(path)
                writes.append(
                    Write(path, changed, "update", known_as.version) if known_as else Write(path, changed, "create")
                )
        return [*writes, *self._amend(amended)]

    def as_they_are(self, failures: Sequence[Failure]) -> list[Write]:
        """The writes of failures, open or not, whatever is there."""
        fields = self._fields(failures, COMMIT_BYTES)
        return [
            Write(
                _path(each.id),
                fields[each.id] | (_closed(each.closed_as, each.closed_by, each.closed_at) if each.closed_at else {}),
            )
            for each in failures
        ]

    def whole(self, document: Document) -> Failure:
        """The failure of a document, with its data from wherever that is."""
        return self._failure(document)

    def bare(self, document: Document) -> Failure:
        """The failure of a document, without its data where that is a blob."""
        return self._failure(document, whole=False)

    def keys(self, ids: Sequence[str]) -> dict[str, str]:
        """The key of each of these failures that is there."""
        found = self._store.get_all(_path(id) for id in ids)
        failures = [self._failure(document, whole=False) for document in found.values()]
        return {failure.id: failure.key for failure in failures}

    def _times(self, query: FailureQuery) -> Iterator[tuple[datetime, str]]:
        """When each of those that are meant was first seen, and its document."""
        for asked in _queries(query):
            for document in self._store.each(msgspec.structs.replace(asked, fields=("first_at", "last_at"))):
                first, last = instant(document.fields["first_at"]), instant(document.fields["last_at"])
                assert first is not None and last is not None
                if query.before is None or last < query.before:
                    yield first, document.id

    def _fields(self, failures: Sequence[Failure], room: int) -> dict[str, dict[str, Any]]:
        """What is stored of each failure; `room` is for all of them together."""
        data = {failure.id: _encode(failure.data) for failure in failures}
        fields = {failure.id: _fields(failure) for failure in failures}
        largest = sorted(failures, key=lambda failure: len(data[failure.id]), reverse=True)
        size = sum(Write(_path(id), fields[id] | {"data": data[id]}).size for id in data)
        for failure in largest:
            if len(data[failure.id]) <= INLINE_BYTES and size <= room:
                break
            # Other data has another name: a commit that is refused must not have touched what is stored.
            name = f"{_blob_prefix(failure)}{hashlib.blake2b(data[failure.id], digest_size=6).hexdigest()}"
            self._blobs.write(name, data[failure.id])
            size -= len(data[failure.id])
            data[failure.id] = b""
            fields[failure.id]["blob"] = name
        return {id: {**fields[id], "data": data[id].decode()} for id in data}

    def _failure(self, document: Document, *, whole: bool = True) -> Failure:
        fields = document.fields
        data: dict[str, Any] = {}
        if whole:
            text = self._blobs.read(fields["blob"]) if fields["blob"] else fields["data"]
            data = _decode_data(text)
        return msgspec.structs.replace(
            _decode(fields["doc"]),
            data=data,
            closed_as=fields["closed_as"],
            closed_by=fields["closed_by"],
            closed_at=instant(fields["closed_at"]),
        )

    def _amend(self, closures: Sequence[Closure]) -> list[Write]:
        """The writes that put present outcomes beside those of their time. Each place is a field, so that two that
        amend one batch do not hinder each other."""
        places: dict[Path, dict[str, str]] = {}
        for closure in closures:
            place = f"amended.`{closure.place}`"
            places.setdefault(("batches", document_id(closure.batch)), {})[place] = LETTERS[closure.outcome]
        there = self._store.existing(places)
        return [Write(path, letters, "update") for path, letters in places.items() if path in there]

    def _remove(self, documents: Sequence[Document]) -> None:
        self._store.commit([Write(("failures", d.id), {}, "delete", d.version) for d in documents])
        for blob in [document.fields["blob"] for document in documents if document.fields["blob"]]:
            for name, _ in list(self._blobs.names(f"{blob.rpartition('/')[0]}/")):
                self._blobs.delete(name)


def _blob_prefix(failure: Failure) -> str:
    return f"failures/{failure.integration}/{failure.stream}/{failure.id}/"


def _path(failure: str) -> Path:
    return "failures", document_id(failure)


def _fields(failure: Failure) -> dict[str, Any]:
    return {
        "doc": _encode(msgspec.structs.replace(failure, data={})).decode(),
        "blob": "",
        "integration": failure.integration,
        "of": both(failure.integration, failure.stream),
        "key": key_id(failure.key),
        "outcome": failure.outcome.value,
        "number": failure.number,
        "http_status": failure.http_status,
        "first_at": failure.first_at,
        "last_at": failure.last_at,
        "open": True,
        "closed_as": "",
        "closed_by": "",
        "closed_at": None,
        "expires_at": None,
    }


def _closed(outcome: str, run: str, at: datetime) -> dict[str, Any]:
    return {
        "open": False,
        "closed_as": outcome,
        "closed_by": run,
        "closed_at": at,
        "expires_at": at + OLDER_THAN_ANY_CLEANUP,
    }


def _queries(query: FailureQuery) -> Iterator[Query]:
    """The query in Firestore's terms: equalities only, so that the plain index of each field will do."""
    where: list[Where] = [("integration", "==", query.integration)]
    if query.stream is not None:
        where = [("of", "==", both(query.integration, query.stream))]
    for field, value in (
        ("outcome", query.outcome),
        ("number", query.number),
        ("http_status", query.status),
        ("key", None if query.key is None else key_id(query.key)),
    ):
        if value is not None:
            where.append((field, "==", value))
    if not query.include_closed:
        where.append(("open", "==", True))
    if query.keys is None:
        yield Query(("failures",), tuple(where))
        return
    keys = list(dict.fromkeys(map(key_id, query.keys)))
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield Query(("failures",), (*where, ("key", "in", keys[start : start + KEYS_AT_ONCE])))


def _portions(documents: Iterator[Document]) -> Iterator[list[Document]]:
    portion: list[Document] = []
    for document in documents:
        portion.append(document)
        if len(portion) == AT_ONCE:
            yield portion
            portion = []
    if portion:
        yield portion
