"""Launches: each number of a stream is given once, and what waits is found, oldest first."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import msgspec

from shared.launches import Launch
from tests.contract.make import CUSTOMERS, SHOP, filled
from tests.contract.suite import PATIENCE_SECONDS, Around, answering, at_once, breaks, contract, without
from tests.contract.world import START, World

TAKERS = 4


def launch(number: int = 1, **fields: Any) -> Launch:
    return filled(
        Launch,
        fields,
        integration=SHOP,
        stream=CUSTOMERS,
        id=1_700_000_000_000 + number,
        scheduled_at=START + timedelta(seconds=number, microseconds=7),
        file=f"uploads/{number}",
        size=number,
    )


class WritesOver(Around):
    """Says that the number was given, and gives it all the same."""

    def add(self, launch: Launch) -> bool:
        added: bool = self.inner.add(launch)
        self.inner.note(launch)
        return added


class LooksFirst(Around):
    """Looks whether a number is given, and then gives it."""

    def add(self, launch: Launch) -> bool:
        free = self.inner.get(launch.integration, launch.stream, launch.id) is None
        self.inner.add(launch)
        return free


class OneForAll(Around):
    """Gives a number once, whatever the stream."""

    def add(self, launch: Launch) -> bool:
        given = self.shared.setdefault("given", set())
        if launch.id in given:
            return False
        given.add(launch.id)
        return bool(self.inner.add(launch))


class ForgetsColumns(Around):
    def add(self, launch: Launch) -> bool:
        return bool(self.inner.add(msgspec.structs.replace(launch, columns=())))


class ForgetsWhen(Around):
    def add(self, launch: Launch) -> bool:
        return bool(self.inner.add(msgspec.structs.replace(launch, scheduled_at=START)))


class GivesTheOneBefore(Around):
    """Takes `before` for one of those that are meant."""

    def recent(self, integration: str, stream: str, most: int, before: int | None = None) -> list[Launch]:
        found: list[Launch] = self.inner.recent(integration, stream, most, None if before is None else before + 1)
        return found


class GivesAll(Around):
    def recent(self, integration: str, stream: str, most: int, before: int | None = None) -> list[Launch]:
        found: list[Launch] = self.inner.recent(integration, stream, 1000, before)
        return found


class AllThatWait(Around):
    """Takes whatever a stream has for what waits."""

    def waiting(self, integration: str, stream: str) -> list[Launch]:
        return list(reversed(self.inner.recent(integration, stream, 1000)))


def backwards(found: Any) -> Any:
    return list(reversed(found))


@contract(
    breaks("does nothing", launches=without("add")),
    breaks("forgets the columns", launches=ForgetsColumns),
    breaks("forgets when", launches=ForgetsWhen),
    breaks("finds none", launches=without("get")),
)
def check_a_launch_is_kept_whole(world: World) -> None:
    full = launch(state="cancelled", columns=("a;b", "ção", ""), cancelled_by="somebody's", size=10**12)
    bare = Launch(SHOP, "bare", 0, START)
    assert world.here.launches.add(full) is True
    assert world.here.launches.add(bare) is True
    assert world.there.launches.get(SHOP, CUSTOMERS, full.id) == full
    assert world.there.launches.get(SHOP, "bare", 0) == bare
    assert world.there.launches.get(SHOP, CUSTOMERS, full.id + 1) is None
    assert world.there.launches.get(SHOP, "bare", full.id) is None


@contract(
    breaks("writes over", launches=WritesOver),
    breaks("says yes to all", launches=answering("add", lambda _: True)),
    breaks("gives a number once for all streams", launches=OneForAll),
)
def check_a_number_of_a_stream_is_given_once(world: World) -> None:
    first, second = launch(), launch(file="another")
    assert world.here.launches.add(first)
    assert not world.there.launches.add(first)
    assert not world.there.launches.add(second)
    assert world.here.launches.get(SHOP, CUSTOMERS, first.id) == first
    for other in (launch(stream="others"), launch(integration="market")):
        assert world.there.launches.add(other)
        assert world.here.launches.get(other.integration, other.stream, other.id) == other


@contract(breaks("looks first and writes then", launches=LooksFirst))
def check_of_those_who_want_a_number_at_once_one_gets_it(world: World) -> None:
    for number in range(12):
        # What they want to write is the same, so nothing tells afterwards whose it is.
        wanted = launch(number)
        works = [partial(home.launches.add, wanted) for home in (world.here, world.there) * 3]
        assert sorted(at_once(*works)) == [False] * 5 + [True]


@contract(
    breaks("notes nothing", launches=without("note")),
    breaks("finds what waited", launches=AllThatWait),
)
def check_what_was_noted_of_a_launch_holds(world: World) -> None:
    neighbours = launch(1), launch(3)
    for each in (*neighbours, launch(2)):
        world.here.launches.add(each)
    begun = launch(2, state="begun", file="", size=0)
    world.there.launches.note(begun)
    assert world.here.launches.get(SHOP, CUSTOMERS, begun.id) == begun
    assert world.here.launches.waiting(SHOP, CUSTOMERS) == list(neighbours)
    assert world.here.launches.recent(SHOP, CUSTOMERS, 5) == [neighbours[1], begun, neighbours[0]]
    assert not world.here.launches.add(launch(2))


class NotesAllTheSame(Around):
    """Does not look how it stands."""

    def note(self, launch: Launch, was: Any = None) -> bool:
        return bool(self.inner.note(launch))


class LooksBeforeItNotes(Around):
    """Looks how it stands, and writes then. Those who want the same look at the same time."""

    def note(self, launch: Launch, was: Any = None) -> bool:
        found = self.inner.get(launch.integration, launch.stream, launch.id)
        self.shared.setdefault("looking", Barrier(TAKERS)).wait(PATIENCE_SECONDS)
        return found is not None and found.state == was and bool(self.inner.note(launch))


@contract(
    breaks("does not look", launches=NotesAllTheSame),
    breaks("says yes to all", launches=answering("note", lambda _: True)),
    breaks("says no to all", launches=answering("note", lambda _: False)),
)
def check_what_is_noted_of_a_launch_that_stands_otherwise_is_not_written(world: World) -> None:
    world.here.launches.add(launch())
    assert not world.there.launches.note(launch(2, state="taken"), "waiting"), "there is none"
    assert world.there.launches.note(launch(state="taken"), "waiting")
    assert [each.state for each in world.here.launches.waiting(SHOP, CUSTOMERS)] == ["taken"]
    assert not world.here.launches.note(launch(state="cancelled"), "waiting")
    assert world.there.launches.get(SHOP, CUSTOMERS, launch().id) == launch(state="taken")
    assert world.here.launches.note(launch(state="begun"))
    assert world.there.launches.waiting(SHOP, CUSTOMERS) == []


@contract(breaks("looks first and writes then", launches=LooksBeforeItNotes))
def check_of_those_who_take_a_launch_at_once_one_has_it(world: World) -> None:
    for number in range(4):
        world.here.launches.add(launch(number))
        taken = launch(number, state="taken")
        works = [partial(home.launches.note, taken, "waiting") for home in (world.here, world.there) * (TAKERS // 2)]
        assert sorted(at_once(*works)) == [False] * (TAKERS - 1) + [True]


@contract(
    breaks("gives the oldest first", launches=answering("recent", backwards)),
    breaks("gives the one before as well", launches=GivesTheOneBefore),
    breaks("gives all", launches=GivesAll),
)
def check_the_newest_launches_come_first(world: World) -> None:
    order = [7, 1, 30, 12, 25, 4, 9]
    for number in order:
        world.here.launches.add(launch(number))
    world.here.launches.add(launch(99, stream="others"))
    newest = [launch(number) for number in sorted(order, reverse=True)]
    recent = world.there.launches.recent
    assert recent(SHOP, CUSTOMERS, 100) == newest
    assert recent(SHOP, CUSTOMERS, 3) == newest[:3]
    assert recent(SHOP, CUSTOMERS, 3, newest[2].id) == newest[3:6]
    assert recent(SHOP, CUSTOMERS, 3, newest[2].id + 1) == newest[2:5]
    assert recent(SHOP, CUSTOMERS, 3, newest[-1].id) == []
    assert recent("market", CUSTOMERS, 3) == []


@contract(
    breaks("gives the newest first", launches=answering("waiting", backwards)),
    breaks("gives one", launches=answering("waiting", lambda found: found[:1])),
)
def check_what_waits_comes_oldest_first(world: World) -> None:
    order = [30, 7, *range(100, 150), 1]
    for number in order:
        (world.here, world.there)[number % 2].launches.add(launch(number))
    world.here.launches.add(launch(3, stream="others"))
    world.here.launches.add(launch(4, state="begun"))
    world.here.launches.add(launch(5, state="cancelled"))
    assert world.there.launches.waiting(SHOP, CUSTOMERS) == [launch(number) for number in sorted(order)]
    assert world.there.launches.waiting("market", CUSTOMERS) == []
