"""Books: counts that come from the batches, however often those were written, and that always add up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.accounting import Counts, Entries
from shared.books import Settlement
from shared.outcome import Outcome
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, breaks, contract, eventually
from tests.contract.world import World


class TalliesSettlements(Around):
    """Remembers what each settlement said."""

    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(settlement)
        self.shared.setdefault("tally", []).append(settlement.outcomes)


class CountsByIncrement(Around):
    def counts(self, run: str) -> Counts:
        counts = Counts(fetched=self.inner.counts(run).fetched)
        for outcomes in self.shared.get("tally", []):
            counts.add_letters(outcomes)
        return counts


class ReadsTwice(Around):
    """Counts the batches at one moment and reads the run at another."""

    def counts(self, run: str) -> Counts:
        counts: Counts = self.inner.counts(run)
        before = counts.fetched
        if self.shared.setdefault("turns", 0) < 3:
            self.shared["turns"] += 1
            eventually(lambda: self.inner.counts(run).fetched > before, "a commit in between")
            counts.fetched = self.inner.counts(run).fetched
        return counts


class LastRulesOnly(Around):
    def rules(self, run: str) -> dict[str, int]:
        for batch in self.home.batches.of_run(run):
            rules = batch.rules
        return rules


class EntriesOfTheirTime(Around):
    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        for entry in self.inner.entries(integration, stream):
            batch = self.home.batches.get(entry.batch)
            assert batch is not None
            yield msgspec.structs.replace(entry, outcomes=batch.outcomes)


class ReplaysToo(Around):
    def entries(self, integration: str, stream: str) -> Iterator[Entries]:
        for run in reversed(self.home.runs.recent(integration, stream, 100)):
            for b in self.home.batches.of_run(run.id):
                yield Entries(b.id, b.run, b.keys, b.versions, b.present)

    def fetched(self, integration: str, stream: str) -> int:
        return sum(run.fetched for run in self.home.runs.recent(integration, stream, 100))


def backwards(found: Any) -> list[Any]:
    return list(found)[::-1]


@dataclass
class Told:
    """What two runs, a replay and another stream left in the books."""

    fetch: str
    again: str
    replay: str


def tell(world: World) -> Told:
    first, second = make.run(1, fetched=5), make.run(2, fetched=1)
    replay, tasks = make.run(3, kind="replay", fetched=1), make.run(1, stream="tasks", fetched=3)
    ended = make.settled_batch(0, first, "fi", rules={"too old": 1})
    make.commit(world.here, first, batches=[ended, make.batch(1, first, "d.?")], failures=[make.failure(ended, 1)])
    make.commit(world.here, second, batches=[make.settled_batch(2, second, "f", rules={"too old": 1, "draft": 2})])
    make.commit(world.here, tasks, batches=[make.batch(3, tasks)])
    cured = [make.closure(make.failure(ended, 1), Outcome.DELIVERED)]
    make.commit(world.here, replay, batches=[make.batch(4, replay, "d")], closures=cured)
    return Told(first.id, second.id, replay.id)


@contract(
    breaks("counts each writing", batches=TalliesSettlements, books=CountsByIncrement),
)
def check_a_batch_that_is_written_often_counts_once(world: World) -> None:
    batch = make.commit_batch(world.here, of=make.run(fetched=3))
    for home, attempt, outcomes in ((world.here, "one", "d.."), (world.there, "two", "dd.")):
        home.batches.begin(batch.id, attempt)
        for keep in (True, False):
            home.batches.settle(make.settlement(batch, attempt, outcomes, settled=False, keep=keep))
        home.batches.let_go(batch.id, attempt)
    world.here.batches.begin(batch.id, "three")
    world.here.batches.settle(make.settlement(batch, "three", "ddr"))
    assert world.there.books.counts(batch.run) == Counts(fetched=3, delivered=2, rejected=1)


@contract(
    breaks("leaves out what was fetched", books=answering("counts", lambda c: msgspec.structs.replace(c, fetched=0))),
    breaks("leaves out what is in doubt", books=answering("counts", lambda c: msgspec.structs.replace(c, pending=1))),
    breaks(
        "counts what it came to later", books=answering("counts", lambda c: msgspec.structs.replace(c, delivered=2))
    ),
)
def check_a_run_is_counted_as_it_settled(world: World) -> None:
    told = tell(world)
    counts = world.there.books.counts(told.fetch)
    assert counts == Counts(fetched=5, filtered=1, invalid=1, delivered=1, pending=2)
    assert counts.balanced
    assert world.there.books.counts("nobody's") == Counts()


@contract(breaks("reads twice", books=ReadsTwice))
def check_the_books_balance_while_a_run_commits(world: World) -> None:
    writer = threading.Thread(target=make.commit_groups, args=(world.there, CUSTOMERS, 60))
    writer.start()
    seen = 0
    try:
        while writer.is_alive():
            counts = world.here.books.counts(make.run().id)
            assert counts.balanced, counts
            seen = max(seen, counts.fetched)
    finally:
        writer.join()
    assert world.here.books.counts(make.run().id).fetched == 120


@contract(breaks("gives the last batch's", books=LastRulesOnly))
def check_rules_are_summed_over_the_run(world: World) -> None:
    told = tell(world)
    assert world.there.books.rules(told.fetch) == {"too old": 1}
    assert world.there.books.rules(told.again) == {"too old": 1, "draft": 2}
    run = make.run(9)
    parts = [make.settled_batch(n, run, "f", rules={"draft": n, f"only {n}": 1}) for n in (10, 11)]
    make.commit(world.here, run, batches=parts)
    assert world.there.books.rules(run.id) == {"draft": 21, "only 10": 1, "only 11": 1}
    assert world.there.books.rules("nobody's") == {}


@contract(
    breaks("tells the outcomes of their time", books=EntriesOfTheirTime),
    breaks("tells of replays too", books=ReplaysToo),
    breaks("tells the newest first", books=answering("entries", backwards)),
    breaks("loses one", books=answering("entries", lambda found: list(found)[:-1])),
)
def check_entries_are_the_present_outcomes_oldest_first(world: World) -> None:
    told = tell(world)
    entries = list(world.there.books.entries(SHOP, CUSTOMERS))
    assert [(e.run, e.outcomes) for e in entries] in (
        [(told.fetch, "fd"), (told.fetch, "d.?"), (told.again, "f")],
        [(told.fetch, "d.?"), (told.fetch, "fd"), (told.again, "f")],
    )
    first = next(entry for entry in entries if entry.outcomes == "fd")
    assert (first.batch, first.keys, first.versions) == ("customers-1.0", ["0-0", "0-1"], ["v1", "v1"])
    assert list(world.there.books.entries("market", CUSTOMERS)) == []


@contract(breaks("gives two hundred", books=answering("entries", lambda found: list(found)[:200])))
def check_entries_have_no_end_before_the_last(world: World) -> None:
    run = make.run()
    make.commit(world.here, run, batches=[make.batch(number, run, "dr") for number in range(450)])
    assert {entry.batch for entry in world.there.books.entries(SHOP, CUSTOMERS)} == {
        f"{run.id}.{n}" for n in range(450)
    }


@contract(breaks("counts replays too", books=ReplaysToo))
def check_what_was_fetched_is_summed_over_fetching_runs(world: World) -> None:
    tell(world)
    assert world.there.books.fetched(SHOP, CUSTOMERS) == 6
    assert world.there.books.fetched(SHOP, "tasks") == 3
    assert world.there.books.fetched("market", CUSTOMERS) == 0
