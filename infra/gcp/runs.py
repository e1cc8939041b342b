"""Runs and their checkpoints in Firestore: the fields that are asked for stand beside the run itself, one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from infra.gcp.batches import create_batches
from infra.gcp.errors import Conflict
from infra.gcp.failures import GoogleFailures
from infra.gcp.leases import GoogleLeases
from infra.gcp.ledger import GoogleLedger, stream_path
from infra.gcp.monitoring import publish_rows
from infra.gcp.names import both, document_id
from infra.gcp.store import COMMIT_BYTES, Document, Path, Query, Store, Write
from shared.books import Batch, Closure, Failure, Run, StreamState
from shared.errors import StoreUnavailable
from shared.ledger import Cell
from shared.monitoring import Monitored
from shared.ports import Bus, Lease

_decode = msgspec.json.Decoder(Run).decode
_decode_state = msgspec.json.Decoder(StreamState).decode
ALL: Final = "*"
LEASE_BYTES: Final = 1_000


class GoogleRuns:
    def __init__(
        self, store: Store, leases: GoogleLeases, ledger: GoogleLedger, failures: GoogleFailures, bus: Bus
    ) -> None:
        self._store = store
        self._leases = leases
        self._ledger = ledger
        self._failures = failures
        self._bus = bus

    def commit(
        self,
        lease: Lease,
        run: Run,
        batches: Sequence[Batch] = (),
        failures: Sequence[Failure] = (),
        cells: Sequence[Cell] = (),
        closures: Sequence[Closure] = (),
        monitored: Monitored | None = None,
    ) -> None:
        cells_now = self._ledger.marking(run.integration, run.stream, cells)
        at = run.touched_at or run.started_at

        def others() -> list[Write]:
            writes = [write_run(run), *create_batches(batches), *cells_now()]
            room = COMMIT_BYTES - LEASE_BYTES - sum(write.size for write in writes)
            return writes + self._failures.changes(failures, closures, run.id, at, room=room)

        publish_rows(self._bus, run.integration, monitored)
        self._leases.commit(lease, others)

    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        writes = [write_run(run), write_state(state)]
        self._leases.commit(lease, lambda: writes)

    def conclude(self, run: Run) -> None:
        path = run_path(run.id)
        for _ in self._store.patience.tries():
            found = self._store.get(path)
            if found is None or found.fields["fetched"] != run.fetched:
                return
            try:
                self._store.commit([Write(path, write_run(run).fields, "update", found.version)])
            except Conflict:
                continue
            return
        raise StoreUnavailable(f"run {run.id}: others kept getting in between")

    def get(self, run: str) -> Run | None:
        found = self._store.get(run_path(run))
        return None if found is None else read_run(found)

    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        where = (("names", "array_contains", _name(integration, stream)),)
        found = self._store.first(Query(("runs",), where, order="started_at", descending=True), most)
        return [read_run(document) for document in found]

    def unfinished(self, integration: str, stream: str) -> list[Run]:
        found = self._store.each(Query(("runs",), (("open", "==", both(integration, stream)),)))
        return sorted((read_run(document) for document in found), key=lambda run: run.started_at)

    def state(self, integration: str, stream: str) -> StreamState:
        return read_state(self._store.get(stream_path(integration, stream)), integration, stream)


def read_state(found: Document | None, integration: str, stream: str) -> StreamState:
    """What a stream remembers, by its document where there is one."""
    return StreamState(integration, stream) if found is None else _decode_state(found.fields["state"])


def write_state(state: StreamState) -> Write:
    """Writes what a stream remembers, whatever is there."""
    of, text = both(state.integration, state.stream), msgspec.json.encode(state).decode()
    return Write(stream_path(state.integration, state.stream), {"of": of, "state": text})


def run_path(run: str) -> Path:
    return "runs", document_id(run)


def read_run(document: Document) -> Run:
    return _decode(document.fields["doc"])


def write_run(run: Run) -> Write:
    """Writes a run, whatever is there."""
    of = both(run.integration, run.stream)
    fields: dict[str, Any] = {
        "doc": msgspec.json.encode(run).decode(),
        "of": of,
        "kind": run.kind,
        "fetched": run.fetched,
        "open": "" if run.over else of,
        "started_at": run.started_at,
        "names": [_name(i, s) for i in (None, run.integration) for s in (None, run.stream)],
    }
    return Write(run_path(run.id), fields)


def _name(integration: str | None, stream: str | None) -> str:
    """A run is listed under its stream, its integration, and all: one index answers every form of the question."""
    return both(integration or ALL, stream or ALL)
