"""Records that go to the target once, that wait for others, that are too old, or whose source has no versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shared.deliver
from shared.books import FailureQuery
from shared.deliver import Delivery
from shared.errors import CUSTOMER_MISSING, REFUSED, TransientError
from shared.fetch import Fetcher, Order
from shared.outcome import FAILED, Found, Outcome, Passing, rejected
from shared.record import Envelope
from shared.replay import replay
from shared.rules import Filter
from tests.unit.fakes import RULES, START, Process, Step, World, make_stream, spare_the_disk

Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A process on a stream with these rules; nothing is fetched yet."""
    spare_the_disk(monkeypatch)
    worlds: list[World] = []

    def made(askable: bool = True, stream: dict[str, Any] | None = None, **rules: Any) -> Process:
        settings = {"lanes": 1, "rules": msgspec.structs.replace(RULES, **rules)} | (stream or {})
        worlds.append(World(tmp_path / str(len(worlds)), make_stream(**settings), askable=askable))
        return worlds[-1].process()

    yield made
    for world in worlds:
        world.close()


def now(process: Process) -> float:
    return (process.world.clock.now() - START).total_seconds()


def put(process: Process, number: int, name: str = "", ago: float = 0, **more: Any) -> None:
    """The object is changed at the source so many seconds ago."""
    seconds = now(process) - ago
    process.world.shelf.put(number, seconds, key=more.pop("key", f"K{number}"), name=name or None, **more)


def run(process: Process, order: Order | None = None) -> dict[str, int]:
    """A run some time after the one before, and what it came to."""
    process.world.clock.advance(30)
    return process.counts(process.run(order)[-1].id)


def replay_all(process: Process, **query: Any) -> None:
    process.world.clock.advance(30)
    asked = FailureQuery("shop", "things", **query)
    replay(process.stream, process.home, asked, "it was mended", process.notice)
    process.settle()


def assert_books(process: Process) -> None:
    """They balance, and no version of an object stands in them under two names with two outcomes that both count."""
    for each in process.runs:
        assert process.embedded.ports.books.counts(each.id).balanced
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    present = process.present()
    assert {(f.key, f.version): f.outcome for f in process.failures()} == {
        identity: outcome for identity, outcome in present.items() if outcome in FAILED
    }
    versions = [version for _, version in present]
    assert len(versions) == len(set(versions)), "a version is counted under two keys"


# Once.


def test_what_is_there_stays_and_later_versions_are_filtered(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    put(process, 1)
    assert run(process) == {"fetched": 1, "delivered": 1}
    put(process, 1, "changed")
    assert run(process) == {"fetched": 1, "filtered": 1}
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_books(process)


def test_the_first_version_is_unchanged_when_it_is_read_again(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    put(process, 1)
    run(process)
    assert run(process, Order(full=True)) == {"fetched": 1, "unchanged": 1}
    assert run(process, Order(full=True)) == {"fetched": 1, "unchanged": 1}
    assert_books(process)


def test_a_mapping_that_changed_sends_nothing_again(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    put(process, 1)
    run(process)
    rules = msgspec.structs.replace(process.stream.rules, to_target=lambda data: {"title": data["name"]})
    process.world.stream = msgspec.structs.replace(process.stream, rules=rules)
    assert run(process, Order(full=True)) == {"fetched": 1, "unchanged": 1}
    assert len(process.sink.written) == 1


def test_the_first_version_that_arrives_is_the_one_that_stays(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    process.world.target.refused = {"K1"}
    put(process, 1)
    assert run(process) == {"fetched": 1, "rejected": 1}
    process.world.target.refused = set()
    put(process, 1, "second")
    assert run(process) == {"fetched": 1, "delivered": 1}
    assert process.failures() == []
    put(process, 1, "third")
    assert run(process) == {"fetched": 1, "filtered": 1}
    assert process.world.target.contents_of("K1") == [{"name": "second"}]
    assert_books(process)


def test_a_later_version_changes_nothing_of_one_that_arrived_unseen(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    process.sink.script = {"K1": [Step.SILENT_AFTER]}
    put(process, 1)
    assert run(process) == {"fetched": 1, "unknown": 1}
    put(process, 1, "changed")
    run(process)
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_books(process)


def test_a_replay_of_a_first_version_of_unknown_fate_finds_it(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    process.sink.script = {"K1": [Step.SILENT_AFTER]}
    put(process, 1)
    run(process)
    replay_all(process)
    assert process.failures() == []
    assert process.world.target.creations_of("K1") == 1
    assert set(process.present().values()) == {Outcome.DELIVERED}


def test_a_failure_of_a_later_version_is_over_once_an_earlier_one_is_there(make: Make) -> None:
    process = make(once=Outcome.FILTERED)
    process.world.target.refused = {"K1"}
    put(process, 1)
    run(process)
    process.sink.always = {"K1": rejected(REFUSED, "too long", 422)}
    process.world.target.refused = set()
    put(process, 1, "second")
    run(process)
    process.sink.always = {}
    first = process.failures()[0]
    replay_all(process, before=first.last_at + timedelta(seconds=1))
    assert [failure.version > first.version for failure in process.failures()] == [True]
    replay_all(process)
    assert process.failures() == []
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_books(process)


# Follow-ups: what is written of an object that is there already, by an id that the mapping knows.


@pytest.mark.parametrize(("same", "writes"), [(False, 1), (True, 0), (None, 0)])
def test_what_was_found_to_be_missing_is_written_though_it_may_not_be_repeated(
    make: Make, monkeypatch: pytest.MonkeyPatch, same: bool | None, writes: int
) -> None:
    process = make()
    monkeypatch.setattr(process.sink, "repeatable", lambda change: False)
    process.sink.script = {"K1": [Step.DOUBT_BEFORE]}
    process.sink.finds = [[Found("T1", same)]]
    put(process, 1)
    counts = run(process)
    assert len(process.sink.written) == 1 + writes
    assert counts == {"fetched": 1, "unknown" if same is None else "delivered": 1}


# Age.


def older_than(seconds: float) -> Callable[[datetime], Sequence[Filter]]:
    """Objects that were made so long before are left out; `made` is seconds after START."""

    def filters(reached: datetime) -> Sequence[Filter]:
        first = (reached - START).total_seconds() - seconds
        return [("too_old", lambda data: float(data["made"]) < first)]

    return filters


def test_an_old_object_stays_home_and_a_young_one_travels(make: Make) -> None:
    process = make(dated_filters=older_than(600))
    put(process, 1, made=now(process) - 700)
    put(process, 2, made=now(process) - 500)
    assert run(process) == {"fetched": 2, "filtered": 1, "delivered": 1}
    assert process.embedded.ports.books.rules(process.runs[0].id) == {"too_old": 1}
    assert_books(process)


def test_a_late_run_loses_nothing_to_a_rule_about_age(make: Make) -> None:
    process = make(dated_filters=older_than(60))
    run(process)
    process.world.clock.advance(100)
    put(process, 1, made=now(process))
    process.world.clock.advance(86_400)
    assert run(process) == {"fetched": 1, "delivered": 1}


def test_a_rule_about_age_has_no_say_in_what_travelled_before(make: Make) -> None:
    process = make(dated_filters=older_than(60))
    put(process, 1, made=now(process))
    run(process)
    for number in range(3):
        process.world.clock.advance(600)
        put(process, 1, f"changed {number}", made=1)
        assert run(process) == {"fetched": 1, "delivered": 1}
    assert run(process, Order(full=True)) == {"fetched": 1, "unchanged": 1}
    assert_books(process)


@pytest.mark.parametrize("hold_back", [0, 60])
@pytest.mark.parametrize("age", range(500, 700, 15))
def test_what_the_first_run_left_out_is_left_out_when_the_overlap_brings_it_again(
    make: Make, age: int, hold_back: int
) -> None:
    limits = {"hold_back": timedelta(seconds=hold_back), "overlap": timedelta(seconds=3000)}
    process = make(dated_filters=older_than(600), stream=limits)
    put(process, 1, ago=200, made=now(process) - age)
    run(process)
    run(process)
    run(process, Order(full=True))
    assert_books(process)


def test_what_a_first_run_that_failed_let_travel_goes_on_travelling(make: Make) -> None:
    process = make(dated_filters=older_than(600))
    for number in range(1, 31):
        put(process, number, ago=500 - number, made=now(process) - 590 + number)
    process.world.page_size = process.source.page_size = 10
    process.source.faults = {2: TransientError("it went away")}
    process.run()
    process.runs[0].abandoned = True
    process.world.clock.advance(60)
    process.run()
    run(process, Order(full=True))
    assert_books(process)


def test_what_is_on_its_way_is_not_left_out_when_it_is_read_again(make: Make) -> None:
    process = make(dated_filters=older_than(60), stream={"overlap": timedelta(hours=1)})
    run(process)
    put(process, 1, made=now(process))
    process.world.clock.advance(10)
    process.fetch()
    process.world.clock.advance(600)
    process.fetch()
    process.world.clock.advance(600)
    process.fetch()
    process.settle()
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_books(process)


def test_a_hub_that_forgets_what_it_took_up_is_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fetcher, "taken_up", lambda self, keys: set())
    with pytest.raises(AssertionError):
        test_what_is_on_its_way_is_not_left_out_when_it_is_read_again(make)
    with pytest.raises(AssertionError):
        test_a_rule_about_age_has_no_say_in_what_travelled_before(make)


def test_a_hub_that_sends_later_versions_is_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.deliver, "judge_once", lambda record, cell, run, later: None)
    with pytest.raises(AssertionError):
        test_what_is_there_stays_and_later_versions_are_filtered(make)


# Sources without versions.


def test_an_unchanged_record_of_a_polled_source_writes_no_cell(make: Make) -> None:
    process = make(polled=True)
    put(process, 1)
    run(process)
    before = process.cell("K1")
    for _ in range(3):
        assert run(process, Order(full=True)) == {"fetched": 1, "unchanged": 1}
    assert process.cell("K1") == before
    assert_books(process)


def test_a_polled_record_that_failed_and_did_not_change_is_no_new_failure(make: Make) -> None:
    process = make(polled=True)
    process.world.target.refused = {"K1"}
    put(process, 1)
    assert run(process) == {"fetched": 1, "rejected": 1}
    assert run(process, Order(full=True)) == {"fetched": 1, "duplicate": 1}
    put(process, 1, "changed")
    assert run(process, Order(full=True)) == {"fetched": 1, "rejected": 1}
    assert len(process.failures()) == 2
    assert len(process.sink.written) == 2


@pytest.mark.parametrize("flaw", [{"key": None}, {"bad": True}, {"name": "\ud800"}], ids=["no key", "bad", "half"])
def test_a_polled_record_that_is_invalid_and_did_not_change_is_no_new_failure(make: Make, flaw: dict[str, Any]) -> None:
    process = make(polled=True)
    put(process, 1, **({"key": "K1"} | flaw))
    assert run(process) == {"fetched": 1, "invalid": 1}
    for _ in range(2):
        assert run(process, Order(full=True)) == {"fetched": 1, "duplicate": 1}
    assert len(process.failures()) == 1
    put(process, 1, **({"key": "K1", "more": "x"} | flaw))
    assert run(process, Order(full=True)) == {"fetched": 1, "invalid": 1}


def test_a_polled_record_that_goes_back_to_what_is_there_ends_its_failure(make: Make) -> None:
    process = make(polled=True)
    put(process, 1)
    run(process)
    process.world.target.refused = {"K1"}
    put(process, 1, "changed")
    run(process)
    put(process, 1, "name 1")
    assert run(process) == {"fetched": 1, "unchanged": 1}
    assert process.failures() == []


# Records that wait for another stream's.


AWAITS = Passing("its customer is not there yet", CUSTOMER_MISSING, awaits="C1")


class Customers:
    """The other stream, of the same integration, and one record of it on its way."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.before = process.world.stream
        self.stream = make_stream(name="customers", lanes=1)

    def fetch(self) -> None:
        """Reads one customer, and delivers nothing."""
        world = self.process.world
        things, world.shelf.things = world.shelf.things, {}
        world.shelf.put(99, now(self.process), key="C1")
        world.stream = self.stream
        try:
            self.process.fetch()
        finally:
            world.stream, world.shelf.things = self.before, things

    def settle(self) -> None:
        (batch,) = list(self.process.embedded.ports.batches.unsettled("shop", "customers"))
        blob = self.process.embedded.ports.blobs.read(batch.blob, batch.offset, batch.length)
        envelope = Envelope.from_bytes(blob)
        self.process.world.stream = self.stream
        try:
            self.process.deliver(envelope)
        finally:
            self.process.world.stream = self.before


def waiting(make: Make, **more: Any) -> Process:
    process = make(awaits="customers", stream={"max_attempts": 3, "batch_size": 10}, **more)
    put(process, 1)
    put(process, 2)
    process.sink.always = {"K1": AWAITS}
    process.world.clock.advance(5)
    process.fetch()
    return process


def deliver_once(process: Process) -> Any:
    process.world.clock.advance(60)
    return process.deliver(process.envelopes()[0])


def test_a_record_that_waits_for_one_on_its_way_uses_up_no_try(make: Make) -> None:
    process = waiting(make)
    customers = Customers(process)
    customers.fetch()
    for _ in range(10):
        deliver_once(process)
    assert process.batches()[0].outcomes == ".d"
    customers.settle()
    process.sink.always = {}
    deliver_once(process)
    assert process.batches()[0].outcomes == "dd"


def test_a_record_that_waits_for_nobody_is_exhausted_with_the_reason(make: Make) -> None:
    process = waiting(make)
    for _ in range(3):
        deliver_once(process)
    assert process.batches()[0].outcomes == "xd"
    (failure,) = process.failures()
    assert (failure.number, failure.reason) == (CUSTOMER_MISSING, "its customer is not there yet")


def test_a_record_that_waits_is_exhausted_after_the_other_has_failed(make: Make) -> None:
    process = waiting(make)
    customers = Customers(process)
    customers.fetch()
    for _ in range(5):
        deliver_once(process)
    process.world.target.refused = {"C1"}
    customers.settle()
    for _ in range(3):
        assert process.batches()[0].outcomes == ".d"
        deliver_once(process)
    assert process.batches()[0].outcomes == "xd"


def test_a_record_that_waits_is_exhausted_at_a_target_that_cannot_be_asked(make: Make) -> None:
    process = waiting(make, askable=False)
    for _ in range(3):
        deliver_once(process)
    assert process.batches()[0].outcomes == "xd"


def test_a_hub_that_counts_every_try_is_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "on_their_way", lambda self, items: set())
    with pytest.raises((AssertionError, IndexError)):
        test_a_record_that_waits_for_one_on_its_way_uses_up_no_try(make)


def test_a_hub_that_waits_for_ever_is_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "on_their_way", lambda self, items: {item.awaits for item in items})
    with pytest.raises(AssertionError):
        test_a_record_that_waits_for_nobody_is_exhausted_with_the_reason(make)


@pytest.mark.parametrize("rules", [{"once": Outcome.UNCHANGED}, {"once": Outcome.FILTERED}, {}])
def test_however_often_its_version_changes_what_is_there_is_sent_once(make: Make, rules: dict[str, Any]) -> None:
    process = make(askable=False, **rules)
    for _ in range(6):
        put(process, 1)
        run(process)
    assert process.sink.sent == ["K1"]
    assert process.audit().balanced
