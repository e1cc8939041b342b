"""Forgetting a person on Google Cloud: no trace is left, and the books still balance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.gcp.erase import find_traces, forget
from infra.gcp.home import GoogleHome
from shared.accounting import audit_stream
from shared.books import Batch, FailureQuery, StreamState
from shared.errors import Leased, StoreUnavailable
from shared.record import Envelope, Record
from tests.contract import make
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub

PERSON = "12345678901/Zoë"
STREAMS = [(make.SHOP, make.CUSTOMERS)]
NO_CUSTOMER = {"objects": 0, "uploaded rows": 0, "unreadable uploads": 0, "exported rows": 0}


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


def remember(home: GoogleHome) -> Batch:
    """A person in a settled batch, in the archive, in the ledger, and with a large failure of an older version."""
    ports, run = home.ports, make.run(fetched=3)
    keys, versions = ["a", PERSON, "b"], ["v2", "v2", "v2"]
    records = [Record(k, v, "upsert", "o", "p", {"who": k}) for k, v in zip(keys, versions, strict=True)]
    data = Envelope(make.SHOP, make.CUSTOMERS, run.id, f"{run.id}.0", 0, records).to_bytes()
    ports.blobs.write("archive/shop/1", b"before" + data + b"after")
    batch = make.batch(0, run, keys=keys, versions=versions, blob="archive/shop/1", offset=6, length=len(data))
    old = make.settled_batch(1, run, "i", keys=[PERSON], versions=["v1"])
    failure = make.failure(old, data={"who": PERSON, "long": "x" * 800_000})
    lease = ports.leases.take(make.LEASE)
    ports.runs.commit(lease, run, batches=[batch, old], failures=[failure])
    ports.batches.begin(batch.id, "one")
    cells = [make.cell(key, "v2", origin=key) for key in keys]
    ports.batches.settle(make.settlement(batch, "one", "ddd", cells=cells))
    ports.runs.finish(lease, run, StreamState(make.SHOP, make.CUSTOMERS))
    return batch


def everything(home: GoogleHome, hub: Hub) -> str:
    """All that is stored, as one text."""
    ports, found = home.ports, []
    for batch in ports.batches.of_run(make.run().id):
        found.append(repr(batch))
    found += [repr(cell) for cell in ports.ledger.scan(*STREAMS[0])]
    found += [repr(failure) for failure in ports.failures.find(FailureQuery(make.SHOP, include_closed=True))]
    found += [hub.blobs.read(name).decode() for name, _ in hub.blobs.names("")]
    return "\n".join(found)


def balanced(home: GoogleHome) -> bool:
    books, ledger = home.ports.books, home.ports.ledger
    audit = audit_stream(lambda: books.entries(*STREAMS[0]), lambda: ledger.versions(*STREAMS[0]), 4)
    return audit.balanced


def test_no_trace_is_left_and_the_books_balance(hub: Hub) -> None:
    home = hub.home()
    batch = remember(home)
    assert find_traces(home, STREAMS, PERSON) == {"cells": 1, "failures": 1, "batches": 2} | NO_CUSTOMER
    receipt = forget(home, [], PERSON)
    assert receipt["erased"] == {"cells": 1, "failures": 1, "batches": 2, "archived records": 1} | NO_CUSTOMER
    assert PERSON not in everything(home, hub)
    assert find_traces(home, STREAMS, PERSON) == {"cells": 0, "failures": 0, "batches": 0} | NO_CUSTOMER
    assert balanced(home)
    stored = home.ports.batches.get(batch.id)
    assert stored is not None
    assert stored.keys == ["a", receipt["receipt"], "b"]
    left = Envelope.from_bytes(home.ports.blobs.read(batch.blob, batch.offset, batch.length))
    assert [record.key for record in left.records] == ["a", "b"]
    assert home.ports.blobs.read("archive/shop/1")[-5:] == b"after"


@pytest.mark.parametrize("writes", range(6))
def test_after_a_crash_in_the_middle_the_rest_is_forgotten(hub: Hub, writes: int) -> None:
    home = hub.home()
    remember(home)
    commit, left = home.store.commit, [writes]

    def dying(changes: Any) -> Any:
        if not left[0]:
            raise StoreUnavailable("gone")
        left[0] -= 1
        return commit(changes)

    home.store.commit = dying  # type: ignore[method-assign]
    try:
        forget(home, STREAMS, PERSON)
    except StoreUnavailable:
        assert writes < 5
    later = hub.home()
    assert balanced(later)
    forget(later, STREAMS, PERSON)
    assert PERSON not in everything(later, hub)
    assert balanced(later)


def test_nobody_is_forgotten_while_on_the_way(hub: Hub) -> None:
    home = hub.home()
    make.commit_batch(home.ports, keys=["a", PERSON, "b"])
    with pytest.raises(Leased):
        forget(home, STREAMS, PERSON)
    assert find_traces(home, STREAMS, PERSON)["batches"] == 1


def test_an_archive_that_is_gone_is_no_hindrance(hub: Hub) -> None:
    home = hub.home()
    remember(home)
    home.ports.blobs.delete("archive/shop/1")
    assert forget(home, STREAMS, PERSON)["erased"]["archived records"] == 0
