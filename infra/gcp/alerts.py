"""Alerts in Firestore."""

from __future__ import annotations

from infra.gcp.errors import Conflict
from infra.gcp.fence import new_mark
from infra.gcp.names import document_id
from infra.gcp.store import Query, Store, Write
from shared.errors import StoreUnavailable
from shared.ports import Clock


class GoogleAlerts:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def change(self, name: str, raised: bool, text: str) -> bool:
        path, mark = ("alerts", document_id(name)), new_mark()
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            if found is not None and found.fields["mark"] == mark:
                return True
            if raised == (found is not None and found.fields["raised"]):
                return False
            fields = {"name": name, "raised": raised, "at": self._clock.now(), "text": text, "mark": mark}
            write = Write(path, fields, "create") if found is None else Write(path, fields, "update", found.version)
            try:
                self._store.commit([write])
            except Conflict:
                continue
            return True
        raise StoreUnavailable(f"alert {name}: others kept getting in between")

    def raised(self) -> dict[str, str]:
        found = self._store.each(Query(("alerts",), (("raised", "==", True),)))
        return dict(sorted((document.fields["name"], document.fields["text"]) for document in found))
