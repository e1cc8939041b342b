"""Launches in Firestore: the fields that are asked for stand beside the launch itself, one text."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from infra.gcp.errors import Conflict
from infra.gcp.fence import new_mark
from infra.gcp.names import both, document_id
from infra.gcp.store import Document, Path, Query, Store, Write
from shared.errors import StoreUnavailable
from shared.launches import AWAITS, Launch, LaunchState

_decode = msgspec.json.Decoder(Launch).decode


class GoogleLaunches:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, launch: Launch) -> bool:
        path = _path(launch.integration, launch.stream, launch.id)
        # Two who ask at the same time may write the same; the mark tells whose it is when an answer was lost.
        mark = new_mark()
        try:
            self._store.commit([Write(path, {**_fields(launch), "mark": mark}, "create")])
        except Conflict:
            found = self._store.get(path)
            return found is not None and found.fields["mark"] == mark
        return True

    def note(self, launch: Launch, was: LaunchState | None = None) -> bool:
        path, mark = _path(launch.integration, launch.stream, launch.id), new_mark()
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            if found is not None and found.fields["mark"] == mark:
                # It is written, and only the answer was lost.
                return True
            if found is None or was not in (None, read_launch(found).state):
                return False
            with suppress(Conflict):
                self._store.commit([Write(path, {**_fields(launch), "mark": mark}, "update", found.version)])
                return True
        raise StoreUnavailable(f"launch {launch.id}: others kept getting in between")

    def get(self, integration: str, stream: str, id: int) -> Launch | None:
        found = self._store.get(_path(integration, stream, id))
        return None if found is None else read_launch(found)

    def recent(self, integration: str, stream: str, most: int, before: int | None = None) -> list[Launch]:
        where: tuple[tuple[str, str, Any], ...] = (("of", "==", both(integration, stream)),)
        if before is not None:
            where = (*where, ("number", "<", before))
        query = Query(("launches",), where, order="number", descending=True)
        return [read_launch(document) for document in self._store.first(query, most)]

    def waiting(self, integration: str, stream: str) -> list[Launch]:
        query = Query(("launches",), (("waiting", "==", both(integration, stream)),))
        return sorted((read_launch(document) for document in self._store.each(query)), key=lambda launch: launch.id)


def put_launches(launches: Iterable[Launch]) -> list[Write]:
    """Writes launches whatever is there."""
    return [Write(_path(each.integration, each.stream, each.id), {**_fields(each), "mark": ""}) for each in launches]


def _path(integration: str, stream: str, id: int) -> Path:
    return "launches", document_id(integration, stream, str(id))


def _fields(launch: Launch) -> dict[str, Any]:
    of = both(launch.integration, launch.stream)
    return {
        "of": of,
        "number": launch.id,
        "waiting": of if launch.state in AWAITS else "",
        "doc": msgspec.json.encode(launch).decode(),
    }


def read_launch(document: Document) -> Launch:
    """The launch of a document."""
    return _decode(document.fields["doc"])
