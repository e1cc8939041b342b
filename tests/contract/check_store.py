"""A store that is not there: every call says so in the project's own words, and none makes something up."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from shared.books import FailureQuery, StreamState
from shared.errors import StoreUnavailable
from shared.launches import Launch
from shared.ports import Home, Lease, Message
from shared.tokens import made_of
from tests.contract import make
from tests.contract.homes import DATASET, MONITORED
from tests.contract.make import CUSTOMERS, LEASE, SHOP
from tests.contract.suite import Around, Wrong, at_once, breaks, contract
from tests.contract.world import START, TOPIC, World

BATCH = make.batch()
LAUNCH = Launch(SHOP, CUSTOMERS, 1, START)
_, TOKEN = made_of(bytes(52), SHOP, CUSTOMERS, START)
NEED_NO_STORE = {"batches.let_go"}
"""Whoever has nothing in hand lets go of nothing, with a store or without."""
PORTS = (
    "leases", "runs", "batches", "books", "ledger", "failures", "confirmations", "bus", "blobs", "schedule", "launches",
    "tokens", "objects", "alerts", "monitoring", "snapshots", "history",
)  # fmt: skip


def calls(home: Home, lease: Lease) -> dict[str, Callable[[], Any]]:
    """Every call of every port that needs the store."""
    return {
        "leases.take": lambda: home.leases.take("shop.other"),
        "leases.renew": lambda: home.leases.renew(lease),
        "leases.release": lambda: home.leases.release(lease),
        "leases.holder": lambda: home.leases.holder(LEASE),
        "runs.commit": lambda: home.runs.commit(lease, make.run(), batches=[make.batch(1)]),
        "runs.finish": lambda: home.runs.finish(lease, make.run(), StreamState(SHOP, CUSTOMERS)),
        "runs.conclude": lambda: home.runs.conclude(make.run()),
        "runs.get": lambda: home.runs.get(make.run().id),
        "runs.recent": lambda: home.runs.recent(SHOP, CUSTOMERS, 5),
        "runs.unfinished": lambda: home.runs.unfinished(SHOP, CUSTOMERS),
        "runs.state": lambda: home.runs.state(SHOP, CUSTOMERS),
        "batches.published": lambda: home.batches.published([BATCH.id], START),
        "batches.begin": lambda: home.batches.begin(BATCH.id, "two"),
        "batches.settle": lambda: home.batches.settle(make.settlement(BATCH, "one", "ddd")),
        "batches.renew": lambda: home.batches.renew(BATCH.id, "one"),
        "batches.of_run": lambda: list(home.batches.of_run(BATCH.run)),
        "batches.unsettled": lambda: list(home.batches.unsettled(SHOP)),
        "batches.get": lambda: home.batches.get(BATCH.id),
        "batches.refuse_later": lambda: home.batches.refuse_later("q", [make.failure(BATCH)]),
        "batches.naming": lambda: list(home.batches.naming(SHOP, CUSTOMERS, "0-0")),
        "books.counts": lambda: home.books.counts(BATCH.run),
        "books.rules": lambda: home.books.rules(BATCH.run),
        "books.entries": lambda: list(home.books.entries(SHOP, CUSTOMERS)),
        "books.fetched": lambda: home.books.fetched(SHOP, CUSTOMERS),
        "ledger.cells": lambda: home.ledger.cells(SHOP, CUSTOMERS, ["0-0"]),
        "ledger.scan": lambda: list(home.ledger.scan(SHOP, CUSTOMERS)),
        "ledger.versions": lambda: list(home.ledger.versions(SHOP, CUSTOMERS)),
        "failures.find": lambda: list(home.failures.find(FailureQuery(SHOP))),
        "failures.count": lambda: home.failures.count(FailureQuery(SHOP)),
        "failures.remove_closed": lambda: home.failures.remove_closed(SHOP, START),
        "confirmations.due": lambda: list(home.confirmations.due(SHOP, CUSTOMERS, START)),
        "confirmations.note": lambda: home.confirmations.note(make.awaited(BATCH)),
        "confirmations.pending": lambda: home.confirmations.pending(SHOP, CUSTOMERS),
        "confirmations.refused": lambda: home.confirmations.refused(SHOP, CUSTOMERS),
        "confirmations.remove_ended": lambda: home.confirmations.remove_ended(SHOP, START),
        "bus.publish": lambda: home.bus.publish(TOPIC, [Message(b"x", "a")]),
        "bus.carries": lambda: home.bus.carries(TOPIC, [BATCH.id]),
        "blobs.write": lambda: home.blobs.write("b", b"x"),
        "blobs.write_pieces": lambda: home.blobs.write_pieces("b", [b"x"]),
        "blobs.read": lambda: home.blobs.read("a"),
        "blobs.names": lambda: list(home.blobs.names("")),
        "blobs.delete": lambda: home.blobs.delete("a"),
        "blobs.size": lambda: home.blobs.size("a"),
        "snapshots.write": lambda: home.snapshots.write("b", b"x"),
        "snapshots.write_pieces": lambda: home.snapshots.write_pieces("b", [b"x"]),
        "snapshots.read": lambda: home.snapshots.read("a"),
        "snapshots.names": lambda: list(home.snapshots.names("")),
        "snapshots.delete": lambda: home.snapshots.delete("a"),
        "snapshots.size": lambda: home.snapshots.size("a"),
        "history.look": lambda: look(home),
        "history.replace": lambda: home.history.replace(b"x", lambda: iter(())),
        "history.unfinished": lambda: home.history.unfinished(),
        "history.finish": lambda: home.history.finish(b"x"),
        "schedule.next_run": lambda: home.schedule.next_run(SHOP, CUSTOMERS, "* * * * *"),
        "schedule.pause": lambda: home.schedule.pause(SHOP),
        "schedule.resume": lambda: home.schedule.resume(SHOP),
        "schedule.paused": lambda: home.schedule.paused(SHOP),
        "alerts.change": lambda: home.alerts.change("x", True, "y"),
        "alerts.raised": lambda: home.alerts.raised(),
        "launches.add": lambda: home.launches.add(Launch(SHOP, CUSTOMERS, 2, START)),
        "launches.note": lambda: home.launches.note(LAUNCH),
        "launches.get": lambda: home.launches.get(SHOP, CUSTOMERS, 1),
        "launches.recent": lambda: home.launches.recent(SHOP, CUSTOMERS, 5),
        "launches.waiting": lambda: home.launches.waiting(SHOP, CUSTOMERS),
        "tokens.add": lambda: home.tokens.add(made_of(os.urandom(52), SHOP, CUSTOMERS, START)[1]),
        "tokens.of": lambda: home.tokens.of(SHOP, CUSTOMERS),
        "tokens.revoke": lambda: home.tokens.revoke(SHOP, CUSTOMERS, TOKEN.id, START),
        "objects.get": lambda: home.objects.get("people", ["a"]),
        "objects.find": lambda: home.objects.find("people", "email", ["x"]),
        "objects.put": lambda: home.objects.put("people", {"a": {"email": "x"}}, START),
        "objects.remove": lambda: home.objects.remove("people", ["a"]),
        "objects.page": lambda: home.objects.page("people", "", 5),
        "objects.changed": lambda: home.objects.changed("people", START, START + timedelta(1), None, 5),
        "objects.fields": lambda: home.objects.fields("people"),
        "monitoring.remove": lambda: home.monitoring.remove(SHOP, DATASET, MONITORED, START),
    }


def look(home: Home) -> object:
    with home.history.look() as past:
        return past.counts()


class ForeignErrors(Around):
    """Lets through what its library raises."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def call(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except StoreUnavailable as error:
                raise OSError("broken pipe") from error

        return call


class MakesThingsUp(Around):
    """Takes what it cannot read for empty."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def call(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except StoreUnavailable:
                return None

        return call


def used(world: World) -> Lease:
    """Something of each kind is stored, and everything was used once."""
    home = world.here
    lease = home.leases.take(LEASE)
    home.runs.commit(lease, make.run(), batches=[BATCH], cells=[make.cell("0-0")])
    home.batches.begin(BATCH.id, "one")
    home.blobs.write("a", b"x")
    home.snapshots.write("a", b"x")
    home.bus.publish(TOPIC, [Message(b"x", "a")])
    home.launches.add(LAUNCH)
    home.tokens.add(TOKEN)
    for call in calls(world.there, lease).values():
        try:
            call()
        except Exception:
            continue
    return lease


def answers(home: Home, lease: Lease) -> dict[str, str]:
    """What each call of a home came to, apart from those that say that the store is not there. A bus that says nothing
    of what it carries says nothing wrong."""
    wrong = {}
    for name, call in calls(home, lease).items():
        try:
            found = call()
            if name != "bus.carries" or found is not None:
                wrong[name] = f"gave {found!r}"
        except StoreUnavailable:
            continue
        except Exception as error:
            wrong[name] = f"raised {error!r}"
    return wrong


@contract(
    *(Wrong(f"lets foreign errors of its {port} through", {port: ForeignErrors}) for port in PORTS),
    *(Wrong(f"takes its {port} for empty", {port: MakesThingsUp}) for port in PORTS),
)
def check_a_store_that_is_not_there_is_called_unavailable(world: World) -> None:
    lease = used(world)
    world.unplug()
    assert answers(world.here, lease) == {}
    in_new_threads = at_once(*(lambda home=home: answers(home, lease) for home in (world.here, world.there)))
    assert in_new_threads == [{}, {}]


@contract(breaks("says that it is written", runs=MakesThingsUp, bus=MakesThingsUp))
def check_of_writers_at_once_none_believes_a_store_that_is_not_there(world: World) -> None:
    lease = used(world)
    world.unplug()
    home = world.here
    works: list[Callable[[], Any]] = [
        lambda: home.runs.commit(lease, make.run()),
        lambda: home.bus.publish(TOPIC, [Message(b"x")]),
    ]
    assert {type(result) for result in at_once(*works * 6)} == {StoreUnavailable}
