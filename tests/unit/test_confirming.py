"""Targets that confirm later: the run does not wait, the sweeper asks, and what was refused after all is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.books import FailureQuery
from shared.cleanup import clean_up
from shared.confirm import LAST_LOOK, Awaited, Confirmation
from shared.confirming import MOST_AT_ONCE
from shared.ends import Change, Sink
from shared.errors import (
    FAILED_LATER,
    REFUSED,
    REFUSED_LATER,
    AuthError,
    ConfigError,
    ProtocolError,
    StoreUnavailable,
    TransientError,
)
from shared.fetch import Order
from shared.outcome import Answer, Outcome, Verdict, delivered, rejected
from shared.replay import replay
from shared.stream import Stream
from shared.sweep import Swept, sweep
from tests.unit.fakes import RULES, Crash, FakeSink, Fuse, Guarded, Process, Target, World, make_stream, spare_the_disk

HALF_AN_HOUR = 1_800.0
EVERYTHING = -timedelta(days=100_000)
"""Archives are as old as their files, whatever the clock of the world says."""
Said = Confirmation | Exception


@dataclass
class Desk:
    """The target's side: the requests that it accepted, with their keys, and what it says of each."""

    requests: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    usual: Callable[[str], Said] = lambda request: Confirmation(request, "confirmed")
    asked: list[str] = field(default_factory=list)
    closed: int = 0
    names_no_request: bool = False

    def sent(self, key: str) -> int:
        return sum(keys.count(key) for keys in self.requests.values())

    def fail(self, **refused: int) -> None:
        """Every request so far failed as a whole."""
        for request in self.requests:
            self.said[request] = Confirmation(request, "failed", refused=refused)


class LaterSink(FakeSink):
    """Accepts every call as one request. Nothing that it is asked to do can do harm twice."""

    def __init__(self, target: Target, desk: Desk, bulk: int) -> None:
        super().__init__(target, bulk, askable=False)
        self.desk = desk

    def repeatable(self, change: Change) -> bool:
        return True

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        answers = super().write(changes)
        request = "" if self.desk.names_no_request else f"q{len(self.desk.requests) + 1}"
        if request:
            self.desk.requests[request] = [change.key for change in changes]
        good = (isinstance(each, Verdict) and each.outcome is Outcome.DELIVERED for each in answers)
        return [delivered(request) if right else each for right, each in zip(good, answers, strict=True)]

    def confirm(self, request: str) -> Confirmation:
        self.desk.asked.append(request)
        said = self.desk.said.get(request) or self.desk.usual(request)
        if isinstance(said, Exception):
            raise said
        return said

    def close(self) -> None:
        self.desk.closed += 1


class Later:
    """A world whose target confirms later."""

    def __init__(self, folder: Path, count: int = 5, bulk: int = 5, **stream: Any) -> None:
        self.desk = Desk()
        settings = {"lanes": 1, "batch_size": 10} | stream
        self.world = World(folder, make_stream(**settings), bulk=bulk, prepare=self._prepare)
        self.world.shelf.fill(count)

    def _prepare(self, process: Process) -> None:
        process.sink = LaterSink(self.world.target, self.desk, self.world.bulk)
        process.guarded_sink = Guarded("sink", process.sink, process.fuse)

    def process(self, fuse: Fuse | None = None) -> Process:
        return self.world.process(fuse)

    def ran(self) -> Process:
        """A process after its first run, when the first look is due."""
        process = self.process()
        process.run()
        self.world.clock.advance(HALF_AN_HOUR)
        return process

    def replayed(self, process: Process, **query: Any) -> None:
        self.world.clock.advance(60)
        replay(process.stream, process.home, FailureQuery("shop", "things", **query), "mended", process.notice)
        process.settle()
        self.world.clock.advance(HALF_AN_HOUR)


Make = Callable[..., Later]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    spare_the_disk(monkeypatch)
    made: list[Later] = []

    def one(count: int = 5, **more: Any) -> Later:
        made.append(Later(tmp_path / str(len(made)), count, **more))
        return made[-1]

    yield one
    for each in made:
        each.world.close()


def swept(process: Process, open_sink: Callable[[Stream], Sink] | None = None) -> Swept:
    def opened(stream: Stream) -> Sink:
        sink: Sink = process.guarded_sink
        return sink

    return sweep([process.stream], process.home, process.notice, open_sink=open_sink or opened)


def pending(process: Process) -> tuple[int, int]:
    return process.embedded.ports.confirmations.pending("shop", "things")


def due(process: Process, later: float = 0.0) -> list[Awaited]:
    now = process.world.clock.now() + timedelta(seconds=later)
    return list(process.embedded.ports.confirmations.due("shop", "things", now))


def outcomes(process: Process) -> dict[str, int]:
    """The present outcomes of everything ever fetched, by audit."""
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    return {name: count for name, count in audit.counts.as_dict().items() if count and name != "fetched"}


# The run.


def test_a_run_settles_without_waiting_and_remembers_its_requests(make: Make) -> None:
    later = make(12, bulk=4)
    process = later.process()
    (run,) = process.run()
    assert process.counts(run.id) == {"fetched": 12, "delivered": 12}
    carried = {request: len(keys) for request, keys in later.desk.requests.items()}
    assert {each.id: each.records for each in due(process, HALF_AN_HOUR)} == carried
    assert len(carried) == 4
    assert {each.batch for each in due(process, HALF_AN_HOUR)} == {batch.id for batch in process.batches()}
    assert pending(process) == (4, 12)
    assert due(process, HALF_AN_HOUR - 1) == []


def test_only_what_was_accepted_is_awaited(make: Make) -> None:
    later = make(3)
    process = later.process()
    process.sink.script = {"K2": [rejected(REFUSED, "no")]}
    process.run()
    assert [(each.id, each.records) for each in due(process, HALF_AN_HOUR)] == [("q1", 2)]


def test_a_target_that_confirms_at_once_is_not_asked_later(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.shelf.fill(3)
    process = world.process()
    process.run()
    assert pending(process) == (0, 0)
    world.close()


def test_a_kill_between_write_and_settle_leads_to_another_request_and_loses_no_record(make: Make) -> None:
    whole = make(3).process()
    whole.fetch()
    whole.fuse.calls.clear()
    whole.settle()
    later = make(3)
    process = later.process()
    process.fetch()
    process.fuse.calls.clear()
    process.fuse.at = whole.fuse.calls.index("batches.settle") + 1
    with pytest.raises(Crash):
        process.settle()
    process.die()
    assert later.desk.requests == {"q1": ["K1", "K2", "K3"]}
    later.world.clock.advance(60)
    after = later.process()
    after.run()
    assert later.desk.requests == {"q1": ["K1", "K2", "K3"], "q2": ["K1", "K2", "K3"]}
    assert [(each.id, each.records) for each in due(after, HALF_AN_HOUR)] == [("q2", 3)]
    assert outcomes(after) == {"delivered": 3}


# The sweeper.


def test_nobody_is_asked_before_half_an_hour_and_then_it_is_confirmed(make: Make) -> None:
    later = make()
    process = later.process()
    process.run()
    later.world.clock.advance(HALF_AN_HOUR - 1)
    assert swept(process).confirmed == 0 and later.desk.asked == []
    later.world.clock.advance(1)
    assert swept(process).confirmed == 1
    assert (later.desk.asked, later.desk.closed) == (["q1"], 1)
    assert pending(process) == (0, 0)
    assert swept(process).confirmed == 0 and later.desk.asked == ["q1"]
    assert outcomes(process) == {"delivered": 5}


def test_a_sweep_asks_about_a_hundred_and_the_next_one_about_the_rest(make: Make) -> None:
    later = make(MOST_AT_ONCE + 30, bulk=1)
    process = later.ran()
    assert swept(process).confirmed == MOST_AT_ONCE
    assert swept(process).confirmed == 30


def test_what_nobody_tells_within_a_day_is_gone_and_stays_delivered(make: Make) -> None:
    later = make()
    later.desk.usual = lambda request: Confirmation(request, "pending")
    process = later.ran()
    for _ in range(100):
        swept(process)
        later.world.clock.advance(HALF_AN_HOUR)
    assert len(later.desk.asked) == 7
    assert pending(process) == (0, 0)
    assert outcomes(process) == {"delivered": 5}


@pytest.mark.parametrize(
    "error", [TransientError("503"), AuthError("401"), ConfigError("x"), RuntimeError("it fell over")]
)
def test_a_target_that_cannot_be_asked_is_asked_later_and_others_have_their_turn(make: Make, error: Exception) -> None:
    later = make(3, bulk=1)
    later.desk.said["q1"] = error
    process = later.ran()
    assert swept(process).confirmed == 0
    assert later.world.actions("confirmation_failed") == [
        {"integration": "shop", "stream": "things", "error": type(error).__name__}
    ]
    assert pending(process) == (3, 3)
    assert swept(process).confirmed == 2
    assert later.desk.asked == ["q1", "q2", "q3"]
    later.desk.said.clear()
    later.world.clock.advance(HALF_AN_HOUR)
    assert swept(process).confirmed == 1
    assert later.desk.closed == 3


def test_an_answer_that_is_not_documented_is_a_look_and_holds_up_nobody(make: Make) -> None:
    later = make(2, bulk=1)
    later.desk.said["q1"] = ProtocolError("odd")
    process = later.ran()
    assert swept(process).confirmed == 1
    for _ in range(100):
        later.world.clock.advance(HALF_AN_HOUR)
        swept(process)
    assert later.desk.asked.count("q1") == 7
    assert pending(process) == (0, 0)


def test_a_sink_that_cannot_be_opened_keeps_no_other_stream_from_being_swept(make: Make) -> None:
    later = make(3)
    process = later.ran()

    def closed(stream: Stream) -> Sink:
        raise ConfigError("a secret is missing")

    assert swept(process, closed).confirmed == 0
    assert pending(process) == (1, 3)
    assert len(later.world.actions("confirmation_failed")) == 1


def test_a_stream_whose_sink_confirms_nothing_by_now_is_noticed_and_left(make: Make) -> None:
    later = make(3)
    process = later.ran()
    swept(process, lambda stream: FakeSink(later.world.target))
    assert pending(process) == (1, 3)
    assert [each["error"] for each in later.world.actions("confirmation_failed")] == ["ConfigError"]


def test_a_store_that_does_not_answer_ends_the_sweep(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    later = make(3)
    process = later.ran()

    def gone(awaited: Awaited) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(process.embedded.ports.confirmations, "note", gone)
    with pytest.raises(StoreUnavailable):
        swept(process)
    assert later.desk.closed == 1


def test_a_sweep_stops_when_it_is_asked_to(make: Make) -> None:
    later = make(3)
    process = later.ran()
    sweep([process.stream], process.home, process.notice, open_sink=lambda _: process.sink, stopping=lambda: True)
    assert later.desk.asked == []


def test_what_was_refused_of_a_request_is_told_once_by_reason_and_stays_delivered(make: Make) -> None:
    later = make(4, bulk=2)
    process = later.ran()
    later.desk.usual = lambda request: Confirmation(request, "partial", 2, {"NO_CONSENT": 1})
    first = swept(process)
    assert (first.confirmed, first.refused, first.alerts) == (0, 2, 1)
    assert process.embedded.ports.alerts.raised() == {"shop.things.refused_later": "accepted, and then: NO_CONSENT 2"}
    assert outcomes(process) == {"delivered": 4}
    assert process.failures() == []
    assert swept(process).alerts == 0
    later.world.clock.advance(LAST_LOOK + 1)
    assert swept(process).alerts == 1
    assert process.embedded.ports.alerts.raised() == {}
    assert process.embedded.ports.confirmations.refused("shop", "things") == {"NO_CONSENT": 2}


# A request that failed as a whole.


def failed(make: Make, count: int = 5, reasons: dict[str, int] | None = None, **more: Any) -> tuple[Later, Process]:
    """A world in which every request of the first run has failed, and a sweep has heard of it."""
    later = make(count, **more)
    process = later.ran()
    later.desk.fail(**(reasons or {"NO_CONSENT": 0}))
    swept(process)
    return later, process


@pytest.mark.parametrize(
    ("reasons", "outcome", "number"),
    [({"NO_CONSENT": 0}, Outcome.REJECTED, REFUSED_LATER), ({"UNSPECIFIED": 0}, Outcome.EXHAUSTED, FAILED_LATER)],
)
def test_its_records_become_failures_and_a_replay_delivers_them(
    make: Make, reasons: dict[str, int], outcome: Outcome, number: int
) -> None:
    later, process = failed(make, 13, reasons, bulk=4)
    assert {(f.outcome, f.number) for f in process.failures()} == {(outcome, number)}
    assert sorted(f.key for f in process.failures()) == sorted(f"K{n}" for n in range(1, 14))
    assert outcomes(process) == {outcome.value: 13}
    assert [each["left"] for each in later.world.actions("refused_later")] == [0] * 4
    assert process.embedded.ports.confirmations.refused("shop", "things") == dict.fromkeys(reasons, 13)
    before = dict(later.desk.requests)
    later.replayed(process)
    sent = [key for request, keys in later.desk.requests.items() if request not in before for key in keys]
    assert sorted(sent) == sorted(f"K{n}" for n in range(1, 14))
    assert (process.failures(), outcomes(process)) == ([], {"delivered": 13})
    assert swept(process).confirmed == len(later.desk.requests) - len(before)


def test_until_then_no_run_sends_them_again(make: Make) -> None:
    later, process = failed(make)
    process.run(Order(full=True))
    assert later.desk.sent("K1") == 1
    assert outcomes(process) == {"rejected": 5}
    later.world.clock.advance(300)
    later.world.shelf.put(1, 3600 + HALF_AN_HOUR + 100, key="K1", name="changed")
    process.run()
    assert later.desk.sent("K1") == 2
    assert outcomes(process) == {"rejected": 4, "superseded": 1, "delivered": 1}


def test_what_was_sent_since_under_no_request_is_not_taken_back_with_an_older_one(make: Make) -> None:
    """A target may accept, and not always say as what."""
    later = make(2)
    process = later.ran()
    later.desk.names_no_request = True
    later.world.shelf.put(1, 3600 + HALF_AN_HOUR - 100, key="K1", name="changed")
    process.run()
    (batch,) = [each for each in process.batches() if len(each.keys) == 1]
    assert process.home.ledger.cells("shop", "things", ["K1"])["K1"].target_id == ""
    assert pending(process) == (1, 2)
    later.desk.fail(NO_CONSENT=0)
    swept(process)
    assert [failure.key for failure in process.failures()] == ["K2"]
    assert outcomes(process) == {"rejected": 1, "delivered": 2}
    assert batch.present == "d"


def test_what_is_asked_twice_of_a_failed_request_changes_nothing_more(make: Make) -> None:
    later, process = failed(make)
    known = process.failures()
    now = later.world.clock.now()
    awaited = Awaited("q1", "shop", "things", process.batches()[0].id, 5, now, now)
    process.home.confirmations.note(awaited)
    swept(process)
    assert later.desk.asked == ["q1", "q1"]
    assert process.failures() == known


def test_a_replay_that_fails_later_too_goes_back_to_where_the_record_was_fetched(make: Make) -> None:
    later, process = failed(make)
    first = process.failures()
    later.replayed(process)
    later.desk.fail(NO_CONSENT=0)
    swept(process)
    again = process.failures()
    assert [(f.id, f.run, f.batch, f.place) for f in again] == [(f.id, f.run, f.batch, f.place) for f in first]
    assert outcomes(process) == {"rejected": 5}
    later.replayed(process)
    assert (process.failures(), outcomes(process)) == ([], {"delivered": 5})


def test_so_it_does_after_the_closed_failures_were_cleaned_up(make: Make) -> None:
    later, process = failed(make)
    first = process.failures()
    later.replayed(process)
    later.desk.fail(NO_CONSENT=0)
    later.world.clock.advance(1)
    assert clean_up(process.home, "shop", timedelta(days=1), timedelta()).closed_failures == 5
    swept(process)
    assert {(f.batch, f.place) for f in process.failures()} == {(f.batch, f.place) for f in first}
    assert outcomes(process) == {"rejected": 5}
    later.replayed(process)
    assert (process.failures(), outcomes(process)) == ([], {"delivered": 5})


def test_what_has_no_archive_any_more_stays_delivered_and_is_counted(make: Make) -> None:
    later = make()
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    assert clean_up(process.home, "shop", EVERYTHING, timedelta()).archives == 1
    assert swept(process).refused == 5
    assert later.world.actions("refused_later") == [
        {"integration": "shop", "stream": "things", "records": 5, "failures": 0, "left": 5}
    ]
    assert (process.failures(), outcomes(process), pending(process)) == ([], {"delivered": 5}, (0, 0))


def test_an_unchanged_version_keeps_older_ones_from_being_sent_after_it(make: Make) -> None:
    later = make(0)
    for seconds, name in ((10, "one"), (100, "one"), (50, "two")):
        later.world.shelf.put(1, seconds, key="K1", name=name)
        later.world.clock.advance(60)
        process = later.process()
        process.run(Order(full=True))
    assert [content["name"] for content in later.world.target.contents_of("K1")] == ["one"]
    assert later.desk.sent("K1") == 1


def test_the_archive_of_a_request_that_may_still_fail_stays(make: Make) -> None:
    later = make()
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    assert clean_up(process.home, "shop", EVERYTHING, timedelta(), streams=["things"]).archives == 0
    assert (swept(process).refused, outcomes(process)) == (5, {"rejected": 5})
    later.replayed(process)
    later.world.clock.advance(HALF_AN_HOUR)
    later.desk.said.clear()
    swept(process)
    assert pending(process) == (0, 0)
    assert clean_up(process.home, "shop", EVERYTHING, timedelta(), streams=["things"]).archives == 2


def test_a_request_that_fails_while_its_records_are_found_unchanged_is_taken_back_all_the_same(make: Make) -> None:
    """The delivery read the cells before, and writes when all is sent: it must not put them back."""
    later = make(1)
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    later.world.shelf.put(1, 3700, key="K1")
    later.world.shelf.put(2, 3700, key="K2")
    process.sink.meanwhile = lambda: swept(process)
    process.run()
    process.sink.meanwhile = lambda: None
    (failure,) = process.failures()
    assert failure.key == "K1"
    later.desk.said.clear()
    later.replayed(process)
    assert process.failures() == []
    assert later.desk.sent("K1") == 2
    assert process.audit().balanced


def test_what_was_delivered_anew_since_stays(make: Make) -> None:
    later = make()
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    later.world.shelf.put(1, 3700, key="K1", name="changed")
    process.run()
    swept(process)
    assert sorted(f.key for f in process.failures()) == ["K2", "K3", "K4", "K5"]
    assert [each["left"] for each in later.world.actions("refused_later")] == [1]
    assert outcomes(process) == {"rejected": 4, "delivered": 2}
    cell = process.cell("K1")
    assert (cell.target_id, cell.failed) == ("q2", "")


def test_a_touched_record_that_was_read_unchanged_since_fails_with_the_one_that_was_sent(make: Make) -> None:
    later = make(1)
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    later.world.shelf.put(1, 3700, key="K1")
    process.run()
    assert process.outcomes() == {"delivered": 1, "unchanged": 1}
    swept(process)
    assert outcomes(process) == {"rejected": 1, "unchanged": 1}
    later.replayed(process)
    assert later.desk.sent("K1") == 2
    assert outcomes(process) == {"delivered": 1, "unchanged": 1}


def test_of_two_versions_in_a_batch_the_one_that_was_sent_fails(make: Make) -> None:
    later = make(0)
    later.world.shelf.put(1, 10, key="K1", name="older")
    later.world.shelf.put(2, 20, key="K1", name="newer")
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    swept(process)
    assert [failure.data["name"] for failure in process.failures()] == ["newer"]
    assert outcomes(process) == {"superseded": 1, "rejected": 1}


def test_a_removal_that_failed_is_sent_again(make: Make) -> None:
    later = make(1)
    process = later.ran()
    swept(process)
    later.world.shelf.put(1, 3700, key="K1", operation="delete")
    process.run()
    later.world.clock.advance(HALF_AN_HOUR)
    later.desk.said["q2"] = Confirmation("q2", "failed")
    swept(process)
    (failure,) = process.failures()
    assert (failure.operation, failure.number) == ("delete", FAILED_LATER)
    later.replayed(process)
    assert later.desk.requests["q3"] == ["K1"]
    assert process.cell("K1").deleted
    assert outcomes(process) == {"delivered": 2}


@pytest.mark.parametrize(
    "rules",
    [{"once": Outcome.FILTERED}, {"once": Outcome.UNCHANGED}, {"appends": True}, {"polled": True}],
    ids=lambda rules: next(iter(rules)),
)
def test_what_goes_to_the_target_once_goes_again_by_replay_alone(make: Make, rules: dict[str, Any]) -> None:
    later, process = failed(make, rules=msgspec.structs.replace(RULES, **rules))
    process.run(Order(full=True))
    assert later.desk.sent("K1") == 1
    later.replayed(process)
    assert [later.desk.sent(f"K{n}") for n in range(1, 6)] == [2] * 5
    assert process.failures() == []
    process.run(Order(full=True))
    assert later.desk.sent("K1") == 2
    assert process.audit().balanced


def test_a_version_that_is_on_its_way_meanwhile_wins_and_a_replay_closes_the_older_failure(make: Make) -> None:
    later = make(1)
    process = later.ran()
    later.desk.fail(NO_CONSENT=0)
    later.world.shelf.put(1, 3700, key="K1", name="changed")
    process.fetch()
    process.sink.meanwhile = lambda: swept(process) and None
    process.settle()
    process.sink.meanwhile = lambda: None
    assert [f.number for f in process.failures()] == [REFUSED_LATER]
    assert (process.cell("K1").target_id, process.cell("K1").failed) == ("q2", "")
    later.replayed(process)
    assert (process.failures(), later.desk.sent("K1")) == ([], 2)
    assert outcomes(process) == {"superseded": 1, "delivered": 1}


def test_records_of_one_batch_that_went_by_other_requests_stay(make: Make) -> None:
    later = make(9, bulk=3)
    process = later.ran()
    later.desk.said["q2"] = Confirmation("q2", "failed", refused={"NO_CONSENT": 3})
    assert swept(process).confirmed == 2
    assert sorted(f.key for f in process.failures()) == later.desk.requests["q2"]
    assert outcomes(process) == {"delivered": 6, "rejected": 3}


def test_a_crash_anywhere_in_the_sweep_is_made_up_for_by_the_next_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.confirming.PORTION", 2)
    for after in (False, True):
        at = crashed = 0
        while True:
            at += 1
            later = make(7, bulk=5, batch_size=7)
            first = later.ran()
            later.desk.fail(NO_CONSENT=0)
            first.close()
            process = later.process(Fuse(at, after=after))
            try:
                swept(process)
            except Crash:
                crashed += 1
            else:
                break
            process.die()
            last = later.process()
            swept(last)
            assert sorted(f.key for f in last.failures()) == [f"K{n}" for n in range(1, 8)]
            assert {f.attempts for f in last.failures()} == {1}
            assert (outcomes(last), pending(last)) == ({"rejected": 7}, (0, 0))
            assert last.embedded.ports.confirmations.refused("shop", "things") == {"NO_CONSENT": 7}
            later.replayed(last)
            assert outcomes(last) == {"delivered": 7}
        assert crashed > 10


# Clean-up.


def test_clean_up_removes_what_has_ended_by_age_and_nothing_that_is_pending(make: Make) -> None:
    later = make(2, bulk=1)
    later.desk.said["q1"] = Confirmation("q1", "pending")
    process = later.ran()
    swept(process)
    day = timedelta(days=1)
    assert clean_up(process.home, "shop", day, day).confirmations == 0
    later.world.clock.advance(day.total_seconds() + 1)
    assert clean_up(process.home, "shop", day, day).confirmations == 1
    assert pending(process) == (1, 1)
    assert clean_up(process.home, "shop", timedelta(), timedelta()).confirmations == 0
    process.run(Order(full=True))
    assert [later.desk.sent("K1"), later.desk.sent("K2")] == [1, 1]
