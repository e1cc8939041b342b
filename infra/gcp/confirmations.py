"""Requests whose end their targets tell later, in Firestore.

`waiting` and `refusing` name the stream while there is something to ask or to tell, so that each question has an index
that holds nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from infra.gcp.errors import Conflict
from infra.gcp.failures import OLDER_THAN_ANY_CLEANUP
from infra.gcp.names import both, document_id
from infra.gcp.store import Document, Path, Query, Store, Write, instant
from shared.confirm import Awaited, together

AT_ONCE: Final = 300
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_counts = msgspec.json.Decoder(dict[str, int]).decode


class GoogleConfirmations:
    def __init__(self, store: Store) -> None:
        self._store = store

    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        where = (("waiting", "==", both(integration, stream)), ("look_at", "<=", now))
        return map(read_awaited, self._store.each(Query(("awaited",), where, order="look_at")))

    def note(self, awaited: Awaited) -> None:
        try:
            self._store.commit([Write(_path(awaited), _said(awaited), "update")])
        except Conflict:
            # It was cleaned up meanwhile.
            return

    def pending(self, integration: str, stream: str) -> tuple[int, int]:
        query = Query(("awaited",), (("waiting", "==", both(integration, stream)),))
        return self._store.count(query), self._store.total(query, "records")

    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        where = (("refusing", "==", both(integration, stream)), ("ended_at", ">=", since or EVER))
        total: dict[str, int] = {}
        for document in self._store.each(Query(("awaited",), where, order="ended_at", fields=("refused", "ended_at"))):
            for reason, count in _counts(document.fields["refused"]).items():
                total[reason] = total.get(reason, 0) + count
        return total

    def remove_ended(self, integration: str, before: datetime) -> int:
        query = Query(
            ("awaited",),
            (("integration", "==", integration), ("ended_at", "<", before)),
            order="ended_at",
            fields=("ended_at",),
        )
        ended = list(self._store.each(query))
        removed = 0
        for start in range(0, len(ended), AT_ONCE):
            part = ended[start : start + AT_ONCE]
            try:
                self._store.commit([Write(("awaited", each.id), {}, "delete", each.version) for each in part])
            except Conflict:
                # One of them is awaited again, or another clean-up was first: the next one finds the rest.
                continue
            removed += len(part)
        return removed

    def adding(self, awaited: Sequence[Awaited]) -> Callable[[], list[Write]]:
        """Gives the writes that remember these requests, each time as of now. They are hardly ever known, so the first
        time nobody looks: one that is known refuses the commit."""
        paths = {_path(each): each for each in awaited}
        looks = False

        def writes() -> list[Write]:
            nonlocal looks
            known = self._store.get_all(paths) if looks else {}
            looks = True
            return [_write(path, each, known.get(path)) for path, each in paths.items()]

        return writes


def put_awaited(awaited: Iterable[Awaited]) -> list[Write]:
    """Writes requests whatever is there."""
    return [Write(_path(each), _fields(each)) for each in awaited]


def _path(awaited: Awaited) -> Path:
    return "awaited", document_id(awaited.integration, awaited.stream, awaited.id)


def _write(path: Path, awaited: Awaited, known: Document | None) -> Write:
    if known is None:
        return Write(path, _fields(awaited), "create")
    return Write(path, _fields(together(read_awaited(known), awaited)), "update", known.version)


def _fields(awaited: Awaited) -> dict[str, Any]:
    return {
        "id": awaited.id,
        "integration": awaited.integration,
        "stream": awaited.stream,
        "batch": awaited.batch,
        "records": awaited.records,
        "sent_at": awaited.sent_at,
        **_said(awaited),
    }


def _said(awaited: Awaited) -> dict[str, Any]:
    """What changes as the target is asked."""
    of, ended = both(awaited.integration, awaited.stream), awaited.ended_at
    return {
        "look_at": awaited.look_at,
        "looks": awaited.looks,
        "state": awaited.state,
        "refused": msgspec.json.encode(awaited.refused).decode(),
        "repeats": awaited.repeats,
        "warnings": msgspec.json.encode(awaited.warnings).decode(),
        "ended_at": ended,
        "waiting": of if ended is None else "",
        "refusing": of if ended is not None and awaited.refused else "",
        "expires_at": None if ended is None else ended + OLDER_THAN_ANY_CLEANUP,
    }


def read_awaited(document: Document) -> Awaited:
    """The request of a document."""
    fields = document.fields
    sent_at, look_at = instant(fields["sent_at"]), instant(fields["look_at"])
    assert sent_at is not None and look_at is not None
    return Awaited(
        id=fields["id"],
        integration=fields["integration"],
        stream=fields["stream"],
        batch=fields["batch"],
        records=fields["records"],
        sent_at=sent_at,
        look_at=look_at,
        looks=fields["looks"],
        state=fields["state"],
        refused=_counts(fields["refused"]),
        repeats=fields["repeats"],
        warnings=_counts(fields["warnings"]),
        ended_at=instant(fields["ended_at"]),
    )
