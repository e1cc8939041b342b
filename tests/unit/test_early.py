"""What a target takes only some hours later holds up nothing, and goes again by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.books import FailureQuery
from shared.deliver import Settled
from shared.errors import IN_DOUBT, MALFORMED, TOO_EARLY, UNAVAILABLE
from shared.group import Group
from shared.outcome import Outcome, Passing, Verdict
from shared.ports import lease_name
from shared.replay import replay
from shared.sweep import EARLY_AGAIN, sweep
from tests.unit.fakes import RULES, Crash, Fuse, Process, Step, World, make_stream, spare_the_disk

Make = Callable[..., Process]

EARLY = Passing("the click is not known yet", TOO_EARLY, 6 * 3_600.0, 200)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    spare_the_disk(monkeypatch)
    worlds: list[World] = []

    def made(count: int = 4, **stream: Any) -> Process:
        world = World(tmp_path / str(len(worlds)), make_stream(lanes=1, **stream), askable=False)
        world.shelf.fill(count)
        worlds.append(world)
        return world.process()

    yield made
    for world in worlds:
        world.close()


def early_again(process: Process) -> int:
    return sweep([process.stream], process.home, process.notice, may_send=lambda stream: True).early


def open_numbers(process: Process) -> list[int]:
    return [failure.number for failure in process.home.failures.find(FailureQuery("shop", "things"))]


def test_it_holds_up_neither_its_batch_nor_its_lane(make: Make) -> None:
    process = make()
    process.sink.always = {"K2": EARLY}
    process.fetch()
    process.pump()
    assert process.world.clock.slept == []
    assert sorted(process.sink.sent) == ["K1", "K2", "K3", "K4"]
    (failure,) = process.home.failures.find(FailureQuery("shop", "things"))
    assert (failure.outcome, failure.number, failure.http_status) == (Outcome.EXHAUSTED, TOO_EARLY, 200)
    assert process.audit().balanced


def test_the_sweeper_sends_it_again_each_hour_until_it_passes(make: Make) -> None:
    process = make()
    process.sink.script = {"K2": [EARLY, EARLY, Step.OK]}
    process.fetch()
    process.pump()
    tries = []
    for _ in range(4):
        process.world.clock.advance(EARLY_AGAIN.total_seconds())
        assert early_again(process) == 0
        process.world.clock.advance(1)
        tries.append(early_again(process))
        process.pump()
    assert tries == [1, 1, 0, 0]
    assert process.sink.sent.count("K2") == 3
    assert open_numbers(process) == []
    assert len(process.world.target.ids_of("K2")) == 1
    assert process.audit().counts.delivered == 4


def test_it_waits_while_a_run_holds_the_stream(make: Make) -> None:
    process = make()
    process.sink.script = {"K2": [EARLY]}
    process.fetch()
    process.pump()
    process.world.clock.advance(EARLY_AGAIN.total_seconds() + 1)
    lease = process.home.leases.take(lease_name("shop", "things"))
    assert early_again(process) == 0
    process.home.leases.release(lease)
    assert early_again(process) == 1


def test_while_it_is_on_its_way_again_nobody_sends_it_a_third_time(make: Make) -> None:
    process = make()
    process.sink.script = {"K2": [EARLY, Step.DOUBT_AFTER]}
    process.fetch()
    process.pump()
    process.world.clock.advance(EARLY_AGAIN.total_seconds() + 1)
    assert [early_again(process) for _ in range(3)] == [1, 0, 0]
    process.pump()
    assert open_numbers(process) == [IN_DOUBT]
    process.world.clock.advance(EARLY_AGAIN.total_seconds() + 1)
    assert early_again(process) == 0
    assert len(process.world.target.ids_of("K2")) == 1


def test_of_two_replays_the_second_leaves_alone_what_became_unknown_by_the_first(make: Make) -> None:
    """A human wanted a record sent that had certainly not arrived."""
    process = make()
    process.sink.script = {"K2": [EARLY, Step.DOUBT_AFTER]}
    process.fetch()
    process.pump()
    process.world.clock.advance(60)
    for _ in range(2):
        replay(process.stream, process.home, FailureQuery("shop", "things"), "by hand", process.notice)
    process.world.clock.advance(60)
    process.pump()
    assert open_numbers(process) == [IN_DOUBT]
    assert len(process.world.target.ids_of("K2")) == 1
    assert process.audit().balanced


def test_nor_if_it_was_taken_up_before_and_committed_after(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    process = make()
    process.sink.script = {"K2": [EARLY, Step.DOUBT_AFTER]}
    process.fetch()
    process.pump()
    process.world.clock.advance(60)
    query = FailureQuery("shop", "things")
    replay(process.stream, process.home, query, "by hand", process.notice)
    commit = Group.commit

    def late(group: Group) -> None:
        monkeypatch.setattr(Group, "commit", commit)
        process.world.clock.advance(60)
        process.pump()
        process.world.clock.advance(60)
        commit(group)

    monkeypatch.setattr(Group, "commit", late)
    replay(process.stream, process.home, query, "by another hand", process.notice)
    process.pump()
    assert open_numbers(process) == [IN_DOUBT]
    assert len(process.world.target.ids_of("K2")) == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_anywhere_in_the_sweep_loses_none_and_sends_none_twice(make: Make, after: bool) -> None:
    at = crashed = 0
    while True:
        at += 1
        first = make()
        first.sink.script = {"K2": [EARLY], "K3": [EARLY]}
        first.fetch()
        first.pump()
        world = first.world
        world.clock.advance(EARLY_AGAIN.total_seconds() + 1)
        first.close()
        process = world.process(Fuse(at, after=after))
        try:
            early_again(process)
        except Crash:
            crashed += 1
        else:
            break
        process.die()
        last = world.process()
        early_again(last)
        last.pump()
        assert open_numbers(last) == []
        assert {key: len(world.target.ids_of(key)) for key in ("K1", "K2", "K3", "K4")} == dict.fromkeys(
            ("K1", "K2", "K3", "K4"), 1
        )
        audit = last.audit()
        assert audit.balanced and audit.counts.delivered == 4
        last.close()
    assert crashed > 8


def test_a_stream_that_is_off_or_paused_sends_nothing_by_itself(make: Make) -> None:
    process = make()
    process.sink.script = {"K2": [EARLY]}
    process.fetch()
    process.pump()
    process.world.clock.advance(EARLY_AGAIN.total_seconds() + 1)
    assert sweep([process.stream], process.home, process.notice, may_send=lambda stream: False).early == 0


def test_other_failures_are_left_to_a_human(make: Make) -> None:
    process = make(max_attempts=1)
    process.sink.always = {"K2": Passing("busy", UNAVAILABLE)}
    process.fetch()
    process.pump()
    assert open_numbers(process) == [UNAVAILABLE]
    process.world.clock.advance(10 * EARLY_AGAIN.total_seconds())
    assert early_again(process) == 0


def test_a_record_that_was_invalid_before_anybody_was_asked_is_no_sign_of_life(make: Make) -> None:
    """Otherwise an outage would use up the tries of the records beside it."""
    process = make(max_attempts=2)
    process.sink.always = {
        "K1": Verdict(Outcome.INVALID, MALFORMED, "no instant", "at"),
        **dict.fromkeys(("K2", "K3", "K4"), Passing("down", UNAVAILABLE)),
    }
    process.fetch()
    (envelope,) = process.envelopes()
    for _ in range(5):
        done = process.deliver(envelope)
        assert not isinstance(done, Settled) and done.outage
    assert open_numbers(process) in ([], [MALFORMED])


def test_rows_that_ask_for_a_removal_carry_what_the_target_needs_for_it(make: Make) -> None:
    process = make(rules=msgspec.structs.replace(RULES, deletes=True))
    process.world.shelf.put(9, 1, key="K9", bad=True)
    process.fetch()
    process.pump()
    changes = [change for call in process.sink.written for change in call]
    assert {(change.operation, change.content["name"]) for change in changes} == {
        ("delete", f"name {number}") for number in (1, 2, 3, 4)
    }
    assert process.audit().counts.as_dict() | {"fetched": 0} == {
        **dict.fromkeys(process.audit().counts.as_dict(), 0), "delivered": 4, "invalid": 1,
    }  # fmt: skip
    process.world.shelf.put(1, 2000, key="K1")
    process.world.clock.advance(3600)
    process.fetch()
    process.pump()
    assert process.sink.sent.count("K1") == 1
