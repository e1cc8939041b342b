"""Batches: one attempt at a time, what an earlier one left is known, and a settlement is all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from shared.books import Batch, FailureQuery, Settlement
from shared.errors import Fenced, Leased
from shared.outcome import Outcome
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of, refused, swallowing, without
from tests.contract.world import START, World

Begun = tuple[Batch | None, str]


class BeginsWithoutAMark(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        return self.inner.get(batch), ""


class RespectsNobody(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        try:
            begun: Begun = self.inner.begin(batch, attempt)
        except Leased:
            return self.inner.get(batch), ""
        return begun


class RespectsOtherProcessesOnly(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        mine = self.__dict__.setdefault("mine", set())
        try:
            begun: Begun = self.inner.begin(batch, attempt)
        except Leased:
            if batch not in mine:
                raise
            return self.inner.get(batch), ""
        mine.add(batch)
        return begun


class RespectsTheDead(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        if batch in self.shared:
            raise Leased("it was being sent")
        try:
            begun: Begun = self.inner.begin(batch, attempt)
        except Leased:
            self.shared[batch] = True
            raise
        return begun


class BeginsWhatIsSettled(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        begun: Begun = self.inner.begin(batch, attempt)
        return (self.inner.get(batch), "") if begun[0] is None else begun


class DoubtsEverything(Around):
    def begin(self, batch: str, attempt: str) -> Begun:
        found, earlier = self.inner.begin(batch, attempt)
        return found, earlier or self.shared.setdefault(batch, attempt)


class StartsAfresh(Around):
    """Forgets what was recorded on the way."""

    def begin(self, batch: str, attempt: str) -> Begun:
        found, earlier = self.inner.begin(batch, attempt)
        return found and msgspec.structs.replace(found, outcomes="." * len(found.keys), attempts=0), earlier


class SettlesPart(Around):
    """Leaves out one part of what it was given."""

    part: dict[str, Any]

    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(msgspec.structs.replace(settlement, **self.part))


def leaving_out(**part: Any) -> type[Around]:
    return type("LeavesOut", (SettlesPart,), {"part": part})


class LeaksTheCells(Around):
    """Writes the cells of a settlement that it then refuses."""

    def settle(self, settlement: Settlement) -> None:
        try:
            self.inner.settle(settlement)
        except Exception:
            make.commit(self.home, make.run(99), cells=settlement.cells)
            raise


class LeaksTheRequests(Around):
    def settle(self, settlement: Settlement) -> None:
        try:
            self.inner.settle(settlement)
        except Exception:
            make.settle_another(self.home, settlement.awaited)
            raise


class LeaksTheFailures(Around):
    def settle(self, settlement: Settlement) -> None:
        try:
            self.inner.settle(settlement)
        except Exception:
            make.commit(self.home, make.run(99), failures=settlement.failures)
            raise


class PartByPart(Around):
    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(msgspec.structs.replace(settlement, failures=(), keep=True, settled=False))
        self.inner.settle(settlement)


class ProgressHandsBack(Around):
    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(msgspec.structs.replace(settlement, keep=False))


class HandsBackNothing(Around):
    def settle(self, settlement: Settlement) -> None:
        self.inner.settle(msgspec.structs.replace(settlement, keep=not settlement.settled))


class OtherStreamsToo(Around):
    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        found: Iterator[Batch] = self.inner.unsettled(integration)
        return found


class TheSettledToo(Around):
    def unsettled(self, integration: str, stream: str | None = None) -> Iterator[Batch]:
        for run in self.home.runs.recent(integration, stream, 100):
            yield from self.inner.of_run(run.id)


def begin(world: World, batch: Batch, attempt: str = "one") -> Batch:
    found, _ = world.here.batches.begin(batch.id, attempt)
    assert found is not None
    return found


def everything(world: World, batch: Batch) -> dict[str, Any]:
    """What is stored of a batch, of the cells of its keys and of failures, as the other process sees it."""
    home = world.there
    stored = home.batches.get(batch.id)
    assert stored is not None
    return {
        "outcomes": stored.outcomes,
        "attempts": stored.attempts,
        "cells": home.ledger.cells(SHOP, CUSTOMERS, batch.keys),
        "failures": sorted((f.id, f.closed_as) for f in home.failures.find(FailureQuery(SHOP, include_closed=True))),
        "awaited": home.confirmations.pending(SHOP, CUSTOMERS),
    }


def settlement_of_every_part(world: World, attempt: str) -> tuple[Batch, Settlement]:
    """A batch to settle, and a settlement that changes each kind of thing: it closes the failure of an older batch."""
    run = make.run()
    old = make.settled_batch(8, run)
    make.commit(world.here, run, batches=[old], failures=[make.failure(old)])
    batch = make.commit_batch(world.here)
    return batch, make.settlement(
        batch,
        attempt,
        "d.r",
        attempts=4,
        cells=[make.cell("0-0")],
        failures=[make.failure(batch, 2, outcome=Outcome.REJECTED)],
        closures=[make.closure(make.failure(old))],
        at=START + timedelta(seconds=5),
        awaited=[make.awaited(batch)],
    )


@contract(
    breaks("forgets the rules", batches=answering("get", lambda b: b and msgspec.structs.replace(b, rules={}))),
    breaks("forgets the place of it", batches=answering("get", lambda b: b and msgspec.structs.replace(b, offset=0))),
)
def check_a_batch_comes_back_as_it_was(world: World) -> None:
    run = make.run()
    travelling = make.batch(0, run, blob="archive/shop/1", offset=17, length=99, lane=3)
    ended = make.settled_batch(1, run, "fpi", rules={"too old": 2, "per.haps/Zoë": 1}, published_at=START)
    odd = make.batch(2, run, "..", keys=["a/b.c", 'Zoë "q" \\ …'], versions=["", "2026~1"], lane=0)
    make.commit(world.here, run, batches=[travelling, ended, odd])
    for batch in (travelling, ended, odd):
        assert world.there.batches.get(batch.id) == batch
    assert world.there.batches.get("nobody's") is None


@contract(
    breaks("gives a hundred", batches=answering("of_run", lambda found: list(found)[:100])),
    breaks("gives one twice", batches=answering("of_run", lambda found: [*found, *list(found)[:1], make.batch(0)])),
)
def check_all_batches_of_a_run_are_given_once(world: World) -> None:
    run, other = make.run(1), make.run(2)
    batches = [make.batch(number, run, ".") for number in range(230)]
    make.commit(world.here, run, batches=batches)
    make.commit(world.here, other, batches=[make.batch(900, other)])
    found = [batch.id for batch in world.there.batches.of_run(run.id)]
    assert len(found) == 230
    assert set(found) == {batch.id for batch in batches}


@contract(
    breaks("gives other streams'", batches=OtherStreamsToo),
    breaks("gives the settled ones", batches=TheSettledToo),
    breaks("gives a hundred", batches=answering("unsettled", lambda found: list(found)[:100])),
)
def check_unsettled_batches_are_all_that_are_open_or_being_sent(world: World) -> None:
    run, tasks = make.run(1), make.run(1, stream="tasks")
    batches = [make.batch(number, run) for number in range(130)]
    make.commit(world.here, run, batches=[*batches, make.settled_batch(900, run)])
    make.commit(world.here, tasks, batches=[make.batch(0, tasks)])
    world.here.batches.settle(make.settlement(begin(world, batches[0]), "one", "ddd"))
    begin(world, batches[1])

    def unsettled(stream: str | None) -> list[str]:
        return sorted(batch.id for batch in world.there.batches.unsettled(SHOP, stream))

    assert unsettled(CUSTOMERS) == sorted(batch.id for batch in batches[1:])
    assert unsettled("tasks") == ["tasks-1.0"]
    assert len(unsettled(None)) == 130
    assert list(world.there.batches.unsettled("market")) == []


class NamesAllOfTheStream(Around):
    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        found: Iterator[Batch] = self.inner.of_run(make.run().id)
        return found


class NamesByPart(Around):
    """Looks for the text of the key anywhere."""

    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        return (batch for batch in self.inner.of_run(make.run().id) if any(keys[0] in each for each in batch.keys))


class NamesByTheFirst(Around):
    def naming(self, integration: str, stream: str, *keys: str) -> Iterator[Batch]:
        found: Iterator[Batch] = self.inner.naming(integration, stream, keys[0])
        return found


@contract(
    breaks("names all of the stream", batches=NamesAllOfTheStream),
    breaks("takes a part of a key for it", batches=NamesByPart),
    breaks("names the newest first", batches=answering("naming", lambda found: list(found)[::-1])),
    breaks("names a hundred", batches=answering("naming", lambda found: list(found)[:100])),
    breaks("minds the first key alone", batches=NamesByTheFirst),
)
def check_the_batches_that_carry_a_key_are_named_oldest_first(world: World) -> None:
    run, tasks = make.run(1), make.run(1, stream="tasks")
    odd = 'Zoë/"q".\\%_*'
    naming = [make.batch(number, run, "..", keys=["other", odd]) for number in range(130)]
    others = [make.batch(900 + n, run, ".", keys=[key]) for n, key in enumerate([f"{odd} ", odd[:-1], "Zoë"])]
    for part in (naming[:70], others, naming[70:]):
        make.commit(world.here, run, batches=part)
    make.commit(world.here, tasks, batches=[make.batch(0, tasks, ".", keys=[odd])])
    found = [batch.id for batch in world.there.batches.naming(SHOP, CUSTOMERS, odd)]
    assert found == [batch.id for batch in naming]
    several = world.there.batches.naming(SHOP, CUSTOMERS, "nobody's", odd, "other", odd[:-1])
    assert sorted(batch.id for batch in several) == sorted(batch.id for batch in (*naming, others[1]))
    assert list(world.there.batches.naming(SHOP, CUSTOMERS, "nobody's")) == []
    assert list(world.there.batches.naming(SHOP, CUSTOMERS)) == []


@contract(breaks("does nothing", batches=without("published")))
def check_published_batches_say_since_when(world: World) -> None:
    run = make.run()
    make.commit(world.here, run, batches=[make.batch(n, run) for n in range(3)])
    at = START + timedelta(microseconds=5)
    world.here.batches.published(["customers-1.0", "customers-1.2"], at)
    assert [(b.id, b.published_at) for b in sorted(world.there.batches.of_run(run.id), key=lambda b: b.id)] == [
        ("customers-1.0", at),
        ("customers-1.1", None),
        ("customers-1.2", at),
    ]


@contract(breaks("marks nothing", batches=BeginsWithoutAMark))
def check_a_batch_that_is_begun_is_being_sent(world: World) -> None:
    batch = make.commit_batch(world.here)
    found, earlier = world.here.batches.begin(batch.id, "one")
    assert found is not None
    assert (found.id, found.keys, found.outcomes, earlier) == (batch.id, batch.keys, "...", "")
    stored = world.there.batches.get(batch.id)
    assert stored is not None
    assert (stored.state, stored.attempt) == ("sending", "one")


@contract(breaks("begins what is settled", batches=BeginsWhatIsSettled))
def check_a_settled_batch_is_not_begun(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.settle(make.settlement(begin(world, batch), "one", "ddd"))
    world.here.batches.let_go(batch.id, "one")
    assert world.there.batches.begin(batch.id, "two") == (None, "")


@contract(breaks("makes one up", batches=answering("begin", lambda _: (make.batch(), ""))))
def check_a_batch_that_is_not_there_is_not_begun(world: World) -> None:
    assert world.here.batches.begin("nobody's", "one") == (None, "")


@contract(
    breaks("respects nobody", batches=RespectsNobody),
    breaks("respects other processes only", batches=RespectsOtherProcessesOnly),
)
def check_a_live_attempt_is_respected_by_threads_and_processes(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch)
    for home in (world.here, world.there):
        with refused(Leased):
            home.batches.begin(batch.id, "two")
    world.here.batches.settle(make.settlement(batch, "one", "ddd"))


@contract(
    breaks("respects nobody", batches=RespectsNobody),
    breaks("respects other processes only", batches=RespectsOtherProcessesOnly),
)
def check_of_many_attempts_at_once_one_begins(world: World) -> None:
    batch = make.commit_batch(world.here)
    homes = (world.here, world.there) * 4
    results = at_once(*(partial(home.batches.begin, batch.id, f"attempt {n}") for n, home in enumerate(homes)))
    assert len(results) - len(errors_of(results)) == 1
    assert {type(error) for error in errors_of(results)} == {Leased}


@contract(
    breaks("respects the dead", batches=RespectsTheDead, error=Leased),
    breaks("forgets the earlier attempt", batches=answering("begin", lambda begun: (begun[0], ""))),
    breaks("forgets the progress", batches=StartsAfresh),
)
def check_what_a_dead_attempt_left_is_known(world: World) -> None:
    batch = make.commit_batch(world.here)
    child = world.child("begin_batch", batch=batch.id, attempt="one", progress="d..")
    assert child.said == {"earlier": ""}
    with refused(Leased):
        world.here.batches.begin(batch.id, "two")
    world.kill(child)
    found, earlier = world.here.batches.begin(batch.id, "two")
    assert found is not None
    assert (found.outcomes, earlier) == ("d..", "one")


@contract(
    breaks("waits for those who let go", batches=without("let_go"), error=Leased),
    breaks("forgets the earlier attempt", batches=answering("begin", lambda begun: (begun[0], ""))),
)
def check_what_was_let_go_unsettled_is_in_doubt_and_free(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch)
    world.here.batches.let_go(batch.id, "one")
    for home, attempt, earlier in (
        (world.here, "two", "one"),
        (world.there, "three", "two"),
        (world.here, "4", "three"),
    ):
        found, left_by = home.batches.begin(batch.id, attempt)
        assert found is not None
        assert left_by == earlier
        home.batches.let_go(batch.id, attempt)


@contract(
    breaks("never hands back", batches=HandsBackNothing),
    breaks("doubts everything", batches=DoubtsEverything),
    breaks("forgets what was recorded", batches=StartsAfresh),
)
def check_what_was_handed_back_is_not_in_doubt(world: World) -> None:
    batch = make.commit_batch(world.here)
    handed_back = make.settlement(begin(world, batch), "one", "d.?", settled=False, attempts=3)
    world.here.batches.settle(handed_back)
    world.here.batches.let_go(batch.id, "one")
    found, earlier = world.there.batches.begin(batch.id, "two")
    assert found is not None
    assert (found.outcomes, found.attempts, earlier) == ("d.?", 3, "")


@contract(breaks("settles what was handed back", batches=swallowing("settle", Fenced)))
def check_an_attempt_that_gave_its_batch_away_settles_no_more(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.settle(make.settlement(begin(world, batch), "one", "...", settled=False))
    with refused(Fenced):
        world.here.batches.settle(make.settlement(batch, "one", "ddd"))
    world.here.batches.let_go(batch.id, "one")
    world.here.batches.settle(make.settlement(begin(world, batch, "two"), "two", "ddd"))
    with refused(Fenced):
        world.here.batches.settle(make.settlement(batch, "two", "kkk"))
    assert everything(world, batch)["outcomes"] == "ddd"


@contract(
    breaks("hands it back", batches=ProgressHandsBack),
    breaks("drops the outcomes", batches=leaving_out(outcomes="...")),
)
def check_progress_keeps_the_batch(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch)
    progress = make.settlement(batch, "one", "d..", settled=False, keep=True, cells=[make.cell("0-0")])
    world.here.batches.settle(progress)
    with refused(Leased):
        world.there.batches.begin(batch.id, "two")
    assert everything(world, batch)["outcomes"] == "d.."
    assert everything(world, batch)["cells"] == {"0-0": make.cell("0-0")}
    world.here.batches.settle(make.settlement(batch, "one", "ddd"))
    assert world.there.batches.begin(batch.id, "two") == (None, "")


@contract(
    breaks("drops the cells", batches=leaving_out(cells=())),
    breaks("drops the failures", batches=leaving_out(failures=())),
    breaks("drops the closures", batches=leaving_out(closures=())),
    breaks("drops the requests", batches=leaving_out(awaited=())),
    breaks("drops the outcomes", batches=leaving_out(outcomes="...")),
    breaks("drops the attempts", batches=leaving_out(attempts=0)),
    breaks("drops the time", batches=answering("get", lambda b: b and msgspec.structs.replace(b, touched_at=None))),
    breaks("does nothing", batches=without("settle")),
)
def check_a_settlement_writes_every_part(world: World) -> None:
    batch, settlement = settlement_of_every_part(world, "one")
    begin(world, batch)
    world.here.batches.settle(settlement)
    stored = everything(world, batch)
    assert (stored["outcomes"], stored["attempts"]) == ("d.r", 4)
    assert stored["cells"] == {"0-0": make.cell("0-0")}
    assert sorted(closed_as for _, closed_as in stored["failures"]) == ["", "delivered"]
    assert stored["awaited"] == (1, 2)
    old = world.there.batches.get("customers-1.8")
    assert old is not None
    assert (old.outcomes, old.present) == ("iii", "dii")
    (closed,) = [f for f in world.there.failures.find(FailureQuery(SHOP, include_closed=True)) if f.closed_as]
    assert (closed.closed_by, closed.closed_at) == (settlement.run, settlement.at)
    settled = world.there.batches.get(batch.id)
    assert settled is not None
    assert (settled.state, settled.touched_at) == ("settled", settlement.at)


@contract(
    breaks("takes it from anybody", batches=swallowing("settle", Fenced)),
    breaks("leaves the cells behind", batches=LeaksTheCells),
    breaks("leaves the failures behind", batches=LeaksTheFailures),
    breaks("leaves the requests behind", batches=LeaksTheRequests),
)
def check_a_fenced_settlement_leaves_nothing_behind(world: World) -> None:
    batch, settlement = settlement_of_every_part(world, "one")
    begin(world, batch)
    world.take_here_for_dead()
    assert world.there.batches.begin(batch.id, "two")[1] == "one"
    before = everything(world, batch)
    with refused(Fenced):
        world.here.batches.settle(settlement)
    assert everything(world, batch) == before
    world.there.batches.settle(msgspec.structs.replace(settlement, attempt="two"))


@contract(
    breaks("writes part by part", batches=PartByPart),
    breaks("leaves the cells behind", batches=LeaksTheCells),
)
def check_a_part_that_fails_leaves_nothing_of_a_settlement(world: World) -> None:
    batch, settlement = settlement_of_every_part(world, "one")
    begin(world, batch)
    before = everything(world, batch)
    failing = [make.failure(batch, 2, data=make.unlike_any_store())]
    with refused(Exception):
        world.here.batches.settle(msgspec.structs.replace(settlement, failures=failing))
    assert everything(world, batch) == before
    world.here.batches.settle(settlement)


@contract(breaks("renews whatever it is shown", batches=swallowing("renew", Fenced)))
def check_a_batch_that_was_taken_over_is_not_renewed(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch)
    world.here.batches.renew(batch.id, "one")
    world.take_here_for_dead()
    world.there.batches.begin(batch.id, "two")
    with refused(Fenced):
        world.here.batches.renew(batch.id, "one")
    world.there.batches.renew(batch.id, "two")


class RenewsByLettingGo(Around):
    def renew(self, batch: str, attempt: str) -> None:
        self.inner.let_go(batch, attempt)


@contract(breaks("lets go when it is asked to renew", batches=RenewsByLettingGo))
def check_a_renewed_batch_stays_in_hand(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch)
    for _ in range(10):
        world.clock.advance(20)
        world.here.batches.renew(batch.id, "one")
    with refused(Leased):
        world.there.batches.begin(batch.id, "two")


class LetsGoOfAll(Around):
    def let_go(self, batch: str, attempt: str) -> None:
        found = self.inner.get(batch)
        self.inner.let_go(batch, found.attempt if found else attempt)


@contract(breaks("lets go for whoever has it", batches=LetsGoOfAll))
def check_letting_go_late_leaves_the_later_attempt_alone(world: World) -> None:
    batch = make.commit_batch(world.here)
    begin(world, batch, "one")
    world.here.batches.let_go(batch.id, "one")
    begin(world, batch, "two")
    world.here.batches.let_go(batch.id, "one")
    for home in (world.here, world.there):
        with refused(Leased):
            home.batches.begin(batch.id, "three")


class LosesOne(Around):
    def settle(self, settlement: Settlement) -> None:
        if not settlement.batch.endswith("7"):
            self.inner.settle(settlement)


@contract(
    breaks("loses one", batches=LosesOne),
    breaks("takes it from anybody", batches=swallowing("settle", Fenced)),
)
def check_settlements_at_once_are_each_whole_or_refused(world: World) -> None:
    """Every third is fenced, every third fails in the middle; their neighbours must not notice."""
    run = make.run()
    batches = [make.batch(number, run, ".") for number in range(24)]
    make.commit(world.here, run, batches=batches)

    def settle(number: int) -> None:
        home = (world.here, world.there)[number % 2]
        batch = batches[number]
        assert home.batches.begin(batch.id, "right")[0] is not None
        attempt = "wrong" if number % 3 == 1 else "right"
        data = make.unlike_any_store() if number % 3 == 2 else {}
        cells, failures = [make.cell(batch.keys[0])], [make.failure(batch, data=data)]
        home.batches.settle(make.settlement(batch, attempt, "r", cells=cells, failures=failures))

    results = at_once(*(lambda n=n: settle(n) for n in range(24)))
    assert [result is None for result in results] == [number % 3 == 0 for number in range(24)]
    assert {type(result) for result in results[1::3]} == {Fenced}
    settled = {batch.id for batch in batches[::3]}
    assert {b.id for b in world.there.batches.of_run(run.id) if b.outcomes == "r"} == settled
    assert {f.batch for f in world.there.failures.find(FailureQuery(SHOP))} == settled
    assert {c.key for c in world.there.ledger.scan(SHOP, CUSTOMERS)} == {b.keys[0] for b in batches[::3]}
