"""The emulator answers every question, index or not: here each one is held against the indexes that are deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.gcp.home import GoogleHome
from infra.gcp.indexes import COMPOSITE, EXEMPT, FIELDS, TIME_TO_LIVE
from infra.gcp.store import Query
from shared.books import Failure, FailureQuery, Run, StreamState
from shared.confirm import Awaited
from shared.launches import Launch
from shared.outcome import Outcome
from shared.tokens import made_of
from tests.contract import make
from tests.contract.world import START
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub


@pytest.fixture
def home(emulators: Emulators, tmp_path: Path) -> Iterator[GoogleHome]:
    hub = Hub(emulators, tmp_path)
    yield hub.home()
    hub.close()


Asked = list[tuple[Query, str]]


def listen(home: GoogleHome) -> Asked:
    """Every query from now on, with the field that is summed up, if any."""
    asked: Asked = []
    store = home.store

    def telling(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(query: Query, *given: Any, **named: Any) -> Any:
            asked.append((query, given[0] if given and isinstance(given[0], str) else ""))
            return method(query, *given, **named)

        return call

    for name in ("each", "first", "count", "total"):
        setattr(store, name, telling(getattr(store, name)))
    return asked


def is_covered(query: Query, summed: str) -> bool:
    collection = query.collection[-1]
    if not query.where and query.order in ("", "__name__") and not summed:
        return True
    fixed = {(field, "CONTAINS" if operator == "array_contains" else "ASCENDING") for field, operator, _ in query.where}
    last = summed or query.order
    if not last:
        return all(field in FIELDS[collection] for field, _ in fixed)
    fixed.discard((last, "ASCENDING"))
    direction = "DESCENDING" if query.descending else "ASCENDING"
    return any(
        index.collection == collection and set(index.fields[:-1]) == fixed and index.fields[-1] == (last, direction)
        for index in COMPOSITE
    )


def ask_everything(home: GoogleHome) -> None:
    ports = home.ports
    for integration in (None, make.SHOP):
        for stream in (None, make.CUSTOMERS):
            ports.runs.recent(integration, stream, 3)
    ports.runs.unfinished(make.SHOP, make.CUSTOMERS)
    list(ports.batches.of_run("r"))
    list(ports.batches.unsettled(make.SHOP))
    list(ports.batches.unsettled(make.SHOP, make.CUSTOMERS))
    list(ports.batches.naming(make.SHOP, make.CUSTOMERS, "k"))
    ports.books.counts("r")
    ports.books.rules("r")
    list(ports.books.entries(make.SHOP, make.CUSTOMERS))
    ports.books.fetched(make.SHOP, make.CUSTOMERS)
    list(ports.ledger.scan(make.SHOP, make.CUSTOMERS))
    ports.alerts.raised()
    list(ports.confirmations.due(make.SHOP, make.CUSTOMERS, START))
    ports.confirmations.pending(make.SHOP, make.CUSTOMERS)
    ports.confirmations.refused(make.SHOP, make.CUSTOMERS)
    ports.confirmations.refused(make.SHOP, make.CUSTOMERS, START)
    ports.confirmations.remove_ended(make.SHOP, START)
    ports.failures.remove_closed(make.SHOP, START)
    for before in (None, 5):
        ports.launches.recent(make.SHOP, make.CUSTOMERS, 3, before)
    ports.launches.waiting(make.SHOP, make.CUSTOMERS)
    ports.tokens.of(make.SHOP, make.CUSTOMERS)
    for after in ("", "a"):
        ports.objects.page("people", after, 3)
    for behind in (None, (START, "a")):
        ports.objects.changed("people", START, START + timedelta(days=1), behind, 3)
    ports.objects.find("people", "email", ["a", "b"])
    ports.objects.put("people", {"a": {}}, START)
    home.objects.owned("a")
    with ports.history.look() as past:
        past.streams()
        past.counts()
        past.kinds()
        name = make.SHOP, make.CUSTOMERS
        for found in (past.heads(*name), past.unsettled(*name), past.objects("people")):
            list(found)
        for kind in (Run, Failure, Awaited, Launch):
            list(past.told(kind, *name))  # type: ignore[type-var]
    for query in (
        FailureQuery(make.SHOP),
        FailureQuery(make.SHOP, make.CUSTOMERS, outcome="invalid", number=1, status=404, key="k", before=START),
        FailureQuery(make.SHOP, make.CUSTOMERS, keys=("a", "b"), include_closed=True),
    ):
        list(ports.failures.find(query))
        ports.failures.count(query)


def test_every_question_has_its_index(home: GoogleHome) -> None:
    asked = listen(home)
    ask_everything(home)
    assert {method.collection[-1] for method, _ in asked} == {
        "runs", "batches", "cells", "alerts", "failures", "awaited", "launches", "tokens", "objects", "streams",
        "kinds",
    }  # fmt: skip
    assert [query for query, summed in asked if not is_covered(query, summed)] == []


def test_no_index_is_without_a_question(home: GoogleHome) -> None:
    asked = listen(home)
    ask_everything(home)
    for index in COMPOSITE:
        others = [each for each in COMPOSITE if each != index]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.unit.test_gcp_indexes.COMPOSITE", others)
            assert not all(is_covered(query, summed) for query, summed in asked), index
    plain = {(q.collection[-1], field) for q, summed in asked if not (q.order or summed) for field, _, _ in q.where}
    composite = {(index.collection, field) for index in COMPOSITE for field, _ in index.fields[:-1]}
    for collection, fields in FIELDS.items():
        for field in fields:
            assert (collection, field) in plain | composite


def write_everything(home: GoogleHome) -> None:
    ports = home.ports
    lease = ports.leases.take(make.LEASE)
    run = make.run()
    old, new = make.settled_batch(0, run), make.batch(1, run)
    failures = [make.failure(old, 0), make.failure(old, 1, data={"long": "x" * 800_000})]
    ports.runs.commit(lease, run, batches=[old, new], failures=failures, cells=[make.cell("k")])
    ports.runs.finish(lease, run, StreamState(make.SHOP, make.CUSTOMERS))
    ports.batches.published([new.id], START)
    ports.batches.begin(new.id, "one")
    failed = [make.failure(new, 0, outcome=Outcome.REJECTED)]
    closures = [make.closure(failures[0])]
    awaited = [make.awaited(new), make.awaited(new, "q2")]
    ports.batches.settle(make.settlement(new, "one", "rdd", failures=failed, closures=closures, awaited=awaited))
    ports.confirmations.note(msgspec.structs.replace(awaited[1], state="gone", ended_at=START))
    ports.alerts.change("a", True, "b")
    ports.schedule.pause(make.SHOP)
    ports.launches.add(Launch(make.SHOP, make.CUSTOMERS, 7, START))
    ports.tokens.add(made_of(bytes(52), make.SHOP, make.CUSTOMERS, START)[1])
    ports.objects.put("people", {"a": {"email": "a@example.com"}}, START)
    ports.history.replace(b"intent", None)


def test_every_field_is_listed_as_indexed_or_not(home: GoogleHome) -> None:
    write_everything(home)
    client = home.store.client()
    written: dict[str, set[str]] = {"cells": set(), "objects": set()}
    for collection in client.collections():
        for snapshot in collection.stream():
            written.setdefault(collection.id, set()).update(snapshot.to_dict() or {})
    for below in ("cells", "objects"):
        for snapshot in client.collection_group(below).stream():
            written[below].update(snapshot.to_dict() or {})
    assert written == {name: set(FIELDS[name]) | set(EXEMPT[name]) for name in FIELDS}
    for name, fields in FIELDS.items():
        assert not set(fields) & set(EXEMPT[name])


def test_only_what_was_over_long_ago_goes_by_itself(home: GoogleHome) -> None:
    write_everything(home)
    client = home.store.client()
    for collection, field in TIME_TO_LIVE.items():
        for snapshot in client.collection(collection).stream():
            fields = snapshot.to_dict() or {}
            over_at = fields["closed_at" if collection == "failures" else "ended_at"]
            if over_at is None:
                assert fields[field] is None
            else:
                assert fields[field] >= over_at + timedelta(days=400)
