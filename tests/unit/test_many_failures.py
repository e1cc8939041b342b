"""More unusable rows than one commit has room for: several commits, and the books as after one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import shared.group
from shared.errors import BAD_IDENTITY
from shared.outcome import Outcome
from tests.unit.fakes import IN_MEMORY, Crash, Fuse, Process, Shelf, World, make_stream, spare_the_disk

ROOM = 5
"""Failures in a commit."""
NAMELESS = range(1, 24)
NAMED = range(24, 31)


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "COMMIT_BYTES", ROOM * shared.group.FAILURE_BYTES)
    monkeypatch.setattr(shared.group, "HEAVIEST", (ROOM + 1) * shared.group.FAILURE_BYTES)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Some hundred homes are made in here."""
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


def a_world(folder: Path) -> World:
    """All of it on one page."""
    shelf = Shelf()
    for number in NAMELESS:
        shelf.put(number, number)
    for number in NAMED:
        shelf.put(number, number, key=f"K{number}")
    return World(folder, make_stream(overlap=timedelta(0)), shelf, page_size=100)


def check(process: Process) -> None:
    """Each row has its outcome, those that can travel travelled once, and the books balance."""
    wanted = {f"shelf:{n}": Outcome.INVALID for n in NAMELESS} | {f"K{n}": Outcome.DELIVERED for n in NAMED}
    assert {key: outcome for (key, _), outcome in process.present().items()} == wanted
    assert {failure.key for failure in process.failures()} == {f"shelf:{n}" for n in NAMELESS}
    assert all(process.world.target.creations_of(f"K{n}") == 1 for n in NAMED)
    assert all(process.embedded.ports.books.counts(run.id).balanced for run in process.runs)
    audit = process.audit()
    assert audit.balanced, audit.unaccounted


def test_a_page_of_failures_is_committed_in_parts(tmp_path: Path) -> None:
    process = a_world(tmp_path).process()
    run = process.run()[-1]
    check(process)
    assert process.counts(run.id) == {"fetched": 30, "invalid": 23, "delivered": 7}
    ended = [len(batch.outcomes) for batch in process.batches() if batch.lane is None]
    assert sum(ended) == 23 and max(ended) <= ROOM + 1 and len(ended) > 3
    process.world.close()


def test_a_crash_between_the_parts_leaves_no_row_out_and_none_twice(tmp_path: Path) -> None:
    whole = a_world(tmp_path / "whole")
    process = whole.process()
    process.run()
    calls = len(process.fuse.calls)
    whole.close()
    read_again = 0
    for at in range(1, calls + 1):
        world = a_world(tmp_path / str(at))
        crashed = world.process(Fuse(at))
        with pytest.raises(Crash):
            crashed.run()
        crashed.die()
        world.clock.advance(300)
        process = world.process()
        process.run()
        check(process)
        read_again += process.outcomes().get("duplicate", 0)
        world.close()
    assert read_again, "no crash came between two parts"


def test_objects_of_one_identity_are_set_aside_in_parts_too(tmp_path: Path) -> None:
    world = World(tmp_path, make_stream(on_conflict="invalid"), Shelf(), page_size=100)
    for number in NAMELESS:
        world.shelf.put(number, number, key="K1")
    process = world.process()
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 23, "invalid": 23}
    assert {failure.number for failure in process.failures()} == {BAD_IDENTITY}
    assert max(len(batch.outcomes) for batch in process.batches()) <= ROOM + 1
    world.close()
