"""Deliveries of one batch: a process whose fetched records wait, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    UNAVAILABLE,
)
from shared.outcome import Outcome, Passing
from tests.unit.fakes import START, Process, World, make_stream, spare_the_disk

Make = Callable[..., Process]

BUSY = Passing("it is busy", UNAVAILABLE, http_status=503)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A process whose fetched records wait in one batch. With none at the source nothing was fetched yet."""
    spare_the_disk(monkeypatch)
    worlds: list[World] = []

    def made(count: int = 5, bulk: int = 5, askable: bool = True, **stream: Any) -> Process:
        settings = {"lanes": 1, "batch_size": 100} | stream
        worlds.append(World(tmp_path / str(len(worlds)), make_stream(**settings), bulk=bulk, askable=askable))
        process = worlds[-1].process()
        process.world.shelf.fill(count)
        if count:
            process.fetch()
        return process

    yield made
    for world in worlds:
        world.close()


def carry_out(process: Process, must_stop: Callable[[], bool] = lambda: False) -> Any:
    """One delivery of the first batch that waits."""
    return process.deliver(process.envelopes()[0], must_stop)


def read_more(process: Process) -> None:
    """The next run, whose window begins where the last one's ended."""
    process.world.clock.advance(60)
    process.fetch()


def change(process: Process, number: int, key: str | None = None, name: str | None = None, **more: Any) -> None:
    """The object is changed at the source at this moment."""
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, key=key or f"K{number}", name=name or f"changed {number}", **more)


def outcome_of(process: Process, key: str) -> Outcome:
    """Of the newest version of a key."""
    version = max(version for other, version in process.present() if other == key)
    return process.present()[key, version]


def only_failure(process: Process) -> Any:
    (failure,) = process.failures()
    return failure


def letters(process: Process) -> str:
    return process.batches()[-1].outcomes


def assert_balanced(process: Process) -> None:
    for run in process.runs:
        assert process.embedded.ports.books.counts(run.id).balanced
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    open_failures = {(f.key, f.version): f.outcome for f in process.failures()}
    failed = ("invalid", "rejected", "exhausted", "unknown")
    assert open_failures == {i: o for i, o in process.present().items() if o in failed}
