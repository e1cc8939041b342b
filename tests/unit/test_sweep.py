"""The sweeper: what got lost on its way is brought back, what is over is called over, and people hear of it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.books import FailureQuery
from shared.bury import bury
from shared.cleanup import clean_up
from shared.errors import KILLED_ITS_SINK, REFUSED, AuthError, Leased
from shared.outcome import Outcome, rejected
from shared.replay import replay
from shared.sweep import REPUBLISH_AFTER, AlertChange, Swept, conclude_runs, find_lost, sweep
from tests.unit.fakes import Process, Step, World, make_stream, spare_the_disk

Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    spare_the_disk(monkeypatch)
    worlds: list[World] = []

    def made(count: int = 5, askable: bool = True, **stream: Any) -> Process:
        world = World(tmp_path / str(len(worlds)), make_stream(lanes=1, **stream), askable=askable)
        world.shelf.fill(count)
        worlds.append(world)
        return world.process()

    yield made
    for world in worlds:
        world.close()


def swept(process: Process) -> Swept:
    def tell(change: AlertChange) -> None:
        process.notice("alert_raised" if change.raised else "alert_cleared", alert=change.name)

    return sweep([process.stream], process.home, process.notice, tell=tell)


def lose_messages(process: Process) -> None:
    """As a loss of power may take them from the transport, which is not synced."""
    process.embedded.transport.write(lambda connection: connection.execute("DELETE FROM messages"))


def test_a_backlog_of_any_length_is_looked_through_a_few_batches_at_a_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.sweep.LOOKED_AT", 2)
    process = make(17)
    process.fetch()
    lose_messages(process)
    asked: list[int] = []
    carries = process.embedded.bus.carries

    def counted(topic: str, batches: Sequence[str]) -> set[str] | None:
        asked.append(len(batches))
        return carries(topic, batches)

    monkeypatch.setattr(process.embedded.bus, "carries", counted)
    lost = find_lost(process.stream, process.home)
    assert [batch.id for batch in lost] == [batch.id for batch in process.batches()]
    assert len(lost) == 5 and asked == [2, 2, 1]


def test_what_no_message_carries_is_published_again(make: Make) -> None:
    process = make()
    process.fetch()
    lose_messages(process)
    assert len(find_lost(process.stream, process.home)) == 2
    assert swept(process).republished == 2
    assert swept(process).republished == 0
    process.pump()
    assert sorted(process.sink.sent) == ["K1", "K2", "K3", "K4", "K5"]
    assert process.world.actions("republished") == [{"batches": 2}]


def test_what_is_settled_or_on_its_way_is_left_alone(make: Make) -> None:
    process = make()
    process.fetch()
    assert find_lost(process.stream, process.home) == []
    process.pump()
    assert find_lost(process.stream, process.home) == []


def test_where_a_bus_cannot_say_a_batch_is_brought_back_after_an_hour_of_silence(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make()
    process.fetch()
    monkeypatch.setattr(process.embedded.bus, "carries", lambda topic, batches: None)
    process.world.clock.advance(REPUBLISH_AFTER.total_seconds())
    assert find_lost(process.stream, process.home) == []
    process.world.clock.advance(1)
    assert swept(process).republished == 2
    assert find_lost(process.stream, process.home) == []


def test_a_batch_that_was_tried_a_moment_ago_is_not_silent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    process = make()
    process.fetch()
    monkeypatch.setattr(process.embedded.bus, "carries", lambda topic, batches: None)
    process.world.clock.advance(REPUBLISH_AFTER.total_seconds() + 1)
    process.sink.down = AuthError("401")
    with pytest.raises(AuthError):
        process.deliver(process.envelopes()[0])
    assert len(find_lost(process.stream, process.home)) == 1


def test_a_run_is_over_once_nothing_of_it_is_pending(make: Make) -> None:
    process = make()
    process.fetch()
    assert conclude_runs(process.stream, process.home) == []
    process.pump()
    (run,) = conclude_runs(process.stream, process.home)
    assert (run.state, run.finished_at) == ("settled", process.world.clock.now())
    assert conclude_runs(process.stream, process.home) == []


def test_a_run_that_was_given_up_is_over_as_failed(make: Make) -> None:
    process = make()
    process.source.refusal = AuthError("401")
    process.fetch()
    (run,) = conclude_runs(process.stream, process.home)
    assert (run.state, run.error_class, run.over) == ("failed", "AuthError", True)


def test_a_run_that_can_be_resumed_is_not_over(make: Make) -> None:
    process = make()
    process.fetch(stopping=lambda: True)
    process.pump()
    assert conclude_runs(process.stream, process.home) == []


def test_a_stream_that_keeps_failing_is_told_of_once_and_its_end_once(make: Make) -> None:
    process = make()
    process.source.refusal = AuthError("401")
    changes = []
    for _ in range(5):
        process.fetch()
        changes.append(swept(process).alerts)
    assert changes == [0, 0, 1, 0, 0]
    assert process.world.actions("alert_raised") == [{"alert": "shop.things.failing"}]
    assert "in a row" in process.embedded.ports.alerts.raised()["shop.things.failing"]
    process.source.refusal = None
    process.fetch()
    assert swept(process).alerts == 1
    assert process.world.actions("alert_cleared") == [{"alert": "shop.things.failing"}]
    assert process.embedded.ports.alerts.raised() == {}


def test_records_of_unknown_fate_are_told_of_until_they_are_replayed(make: Make) -> None:
    process = make()
    process.sink.script = {"K1": [Step.SILENT_BEFORE]}
    process.run()
    assert swept(process).alerts == 1
    assert process.embedded.ports.alerts.raised() == {"shop.things.unknown": "1 records of unknown fate"}
    process.world.clock.advance(60)
    replay(process.stream, process.home, FailureQuery("shop", "things"), "looked", process.notice)
    process.settle()
    assert swept(process).alerts == 1
    assert process.embedded.ports.alerts.raised() == {}


# Dead letters.


def test_a_batch_that_killed_its_sink_becomes_failures_that_can_be_replayed(make: Make) -> None:
    process = make(3)
    process.fetch()
    envelope = process.envelopes()[0]
    assert bury(envelope, process.home) == 3
    assert bury(envelope, process.home) == 0
    assert {(f.outcome, f.number) for f in process.failures()} == {(Outcome.EXHAUSTED, KILLED_ITS_SINK)}
    process.settle()
    audit = process.audit()
    assert audit.balanced
    assert audit.counts.exhausted == 3
    process.world.clock.advance(60)
    replay(process.stream, process.home, FailureQuery("shop", "things"), "mended", process.notice)
    process.settle()
    assert process.failures() == []
    assert sorted(process.sink.sent) == ["K1", "K2", "K3"]


def test_what_was_settled_of_a_buried_batch_stays_as_it_was(make: Make) -> None:
    process = make(3)
    process.sink.script = {"K2": [rejected(REFUSED, "no")]}
    process.sink.always = {"K3": Step.DOUBT_BEFORE}
    process.sink.finds = [AuthError("401")]
    process.fetch()
    envelope = process.envelopes()[0]
    with pytest.raises(AuthError):
        process.deliver(envelope)
    assert bury(envelope, process.home) == 1
    assert process.batches()[0].outcomes == "drk"
    assert process.audit().balanced


def test_a_batch_that_ended_its_sink_is_buried_as_exhausted_and_a_replay_asks_before_it_sends(make: Make) -> None:
    """Each record may have arrived before the sink ended: the replay that a human orders asks the target first."""
    process = make(3)
    process.fetch()
    envelope = process.envelopes()[0]

    def killed() -> None:
        raise KeyboardInterrupt

    process.sink.meanwhile = killed
    with pytest.raises(KeyboardInterrupt):
        process.deliver(envelope)
    process.sink.meanwhile = None
    assert bury(envelope, process.home) == len(envelope.records)
    assert {failure.outcome for failure in process.failures()} == {Outcome.EXHAUSTED}


def test_a_batch_in_the_hands_of_a_live_attempt_is_not_buried(make: Make) -> None:
    process = make(3)
    process.fetch()
    envelope = process.envelopes()[0]
    process.home.batches.begin(envelope.batch, "alive")
    with pytest.raises(Leased):
        bury(envelope, process.home)


def test_a_message_with_other_records_than_its_batch_buries_nothing(make: Make) -> None:
    process = make(3)
    process.fetch()
    envelope = process.envelopes()[0]
    assert bury(msgspec.structs.replace(envelope, records=[]), process.home) == 0
    process.pump()
    assert process.batches()[0].outcomes == "ddd"


# Clean-up.


def test_clean_up_removes_no_archive_that_is_still_needed(make: Make) -> None:
    process = make(3)
    process.run()
    process.world.clock.advance(60)
    process.world.shelf.put(9, 3650, key="K9")
    process.fetch()
    process.world.clock.advance(timedelta(days=40).total_seconds())
    lose_messages(process)
    day = timedelta(days=1)
    cleaned = clean_up(process.home, "shop", -timedelta(days=100_000), day)
    assert cleaned.archives == 1
    process.settle()
    assert process.world.target.creations_of("K9") == 1


def test_clean_up_removes_closed_failures_by_age_and_never_open_ones(make: Make) -> None:
    process = make(3)
    process.sink.script = {"K1": [rejected(REFUSED, "no")], "K2": [rejected(REFUSED, "no")]}
    process.run()
    process.world.clock.advance(60)
    replay(process.stream, process.home, FailureQuery("shop", "things", key="K1"), "mended", process.notice)
    process.settle()
    day = timedelta(days=1)
    assert clean_up(process.home, "shop", day, day).closed_failures == 0
    process.world.clock.advance(day.total_seconds() + 1)
    assert clean_up(process.home, "shop", day, day).closed_failures == 1
    assert [failure.key for failure in process.failures(include_closed=True)] == ["K2"]
    assert process.audit().balanced
