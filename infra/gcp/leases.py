"""Leases in Firestore: a document each, created once and then taken by compare-and-set, which expires unless renewed.

The document is never removed, since its token has to grow. What a holder writes carries its fence (`fence.py`), so that
a clock that runs ahead can shorten a lease but never let two write.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from infra.gcp.errors import Conflict
from infra.gcp.fence import Hold, commit_held, new_mark
from infra.gcp.names import document_id
from infra.gcp.store import Document, Path, Store, Write, instant
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.ports import Clock, Lease
from shared.snapshot.history import LEASES, TO_FINISH, UNFINISHED

TIME_TO_LIVE: Final = timedelta(seconds=60)
REPLACEMENT: Final[Path] = ("replacements", "now")
"""The intent of whoever is replacing the books (`history.py`)."""


class GoogleLeases:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._holds: dict[Lease, Hold] = {}

    def take(self, name: str) -> Lease:
        path, mark = _path(name), new_mark()
        for _ in self._store.patience.tries():
            documents = self._store.get_all([path, REPLACEMENT])
            if REPLACEMENT in documents and not name.startswith(LEASES):
                raise StoreUnavailable(UNFINISHED, cure=TO_FINISH)
            found = documents.get(path)
            lease = Lease(name, 1 if found is None else found.fields["token"] + 1, _holder())
            if found is not None and found.fields["mark"] == mark:
                # It is ours, and only the answer was lost.
                lease = Lease(name, found.fields["token"], lease.holder)
                return self._held(lease, found.version)
            if found is not None and self._is_held(found):
                holder = found.fields["holder"]
                raise Leased(f"{name} is being run by {holder}", holder=holder)
            fields = {"name": name, "token": lease.token, "holder": lease.holder, "mark": mark, **self._until()}
            write = Write(path, fields, "create") if found is None else Write(path, fields, "update", found.version)
            try:
                (version,) = self._store.commit([write])
            except Conflict:
                continue
            return self._held(lease, version)
        raise StoreUnavailable(f"{name}: others kept getting in between")

    def renew(self, lease: Lease) -> None:
        self.commit(lease)

    def release(self, lease: Lease) -> None:
        hold = self._hold(lease)
        self._holds.pop(lease, None)
        try:
            commit_held(self._store, hold, {"until": None})
        except Fenced:
            return

    def holder(self, name: str) -> str | None:
        found = self._store.get(_path(name))
        return found.fields["holder"] if found is not None and self._is_held(found) else None

    def commit(self, lease: Lease, others: Callable[[], Sequence[Write]] = lambda: ()) -> None:
        """Makes these writes if the lease still holds, and renews it with them. Raises Fenced."""
        commit_held(self._store, self._hold(lease), self._until(), others)

    def _held(self, lease: Lease, version: Any) -> Lease:
        hold = self._hold(lease)
        hold.version = version
        self._holds[lease] = hold
        return lease

    def _hold(self, lease: Lease) -> Hold:
        def mine(fields: Mapping[str, Any]) -> bool:
            return fields["token"] == lease.token and fields["until"] is not None

        return self._holds.get(lease) or Hold(_path(lease.name), f"the lease of {lease.name}", mine)

    def _until(self) -> dict[str, Any]:
        return {"until": self._clock.now() + TIME_TO_LIVE}

    def _is_held(self, found: Document) -> bool:
        until = instant(found.fields["until"])
        return until is not None and until > self._clock.now()


def _path(name: str) -> Path:
    return "leases", document_id(name)


def _holder() -> str:
    """For people: the revision of the function where there is one, or the machine, and the process."""
    return f"{os.environ.get('K_REVISION') or socket.gethostname()}, process {os.getpid()}"
