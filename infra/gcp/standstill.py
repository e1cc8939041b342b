"""Batches while the books are replaced: the replacement has all that are left over, so that nobody begins to send one.

They are taken as an attempt takes a batch, by compare-and-set of the batch itself: whoever sends one pays nothing for
it, and of an attempt and a replacement that come at the same time one is refused by the store. New batches need the
lease of their stream, which the replacement holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple

from infra.gcp.batches import batch_path
from infra.gcp.errors import Conflict
from infra.gcp.fence import new_mark
from infra.gcp.names import both
from infra.gcp.store import Document, Path, Query, Store, Write, instant
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.ports import Clock

HOLDER: Final = "an import of a snapshot"
"""The attempt that a batch is in the hand of."""
FOR_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""After a crash the batches stay taken until the replacement is made once more, which deletes them."""
_FIELDS: Final = ("id", "state", "attempt", "until", "mark")


class Taken(NamedTuple):
    """A batch, and how it stood before."""

    path: Path
    state: str
    attempt: str


def take_all(store: Store, clock: Clock, streams: Iterable[tuple[str, str]], watch: Callable[[], None]) -> None:
    """Takes every batch of these streams that is not settled. Raises Leased while an attempt has one in hand, and then
    gives back what it took; what an earlier replacement took stays taken. `watch` is called for each."""
    taken: list[Taken] = []
    try:
        for name in streams:
            where = (("waiting", "array_contains", both(*name)),)
            for found in store.each(Query(("batches",), where, order="committed_at", fields=_FIELDS)):
                watch()
                taken.extend(_take(store, clock, found))
    except (Fenced, Leased):
        for each in taken:
            _give_back(store, each)
        raise


def _take(store: Store, clock: Clock, first: Document) -> list[Taken]:
    """Takes a batch, if it is to be had and nobody has it."""
    path, mark, found = batch_path(first.fields["id"]), new_mark(), first
    for _ in store.patience.tries():
        fields = found.fields
        if fields["attempt"] == HOLDER or fields["state"] == "settled":
            return []
        until = instant(fields["until"])
        if fields["state"] == "sending" and until is not None and until > clock.now():
            raise Leased(f"batch {fields['id']} is being sent", holder=fields["attempt"])
        held = {"state": "sending", "attempt": HOLDER, "mark": mark, "until": FOR_EVER}
        try:
            store.commit([Write(path, held, "update", found.version)])
        except Conflict:
            again = store.get(path)
            if again is None:
                return []
            if again.fields["mark"] != mark:
                found = again
                continue
            # It is ours, and only the answer was lost.
        return [Taken(path, fields["state"], fields["attempt"])]
    raise StoreUnavailable(f"batch {first.fields['id']}: others kept getting in between")


def _give_back(store: Store, taken: Taken) -> None:
    before = {"state": taken.state, "attempt": taken.attempt, "mark": new_mark(), "until": None}
    for _ in store.patience.tries():
        found = store.get(taken.path)
        if found is None or found.fields["attempt"] != HOLDER:
            return
        # Whoever published it may note so at any time.
        with suppress(Conflict):
            store.commit([Write(taken.path, before, "update", found.version)])
    raise StoreUnavailable("a batch that is given back: others kept getting in between")
