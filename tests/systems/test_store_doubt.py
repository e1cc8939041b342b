"""Deletions by value, ended at every call and begun again: whoever was deleted is never called somebody whom nobody
knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from infra.local.objects import LocalObjects
from infra.systems import Connection
from infra.systems.store import Store, open_sink
from shared.books import FailureQuery
from shared.errors import NO_SUCH_CUSTOMER, StoreUnavailable
from shared.outcome import Outcome
from shared.replay import replay
from shared.retry import RetryPolicy
from shared.rules import Rules
from tests.unit.fakes import IN_MEMORY, START, Crash, Fuse, Guarded, Process, World, make_stream, spare_the_disk

THERE = [f"c{number}@example.com" for number in range(6)]
NOBODY = "typo@example.com"
STAYS = "stays@example.com"
TWICE = "twice@example.com"
RULES = Rules(
    "things", "customers", lambda row: str(row["key"]), lambda row: {"email": row["key"]}, deletes=True, verifies=True
)


@pytest.fixture
def tmp_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    spare_the_disk(monkeypatch)
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


def into_the_store(process: Process) -> None:
    """The process writes the store of its own home, each of whose calls may be its last."""
    objects: Any = Guarded("objects", process.embedded.ports.objects, process.fuse)
    ports = msgspec.structs.replace(process.embedded.ports, objects=objects)
    options = {"match": "email"}
    connection = Connection(
        "", {}, None, 5, RetryPolicy(), process.world.clock, None, lambda: False, options, lambda: ports
    )
    process.guarded_sink = Guarded("sink", open_sink(connection, "customers"), process.fuse)


def a_world(folder: Path) -> World:
    world = World(folder, make_stream(rules=RULES, lanes=2, overlap=timedelta(hours=1)), prepare=into_the_store)
    for number, value in enumerate([*THERE, NOBODY, TWICE]):
        world.shelf.put(number, number, key=value)
    process = world.process()
    held = {value: {"email": value} for value in [*THERE, STAYS]} | {id: {"email": TWICE} for id in ("t1", "t2")}
    process.embedded.ports.objects.put("customers", held, START)
    return world


def held(process: Process) -> set[str]:
    return {each.id for each in process.embedded.ports.objects.page("customers", "", 100)}


def failures(process: Process) -> dict[str, tuple[Outcome, int]]:
    return {each.key: (each.outcome, each.number) for each in process.failures()}


REFUSED = (Outcome.REJECTED, NO_SUCH_CUSTOMER)


def check(process: Process, *, crashed: bool) -> None:
    """Who matched is gone, and refused is nobody else than the two rows that nobody could carry out: of the one that
    matches nobody, a crash leaves it open whether it did before."""
    assert held(process) == {STAYS, "t1", "t2"}
    found = failures(process)
    assert found.pop(NOBODY, REFUSED if crashed else None) == REFUSED
    assert found == {TWICE: REFUSED}
    audit = process.audit()
    assert audit.balanced and not audit.unaccounted


def test_rows_that_nobody_matches_are_refused_and_the_others_are_deleted_once(tmp_path: Path) -> None:
    process = a_world(tmp_path).process()
    (run,) = process.run()
    assert process.counts(run.id) == {"fetched": 8, "delivered": 6, "rejected": 2}
    check(process, crashed=False)
    process.world.clock.advance(60)
    (again,) = process.run()
    counts = process.counts(again.id)
    assert counts == {"fetched": 8, "unchanged": 6, "duplicate": 2}, "what is gone is no stranger now"


def crashes(folder: Path) -> Iterator[tuple[Process, str]]:
    """The process that goes on after each crash there can be, and the call at which it was."""
    counting = a_world(folder / "whole").process()
    counting.run()
    calls = counting.fuse.calls
    for place, after in [(place, after) for place in range(1, len(calls) + 1) for after in (False, True)]:
        world = a_world(folder / f"{place}-{after}")
        process = world.process(Fuse(place, after=after))
        with pytest.raises(Crash):
            process.run()
        process.die()
        world.clock.advance(120)
        later = world.process()
        later.run()
        yield later, f"{'after' if after else 'before'} {calls[place - 1]}"
        world.close()


def test_who_was_deleted_before_a_crash_is_not_refused_after_it(tmp_path: Path) -> None:
    seen = set()
    for process, where in crashes(tmp_path):
        seen.add(where)
        try:
            check(process, crashed=True)
        except AssertionError as error:
            raise AssertionError(f"{where}: {failures(process)}") from error
    assert {"after objects.remove", "before batches.settle", "before objects.remove"} <= seen


def test_a_sink_that_repeats_such_a_deletion_blindly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "repeatable", lambda self, change: True)
    refused = {where for process, where in crashes(tmp_path) if set(failures(process)) & set(THERE)}
    assert "after objects.remove" in refused


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_store_that_does_not_confirm_a_deletion_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    process = a_world(tmp_path).process()
    remove: Callable[..., None] = LocalObjects.remove
    lost = [1, 1]

    def removed(self: LocalObjects, kind: str, ids: list[str]) -> None:
        if carried_out or not lost:
            remove(self, kind, ids)
        if lost:
            lost.pop()
            raise StoreUnavailable("no answer came")

    monkeypatch.setattr(LocalObjects, "remove", removed)
    process.run()
    assert not lost
    check(process, crashed=False)


def test_a_replay_of_who_matched_nobody_finds_what_a_deletion_wants(tmp_path: Path) -> None:
    """Nobody has the value; that two have one stays refused."""
    process = a_world(tmp_path).process()
    process.run()
    process.world.clock.advance(60)
    replay(process.stream, process.home, FailureQuery("shop"), "again", process.notice)
    process.settle()
    assert failures(process) == {TWICE: REFUSED}
    assert held(process) == {STAYS, "t1", "t2"}
