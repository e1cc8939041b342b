"""The monitoring table: rows come with what they tell of, and old ones are removed by age and integration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from shared.books import Batch, Failure, Run, Settlement
from shared.errors import Fenced
from shared.monitoring import COLUMNS, Monitored, MonitoringRow, failure_rows
from shared.ports import Lease
from tests.contract import make
from tests.contract.homes import DATASET, MONITORED, Trait
from tests.contract.make import LEASE, SHOP
from tests.contract.suite import Around, altered, answering, breaks, contract, eventually, refused, without
from tests.contract.world import START, World

WHEN = START + timedelta(microseconds=7)
SENT = MonitoringRow("shop.customers", WHEN, -2, "https://example.com/x?y=1", "row 0", "2", "0-0")
FAILED = MonitoringRow("shop.customers", WHEN, 113, "", "Zoë's 'row'; \"1\"", '{"name":"Zoë","n":[1,null]}', "0-1")
RETRIED = MonitoringRow("shop.customers", WHEN, -4, "gs://bucket/x", "", "")


def told(*rows: MonitoringRow) -> Monitored:
    return Monitored(MONITORED, rows)


def expected(*rows: MonitoringRow) -> list[tuple[Any, ...]]:
    return sorted((r.dag_name, "2026-03-01T12:00:00.000007Z", r.type_id, r.location, r.position, r.info) for r in rows)


def stored(world: World) -> list[tuple[Any, ...]]:
    """The rows, which have these columns and no others."""
    rows = world.monitoring_rows()
    assert all(tuple(row) == COLUMNS for row in rows)
    return sorted(tuple(row.values()) for row in rows)


class DropsTheRows(Around):
    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(msgspec.structs.replace(settlement, monitored=None))


class FirstRow(Around):
    def settle(self, settlement: Settlement) -> None:
        assert settlement.monitored is not None
        first = told(*settlement.monitored.rows[:1])
        self.inner.settle(msgspec.structs.replace(settlement, monitored=first))


class TellsUnasked(Around):
    def commit(self, lease: Lease, run: Run, **parts: Any) -> None:
        self.inner.commit(lease, run, **{"monitored": told(RETRIED), **parts})


class LeaksRows(Around):
    """Writes the rows of what it then refuses."""

    def commit(self, lease: Lease, run: Run, monitored: Monitored | None = None, **parts: Any) -> None:
        try:
            self.inner.commit(lease, run, monitored=monitored, **parts)
        except Fenced:
            make.commit(self.home, make.run(99, stream="other"), monitored=monitored)
            raise

    def settle(self, settlement: Settlement) -> None:
        try:
            self.inner.settle(settlement)
        except Fenced:
            make.commit(self.home, make.run(99, stream="other"), monitored=settlement.monitored)
            raise


class RemovesAll(Around):
    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        removed: int = self.inner.remove(integration, dataset, table, before + timedelta(days=1))
        return removed


class RemovesEverybodys(Around):
    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        for other in ("shopping", "market"):
            self.inner.remove(other, dataset, table, before)
        removed: int = self.inner.remove(integration, dataset, table, before)
        return removed


@contract(breaks("drops them", runs=altered("commit", monitored=None)), breaks("drops the run", runs=without("commit")))
def check_rows_come_with_a_commit_as_they_are(world: World) -> None:
    make.commit(world.here, make.run(), monitored=told(RETRIED, FAILED))
    assert stored(world) == expected(RETRIED, FAILED)


@contract(breaks("drops them", batches=DropsTheRows), breaks("writes the first one only", batches=FirstRow))
def check_rows_come_with_a_settlement_as_they_are(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    world.here.batches.settle(make.settlement(batch, "one", "ddi", monitored=told(SENT, FAILED)))
    assert stored(world) == expected(SENT, FAILED)


class TellsNobodyLater(Around):
    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        count: int = self.inner.refuse_later(request, failures)
        return count


class TellsOfAllLater(Around):
    def refuse_later(self, request: str, failures: Sequence[Failure], table: str = "") -> int:
        count: int = self.inner.refuse_later(request, failures)
        rows = Monitored(table, failure_rows(failures, START))
        make.commit(self.home, make.run(99, stream="other"), monitored=rows if table else None)
        return count


@contract(
    breaks("tells nobody", batches=TellsNobodyLater),
    breaks("tells of those that were left out", batches=TellsOfAllLater),
)
def check_rows_come_with_what_is_refused_later(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    cells = [make.cell(key, target_id=request) for key, request in zip(batch.keys, "aba", strict=True)]
    world.here.batches.settle(make.settlement(batch, "one", "ddd", cells=cells))
    failures = [make.failure(batch, place, number=29, location="gs://b", data={}) for place in range(3)]
    assert world.here.batches.refuse_later("a", failures[1:2], MONITORED) == 0
    assert stored(world) == []
    assert world.here.batches.refuse_later("a", failures, MONITORED) == 2
    assert [row[2:] for row in stored(world)] == [(29, "gs://b", "row 0", "{}"), (29, "gs://b", "row 2", "{}")]


@contract(breaks("tells unasked", runs=TellsUnasked))
def check_nothing_is_written_while_monitoring_is_off(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    world.here.batches.settle(make.settlement(batch, "one", "ddd"))
    assert stored(world) == []


@contract(breaks("leaks them", runs=LeaksRows), needs=(Trait.WRITES_ROWS_WITH_WHAT_THEY_TELL_OF,))
def check_a_stale_lease_leaves_no_rows(world: World) -> None:
    stale = world.here.leases.take(LEASE)
    world.take_here_for_dead()
    world.there.leases.take(LEASE)
    with refused(Fenced):
        world.here.runs.commit(stale, make.run(), monitored=told(RETRIED))
    assert stored(world) == []


@contract(breaks("leaks them", batches=LeaksRows), needs=(Trait.WRITES_ROWS_WITH_WHAT_THEY_TELL_OF,))
def check_an_attempt_that_was_overtaken_leaves_no_rows(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    world.take_here_for_dead()
    world.there.batches.begin(batch.id, "two")
    with refused(Fenced):
        world.here.batches.settle(make.settlement(batch, "one", "ddi", monitored=told(SENT, FAILED)))
    assert stored(world) == []
    world.there.batches.settle(make.settlement(batch, "two", "ddi", monitored=told(SENT, FAILED)))
    assert stored(world) == expected(SENT, FAILED)


def all_settled(found: Any) -> list[Batch]:
    return [msgspec.structs.replace(batch, state="settled") for batch in found]


@contract(breaks("calls a batch settled that is not", batches=answering("of_run", all_settled)))
def check_no_row_is_missing_whenever_death_comes(world: World) -> None:
    run = make.run()
    make.commit(world.here, run, batches=[make.batch(number, run, ".") for number in range(300)])
    child = world.child("settle_batches", run=run.id, count=300)
    assert child.said["begun"]
    eventually(lambda: len(settled(world, run)) >= 5, "some batches")
    world.kill(child)
    told_of = [row["info"] for row in world.monitoring_rows()]
    assert settled(world, run) <= set(told_of)


def settled(world: World, run: Run) -> set[str]:
    return {batch.id for batch in world.here.batches.of_run(run.id) if batch.state == "settled"}


@contract(
    breaks("removes nothing", monitoring=answering("remove", lambda removed: 0)),
    breaks("removes young ones too", monitoring=RemovesAll),
    breaks("removes everybody's", monitoring=RemovesEverybodys),
)
def check_old_rows_of_an_integration_are_removed(world: World) -> None:
    names = ("shop.customers", "shop.tasks", "shopping.customers", "market.shop.x")
    rows = [msgspec.structs.replace(RETRIED, dag_name=name) for name in names]
    young = msgspec.structs.replace(FAILED, timestamp=WHEN + timedelta(microseconds=1))
    make.commit(world.here, make.run(), monitored=told(*rows, young))
    assert len(stored(world)) == 5
    before = WHEN + timedelta(microseconds=1)
    assert world.there.monitoring.remove(SHOP, DATASET, MONITORED, WHEN) == 0
    assert world.there.monitoring.remove(SHOP, DATASET, MONITORED, before) == 2
    assert [row[0] for row in stored(world)] == ["market.shop.x", "shop.customers", "shopping.customers"]
    assert [row[2] for row in stored(world)] == [-4, 113, -4]
    assert world.there.monitoring.remove(SHOP, DATASET, MONITORED, before) == 0


@contract(breaks("knows of some", monitoring=answering("remove", lambda removed: removed + 1)))
def check_of_a_table_without_rows_none_is_removed(world: World) -> None:
    assert world.here.monitoring.remove(SHOP, DATASET, MONITORED, WHEN) == 0
