"""Replay: what failed goes the way of records again, and nothing else goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.books import FailureQuery, Run
from shared.errors import BAD_VERSION, NO_IDENTITY, REFUSED, TOO_LARGE, UNMAPPABLE, Leased
from shared.fetch import Order
from shared.outcome import FAILED, Outcome, rejected
from shared.ports import lease_name
from shared.replay import plan_replay, replay
from shared.stream import MESSAGE_BYTES
from tests.unit.fakes import IN_MEMORY, RULES, START, STEADY, Process, Step, World, make_stream, spare_the_disk

Make = Callable[..., Process]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    worlds: list[World] = []

    def made(count: int = 5, **stream: Any) -> Process:
        worlds.append(World(tmp_path / str(len(worlds)), make_stream(**stream)))
        worlds[-1].shelf.fill(count)
        return worlds[-1].process()

    yield made
    for world in worlds:
        world.close()


@pytest.fixture
def failed(make: Make) -> Process:
    """K2 and K4 were rejected, K5 could not be mapped, and K1 and K3 were delivered."""
    process = make(4)
    process.world.shelf.put(5, 5, key="K5", bad=True)
    process.sink.script = {"K2": [rejected(REFUSED, "no town", 422)], "K4": [rejected(REFUSED, "no town", 400)]}
    process.run()
    process.world.clock.advance(60)
    return process


def query(**asked: Any) -> FailureQuery:
    return FailureQuery("shop", "things", **asked)


def replay_open(process: Process, **asked: Any) -> Run:
    run = replay(process.stream, process.home, query(**asked), "mended", process.notice)
    process.settle()
    return run


def change(process: Process, number: int, **more: Any) -> None:
    """The object is changed at the source at this moment."""
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, **({"key": f"K{number}", "name": f"changed {number}"} | more))


def with_rules(process: Process, **changes: Any) -> None:
    """The integration is deployed with other rules."""
    rules = msgspec.structs.replace(process.stream.rules, **changes)
    process.world.stream = msgspec.structs.replace(process.stream, rules=rules)


def assert_books_agree(process: Process) -> None:
    """Runs balance, the audit finds everything, and the open failures are those that the books name."""
    for run in process.runs:
        assert process.embedded.ports.books.counts(run.id).balanced, run.id
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    named = {identity: outcome for identity, outcome in process.present().items() if outcome in FAILED}
    assert {(f.key, f.version): f.outcome for f in process.failures()} == named


def test_a_plan_counts_and_writes_nothing(failed: Process) -> None:
    before = failed.failures()
    failed.fuse.calls.clear()
    plan = plan_replay(failed.stream, failed.home, query())
    assert (plan.planned, plan.superseded, plan.to_send) == (3, 0, 3)
    assert plan.outcomes == {"rejected": 2, "invalid": 1}
    assert set(failed.fuse.calls) == {"failures.find", "ledger.cells"}
    assert failed.failures() == before


def test_a_replay_sends_just_what_the_query_means(failed: Process) -> None:
    failed.sink.written.clear()
    run = replay_open(failed, outcome="rejected", status=422)
    assert failed.sink.sent == ["K2"]
    assert (run.kind, run.reason, failed.counts(run.id)) == ("replay", "mended", {"fetched": 1, "delivered": 1})
    assert {failure.key for failure in failed.failures()} == {"K4", "K5"}
    assert_books_agree(failed)


def test_a_replay_adds_nothing_to_what_was_fetched(failed: Process) -> None:
    before = failed.audit().counts
    replay_open(failed)
    after = failed.audit().counts
    assert (before.fetched, before.delivered, before.rejected) == (5, 2, 2)
    assert (after.fetched, after.delivered, after.rejected, after.invalid) == (5, 4, 0, 1)
    assert_books_agree(failed)


def test_a_replay_leaves_the_cursor_and_the_last_reading_run_alone(failed: Process) -> None:
    before = failed.state
    replay_open(failed)
    assert failed.state == before
    assert failed.runs[0].over


def test_what_failed_again_is_open_still_and_can_be_replayed_again(failed: Process) -> None:
    failed.sink.script = {"K2": [rejected(REFUSED, "still no town", 422)]}
    run = replay_open(failed)
    assert failed.counts(run.id) == {"fetched": 3, "delivered": 1, "rejected": 1, "invalid": 1}
    assert {f.key: f.attempts for f in failed.failures()} == {"K2": 2, "K5": 2}
    assert_books_agree(failed)
    failed.world.clock.advance(60)
    with_rules(failed, to_target=lambda data: {"name": data["name"]})
    replay_open(failed)
    assert failed.failures() == []
    assert failed.world.target.contents_of("K5") == [{"name": "name 5"}]
    assert_books_agree(failed)


def test_failures_that_a_newer_version_overtook_are_planned_as_superseded(failed: Process) -> None:
    failed.sink.script = {"K2": [rejected(REFUSED, "no town"), Step.OK]}
    change(failed, 2)
    failed.run()
    failed.world.clock.advance(60)
    assert len(failed.failures(key="K2")) == 2
    newest = max(failure.version for failure in failed.failures(key="K2"))
    assert plan_replay(failed.stream, failed.home, query(key="K2")).superseded == 0
    replay_open(failed, key="K2")
    assert failed.world.target.contents_of("K2") == [{"name": "changed 2"}]
    assert failed.cell("K2").version == newest
    assert failed.failures(key="K2") == []
    assert_books_agree(failed)


def test_a_replay_is_refused_while_a_run_holds_the_stream(failed: Process) -> None:
    failed.home.leases.take(lease_name("shop", "things"))
    with pytest.raises(Leased):
        replay(failed.stream, failed.home, query(), "mended", failed.notice)
    assert all(run.kind == "fetch" for run in failed.runs)


def test_a_replay_of_nothing_is_a_run_of_nothing(make: Make) -> None:
    process = make()
    process.run()
    run = replay_open(process)
    assert (run.fetched, process.counts(run.id)) == (0, {})
    assert process.runs[0].over


def test_more_failures_than_are_taken_at_once_are_all_replayed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.replay._AT_ONCE", 3)
    process = make(20)
    process.world.target.refused = {f"K{number}" for number in range(1, 20)}
    process.run()
    process.world.target.refused = set()
    process.world.clock.advance(60)
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 19, "delivered": 19}
    assert_books_agree(process)


def test_what_fails_while_it_is_replayed_is_not_taken_up_twice(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.replay._AT_ONCE", 1)
    process = make(6)
    process.world.target.refused = {f"K{number}" for number in range(1, 7)}
    process.run()
    process.world.clock.advance(60)
    process.world.eager = True
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 6, "rejected": 6}
    assert {failure.attempts for failure in process.failures()} == {2}


def test_an_object_without_an_identity_travels_under_its_own_once_the_rules_find_one(make: Make) -> None:
    process = make(1)
    process.world.shelf.put(2, 2, code="77")
    process.run()
    process.world.clock.advance(60)
    with_rules(process, identify=lambda data: data.get("key") or f"N{data['code']}")
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 1, "delivered": 1}
    assert process.world.target.contents_of("N77") == [{"name": "name 2"}]
    (closed,) = process.failures(include_closed=True)
    assert (closed.key, closed.closed_as) == ("shelf:2", "superseded")
    assert_books_agree(process)


def test_an_object_that_has_no_identity_still_stays_invalid(make: Make) -> None:
    process = make(0)
    process.world.shelf.put(1, 1)
    process.world.shelf.put(2, 2, key="K2", problem=(BAD_VERSION, "the date is no date"))
    process.run()
    process.world.clock.advance(60)
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 2, "invalid": 2}
    assert {f.key: (f.number, f.attempts) for f in process.failures()} == {
        "shelf:1": (NO_IDENTITY, 2),
        "shelf:2": (BAD_VERSION, 2),
    }
    assert_books_agree(process)


def test_an_identity_rule_that_falls_over_at_a_replay_keeps_the_failure(make: Make) -> None:
    process = make(0)
    process.world.shelf.put(1, 1)
    process.run()
    process.world.clock.advance(60)
    with_rules(process, identify=lambda data: str(data["no such field"]))
    replay_open(process)
    (failure,) = process.failures()
    assert (failure.number, failure.reason) == (UNMAPPABLE, "a rule failed with KeyError")


def test_a_record_that_is_too_large_stays_invalid_when_it_is_replayed(make: Make) -> None:
    process = make(0)
    process.world.shelf.put(1, 1, key="K1", text="x" * MESSAGE_BYTES)
    process.run()
    process.world.clock.advance(60)
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 1, "invalid": 1}
    (failure,) = process.failures()
    assert (failure.number, failure.attempts) == (TOO_LARGE, 2)
    assert_books_agree(process)


def test_a_replay_that_ended_in_the_middle_is_over_after_the_next_run(
    failed: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the store falls out while it is committed."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("shared.replay.take_up", lambda *arguments: 1 / 0)
        replay(failed.stream, failed.home, query(), "mended", failed.notice)
    failed.run()
    assert [(run.kind, run.state) for run in failed.runs if not run.over] == []


def test_a_replay_that_ended_in_the_middle_is_given_up_by_the_next_replay_too(
    failed: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("shared.replay.take_up", lambda *arguments: 1 / 0)
        replay(failed.stream, failed.home, query(), "mended", failed.notice)
    failed.world.clock.advance(60)
    run = replay_open(failed)
    assert failed.counts(run.id)["delivered"] == 2
    assert [(run.kind, run.state) for run in failed.runs if not run.over] == []


# Whatever happens.

KEYS = st.integers(1, 4)
ACTIONS = st.one_of(
    st.tuples(st.just("change"), KEYS),
    st.tuples(st.just("spoil"), KEYS),
    st.tuples(st.just("touch"), KEYS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("refuse"), KEYS),
    st.tuples(st.just("accept"), KEYS),
    st.tuples(st.just("lose the answer before"), KEYS),
    st.tuples(st.just("lose the answer after"), KEYS),
    st.tuples(st.just("say nothing"), KEYS),
    st.tuples(st.just("other mapping"), st.integers(0, 1)),
    st.tuples(st.just("run"), st.just(0)),
    st.tuples(st.just("run"), st.just(0)),
    st.tuples(st.just("full run"), st.just(0)),
    st.tuples(st.just("replay"), KEYS),
    st.tuples(st.just("replay all"), st.just(0)),
)


class Story:
    """Carries out actions on a world, and checks the books after each run."""

    def __init__(self, process: Process, key_of: Callable[[int], str]) -> None:
        self.process = process
        self.world = process.world
        self.key_of = key_of
        self.moments = 0

    def act(self, action: str, number: int) -> None:
        sink, target = self.process.sink, self.world.target
        key = self.key_of(number)
        self.world.clock.advance(7)
        if action in ("change", "spoil", "touch", "delete"):
            self.put(action, number)
        elif action == "refuse":
            target.refused.add(key)
        elif action == "accept":
            target.refused.discard(key)
        elif action.startswith("lose"):
            sink.script[key] = [Step.DOUBT_AFTER if action.endswith("after") else Step.DOUBT_BEFORE]
        elif action == "say nothing":
            sink.script[key] = [Step.SILENT_AFTER]
        elif action == "other mapping":
            with_rules(self.process, to_target=_mappings[number])
        elif action in ("run", "full run"):
            self.process.run(Order(full=action == "full run"))
            assert_books_agree(self.process)
        else:
            asked = {"key": key} if action == "replay" else {}
            if self.process.failures(**asked):
                replay_open(self.process, **asked)
            assert_books_agree(self.process)

    def put(self, action: str, number: int) -> None:
        self.moments += 1
        known = self.world.shelf.things.get(number)
        name = known.data["name"] if known is not None and action == "touch" else f"{number}.{self.moments}"
        more: dict[str, Any] = (
            {"operation": "delete"} if action == "delete" else {"bad": True} if action == "spoil" else {}
        )
        seconds = (self.world.clock.now() - START).total_seconds()
        self.world.shelf.put(number, seconds, key=self.key_of(number), name=name, **more)

    def end_well(self) -> None:
        """Everything is mended, read once more and replayed: then both ends hold the same."""
        self.world.target.refused.clear()
        self.process.sink.script.clear()
        with_rules(self.process, to_target=_tolerant)
        self.act("run", 1)
        self.act("replay all", 1)
        assert self.process.failures() == []
        newest: dict[str, Any] = {}
        for thing in sorted(self.world.shelf.things.values(), key=lambda each: each.version):
            newest[thing.data["key"]] = thing
        for key, thing in newest.items():
            wanted = [] if thing.operation == "delete" else [thing.data["name"]]
            held = [content["name"].removeprefix("~") for content in self.world.target.contents_of(key)]
            assert held == wanted, key
            assert self.process.cell(key).version == thing.version
            assert self.process.cell(key).failed == ""


def _tolerant(data: dict[str, Any]) -> dict[str, Any]:
    return {"name": data["name"]}


def _marked(data: dict[str, Any]) -> dict[str, Any]:
    return {"name": "~" + RULES.to_target(data)["name"]}


_mappings = [RULES.to_target, _marked]


def tell(actions: list[tuple[str, int]], key_of: Callable[[int], str], **stream: Any) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(overlap=timedelta(days=9), **stream), bulk=2)
        story = Story(world.process(), key_of)
        try:
            for action, number in actions:
                story.act(action, number)
            story.end_well()
        finally:
            world.close()


@STEADY
@given(actions=st.lists(ACTIONS, max_size=25))
def test_whatever_happens_the_books_agree_and_a_replay_mends_it(actions: list[tuple[str, int]]) -> None:
    tell(actions, lambda number: f"K{number}")


@STEADY
@given(actions=st.lists(ACTIONS, max_size=25), batch_size=st.sampled_from([1, 4]))
def test_whatever_happens_to_objects_that_share_an_identity_the_books_agree(
    actions: list[tuple[str, int]], batch_size: int
) -> None:
    tell(actions, lambda number: f"K{number % 2}", batch_size=batch_size)


def test_an_unknown_outcome_is_a_failure_like_the_others() -> None:
    assert {Outcome.INVALID, Outcome.REJECTED, Outcome.EXHAUSTED, Outcome.UNKNOWN} == FAILED
