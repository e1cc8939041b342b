"""Failures: found by any filter, open until they are closed, and nothing open is ever removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from shared.books import Failure, FailureQuery, Run
from shared.outcome import Outcome
from shared.ports import Home, Lease
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of
from tests.contract.world import START, World

EVERYTHING = FailureQuery(SHOP, include_closed=True)
ODD_KEY = 'Zoë/"q".\\ ☃ ' + "k" * 280


class Ignores(Around):
    """Does not ask for one thing."""

    thing: str

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        changed = {self.thing: True} if self.thing == "include_closed" else {self.thing: None}
        found: Iterator[Failure] = self.inner.find(msgspec.structs.replace(query, **changed))
        return found


def ignoring(thing: str) -> type[Around]:
    return type("Ignoring", (Ignores,), {"thing": thing})


class OneFilterOnly(Around):
    """Takes the first filter for the whole query."""

    def find(self, query: FailureQuery) -> Iterator[Failure]:
        asked = query
        filters = [name for name in ("stream", "outcome", "number", "status", "key", "before") if getattr(query, name)]
        for name in filters[1:]:
            asked = msgspec.structs.replace(asked, **{name: None})
        found: Iterator[Failure] = self.inner.find(asked)
        return found


class OfAnyIntegration(Around):
    def find(self, query: FailureQuery) -> Iterator[Failure]:
        for integration in (SHOP, "market"):
            yield from self.inner.find(msgspec.structs.replace(query, integration=integration))


class BeforeOrAt(Around):
    def find(self, query: FailureQuery) -> Iterator[Failure]:
        before = query.before and query.before + timedelta(microseconds=1)
        found: Iterator[Failure] = self.inner.find(msgspec.structs.replace(query, before=before))
        return found


class ThirtyKeys(Around):
    def find(self, query: FailureQuery) -> Iterator[Failure]:
        keys = query.keys and query.keys[:30]
        found: Iterator[Failure] = self.inner.find(msgspec.structs.replace(query, keys=keys))
        return found


class NoKeysAreAllKeys(Around):
    def find(self, query: FailureQuery) -> Iterator[Failure]:
        found: Iterator[Failure] = self.inner.find(msgspec.structs.replace(query, keys=query.keys or None))
        return found


class CountsAll(Around):
    def count(self, query: FailureQuery) -> int:
        number: int = self.inner.count(FailureQuery(query.integration, include_closed=True))
        return number


def afresh(found: Iterator[Failure]) -> list[Failure]:
    return [msgspec.structs.replace(failure, first_at=failure.last_at, attempts=1) for failure in found]


def moved(found: Iterator[Failure]) -> list[Failure]:
    return [msgspec.structs.replace(failure, batch="customers-2.1", place=0) for failure in found]


class FirstTimesOnly(Around):
    """Remembers for ever when a failure was first seen, also when it had been closed meanwhile."""

    def find(self, query: FailureQuery) -> list[Failure]:
        found = [msgspec.structs.replace(failure, first_at=START) for failure in self.inner.find(query)]
        return sorted(found, key=lambda failure: failure.key)


class RemovesTheYoung(Around):
    def remove_closed(self, integration: str, before: datetime) -> int:
        removed: int = self.inner.remove_closed(integration, before + timedelta(days=1000))
        return removed


class RemovesTheOpen(Around):
    """Closes what is open before it removes."""

    def remove_closed(self, integration: str, before: datetime) -> int:
        long_ago = make.run(77, touched_at=START - timedelta(days=9999))
        open_ones = [make.closure(failure) for failure in self.inner.find(FailureQuery(integration))]
        make.commit(self.home, long_ago, closures=open_ones)
        removed: int = self.inner.remove_closed(integration, before)
        return removed


class RemovesEverywhere(Around):
    def remove_closed(self, integration: str, before: datetime) -> int:
        removed: int = self.inner.remove_closed("market", before) + self.inner.remove_closed(SHOP, before)
        return removed


def commit_failures(home: Home, number: int, changes: Sequence[dict[str, Any]], **of: Any) -> list[Failure]:
    """A run that failed with each of these; its batch is named after the run's number."""
    run = make.run(number, **of)
    batch = make.settled_batch(number, run, "i" * len(changes))
    failures = [make.failure(batch, place, **change) for place, change in enumerate(changes)]
    make.commit(home, run, batches=[batch], failures=failures)
    return failures


def found(home: Home, **query: Any) -> list[str]:
    """The keys of what a query finds, which `count` has to agree with."""
    asked = FailureQuery(**{"integration": SHOP} | query)
    keys = [failure.key for failure in home.failures.find(asked)]
    assert home.failures.count(asked) == len(keys)
    return keys


@contract(
    breaks("loses the data", failures=answering("find", lambda f: [msgspec.structs.replace(x, data={}) for x in f])),
    breaks("loses the place", failures=answering("find", lambda f: [msgspec.structs.replace(x, place=0) for x in f])),
)
def check_a_failure_is_kept_whole(world: World) -> None:
    whole = {
        "key": ODD_KEY,
        "operation": "delete",
        "data": {"a.b/c`": [1.5, None, True, "Zoë \x00"], "": {"$": {}}, "big": 2**53, "long": "x" * 20_000},
        "reason": 'it\'s "so"',
        "location": "https://example.com/x?y=1",
        "field": "a.b[0]",
        "http_status": 422,
        "attempts": 3,
        "first_at": START + timedelta(microseconds=1),
        "last_at": START + timedelta(hours=1, microseconds=999_999),
    }
    failures = commit_failures(world.here, 1, [{}, whole])
    assert sorted(world.there.failures.find(EVERYTHING), key=lambda f: f.place) == failures


@contract(
    *(breaks(f"does not ask for the {thing}", failures=ignoring(thing))
      for thing in ("stream", "outcome", "number", "status", "key", "before", "keys")),
    breaks("gives every integration's", failures=OfAnyIntegration),
    breaks("takes the end of the age with it", failures=BeforeOrAt),
    breaks("takes no keys for all", failures=NoKeysAreAllKeys),
    breaks("counts all", failures=CountsAll),
)  # fmt: skip
def check_each_filter_finds_what_it_says(world: World) -> None:
    later = START + timedelta(seconds=10)
    commit_failures(
        world.here,
        1,
        [
            {"key": "plain"},
            {"key": "rejected", "outcome": Outcome.REJECTED, "number": 50, "http_status": 404},
            {"key": ODD_KEY, "last_at": later},
        ],
    )
    commit_failures(world.here, 2, [{"key": "task"}], stream="tasks")
    commit_failures(world.here, 3, [{"key": "elsewhere"}], integration="market")
    home = world.there
    assert sorted(found(home)) == sorted(["plain", "rejected", ODD_KEY, "task"])
    assert found(home, integration="market") == ["elsewhere"]
    assert found(home, stream="tasks") == ["task"]
    assert found(home, outcome="rejected") == ["rejected"]
    assert found(home, number=50) == ["rejected"]
    assert found(home, status=404) == ["rejected"]
    assert found(home, key=ODD_KEY) == [ODD_KEY]
    assert ODD_KEY not in found(home, before=later)
    assert ODD_KEY in found(home, before=later + timedelta(microseconds=1))
    assert sorted(found(home, keys=("plain", "task", "absent"))) == ["plain", "task"]
    assert found(home, keys=()) == []
    assert found(home, integration="nobody's") == []


@contract(breaks("takes the first filter only", failures=OneFilterOnly))
def check_filters_that_are_combined_must_all_hold(world: World) -> None:
    rejected = {"outcome": Outcome.REJECTED, "number": 50, "http_status": 404}
    later = START + timedelta(seconds=10)
    for number, stream in ((1, CUSTOMERS), (2, "tasks")):
        commit_failures(
            world.here,
            number,
            [
                rejected | {"key": f"{stream} old"},
                rejected | {"key": f"{stream} new", "last_at": later},
                rejected | {"key": f"{stream} 500", "http_status": 500},
                {"key": f"{stream} invalid"},
            ],
            stream=stream,
        )
    home = world.there
    assert sorted(found(home, stream=CUSTOMERS, outcome="rejected", status=404)) == ["customers new", "customers old"]
    assert found(home, stream=CUSTOMERS, number=50, before=later, status=404) == ["customers old"]
    assert found(home, outcome="rejected", key="tasks 500", number=50) == ["tasks 500"]
    assert found(home, outcome="invalid", key="tasks 500") == []
    assert found(home, stream="tasks", keys=("tasks old", "customers old"), outcome="rejected") == ["tasks old"]
    assert found(home, stream=CUSTOMERS, outcome="rejected", number=50, status=500, key="customers 500", before=later)


@contract(breaks("asks for thirty", failures=ThirtyKeys))
def check_many_keys_are_asked_for_at_once(world: World) -> None:
    commit_failures(world.here, 1, [{"key": f"k{number}"} for number in range(150)])
    keys = tuple(f"k{number}" for number in range(0, 300, 2))
    assert sorted(found(world.there, keys=keys)) == sorted(f"k{number}" for number in range(0, 150, 2))


@contract(
    breaks("gives the newest first", failures=answering("find", lambda f: list(f)[::-1])),
    breaks("gives 500", failures=answering("find", lambda f: list(f)[:500])),
)
def check_all_are_found_oldest_first(world: World) -> None:
    times = [{"first_at": START + timedelta(seconds=n), "last_at": START + timedelta(seconds=n)} for n in range(1100)]
    failures = commit_failures(world.here, 1, times)
    assert found(world.there) == [failure.key for failure in failures]


@contract(
    breaks("shows closed ones", failures=ignoring("include_closed")),
    breaks("forgets closed ones", failures=answering("find", lambda f: [x for x in f if x.closed_at is None])),
)
def check_closed_ones_are_shown_when_asked_for(world: World) -> None:
    failures = commit_failures(world.here, 1, [{}, {}])
    make.commit(world.here, make.run(2, touched_at=START), closures=[make.closure(failures[0])])
    assert found(world.there) == [failures[1].key]
    assert sorted(found(world.there, include_closed=True)) == sorted(failure.key for failure in failures)
    assert found(world.there, key=failures[0].key) == []


@contract(
    breaks("starts afresh", failures=answering("find", afresh)),
    breaks("moves it to the later batch", failures=answering("find", moved)),
)
def check_what_fails_again_while_it_is_open_stays_the_same_failure(world: World) -> None:
    (first,) = commit_failures(world.here, 1, [{"attempts": 2, "location": "there"}])
    later = START + timedelta(hours=1)
    again = {"key": first.key, "id": first.id, "outcome": Outcome.REJECTED, "number": 50, "reason": "anew"}
    commit_failures(world.there, 2, [again | {"first_at": later, "last_at": later, "attempts": 1}])
    (stored,) = world.here.failures.find(EVERYTHING)
    assert (stored.first_at, stored.last_at, stored.attempts) == (START, later, 3)
    assert (stored.run, stored.batch, stored.place, stored.location) == (first.run, first.batch, first.place, "there")
    assert (stored.outcome, stored.number, stored.reason) == (Outcome.REJECTED, 50, "anew")
    assert found(world.here, outcome="rejected", number=50) == [first.key]
    assert found(world.here, outcome="invalid") == []


@contract(breaks("remembers the first time for ever", failures=FirstTimesOnly))
def check_what_fails_again_after_it_was_closed_is_a_new_failure(world: World) -> None:
    (first,) = commit_failures(world.here, 1, [{"key": "a", "attempts": 2}])
    make.commit(world.here, make.run(2, touched_at=START), closures=[make.closure(first)])
    minute, hour = START + timedelta(minutes=1), START + timedelta(hours=1)
    commit_failures(world.here, 3, [{"key": "b", "first_at": minute, "last_at": minute}])
    (again,) = commit_failures(world.here, 4, [{"key": "a", "id": first.id, "first_at": hour, "last_at": hour}])
    assert found(world.there) == ["b", "a"]
    (stored,) = world.there.failures.find(FailureQuery(SHOP, key="a"))
    assert stored == again


@contract(
    breaks("removes the open", failures=RemovesTheOpen),
    breaks("removes the young", failures=RemovesTheYoung),
    breaks("removes everywhere", failures=RemovesEverywhere),
    breaks("does not say how many", failures=answering("remove_closed", lambda _: 0)),
)
def check_only_what_was_closed_before_is_removed(world: World) -> None:
    failures = commit_failures(world.here, 1, [{"key": key} for key in ("old", "older", "young", "open")])
    elsewhere = commit_failures(world.here, 2, [{"key": "elsewhere"}], integration="market")
    for number, days, closed in (
        (3, 9, failures[:1]),
        (4, 8, failures[1:2]),
        (5, 5, failures[2:3]),
    ):
        at = START - timedelta(days=days)
        make.commit(world.here, make.run(number, touched_at=at), closures=[make.closure(f) for f in closed])
    at = START - timedelta(days=9)
    make.commit(world.here, make.run(6, integration="market", touched_at=at), closures=[make.closure(elsewhere[0])])
    assert world.there.failures.remove_closed(SHOP, START - timedelta(days=5)) == 2
    assert sorted(found(world.here, include_closed=True)) == ["open", "young"]
    assert found(world.here) == ["open"]
    assert found(world.here, integration="market", include_closed=True) == ["elsewhere"]
    assert world.there.failures.remove_closed(SHOP, START - timedelta(days=5)) == 0


class LosesAttempts(Around):
    def commit(self, lease: Lease, run: Run, failures: Sequence[Failure] = (), **parts: Any) -> None:
        known = {failure.id for failure in self.home.failures.find(EVERYTHING)}
        self.inner.commit(lease, run, failures=[f for f in failures if f.id not in known], **parts)


@contract(breaks("counts the first attempt only", runs=LosesAttempts))
def check_attempts_add_up_when_a_record_fails_everywhere_at_once(world: World) -> None:
    """Eight streams' leases, so that nothing but the store keeps the writers apart."""
    batch = make.settled_batch(0)

    def fail(number: int) -> None:
        home = (world.here, world.there)[number % 2]
        lease = home.leases.take(f"{SHOP}.{number}")
        for _ in range(5):
            home.runs.commit(lease, make.run(number), failures=[make.failure(batch)])

    assert errors_of(at_once(*(lambda n=n: fail(n) for n in range(8)))) == []
    (stored,) = world.here.failures.find(EVERYTHING)
    assert stored.attempts == 40
