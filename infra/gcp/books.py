"""The books, read from the batches each time: a batch that is written twice cannot count twice."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from infra.gcp.batches import identities, present
from infra.gcp.names import both
from infra.gcp.runs import read_run, run_path
from infra.gcp.store import Query, Store
from shared.accounting import Counts, Entries

_rules = msgspec.json.Decoder(dict[str, int]).decode


class GoogleBooks:
    def __init__(self, store: Store) -> None:
        self._store = store

    def counts(self, run: str) -> Counts:
        """The run and its batches as they were at one moment: between two, a commit would put the books out of
        balance."""
        counts = Counts()
        found, moment = self._store.look(run_path(run))
        query = Query(("batches",), (("run", "==", run),), fields=("outcomes",))
        for document in self._store.each(query, read_at=moment):
            counts.add_letters(document.fields["outcomes"])
        if found is not None:
            counts.fetched = read_run(found).fetched
        return counts

    def rules(self, run: str) -> dict[str, int]:
        total: dict[str, int] = {}
        query = Query(("batches",), (("run", "==", run), ("lane", "==", None)), fields=("rules",))
        for document in self._store.each(query):
            for name, count in _rules(document.fields["rules"]).items():
                total[name] = total.get(name, 0) + count
        return total

    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        query = Query(
            ("batches",),
            (("of", "==", both(integration, stream)),),
            order="committed_at",
            fields=("id", "run", "kind", "committed_at", "outcomes", "amended", "idents"),
        )
        for document in self._store.each(query):
            fields = document.fields
            if fields["kind"] == "fetch":
                keys, versions = identities(fields)
                outcomes = present(fields["outcomes"], fields["amended"])
                yield Entries(fields["id"], fields["run"], keys, versions, outcomes)

    def fetched(self, integration: str, stream: str) -> int:
        where = (("of", "==", both(integration, stream)), ("kind", "==", "fetch"))
        return self._store.total(Query(("runs",), where), "fetched")
