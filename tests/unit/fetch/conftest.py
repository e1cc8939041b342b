"""Fetches of one stream: a process before a shelf of some objects, and what it read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.group import Group
from tests.unit.fakes import (
    START,
    FakeClock,
    Process,
    World,
    make_stream,
    spare_the_disk,
)

Make = Callable[..., Process]

NOW = START + timedelta(hours=1)
FRACTION = timedelta(milliseconds=700)
YEAR = timedelta(days=365)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A process that did nothing yet, before a shelf of some objects."""
    worlds: list[World] = []

    def made(count: int = 5, page_size: int = 10, now: datetime = NOW, **stream: Any) -> Process:
        folder = tmp_path / str(len(worlds))
        worlds.append(World(folder, make_stream(**stream), page_size=page_size, clock=FakeClock(now)))
        worlds[-1].shelf.fill(count)
        return worlds[-1].process()

    yield made
    for world in worlds:
        world.close()


def a_group_per_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "is_full", lambda self: True)


def change(process: Process, number: int, key: str | None = "", **more: Any) -> None:
    """The object is changed at the source at this moment."""
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, key=f"K{number}" if key == "" else key, **more)


def read_keys(process: Process) -> list[str]:
    """The keys of everything that travels, in the order of their batches."""
    return [key for batch in process.batches() if batch.lane is not None for key in batch.keys]


def assert_books_balance(process: Process) -> None:
    assert all(process.embedded.ports.books.counts(run.id).balanced for run in process.runs)
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
