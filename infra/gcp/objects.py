"""The hub's own store of objects in Firestore, each below its kind.

The fields of an object are one text: they are called what the columns of a file are called, and hold what JSON holds,
and Firestore takes neither as it comes. `found_by` has a hash for each field with its value, so that one index answers
for all of them, and grows in no one place. Nor do ids: they are hashes, and objects come in the order of these. So is
`owner`, whom an object belongs to by its id. What changed has to be asked for by time, so it is kept in shards, each
with an order of its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

import msgspec

from infra.gcp.errors import Conflict
from infra.gcp.names import document_id, key_id
from infra.gcp.store import COMMIT_BYTES, FIRST_PAGE, Document, Path, Query, Store, Write, instant
from shared.errors import StoreUnavailable
from shared.kinds import is_of
from shared.objects import ID, Object, check_findable, later, text_of
from shared.snapshot.history import KindOfObject, Stored
from shared.tabular.identity import first_of

SHARDS: Final = "0123456789abcdef"
"""Of an object, the first letter of its document's id."""
VALUES_AT_ONCE: Final = 30
"""Firestore takes no more in one question."""
DELETES_AT_ONCE: Final = 300
ENTRY_BYTES: Final = 150
"""What an entry of the index takes in a commit."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class GoogleObjects:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, frozenset[str]] = {}

    def get(self, kind: str, ids: Sequence[str]) -> dict[str, Object]:
        found = self._store.get_all(object_path(kind, id) for id in ids)
        return {each.id: each for each in map(read_object, found.values())}

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        check_findable(field)
        texts = {_token(field, value): value for value in values}
        found: dict[str, list[str]] = {}
        for start in range(0, len(texts), VALUES_AT_ONCE):
            tokens = list(texts)[start : start + VALUES_AT_ONCE]
            # Two of each are enough. Where that many came, one of the values may have kept others from coming.
            most = 2 * len(tokens)
            documents = self._holding(kind, "array_contains_any", tokens, most + 1)
            if len(documents) > most:
                documents = [each for token in tokens for each in self._holding(kind, "array_contains", token, 2)]
            for document in documents:
                for token in set(document.fields["found_by"]).intersection(tokens):
                    same = found.setdefault(texts[token], [])
                    if len(same) < 2:
                        same.append(document.fields["id"])
        return found

    def _holding(self, kind: str, operator: str, value: Any, most: int) -> list[Document]:
        query = Query(objects_of(kind), (("found_by", operator, value),), fields=("id", "found_by"))
        return self._store.first(query, most)

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        self._learn(kind, dict.fromkeys(name for fields in objects.values() for name in fields))
        left: Mapping[str, Mapping[str, Any]] = objects
        for _ in self._store.patience.tries():
            left = self._put(kind, left, at)
            if not left:
                return
        raise StoreUnavailable(f"objects of {kind}: others kept getting in between")

    def _put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> dict[str, Mapping[str, Any]]:
        """Gives those that somebody else wrote meanwhile."""
        held = self._store.get_all(object_path(kind, id) for id in objects)
        writes = {}
        for id, fields in objects.items():
            write = _write(kind, id, fields, held.get(object_path(kind, id)), at)
            if write is not None:
                writes[id] = write
        left: dict[str, Mapping[str, Any]] = {}
        for part in _cut(writes):
            try:
                self._store.commit([writes[id] for id in part])
            except Conflict:
                left |= {id: objects[id] for id in part}
        return left

    def _learn(self, kind: str, names: Iterable[str]) -> None:
        """Notes the names that came up before any object has them: what an object has is never unheard of."""
        if kind in self._known and self._known[kind].issuperset(names):
            return
        path = _kind(kind)
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            known = [] if found is None else found.fields["names"]
            after = list(dict.fromkeys([*known, *names]))
            write = Write(path, {"kind": kind, "names": after}, "create")
            if found is not None:
                write = Write(path, {"names": after}, "update", found.version)
            try:
                if found is None or after != known:
                    self._store.commit([write])
            except Conflict:
                continue
            self._known[kind] = frozenset(after)
            return
        raise StoreUnavailable(f"fields of {kind}: others kept getting in between")

    def remove(self, kind: str, ids: Sequence[str]) -> None:
        paths = [object_path(kind, id) for id in dict.fromkeys(ids)]
        for start in range(0, len(paths), DELETES_AT_ONCE):
            self._store.commit([Write(path, {}, "delete") for path in paths[start : start + DELETES_AT_ONCE]])

    def page(self, kind: str, after: str, most: int) -> list[Object]:
        query = Query(objects_of(kind), order="__name__", after=(key_id(after),) if after else ())
        return [read_object(document) for document in self._store.first(query, most)]

    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        behind = () if after is None or after[0] < since else (after[0], key_id(after[1]))

        def of_shard(shard: str) -> Iterator[Document]:
            where = (("shard", "==", shard), ("changed_at", ">=", since), ("changed_at", "<", until))
            query = Query(objects_of(kind), where, order="changed_at", after=behind)
            return self._store.each(query, first=most // len(SHARDS) + FIRST_PAGE)

        in_order = heapq.merge(
            *map(of_shard, SHARDS), key=lambda document: (document.fields["changed_at"], document.id)
        )
        return [read_object(document) for document in islice(in_order, most)]

    def owned(self, customer: str) -> dict[str, list[str]]:
        """The ids of what is a customer's, by kind."""
        found: dict[str, list[str]] = {}
        for kind in [each.fields["kind"] for each in self._store.each(Query(("kinds",)))]:
            asked = ("owner", "==", key_id(customer)), ("found_by", "array_contains", _token(ID, customer))
            queries = [Query(objects_of(kind), (where,), fields=("id", "owner")) for where in asked]
            by_name = [each.fields["id"] for each in self._store.each(queries[0])]
            ids = [id for id in [customer, *by_name] if is_of(kind, id, customer)]
            ids += [each.fields["id"] for each in self._store.each(queries[1])]
            if there := list(self.get(kind, ids)):
                found[kind] = there
        return found

    def fields(self, kind: str) -> list[str]:
        found = self._store.get(_kind(kind))
        return [] if found is None else list(found.fields["names"])


def put_kinds(store: Store, kinds: Iterable[KindOfObject]) -> list[Write]:
    """Adds names of fields to those that are known: processes rely on what they have noted."""
    writes = []
    for kind in kinds:
        found = store.get(_kind(kind.name))
        known = [] if found is None else found.fields["names"]
        writes.append(Write(_kind(kind.name), {"kind": kind.name, "names": [*dict.fromkeys([*known, *kind.fields])]}))
    return writes


def put_objects(stored: Iterable[Stored]) -> list[Write]:
    """Writes objects whatever is there, as they were last changed."""
    writes = []
    for kind, each in ((one.kind, one.object) for one in stored):
        path = object_path(kind, each.id)
        fields = _named(each.id) | _contents(each.fields, each.changed_at)
        writes.append(Write(path, fields))
    return writes


def _kind(kind: str) -> Path:
    return "kinds", document_id(kind)


def objects_of(kind: str) -> Path:
    """Where the objects of a kind are."""
    return (*_kind(kind), "objects")


def object_path(kind: str, id: str) -> Path:
    return (*objects_of(kind), key_id(id))


def _token(field: str, value: str) -> str:
    return key_id(f"{field}\x1f{value}")


def _write(kind: str, id: str, fields: Mapping[str, Any], held: Document | None, at: datetime) -> Write | None:
    """None where nothing changes."""
    path = object_path(kind, id)
    after = {**({} if held is None else _decode(held.fields["fields"])), **fields}
    text = _encode(after).decode()
    if held is not None and text == held.fields["fields"]:
        return None
    if held is None:
        return Write(path, _named(id) | _contents(after, at), "create")
    return Write(path, _contents(after, later(at, read_object(held).changed_at)), "update", held.version)


def _named(id: str) -> dict[str, Any]:
    return {"id": id, "owner": key_id(first_of(id)), "shard": key_id(id)[0]}


def _contents(fields: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    found_by = [_token(name, value) for name, each in fields.items() if (value := text_of(name, each)) is not None]
    return {"fields": _encode(fields).decode(), "found_by": found_by, "changed_at": at}


def _cut(writes: Mapping[str, Write]) -> Iterator[list[str]]:
    """The ids of as many writes at a time as one commit takes."""
    part: list[str] = []
    room = COMMIT_BYTES
    for id, write in writes.items():
        size = write.size + ENTRY_BYTES * len(write.fields["found_by"])
        if part and size > room:
            yield part
            part, room = [], COMMIT_BYTES
        part.append(id)
        room -= size
    if part:
        yield part


def read_object(document: Document) -> Object:
    """The object of a document."""
    changed_at = instant(document.fields["changed_at"])
    assert changed_at is not None
    return Object(document.fields["id"], _decode(document.fields["fields"]), changed_at)
