"""A plan: what a run would do, and nothing done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AuthError, TransientError
from shared.ledger import Cell
from shared.plan import MOST_SAMPLES, StreamPlan, plan_stream
from tests.unit.fakes import IN_MEMORY, RULES, START, STEADY, Process, World, make_stream, spare_the_disk

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


def plan(process: Process) -> StreamPlan:
    return plan_stream(process.stream, process.home, process.open_source(), process.guarded_sink)


def planned(process: Process) -> dict[str, int]:
    return {name: count for name, count in plan(process).counts.as_dict().items() if count}


def change(process: Process, number: int, **more: Any) -> None:
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, **({"key": f"K{number}", "name": f"changed {number}"} | more))


WRITING = {
    "commit",
    "finish",
    "conclude",
    "take",
    "release",
    "publish",
    "published",
    "begin",
    "settle",
    "write",
    "delete",
}


def test_a_plan_writes_nowhere(make: Make) -> None:
    process = make()
    process.world.shelf.put(6, 6)
    plan(process)
    assert {call.partition(".")[2] for call in process.fuse.calls}.isdisjoint(WRITING)
    assert process.runs == []
    assert process.world.target.effects == []


def test_a_plan_counts_by_outcome(make: Make) -> None:
    process = make(4)
    process.world.shelf.put(5, 5, key="K5", skip=True)
    process.world.shelf.put(6, 6)
    process.world.shelf.put(7, 7, key="K7", bad=True)
    found = plan(process)
    assert planned(process) == {"fetched": 7, "filtered": 1, "invalid": 2, "delivered": 4}
    assert (found.creates, found.updates, found.pages) == (4, 0, 1)
    assert found.counts.balanced


def test_a_plan_after_a_run_sees_what_has_changed_since(make: Make) -> None:
    process = make(4, overlap=timedelta(days=1))
    process.run()
    process.world.clock.advance(60)
    change(process, 1)
    change(process, 9)
    found = plan(process)
    assert planned(process) == {"fetched": 5, "unchanged": 3, "delivered": 2}
    assert (found.creates, found.updates) == (1, 1)
    samples = {sample.key: sample for sample in found.samples}
    assert samples["K1"].fields == {"name": ("name 1", "changed 1")}
    assert (samples["K9"].action, samples["K9"].fields) == ("create", {"name": (None, "changed 9")})


def test_a_plan_shows_a_few_samples_and_counts_all(make: Make) -> None:
    process = make(20)
    found = plan(process)
    assert len(found.samples) == MOST_SAMPLES
    assert found.counts.delivered == 20


def test_a_plan_of_an_object_that_is_there_already_says_what_would_be_updated(make: Make) -> None:
    process = make(1)
    process.world.target.objects["T1"] = ("K1", {"name": "theirs"})
    (sample,) = plan(process).samples
    assert (sample.action, sample.fields) == ("update", {"name": ("theirs", "name 1")})


def test_a_target_that_does_not_answer_is_no_hindrance_to_a_plan(make: Make) -> None:
    process = make(2)
    process.sink.down = TransientError("503")
    assert {sample.action for sample in plan(process).samples} == {"create"}


def test_a_source_that_refuses_ends_the_plan(make: Make) -> None:
    process = make(2)
    process.source.refusal = AuthError("401")
    with pytest.raises(AuthError):
        plan(process)


def test_an_empty_window_is_an_empty_plan(make: Make) -> None:
    process = make(2)
    process.run()
    process.source.skew = -timedelta(days=9)
    assert planned(process) == {}


@STEADY
@given(
    first=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["", "skip", "bad"])), max_size=8),
    second=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["", "skip", "bad"])), max_size=8),
)
def test_a_plan_says_what_the_run_then_does(first: list[tuple[int, str]], second: list[tuple[int, str]]) -> None:
    """For objects with an identity of their own, while nothing fails at the target."""
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(overlap=timedelta(days=1)))
        process = world.process()
        for changes in (first, second):
            for number, flaw in changes:
                world.clock.advance(1)
                change(process, number, **({flaw: True} if flaw else {}))
            world.clock.advance(60)
            expected = planned(process)
            run = process.run()[-1]
            assert process.counts(run.id) == expected
        world.close()


def test_what_was_added_to_the_target_is_not_planned_again(make: Make) -> None:
    process = make(3, rules=msgspec.structs.replace(RULES, appends=True), overlap=timedelta(hours=2))
    process.fetch()
    process.pump()
    process.world.shelf.things[2] = replace(
        process.world.shelf.things[2], data={"key": "K2", "name": "under the same version"}
    )
    assert planned(process) == {"fetched": 3, "unchanged": 3}


def test_what_another_stream_of_the_place_has_undone_is_planned_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make(2, others=("leavers",), overlap=timedelta(hours=2))
    process.fetch()
    process.pump()
    later = process.world.clock.now() + timedelta(seconds=1)
    ours = process.embedded.ports.ledger.cells
    theirs = {"K1": Cell("K1", "0", deleted=True, at=later)}
    monkeypatch.setattr(
        process.embedded.ports.ledger,
        "cells",
        lambda integration, stream, keys: theirs if stream == "leavers" else ours(integration, stream, keys),
    )
    assert planned(process) == {"fetched": 2, "delivered": 1, "unchanged": 1}
