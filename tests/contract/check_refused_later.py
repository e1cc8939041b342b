"""What a target refuses after it had accepted it: record, cell and present outcome change as one, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from shared.accounting import audit_stream
from shared.books import Batch, Failure, FailureQuery, Settlement
from shared.ledger import TAKEN_BACK, Cell
from shared.outcome import Outcome
from shared.ports import Home
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, refused, without
from tests.contract.world import START, World


class TakesAll(Around):
    """Does not look under which request a cell is."""

    def refuse_later(self, request: str, failures: Sequence[Failure]) -> int:
        cells = self.home.ledger.cells(SHOP, CUSTOMERS, [failure.key for failure in failures])
        requests = {cells[failure.key].target_id for failure in failures if failure.key in cells}
        return sum(self.inner.refuse_later(each, failures) for each in requests)


class WritesTheFailuresOnly(Around):
    def refuse_later(self, request: str, failures: Sequence[Failure]) -> int:
        make.commit(self.home, make.run(99), failures=failures)
        return len(failures)


class LeavesTheCells(Around):
    """Puts the cells back as they were."""

    def refuse_later(self, request: str, failures: Sequence[Failure]) -> int:
        # As if they were applied later: nothing else is written over what was taken back.
        later = START + timedelta(days=1)
        cells = [msgspec.structs.replace(cell, at=later) for cell in self.home.ledger.scan(SHOP, CUSTOMERS)]
        count: int = self.inner.refuse_later(request, failures)
        make.settle_another(self.home, (), number=70, cells=cells)
        return count


class LeavesTheBooks(Around):
    """Keeps the outcome of their time."""

    def get(self, batch: str) -> Batch | None:
        found: Batch | None = self.inner.get(batch)
        return found and msgspec.structs.replace(found, amended={})


class LeaksTheFailures(Around):
    """Writes part by part."""

    def refuse_later(self, request: str, failures: Sequence[Failure]) -> int:
        for failure in failures:
            self.inner.refuse_later(request, [failure])
        return len(failures)


class KeepsAClosedOne(Around):
    """A failure that was closed once stays closed."""

    def find(self, query: FailureQuery) -> list[Failure]:
        return [failure for failure in self.inner.find(query) if failure.number != 29]


def delivered(world: World, requests: str, version: str = "v1", number: int = 0) -> Batch:
    """A batch that is settled: each record delivered by the request of its letter."""
    batch = make.commit_batch(world.here, "." * len(requests), number, make.run(number + 1))
    world.here.batches.begin(batch.id, "one")
    cells = [
        make.cell(key, version, target_id=request, origin=f"origin-{key}", shown="s", gave_way="g", shown_version="x")
        for key, request in zip(batch.keys, requests, strict=True)
    ]
    world.here.batches.settle(make.settlement(batch, "one", "d" * len(requests), cells=cells))
    return batch


def failures_of(batch: Batch, **fields: Any) -> list[Failure]:
    """The failure of each of its records."""
    changed = {"outcome": Outcome.EXHAUSTED, "number": 29} | fields
    return [make.failure(batch, place, **changed) for place in range(len(batch.keys))]


def after(key: str, version: str = "v1", **fields: Any) -> Cell:
    """The cell of a key whose version was refused."""
    return make.cell(key, version, hash=TAKEN_BACK, target_id="", origin=f"origin-{key}", failed=version, **fields)


def present(home: Home, batch: Batch) -> str:
    stored = home.batches.get(batch.id)
    assert stored is not None
    return stored.present


@contract(
    breaks("does nothing", batches=answering("refuse_later", lambda _: 0), failures=answering("find", lambda _: [])),
    breaks("takes all of them", batches=TakesAll),
    breaks("writes the failures only", batches=WritesTheFailuresOnly),
    breaks("leaves the cells as they were", batches=LeavesTheCells),
    breaks("leaves the books as they were", batches=LeavesTheBooks),
    breaks("does not say how many", batches=answering("refuse_later", lambda _: 0)),
)
def check_what_is_under_the_request_becomes_failures(world: World) -> None:
    batch = delivered(world, "aba")
    failures = failures_of(batch)
    assert world.here.batches.refuse_later("a", failures) == 2
    home = world.there
    assert present(home, batch) == "xdx"
    stored = home.batches.get(batch.id)
    assert stored is not None and stored.outcomes == "ddd"
    found = sorted(home.failures.find(FailureQuery(SHOP)), key=lambda failure: failure.place)
    assert found == [failures[0], failures[2]]
    cells = home.ledger.cells(SHOP, CUSTOMERS, batch.keys)
    assert (cells["0-0"], cells["0-2"]) == (after("0-0"), after("0-2"))
    assert cells["0-1"].target_id == "b"
    assert home.batches.refuse_later("a", failures) == 0
    assert home.batches.refuse_later("a", []) == 0
    assert home.batches.refuse_later("nobody's", [make.failure(make.batch(77), 0)]) == 0


@contract(
    breaks("takes all of them", batches=TakesAll), breaks("writes the failures only", batches=WritesTheFailuresOnly)
)
def check_what_was_delivered_anew_since_is_left_alone(world: World) -> None:
    batch = delivered(world, "aa")
    newer = make.commit_batch(world.here, ".", 8, make.run(8), keys=["0-0"], versions=["v2"])
    world.there.batches.begin(newer.id, "one")
    now = make.cell("0-0", "v2", target_id="b")
    world.there.batches.settle(make.settlement(newer, "one", "d", cells=[now]))
    assert world.here.batches.refuse_later("a", failures_of(batch)) == 1
    assert world.there.ledger.cells(SHOP, CUSTOMERS, ["0-0"]) == {"0-0": now}
    assert present(world.there, batch) == "dx"
    assert [failure.key for failure in world.there.failures.find(FailureQuery(SHOP))] == ["0-1"]


class PutsBack(Around):
    """Writes what was read of a cell, whatever became of it since."""

    def settle(self, settlement: Settlement) -> None:
        soon = [
            msgspec.structs.replace(cell, at=START + timedelta(days=1)) if cell.at is not None else cell
            for cell in settlement.cells
        ]
        self.inner.settle(msgspec.structs.replace(settlement, cells=soon))


@contract(breaks("puts back what was taken back", batches=PutsBack))
def check_what_was_found_unchanged_before_it_was_taken_back_stays_taken_back(world: World) -> None:
    """A delivery reads the cells first and writes them when all is sent."""
    batch = delivered(world, "aa")
    newer = make.commit_batch(world.here, "..", 8, make.run(8), keys=["0-0", "0-1"], versions=["v2", "v2"])
    world.here.batches.begin(newer.id, "one")
    read = world.here.ledger.cells(SHOP, CUSTOMERS, ["0-0", "0-1"])
    assert world.there.batches.refuse_later("a", failures_of(batch)) == 2
    unchanged = msgspec.structs.replace(read["0-0"], version="v2")
    failing = msgspec.structs.replace(read["0-1"], failed="v2")
    world.here.batches.settle(make.settlement(newer, "one", "ur", cells=[unchanged, failing]))
    cells = world.there.ledger.cells(SHOP, CUSTOMERS, ["0-0", "0-1"])
    assert cells["0-0"] == after("0-0")
    assert cells["0-1"] == msgspec.structs.replace(after("0-1"), failed="v2")
    later = make.commit_batch(world.here, ".", 9, make.run(9), keys=["0-0"], versions=["v3"])
    world.here.batches.begin(later.id, "one")
    sent = make.cell("0-0", "v3", target_id="b", at=START + timedelta(days=1))
    world.here.batches.settle(make.settlement(later, "one", "d", cells=[sent]))
    assert world.there.ledger.cells(SHOP, CUSTOMERS, ["0-0"]) == {"0-0": sent}


@contract(breaks("leaves the books as they were", batches=LeavesTheBooks, books=answering("entries", lambda _: [])))
def check_the_books_balance_afterwards(world: World) -> None:
    batch = delivered(world, "aaa")
    world.here.batches.refuse_later("a", failures_of(batch))
    home = world.there
    audit = audit_stream(lambda: home.books.entries(SHOP, CUSTOMERS), lambda: home.ledger.versions(SHOP, CUSTOMERS), 3)
    assert audit.balanced
    assert (audit.counts.fetched, audit.counts.exhausted) == (3, 3)


@contract(
    breaks("writes part by part", batches=LeaksTheFailures),
    breaks("does nothing", batches=without("refuse_later")),
)
def check_a_part_that_fails_leaves_nothing_of_it(world: World) -> None:
    batch = delivered(world, "aaa")
    failures = failures_of(batch)
    spoilt = msgspec.structs.replace(failures[2], data=make.unlike_any_store())
    before = world.there.ledger.cells(SHOP, CUSTOMERS, batch.keys)
    with refused(Exception):
        world.here.batches.refuse_later("a", [*failures[:2], spoilt])
    assert world.there.ledger.cells(SHOP, CUSTOMERS, batch.keys) == before
    assert present(world.there, batch) == "ddd"
    assert list(world.there.failures.find(FailureQuery(SHOP, include_closed=True))) == []
    assert world.here.batches.refuse_later("a", failures) == 3


@contract(breaks("keeps a closed one closed", failures=KeepsAClosedOne))
def check_a_failure_that_was_closed_is_opened_anew(world: World) -> None:
    batch = delivered(world, "a")
    (old,) = failures_of(batch, outcome=Outcome.REJECTED, number=50)
    run = make.run(8, touched_at=START)
    make.commit(world.here, run, failures=[old])
    make.commit(world.here, run, closures=[make.closure(old)])
    later = START + timedelta(hours=1)
    (again,) = failures_of(batch, first_at=later, last_at=later)
    assert world.here.batches.refuse_later("a", [again]) == 1
    assert list(world.there.failures.find(FailureQuery(SHOP))) == [again]


@contract(breaks("writes the failures only", batches=WritesTheFailuresOnly))
def check_of_many_at_once_each_record_is_taken_by_one(world: World) -> None:
    batch = delivered(world, "a" * 12)
    failures = failures_of(batch)
    works = [
        lambda n=n: (world.here, world.there)[n % 2].batches.refuse_later("a", failures[3 * (n % 4) : 3 * (n % 4) + 3])
        for n in range(8)
    ]
    results = at_once(*works)
    assert all(isinstance(count, int) for count in results), results
    found = list(world.there.failures.find(FailureQuery(SHOP)))
    assert sorted(failure.key for failure in found) == sorted(batch.keys)
    assert {failure.attempts for failure in found} == {1}
    assert present(world.there, batch) == "x" * 12
