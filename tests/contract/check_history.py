"""The books as a whole: seen as they were at one moment, and replaced all or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Any

from shared.books import Failure, FailureQuery, Run, StreamState
from shared.confirm import Awaited
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.launches import Launch
from shared.objects import Object
from shared.outcome import Outcome
from shared.ports import Home, Lease
from shared.snapshot.history import EXPORT, IMPORT, LEASES, Head, KindOfObject, Placed, Stored
from tests.contract import make
from tests.contract.homes import Trait
from tests.contract.make import CUSTOMERS, LEASE, SHOP
from tests.contract.suite import Around, breaks, contract, eventually, refused, swallowing, without
from tests.contract.world import START, World

NAME = (SHOP, CUSTOMERS)
HOUR = timedelta(hours=1)
FIRST = make.run(1, state="settled", finished_at=START, fetched=6)
SECOND = make.run(2, kind="replay", state="failed", finished_at=START + HOUR, reason="somebody wanted it")
ONE = make.batch(0, FIRST, "dri", state="settled", amended={"1": "d"}, blob="archive/1", offset=7, length=9)
TWO = make.settled_batch(1, FIRST, "dfk", touched_at=START + HOUR, rules={"old": 1})
CLOSED = make.failure(
    ONE, 1, outcome=Outcome.REJECTED, closed_as="delivered", closed_by=SECOND.id, closed_at=START + HOUR
)
OPEN = make.failure(TWO, 2, outcome=Outcome.UNKNOWN, first_at=START + HOUR, last_at=START + HOUR, http_status=500)
CELLS = [make.cell("0-0"), make.cell("1-0", deleted=True), make.cell("1-2", "", failed="v1", at=None)]
ASKED = make.awaited(ONE, "q1")
ENDED = make.awaited(TWO, "q2", state="failed", refused={"NO": 2}, ended_at=START + HOUR)
LAUNCHED = Launch(*NAME, 7, START, "begun", columns=("id", "name"))
STATE = StreamState(*NAME, START, FIRST.id, 2, START - HOUR)
PERSON = Object("a", {"email": "a@example.org", "n": 1}, START)


def entries() -> Iterator[Placed]:
    """One of everything that is known."""
    for each in (*CELLS, FIRST, SECOND, ONE, TWO, CLOSED, OPEN, ASKED, ENDED, LAUNCHED, STATE):
        yield Placed(*NAME, each)
    yield Placed("", "", KindOfObject("people", ["email", "n"]))
    yield Placed("", "", Stored("people", PERSON))


def fill(home: Home) -> None:
    """Puts something of each kind into the books, as work does."""
    lease = home.leases.take(LEASE)
    run = make.run(5, stream=CUSTOMERS)
    done = make.settled_batch(30, run, "ir")
    home.runs.commit(lease, run, [done, make.batch(31, run)], [make.failure(done, 0)], [make.cell("30-1")])
    home.runs.commit(lease, make.run(6), closures=[])
    home.runs.finish(lease, run, StreamState(*NAME, START, run.id))
    home.leases.release(lease)
    make.commit(home, make.run(7, stream="tasks"), cells=[make.cell("other")])
    make.settle_another(home, [make.awaited(done, "q9")], number=40)
    home.launches.add(Launch(*NAME, 3, START))
    home.objects.put("people", {"z": {"email": "z@example.org"}}, START)


def known(home: Home) -> dict[str, Any]:
    """What the books hold as everybody reads them."""
    runs = home.runs.recent(None, None, 100)
    failures = sorted(home.failures.find(FailureQuery(SHOP, include_closed=True)), key=lambda each: each.id)
    return {
        "runs": runs,
        "batches": [batch for run in runs for batch in home.batches.of_run(run.id)],
        "cells": {name: sorted(home.ledger.scan(SHOP, name), key=lambda c: c.key) for name in (CUSTOMERS, "tasks")},
        "failures": failures,
        "pending": home.confirmations.pending(*NAME),
        "refused": home.confirmations.refused(*NAME),
        "launches": home.launches.recent(*NAME, 9),
        "state": home.runs.state(*NAME),
        "objects": home.objects.page("people", "", 9),
    }


def replaced() -> dict[str, Any]:
    """What they hold once these entries are in place."""
    return {
        "runs": [SECOND, FIRST],
        "batches": [ONE, TWO],
        "cells": {CUSTOMERS: CELLS, "tasks": []},
        "failures": sorted([CLOSED, OPEN], key=lambda each: each.id),
        "pending": (1, 2),
        "refused": {"NO": 2},
        "launches": [LAUNCHED],
        "state": STATE,
        "objects": [PERSON],
    }


class Altered:
    """A past with some of its calls changed."""

    def __init__(self, inner: Any, **calls: Callable[..., Any]) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        change = self._calls.get(name)
        if change is None:
            return found
        return lambda *given: change(found(*given))


def seeing(**calls: Callable[..., Any]) -> type[Around]:
    """A history whose past is altered."""

    @contextmanager
    def look(self: Around) -> Iterator[Any]:
        with self.inner.look() as past:
            yield Altered(past, **calls)

    return type("Seeing", (Around,), {"look": look})


class Living(Around):
    """Looks anew at every call."""

    @contextmanager
    def look(self) -> Iterator[Any]:
        history = self.inner

        class Now:
            def __getattr__(self, name: str) -> Any:
                def call(*given: Any) -> Any:
                    with history.look() as past:
                        found = getattr(past, name)(*given)
                        return list(found) if isinstance(found, Iterator) else found

                return call

        yield Now()


def told(past: Any, kind: type, stream: str = CUSTOMERS) -> list[Any]:
    return list(past.told(kind, SHOP, stream))


def all_of(past: Any) -> dict[str, Any]:
    heads = list(past.heads(*NAME))
    return {
        "streams": past.streams(),
        "state": past.state(*NAME),
        "heads": heads,
        "unsettled": [batch.id for batch in past.unsettled(*NAME)],
        "batches": list(past.batches([head.id for head in heads])),
        "cells": past.cells(*NAME, ["30-1", "nobody's"]),
        "runs": told(past, Run),
        "failures": told(past, Failure),
        "requests": told(past, Awaited),
        "launches": told(past, Launch),
        "kinds": past.kinds(),
        "objects": list(past.objects("people")),
        "none": [told(past, kind, "nobody's") for kind in (Run, Failure, Awaited, Launch)],
    }


@contract(breaks("looks anew each time", history=Living))
def check_a_past_stays_as_it_was_whatever_is_written_meanwhile(world: World) -> None:
    fill(world.here)
    with world.there.history.look() as past:
        before = all_of(past)
        work(world.here)
        assert all_of(past) == before
    with world.there.history.look() as past:
        after = all_of(past)
    assert {name for name in before if before[name] != after[name]} == before.keys() - {"none", "kinds"}


def work(home: Home) -> None:
    """Changes something of everything."""
    lease = home.leases.take(LEASE)
    run, done = make.run(8), make.settled_batch(50, make.run(8), "dk")
    cells = [make.cell("30-1", "v9"), make.cell("nobody's")]
    home.runs.commit(lease, run, [done, make.batch(51, run)], [make.failure(done, 1)])
    home.runs.finish(lease, run, StreamState(*NAME, START + HOUR, run.id))
    home.leases.release(lease)
    make.settle_another(home, [make.awaited(done, "q10")], number=60, cells=cells)
    home.launches.add(Launch(*NAME, 4, START))
    home.objects.put("people", {"y": {"email": "y@example.org"}}, START)
    make.commit(home, make.run(9, stream="visits"))


@contract(
    breaks("forgets a stream", history=seeing(streams=lambda found: found[:1])),
    breaks("forgets the state", history=seeing(state=lambda found: StreamState(*NAME))),
    breaks("forgets a batch", history=seeing(heads=lambda found: list(found)[1:])),
    breaks("gives the batches backwards", history=seeing(batches=lambda found: list(found)[::-1])),
    breaks("gives settled ones too", history=seeing(unsettled=lambda found: [*found, make.batch(30)])),
    breaks("gives the runs backwards", history=seeing(told=lambda found: list(found)[::-1])),
    breaks("forgets the cells", history=seeing(cells=lambda found: {})),
    breaks("forgets the kinds", history=seeing(kinds=lambda found: [])),
    breaks("forgets the objects", history=seeing(objects=lambda found: [])),
    breaks("counts nothing", history=seeing(counts=lambda found: dict.fromkeys(found, 0))),
)
def check_a_past_holds_everything_that_is_known(world: World) -> None:
    fill(world.here)
    closed = make.closure(make.failure(make.settled_batch(30, make.run(5), "ir")), Outcome.SUPERSEDED)
    make.commit(world.here, make.run(6), closures=[closed])
    home = world.here
    with world.there.history.look() as past:
        found = all_of(past)
        counts = past.counts()
        assert list(past.batches(["nobody's"])) == []
    runs = sorted((run for run in home.runs.recent(*NAME, 99)), key=lambda run: run.started_at)
    batches = {batch.id: batch for run in runs for batch in home.batches.of_run(run.id)}
    assert found["streams"] == [(SHOP, CUSTOMERS), (SHOP, "tasks")]
    assert found["state"] == home.runs.state(*NAME)
    assert sorted(head.id for head in found["heads"]) == sorted(batches)
    assert found["heads"] == [Head.of(batches[head.id]) for head in found["heads"]]
    assert found["batches"] == [batches[head.id] for head in found["heads"]]
    assert found["unsettled"] == [batch.id for batch in home.batches.unsettled(*NAME)] != []
    assert found["runs"] == runs
    assert found["failures"] == list(home.failures.find(FailureQuery(*NAME, include_closed=True)))
    assert [failure.closed_as for failure in found["failures"]] == ["superseded"]
    assert found["cells"] == home.ledger.cells(*NAME, ["30-1"])
    assert [each.id for each in found["requests"]] == ["q9"]
    assert found["launches"] == home.launches.recent(*NAME, 9)
    assert found["kinds"] == [KindOfObject("people", home.objects.fields("people"))]
    assert found["objects"] == home.objects.page("people", "", 9)
    assert found["none"] == [[], [], [], []]
    expected = {"runs": len(runs) + 1, "batches": len(batches), "cells": 2, "failures": 1, "requests": 1}
    assert counts == {**expected, "launches": 1, "objects": 1}


class Leaves(Around):
    """Leaves out the entries of a kind."""

    kind: type = Run

    def replace(self, intent: bytes, entries: Any, *, objects: bool = False) -> None:
        self.inner.replace(
            intent, lambda: (each for each in entries() if not isinstance(each.entry, self.kind)), objects=objects
        )


def leaving(kind: type) -> type[Around]:
    return type("Leaving", (Leaves,), {"kind": kind})


class Adds(Around):
    """Adds to what is there, which stays."""

    def replace(self, intent: bytes, entries: Any, *, objects: bool = False) -> None:
        with self.inner.look() as past:
            cells = [Placed(SHOP, "tasks", cell) for cell in past.cells(SHOP, "tasks", ["other"]).values()]
            runs = [Placed(run.integration, run.stream, run) for run in past.told(Run, *NAME)]
        self.inner.replace(intent, lambda: chain(cells, runs, entries()), objects=objects)


@contract(
    breaks("adds to what is there", history=Adds),
    breaks("does nothing", history=without("replace")),
    *(
        breaks(f"leaves out {kind.__name__}", history=leaving(kind))
        for kind in (Run, Failure, Awaited, Launch, StreamState, Stored, type(ONE), type(CELLS[0]))
    ),
)
def check_the_books_are_replaced_as_a_whole(world: World) -> None:
    fill(world.here)
    assert known(world.there) != replaced()
    world.here.history.replace(b"intent", entries, objects=True)
    assert known(world.there) == replaced()
    home = world.there
    assert list(home.confirmations.due(*NAME, START + HOUR)) == [ASKED]
    assert home.launches.waiting(*NAME) == []
    assert home.runs.unfinished(*NAME) == []
    assert list(home.batches.unsettled(SHOP)) == []
    assert home.books.counts(FIRST.id).fetched == 6
    assert [each.batch for each in home.books.entries(*NAME)] == [ONE.id, TWO.id]
    assert home.objects.find("people", "email", ["a@example.org", "z@example.org"]) == {"a@example.org": ["a"]}
    assert home.objects.fields("people")[:1] == ["email"]
    assert set(home.objects.fields("people")) == {"email", "n"}
    assert home.objects.changed("people", START, START + HOUR, None, 9) == [PERSON]


class TakesObjectsToo(Around):
    def replace(self, intent: bytes, entries: Any, *, objects: bool = False) -> None:
        self.inner.replace(intent, entries, objects=True)


@contract(breaks("takes them too", history=TakesObjectsToo))
def check_objects_stay_where_none_are_brought(world: World) -> None:
    fill(world.here)
    world.here.history.replace(b"intent", lambda: iter([Placed(*NAME, FIRST)]))
    assert [each.id for each in world.there.objects.page("people", "", 9)] == ["z"]


class FirstCounts(Around):
    def replace(self, intent: bytes, entries: Any, *, objects: bool = False) -> None:
        self.inner.replace(intent, lambda: reversed(list(entries())), objects=objects)


@contract(breaks("lets the first count", history=FirstCounts))
def check_of_two_entries_for_one_key_the_later_counts(world: World) -> None:
    taken_back = make.cell("k", "v2", hash="-", target_id="", failed="v2", at=START + HOUR)
    older, newer = make.cell("k", "v1", at=START), make.cell("k", "v3", failed="", at=START)
    many = [make.cell(f"x{number}") for number in range(700)]
    for cells in ([older, taken_back], [taken_back, *many, newer]):
        world.here.history.replace(b"x", lambda cells=cells: (Placed(*NAME, cell) for cell in cells))
        assert world.there.ledger.cells(*NAME, ["k"])["k"] == cells[-1]


class Remembers(Around):
    """Works on with what it knew of the streams before."""

    def cells(self, integration: str, stream: str, keys: Any) -> Any:
        found = self.inner.cells(integration, stream, keys)
        return self.shared.setdefault((integration, stream, *keys), found)


@contract(breaks("remembers", ledger=Remembers))
def check_a_process_that_was_at_work_before_sees_the_books_that_came(world: World) -> None:
    fill(world.there)
    assert world.there.ledger.cells(*NAME, ["0-0", "30-1"]).keys() == {"30-1"}
    world.here.history.replace(b"x", entries, objects=True)
    world.here.history.finish(b"x")
    assert world.there.ledger.cells(*NAME, ["0-0", "30-1"]) == {"0-0": CELLS[0]}
    newer = make.cell("0-0", "v5")
    of = make.commit_batch(world.there, "...", 70, make.run(11))
    world.there.batches.begin(of.id, "one")
    world.there.batches.settle(make.settlement(of, "one", "ddd", cells=[newer, make.cell("new")]))
    assert world.here.ledger.cells(*NAME, ["0-0", "new"]) == {"0-0": newer, "new": make.cell("new")}
    world.there.objects.put("people", {"a": {"n": 2}}, START + HOUR)
    assert world.here.objects.get("people", ["a"])["a"].fields == {"email": "a@example.org", "n": 2}
    assert [run.id for run in world.here.runs.recent(*NAME, 9)] == [make.run(11).id, SECOND.id, FIRST.id]


@contract(
    breaks("forgets the intent", history=without("replace")),
    breaks("keeps it for ever", history=without("finish")),
)
def check_an_intent_is_kept_until_it_is_done(world: World) -> None:
    fill(world.here)
    before = known(world.here)
    assert world.there.history.unfinished() is None
    world.here.history.replace("Zoë".encode(), None)
    found = world.there.history.unfinished()
    assert found is not None and (found.intent, found.replaced) == ("Zoë".encode(), True)
    assert known(world.there) == before
    world.there.history.finish("Zoë".encode())
    assert world.here.history.unfinished() is None
    world.here.history.finish("Zoë".encode())


class EndsAnothers(Around):
    """Takes whatever intent there is for its own."""

    def finish(self, intent: bytes) -> None:
        left = self.inner.unfinished()
        self.inner.finish(intent if left is None else left.intent)


@contract(breaks("ends another's", history=EndsAnothers))
def check_nobody_ends_the_replacement_of_another(world: World) -> None:
    world.here.history.replace(b"one", None)
    world.there.history.replace(b"other", None)
    with refused(Fenced):
        world.here.history.finish(b"one")
    left = world.here.history.unfinished()
    assert left is not None and left.intent == b"other"
    world.here.history.finish(b"other")
    assert world.there.history.unfinished() is None


class TakesAllTheSame(Around):
    """Gives the lease of a stream whatever was left in the middle."""

    def take(self, name: str) -> Any:
        try:
            return self.inner.take(name)
        except StoreUnavailable:
            return Lease(name, 1, "somebody")


class TakesNone(Around):
    """Refuses those who are to finish it, too."""

    def take(self, name: str) -> Any:
        if self.home.history.unfinished() is not None:
            raise AssertionError("it is taken by nobody")
        return self.inner.take(name)


@contract(breaks("takes all the same", leases=TakesAllTheSame), breaks("takes none", leases=TakesNone))
def check_only_those_who_work_on_snapshots_take_leases_until_it_is_done(world: World) -> None:
    world.here.history.replace(b"x", None)
    for leases in (world.here.leases, world.there.leases):
        with refused(StoreUnavailable):
            leases.take(LEASE)
        for name in (EXPORT, IMPORT, f"{LEASES}job.export"):
            leases.release(leases.take(name))
    world.here.history.finish(b"x")
    world.there.leases.release(world.there.leases.take(LEASE))


class KeepsWhatItTook(Around):
    """Is refused, and leaves what nobody was sending in the hand of somebody."""

    def replace(self, intent: bytes, entries: Any, **more: Any) -> None:
        try:
            self.inner.replace(intent, entries, **more)
        except Leased:
            for batch in self.home.batches.unsettled(SHOP):
                with suppress(Leased):
                    self.home.batches.begin(batch.id, "somebody")
            raise


class KeepsTheIntent(Around):
    """Is refused, and lets nobody work all the same."""

    def replace(self, intent: bytes, entries: Any, **more: Any) -> None:
        try:
            self.inner.replace(intent, entries, **more)
        except Leased:
            self.inner.replace(intent, None)
            raise


@contract(
    breaks("does not say so", history=swallowing("replace", Leased)),
    breaks("keeps what it took", history=KeepsWhatItTook),
    breaks("keeps the intent", history=KeepsTheIntent),
)
def check_the_books_are_not_replaced_while_a_batch_is_being_sent(world: World) -> None:
    """What became of its records would be lost, and they would be sent again."""
    fill(world.here)
    sent = make.commit_batch(world.here, "..", 33, make.run(13))
    left_over = [batch.id for batch in world.here.batches.unsettled(SHOP) if batch.id != sent.id]
    world.there.batches.begin(sent.id, "one")
    before = known(world.there)
    for home in (world.here, world.there):
        with refused(Leased):
            home.history.replace(b"intent", entries, objects=True)
        assert known(world.here) == before
        assert world.there.history.unfinished() is None
    for batch in left_over:
        assert world.here.batches.begin(batch, "two")[1] == "", "nobody has sent it yet"
        world.here.batches.let_go(batch, "two")
    world.there.batches.settle(make.settlement(sent, "one", "dd"))
    world.here.history.replace(b"intent", entries, objects=True)
    assert known(world.there) == replaced()


class WaitsForTheDead(Around):
    """Is refused as long as anything is said to be sent."""

    def replace(self, intent: bytes, entries: Any, **more: Any) -> None:
        if any(batch.state == "sending" for batch in self.home.batches.unsettled(SHOP)):
            raise Leased("it is being sent")
        self.inner.replace(intent, entries, **more)


@contract(breaks("waits for the dead", history=WaitsForTheDead, error=Leased))
def check_a_sender_that_died_keeps_nobody_from_replacing_the_books(world: World) -> None:
    fill(world.here)
    sent = make.commit_batch(world.here, "..", 33, make.run(13))
    child = world.child("begin_batch", batch=sent.id, attempt="one")
    assert child.said == {"earlier": ""}
    world.kill(child)
    world.here.history.replace(b"intent", entries, objects=True)
    assert known(world.there) == replaced()


class BeginsAllTheSame(Around):
    """Gives a batch to whoever wants it."""

    def begin(self, batch: str, attempt: str) -> Any:
        with suppress(Leased):
            self.inner.begin(batch, attempt)
        return make.batch(31), ""


@contract(breaks("begins all the same", batches=BeginsAllTheSame))
def check_nobody_begins_what_is_left_over_of_books_that_are_being_replaced(world: World) -> None:
    fill(world.here)
    left_over = [batch.id for batch in world.here.batches.unsettled(SHOP)]
    assert left_over
    calls = 0

    def watch() -> None:
        nonlocal calls
        calls += 1
        if calls > len(left_over) + 1:
            # All of them were taken, where they are taken one by one, and nothing has been deleted.
            raise BreaksOff

    with suppress(BreaksOff):
        world.here.history.replace(b"intent", entries, objects=True, watch=watch)
    assert calls
    for batch in left_over:
        with suppress(Leased):
            assert world.there.batches.begin(batch, "two") == (None, "")
    world.there.history.replace(b"intent", entries, objects=True)
    world.there.history.finish(b"intent")
    assert known(world.here) == replaced()


class BreaksOff(Exception):
    """The end of the entries in their middle."""


def broken_off() -> Iterator[Placed]:
    yield from (Placed(*NAME, make.cell(f"x{number}")) for number in range(1500))
    yield Placed(*NAME, FIRST)
    raise BreaksOff


class SaysItIsDone(Around):
    """Takes what was cut off for done."""

    def replace(self, intent: bytes, entries: Any, *, objects: bool = False) -> None:
        def until_the_end() -> Iterator[Placed]:
            try:
                yield from entries()
            except BreaksOff:
                return

        self.inner.replace(intent, until_the_end, objects=objects)


@contract(breaks("says that it is done", history=SaysItIsDone))
def check_a_replacement_that_is_cut_off_leaves_the_old_books_or_is_known_not_to_be_done(world: World) -> None:
    fill(world.here)
    before = known(world.there)
    with suppress(BreaksOff):
        world.here.history.replace(b"intent", broken_off)
    expect_old_or_known(world, before)
    world.there.history.replace(b"intent", entries, objects=True)
    world.there.history.finish(b"intent")
    assert known(world.here) == replaced()
    world.here.leases.release(world.here.leases.take(LEASE))


def expect_old_or_known(world: World, before: dict[str, Any]) -> None:
    """The books are the old ones, or nobody works until they are replaced."""
    left = world.there.history.unfinished()
    if left is None:
        assert known(world.there) == before
        return
    assert (left.intent, left.replaced) == (b"intent", False)
    with refused(StoreUnavailable):
        world.there.leases.take(LEASE)
    for name in (EXPORT, IMPORT):
        world.there.leases.release(world.there.leases.take(name))


@contract(breaks("leaves something of it", history=SaysItIsDone), needs=(Trait.REPLACES_THE_BOOKS_IN_ONE_WRITE,))
def check_a_replacement_that_is_cut_off_leaves_nothing(world: World) -> None:
    fill(world.here)
    before = known(world.there)
    with refused(BreaksOff):
        world.here.history.replace(b"intent", broken_off)
    assert known(world.there) == before
    assert world.there.history.unfinished() is None


@contract(breaks("is not done when it says so", history=SaysItIsDone))
def check_whoever_is_refused_meanwhile_works_again_afterwards(world: World) -> None:
    """Until the caller has finished, where the home says so by refusing leases."""
    fill(world.here)
    try:
        world.here.history.replace(b"intent", broken_off)
    except BreaksOff:
        left = world.there.history.unfinished()
        world.there.history.replace(left.intent if left else b"intent", entries, objects=True)
    assert known(world.here) == replaced()
    world.there.history.finish(b"intent")
    lease = world.here.leases.take(LEASE)
    world.here.runs.commit(lease, make.run(12))
    assert world.there.runs.get(make.run(12).id) is not None


@contract(breaks("does nothing", history=without("replace")))
def check_death_in_the_middle_of_replacing_leaves_the_old_or_what_is_known_not_to_be_done(world: World) -> None:
    fill(world.here)
    before = known(world.there)
    child = world.child("replace_books", count=200_000)
    assert child.said["begun"]
    world.kill(child)
    expect_old_or_known(world, before)
    world.there.history.replace(b"intent", entries, objects=True)
    world.there.history.finish(b"intent")
    assert known(world.here) == replaced()
    world.here.leases.release(eventually(lambda: world.here.leases.take(LEASE), "a lease"))
