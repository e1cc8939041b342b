"""Confirmations: requests are remembered with what they carried until they end, and what was refused is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from shared.books import Settlement
from shared.confirm import Awaited
from shared.ports import Home
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of, without
from tests.contract.world import START, World

LATER = START + timedelta(days=30)
TICK = timedelta(microseconds=1)
ODD = "customers/1/offlineUserDataJobs/7 Zoë ☃ " + "q" * 300


class Off(Around):
    """Takes another time for now."""

    by: timedelta

    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        found: Iterator[Awaited] = self.inner.due(integration, stream, now + self.by)
        return found


def off(by: timedelta) -> type[Around]:
    return type("Off", (Off,), {"by": by})


class OfAnyStream(Around):
    def due(self, integration: str, stream: str, now: datetime) -> Iterator[Awaited]:
        for each in (CUSTOMERS, "tasks"):
            yield from self.inner.due(integration, each, now)

    def pending(self, integration: str, stream: str) -> tuple[int, ...]:
        found = [self.inner.pending(integration, each) for each in (CUSTOMERS, "tasks")]
        return tuple(map(sum, zip(*found, strict=True)))

    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        found: dict[str, int] = self.inner.refused(integration, "tasks", since)
        return found | self.inner.refused(integration, CUSTOMERS, since)


class KeepsTheFirst(Around):
    """Takes a request that it knows for one that was written already."""

    def settle(self, settlement: Settlement) -> None:
        known = {each.id for each in self.home.confirmations.due(SHOP, CUSTOMERS, LATER)}
        new = [each for each in settlement.awaited if each.id not in known]
        self.inner.settle(msgspec.structs.replace(settlement, awaited=new))


class LeavesTheEndedAlone(Around):
    def settle(self, settlement: Settlement) -> None:
        ended = self.home.confirmations.refused(SHOP, CUSTOMERS)
        self.inner.settle(msgspec.structs.replace(settlement, awaited=() if ended else settlement.awaited))


class NotesWhatItCarried(Around):
    """Writes all that it is given."""

    def note(self, awaited: Awaited) -> None:
        self.inner.note(awaited)
        (stored,) = self.inner.due(SHOP, CUSTOMERS, LATER)
        less = msgspec.structs.replace(awaited, records=awaited.records - stored.records)
        make.settle_another(self.home, [less], number=91)


class EndsNothing(Around):
    def note(self, awaited: Awaited) -> None:
        self.inner.note(msgspec.structs.replace(awaited, state="pending", ended_at=None))


class RevivesWhatIsGone(Around):
    def note(self, awaited: Awaited) -> None:
        if not any(each.id == awaited.id for each in self.inner.due(SHOP, CUSTOMERS, LATER)):
            make.settle_another(self.home, [awaited], number=90)
        self.inner.note(awaited)


class SinceEver(Around):
    def refused(self, integration: str, stream: str, since: datetime | None = None) -> dict[str, int]:
        found: dict[str, int] = self.inner.refused(integration, stream)
        return found


class RemovesEverywhere(Around):
    def remove_ended(self, integration: str, before: datetime) -> int:
        removed: int = self.inner.remove_ended("market", before) + self.inner.remove_ended(SHOP, before)
        return removed


class RemovesTheYoung(Around):
    def remove_ended(self, integration: str, before: datetime) -> int:
        removed: int = self.inner.remove_ended(integration, before + timedelta(days=1000))
        return removed


class RemovesThePending(Around):
    def remove_ended(self, integration: str, before: datetime) -> int:
        for each in list(self.inner.due(integration, CUSTOMERS, LATER)):
            self.inner.note(ended(each, 999))
        removed: int = self.inner.remove_ended(integration, before)
        return removed


def due(home: Home, now: datetime = LATER, stream: str = CUSTOMERS) -> list[Awaited]:
    return list(home.confirmations.due(SHOP, stream, now))


def ended(awaited: Awaited, days: float = 0, **fields: Any) -> Awaited:
    """The request after it ended so many days before START."""
    change = {"state": "partial", "ended_at": START - timedelta(days=days), "refused": {"NO_CONSENT": 1}} | fields
    return msgspec.structs.replace(awaited, **change)


def changing(**fields: Any) -> type[Around]:
    """Gives what is due with something else in it."""
    return answering("due", lambda found: [msgspec.structs.replace(each, **fields) for each in found])


@contract(
    breaks("does not know of which batch", confirmations=changing(batch="")),
    breaks("does not know how many", confirmations=changing(records=1)),
    breaks("forgets the time", confirmations=changing(sent_at=START + TICK)),
    breaks("takes a part of the name for it", confirmations=changing(id=ODD[:200])),
    breaks("gives other streams'", confirmations=OfAnyStream),
)
def check_a_request_comes_back_as_it_was(world: World) -> None:
    batch = make.batch(50)
    odd = make.awaited(batch, ODD, records=7, sent_at=START - TICK, look_at=START + TICK)
    make.settle_another(world.here, [odd])
    tasks = make.batch(51, make.run(51, "tasks"))
    make.settle_another(world.here, [make.awaited(tasks, ODD)], number=51)
    assert due(world.there) == [odd]
    assert [each.stream for each in due(world.there, stream="tasks")] == ["tasks"]
    assert list(world.there.confirmations.due("market", CUSTOMERS, LATER)) == []


@contract(
    breaks("asks too early", confirmations=off(TICK)),
    breaks("asks too late", confirmations=off(-TICK)),
    breaks("gives the youngest first", confirmations=answering("due", lambda found: list(found)[::-1])),
    breaks("gives a hundred", confirmations=answering("due", lambda found: list(found)[:100])),
    breaks("ends nothing", confirmations=EndsNothing),
)
def check_what_is_due_is_pending_and_oldest_first(world: World) -> None:
    batch, home = make.batch(50), world.there
    requests = [make.awaited(batch, f"q{n:03}", look_at=START + timedelta(seconds=n)) for n in range(250)]
    make.settle_another(world.here, requests[100:] + requests[:100])
    now = START + timedelta(seconds=249)
    assert [each.id for each in due(home, now - TICK)] == [each.id for each in requests[:249]]
    assert due(home, now) == requests
    home.confirmations.note(ended(requests[0]))
    postponed = msgspec.structs.replace(requests[1], look_at=LATER + TICK, looks=1)
    home.confirmations.note(postponed)
    assert due(home) == requests[2:]
    assert due(home, LATER + TICK) == [*requests[2:], postponed]


@contract(
    breaks("keeps the first", batches=KeepsTheFirst),
    breaks("leaves the ended alone", batches=LeavesTheEndedAlone),
)
def check_records_are_added_to_a_request_that_is_known(world: World) -> None:
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    known, more = make.awaited(batch), make.awaited(batch, look_at=START + timedelta(hours=1))
    world.here.batches.settle(make.settlement(batch, "one", "d..", settled=False, keep=True, awaited=[known]))
    other = make.awaited(batch, "q2")
    world.here.batches.settle(make.settlement(batch, "one", "dd.", settled=False, keep=True, awaited=[more, other]))
    both = msgspec.structs.replace(known, records=4, look_at=more.look_at)
    assert due(world.there) == [other, both]
    assert world.there.confirmations.pending(SHOP, CUSTOMERS) == (2, 6)
    world.there.confirmations.note(ended(both, looks=3))
    world.here.batches.settle(make.settlement(batch, "one", "ddd", awaited=[known]))
    again = [each for each in due(world.there) if each.id == known.id]
    assert [(each.records, each.looks, each.state, each.ended_at) for each in again] == [(6, 0, "pending", None)]
    assert world.there.confirmations.refused(SHOP, CUSTOMERS) == {}


@contract(
    breaks("notes what it carried too", confirmations=NotesWhatItCarried),
    breaks("notes nothing", confirmations=without("note")),
    breaks("revives what is gone", confirmations=RevivesWhatIsGone),
    breaks("forgets the warnings", confirmations=changing(warnings={})),
)
def check_what_is_noted_is_what_was_said(world: World) -> None:
    batch = make.batch(50)
    first = make.awaited(batch, records=5)
    make.settle_another(world.here, [first])
    said: dict[str, Any] = {
        "looks": 2,
        "look_at": START + timedelta(hours=2),
        "refused": {'odd "Zoë"': 3},
        "repeats": 4,
        "warnings": {"W": 1},
    }
    stale = msgspec.structs.replace(first, records=1, **said)
    world.there.confirmations.note(stale)
    assert due(world.here) == [msgspec.structs.replace(first, **said)]
    world.there.confirmations.note(make.awaited(batch, "nobody's"))
    assert len(due(world.here)) == 1


@contract(
    breaks("counts all streams", confirmations=OfAnyStream),
    breaks("counts one record each", confirmations=answering("pending", lambda found: (found[0], found[0]))),
    breaks("counts no requests", confirmations=answering("pending", lambda found: (0, found[1]))),
    breaks("ends nothing", confirmations=EndsNothing),
    breaks("tells of all times", confirmations=SinceEver),
    breaks("tells one each", confirmations=answering("refused", lambda found: dict.fromkeys(found, 1))),
)
def check_what_is_pending_and_what_was_refused_is_counted(world: World) -> None:
    batch, home = make.batch(50), world.there.confirmations
    requests = [make.awaited(batch, f"q{n}", records=n) for n in range(1, 7)]
    make.settle_another(world.here, requests)
    elsewhere = make.awaited(make.batch(51, make.run(51, "tasks")), "q9")
    more = msgspec.structs.replace(elsewhere, id="q8")
    make.settle_another(world.here, [elsewhere, more], number=51)
    assert home.pending(SHOP, CUSTOMERS) == (6, 21)
    home.note(ended(requests[0], days=1, refused={"NO_CONSENT": 1, "TOO_OLD": 3}))
    home.note(ended(requests[1], days=0, refused={"NO_CONSENT": 2}))
    home.note(ended(requests[2], state="confirmed", refused={}))
    home.note(ended(elsewhere, refused={"OTHER": 1}))
    assert home.pending(SHOP, CUSTOMERS) == (3, 15)
    assert home.pending(SHOP, "tasks") == (1, 2)
    assert home.pending("market", CUSTOMERS) == (0, 0)
    assert home.refused(SHOP, CUSTOMERS) == {"NO_CONSENT": 3, "TOO_OLD": 3}
    assert home.refused(SHOP, CUSTOMERS, START) == {"NO_CONSENT": 2}
    assert home.refused(SHOP, CUSTOMERS, START - timedelta(days=1)) == {"NO_CONSENT": 3, "TOO_OLD": 3}
    assert home.refused(SHOP, CUSTOMERS, START - timedelta(days=1) + TICK) == {"NO_CONSENT": 2}
    assert home.refused("market", CUSTOMERS) == {}


@contract(
    breaks("removes everywhere", confirmations=RemovesEverywhere),
    breaks("removes the young", confirmations=RemovesTheYoung),
    breaks("removes the pending", confirmations=RemovesThePending),
    breaks("does not say how many", confirmations=answering("remove_ended", lambda _: 0)),
    breaks("removes nothing", confirmations=without("remove_ended")),
)
def check_only_what_ended_before_is_removed(world: World) -> None:
    batch, home = make.batch(50), world.there.confirmations
    old, older, young, waiting = (make.awaited(batch, name) for name in ("old", "older", "young", "waiting"))
    make.settle_another(world.here, [old, older, young, waiting])
    market = make.commit_batch(world.here, of=make.run(7, integration="market"), number=7)
    world.here.batches.begin(market.id, "one")
    elsewhere = make.awaited(market, "elsewhere")
    world.here.batches.settle(make.settlement(market, "one", "ddd", awaited=[elsewhere]))
    for each, days in ((old, 6), (older, 9), (young, 5), (elsewhere, 9)):
        home.note(ended(each, days, refused={each.id: 1}))
    assert home.remove_ended(SHOP, START - timedelta(days=5)) == 2
    assert home.refused(SHOP, CUSTOMERS) == {"young": 1}
    assert home.refused("market", CUSTOMERS) == {"elsewhere": 1}
    assert due(world.here) == [waiting]
    assert home.remove_ended(SHOP, START - timedelta(days=5)) == 0


class LosesWhatIsAddedMeanwhile(Around):
    """Writes on the strength of what it read a while ago."""

    def settle(self, settlement: Settlement) -> None:
        if "first" in self.shared:
            settlement = msgspec.structs.replace(settlement, awaited=())
        self.shared["first"] = True
        self.inner.settle(settlement)


@contract(breaks("loses what is added meanwhile", batches=LosesWhatIsAddedMeanwhile))
def check_nothing_is_lost_where_many_add_to_a_request_at_once(world: World) -> None:
    run = make.run()
    batches = [make.batch(number, run, ".") for number in range(8)]
    make.commit(world.here, run, batches=batches)

    def settle(number: int) -> None:
        home, batch = (world.here, world.there)[number % 2], batches[number]
        home.batches.begin(batch.id, "one")
        home.batches.settle(make.settlement(batch, "one", "d", awaited=[make.awaited(batches[0], records=1)]))

    assert errors_of(at_once(*(lambda n=n: settle(n) for n in range(8)))) == []
    assert world.there.confirmations.pending(SHOP, CUSTOMERS) == (1, 8)
