"""Commits that go through only while a document still says that the writer may write.

The first write of such a commit changes that document, on condition that nobody else has changed it since: whoever was
overtaken has all of the commit refused by the store itself. No transaction is held open, and nothing is read on the way
as long as nobody gets in between.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infra.gcp.errors import Conflict
from infra.gcp.store import Document, Path, Store, Write
from shared.errors import Fenced, StoreUnavailable


class Hold:
    """What one writer knows of the document that lets it write. `version` is None where that has to be read first."""

    def __init__(self, path: Path, what: str, mine: Callable[[Mapping[str, Any]], bool], version: Any = None) -> None:
        self.path = path
        self.what = what
        self.mine = mine
        self.version = version
        self.lock = threading.Lock()


def new_mark() -> str:
    """Tells one commit from every other: it makes each of them a change, and shows which one came through."""
    return secrets.token_hex(8)


def commit_held(
    store: Store, hold: Hold, fields: Mapping[str, Any], others: Callable[[], Sequence[Write]] = lambda: ()
) -> None:
    """Changes these fields of the held document and makes the other writes, all or none.

    `others` is asked again when something that it read has changed meanwhile. Raises Fenced when the document is
    another writer's.
    """
    with hold.lock:
        mark = new_mark()
        for _ in store.patience.tries():
            if hold.version is None:
                hold.version = _own(hold, store.get(hold.path)).version
            try:
                hold.version = store.commit(_guarded(hold, {**fields, "mark": mark}, others()))[0]
                return
            except Conflict:
                found = store.get(hold.path)
                if found is not None and found.fields["mark"] == mark:
                    # It came through, and only the answer of the first try was lost.
                    hold.version = found.version
                    return
                hold.version = _own(hold, found).version
            except StoreUnavailable:
                hold.version = None
                raise
        raise StoreUnavailable(f"{hold.what}: others kept getting in between")


def _guarded(hold: Hold, fields: Mapping[str, Any], others: Sequence[Write]) -> list[Write]:
    """The change of the held document, and then the others. What they change in it goes into the first: Firestore does
    not take two writes of one document that want it in different versions."""
    changed, rest = dict(fields), []
    for write in others:
        if write.path == hold.path:
            changed |= write.fields
        else:
            rest.append(write)
    return [Write(hold.path, changed, "update", hold.version), *rest]


def _own(hold: Hold, found: Document | None) -> Document:
    if found is None or not hold.mine(found.fields):
        raise Fenced(f"{hold.what} was taken over")
    return found
