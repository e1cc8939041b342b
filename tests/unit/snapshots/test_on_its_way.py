"""What is on its way when a snapshot is taken: read again after an import, or of unknown fate, and never sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shared.group
from shared.books import FailureQuery, Run
from shared.outcome import Outcome, Passing
from shared.replay import replay
from shared.snapshot.history import Head
from shared.snapshot.on_its_way import OnItsWay
from tests.unit.fakes import RULES, START, Crash, Fuse, Order, Process, World, make_stream, spare_the_disk
from tests.unit.installations import Installation


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)
    installation = Installation(tmp_path / "source")
    yield installation
    installation.close()


@pytest.fixture
def here(source: Installation, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path / "here", source.clock)
    yield installation
    installation.close()


def imported(source: Installation, here: Installation, of: World) -> Process:
    """A process on what was imported, which reads and writes what the source does."""
    here.restore(source.archive("full"))
    world = here.world(shelf=of.shelf, target=of.target)
    world.askable = of.askable
    return world.process()


def check_books(process: Process) -> None:
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    for run in process.runs:
        counts = process.embedded.ports.books.counts(run.id)
        assert (counts.balanced, counts.pending) == (True, 0), run.id
        assert run.over


def check_each_once(process: Process, keys: range) -> None:
    arrivals = process.world.target.arrivals()
    assert set(arrivals.values()) == {1}
    assert {key for key, _ in arrivals} == {f"K{number}" for number in keys}


def test_what_was_committed_and_not_delivered_is_read_again(source: Installation, here: Installation) -> None:
    world = source.world()
    world.shelf.fill(30)
    world.process().fetch()
    report = source.export("full")
    assert any("30 records wait" in note for note in report["notes"])
    assert report["counts"]["batches"] == 0
    process = imported(source, here, world)
    check_books(process)
    assert process.state.cursor == START
    process.run()
    check_books(process)
    check_each_once(process, range(1, 31))


def test_a_run_that_crashed_while_it_read_is_over_and_its_window_is_read_again(
    source: Installation, here: Installation
) -> None:
    world = source.world()
    world.shelf.fill(40)
    world.page_size = 5
    crashing = world.process(Fuse(20))
    with pytest.raises(Crash):
        crashing.run()
    crashing.die()
    (run,) = source.world().process().runs
    assert run.resumable
    source.export("full")
    process = imported(source, here, world)
    (run,) = process.runs
    assert (run.state, run.over, run.resumable) == ("failed", True, False)
    check_books(process)
    process.run()
    check_books(process)
    assert {key for key, _ in world.target.arrivals()} == {f"K{number}" for number in range(1, 41)}


def crash_while_sending(world: World) -> list[str]:
    """Ends a process after the target took a portion, before anybody recorded that; gives the keys."""
    process = world.process()

    def end() -> None:
        process.fuse.blown = True

    process.sink.meanwhile = end
    with pytest.raises(Crash):
        process.run()
    process.die()
    return process.sink.sent


@pytest.mark.parametrize("askable", [True, False])
def test_what_may_have_been_sent_is_unknown_and_not_sent_again(
    source: Installation, here: Installation, askable: bool
) -> None:
    world = source.world()
    world.askable = askable
    world.shelf.fill(30)
    sent = crash_while_sending(world)
    assert sent
    report = source.export("full")
    assert report["counts"]["failures"] >= len(sent)
    process = imported(source, here, world)
    check_books(process)
    unknown = {failure.key: failure for failure in process.failures(outcome="unknown")}
    assert set(sent) <= set(unknown)
    assert {process.cell(key).failed for key in unknown} == {failure.version for failure in unknown.values()}
    assert {failure.origin for failure in unknown.values()} == {key.removeprefix("K") for key in unknown}
    process.run(Order(full=True))
    check_books(process)
    assert set(world.target.arrivals().values()) == {1}
    assert {failure.key for failure in process.failures()} == set(unknown)
    replay(process.stream, process.home, FailureQuery("shop", "things"), "looked at the target", process.notice)


def test_data_in_doubt_comes_from_the_archive_where_it_was_asked_for(source: Installation, here: Installation) -> None:
    world = source.world()
    world.shelf.fill(30)
    sent = crash_while_sending(world)
    source.export("full", with_data=True)
    process = imported(source, here, world)
    found = {failure.key: failure.data for failure in process.failures(outcome="unknown")}
    assert found[sent[0]] == {"key": sent[0], "name": f"name {sent[0].removeprefix('K')}"}


def test_a_replay_in_doubt_makes_the_failure_unknown_where_it_was_fetched(
    source: Installation, here: Installation
) -> None:
    world = source.world()
    world.target.refused = {"K3", "K4"}
    world.shelf.fill(9)
    world.process().run()
    source.export("before")
    source.clock.advance(60)
    world.target.refused = set()
    process = world.process()
    process.sink.meanwhile = lambda: setattr(process.fuse, "blown", True)
    with pytest.raises(Crash):
        replay(process.stream, process.home, FailureQuery("shop", "things"), "again", process.notice)
        process.settle()
    process.die()
    report = source.export("full", "INCREMENTAL")
    assert report["povs"]["exported"] == 1
    here.restore(source.archive("before"))
    process = imported(source, here, world)
    check_books(process)
    failures = {failure.key: failure for failure in process.failures()}
    assert {failure.outcome for failure in failures.values()} == {Outcome.UNKNOWN}
    present = process.present()
    assert {present[key, failure.version] for key, failure in failures.items()} == {Outcome.UNKNOWN}
    origin = next(run for run in process.runs if run.kind == "fetch")
    assert {failure.run for failure in failures.values()} == {origin.id}
    process.run(Order(full=True))
    assert set(world.target.arrivals().values()) == {1}


def leave_half_of_a_batch(world: World) -> None:
    """Fetches, and delivers all but one record of the first batch: the target is busy."""
    process = world.process()
    process.fetch()
    envelope = process.envelopes()[0]
    assert len(envelope.records) == 4
    process.sink.always = {envelope.records[1].key: Passing("busy", 24)}
    process.deliver(envelope)
    process.close()


def test_a_batch_that_is_half_done_is_carried_by_half(source: Installation, here: Installation) -> None:
    world = source.world()
    world.shelf.fill(8)
    world.stream = make_stream(lanes=1)
    leave_half_of_a_batch(world)
    counts = source.export("full")["counts"]
    assert (counts["batches"], counts["cells"]) == (1, 3)
    process = imported(source, here, world)
    check_books(process)
    process.run()
    check_books(process)
    check_each_once(process, range(1, 9))


def test_the_places_of_failures_follow_their_records(source: Installation, here: Installation) -> None:
    """Of a batch some records wait, so that those behind them move up."""
    world = source.world()
    world.stream = make_stream(lanes=1, batch_size=6)
    world.target.refused = {"K5"}
    world.shelf.fill(6)
    process = world.process()
    process.fetch()
    (envelope,) = process.envelopes()
    process.sink.always = {"K2": Passing("busy", 24), "K3": Passing("busy", 24)}
    process.deliver(envelope)
    (batch,) = process.batches()
    assert batch.outcomes.count(".") == 2
    process.close()
    source.export("full", with_data=True)
    process = imported(source, here, world)
    check_books(process)
    (failure,) = process.failures()
    (batch,) = process.batches()
    assert (batch.keys[failure.place], batch.outcomes[failure.place]) == ("K5", "r")
    assert len(batch.keys) == 4
    world.target.refused = set()
    world.clock.advance(60)
    process.run(Order(full=True))
    replay(process.stream, process.home, FailureQuery("shop", "things"), "mended", process.notice)
    process.settle()
    check_books(process)
    assert process.audit().counts.delivered == 6


def test_ages_count_from_where_they_did_for_what_is_read_again(source: Installation, here: Installation) -> None:
    """A rule about age keeps nothing back of what it had let pass, and lets nothing pass that it had kept back."""

    def dated(come_to: Any) -> Any:
        return [("too_old", lambda data: data["made"] < (come_to - timedelta(minutes=10)).timestamp())]

    rules = msgspec.structs.replace(RULES, dated_filters=dated)
    world = source.world()
    world.stream = make_stream(rules=rules)

    def put(number: int, minutes_old: float) -> None:
        now = source.clock.now()
        made = (now - timedelta(minutes=minutes_old)).timestamp()
        world.shelf.put(number, (now - START).total_seconds() - 0.5, key=f"K{number}", made=made)

    put(1, 5)
    put(2, 15)
    world.process().run()
    source.clock.advance(3600)
    put(3, 65)
    put(4, 75)
    put(5, 1)
    world.process().fetch()
    source.export("full")
    here.restore(source.archive("full"))
    source.clock.advance(3600)
    after = here.world(shelf=world.shelf, target=world.target)
    after.stream = world.stream
    process = after.process()
    process.run()
    check_books(process)
    assert {key for key, _ in world.target.arrivals()} == {"K1", "K3", "K5"}


class ForgetsDoubts(OnItsWay):
    """Takes what may have been sent for waiting."""

    def _look_at(self, batch: Any, blobs: Any) -> None:
        batch.state, batch.outcomes = "open", batch.outcomes.replace("?", ".")
        super()._look_at(batch, blobs)


class LeavesTheCursor(OnItsWay):
    def state(self, state: Any, runs: Any, hold_back: Any) -> Any:
        return state


class KeepsTheCount(OnItsWay):
    def run(self, run: Run) -> Run:
        found = super().run(run)
        return found if found is run else _with(found, fetched=run.fetched)


class DropsDone(OnItsWay):
    """Leaves out the whole of a batch that is not settled."""

    def head(self, head: Head) -> Head | None:
        return None if head.id in self._kept else super().head(head)


def _with(run: Run, **fields: Any) -> Run:
    for name, value in fields.items():
        setattr(run, name, value)
    return run


@pytest.mark.parametrize("twin", [ForgetsDoubts, LeavesTheCursor, KeepsTheCount, DropsDone])
def test_a_snapshot_that_is_wrong_about_it_is_noticed(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch, twin: type[OnItsWay]
) -> None:
    monkeypatch.setattr("infra.snapshots.povs.OnItsWay", twin)
    world = source.world()
    world.askable = False
    world.shelf.fill(30)
    world.stream = make_stream(lanes=1)
    leave_half_of_a_batch(world)
    world.clock.advance(60)
    crash_while_sending(world)
    source.export("full")
    with pytest.raises(AssertionError):
        process = imported(source, here, world)
        check_books(process)
        process.run()
        check_books(process)
        assert set(world.target.arrivals().values()) == {1}
        arrived = {key for key, _ in world.target.arrivals()} | {failure.key for failure in process.failures()}
        assert arrived == {f"K{number}" for number in range(1, 31)}
