"""Importing where others are at work, or were interrupted: nothing is lost, and nothing is written back."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra import snapshots
from infra.snapshots.replacing import Import
from infra.snapshots.sources import drop_files_of_nobody
from shared.books import StreamState, Window
from shared.errors import ConfigError, Leased, StoreUnavailable
from shared.fetch import note_result
from shared.launches import Launch
from shared.launching import NOT_ACCEPTED, ask
from shared.ports import lease_name
from shared.snapshot.history import EXPORT, IMPORT
from shared.sweep import conclude_runs
from tests.unit.fakes import START, World, make_stream
from tests.unit.installations import Installation, books_of


def work(made: Installation, *numbers: int) -> World:
    """Runs once over things that changed a moment ago, one of which is invalid."""
    world = made.world()
    seconds = (made.clock.now() - START).total_seconds() - 0.5
    for number in numbers:
        world.shelf.put(number, seconds, key=f"K{number}", name=f"name {number}")
    world.shelf.put(90, seconds, key="K90", bad=True)
    process = world.process()
    process.run()
    process.close()
    made.clock.advance(60)
    return world


def test_nothing_is_imported_while_a_run_holds_a_stream(source: Installation, here: Installation) -> None:
    work(source, 1)
    source.export("full")
    home = here.hub().home
    for name in (lease_name("shop", "things"), IMPORT, EXPORT):
        taken = home.leases.take(name)
        for call in (snapshots.restore, snapshots.examine):
            with pytest.raises(Leased):
                call(here.hub(), source.archive("full"))
        home.leases.release(taken)
    assert books_of(here.hub().home) == {}
    here.restore(source.archive("full"))


def test_nothing_is_imported_while_records_are_being_sent(source: Installation, here: Installation) -> None:
    work(source, 1)
    source.export("full")
    world = here.world()
    world.shelf.fill(9)
    world.process().fetch()
    sending = here.hub()
    (batch, *_) = sending.home.batches.unsettled("shop")
    sending.home.batches.begin(batch.id, "one")
    before = books_of(here.hub().home)
    with pytest.raises(Leased, match="is being sent"):
        here.restore(source.archive("full"))
    assert books_of(here.hub().home) == before
    # A process that died in the middle of it keeps nobody waiting.
    sending.close()
    note = "shop things: 9 records that wait here go, and are read again if the archive is older"
    assert note in here.restore(source.archive("full"))["notes"]
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_looking_ahead_stands_in_nobodys_way_where_an_import_was_interrupted(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1, 2)
    source.export("full")
    work(source, 3)
    source.export("some", "INCREMENTAL")
    here.restore(source.archive("full"))
    with monkeypatch.context() as patched:
        patched.setattr(Import, "place", lambda one: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            here.restore(source.archive("some"))
    first, *_ = snapshots.examine(here.hub(), source.archive("some"))["notes"]
    assert first.endswith("some.zip was interrupted: it is brought to its end, or this one takes its place")
    assert here.hub().home.history.unfinished() is not None
    here.restore(source.archive("some"))
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_launches_that_wait_here_are_named_before_they_go(source: Installation, here: Installation) -> None:
    work(source, 1)
    source.export("full")
    work(here, 2)
    home, now = here.hub().home, here.clock.now()
    for number, state in ((7, "waiting"), (8, "begun"), (9, "waiting")):
        home.launches.add(Launch("shop", "things", number, now, state))
    note = "shop things: launches 7, 9 wait here and go: ask for them again"
    assert note in snapshots.examine(here.hub(), source.archive("full"))["notes"]
    assert note in here.restore(source.archive("full"))["notes"]
    assert note not in here.restore(source.archive("full"))["notes"]


def test_files_of_the_books_that_were_replaced_go(source: Installation, here: Installation) -> None:
    """Nobody would find them any more, not even whoever has to forget a person."""
    work(source, 1, 2)
    source.export("full")
    work(source, 3, 4)
    home, now = source.hub().home, source.clock.now()
    home.launches.add(Launch("shop", "things", 7, now, file="uploads/shop/things/a"))
    for name in ("uploads/shop/things/a", "exports/shop/things/7/x.0.0"):
        home.blobs.write(name, b"Zoe")
    kept = [name for name, _ in home.blobs.names("archive/")]
    for path in (source.home / "blobs").rglob("*"):
        os.utime(path, (0, 0))
    home.blobs.write("uploads/shop/things/later", b"x")
    source.restore("outbox/full.zip")
    left = [name for name, _ in home.blobs.names("")]
    (run,) = home.runs.recent(None, None, 9)
    assert sorted(left) == sorted([*(name for name in kept if run.id in name), "uploads/shop/things/later"])
    world = source.world()
    assert world.process().audit().balanced


def replaced_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, here: Installation, archive: Path, meanwhile: Callable[[], object]
) -> dict[str, Any]:
    """Imports, and lets something happen once the books are replaced, before the folder is."""
    place = Import.place

    def placing(one: Import) -> None:
        meanwhile()
        place(one)

    with monkeypatch.context() as patched:
        patched.setattr(Import, "place", placing)
        return here.restore(archive)


@pytest.mark.parametrize("well", [True, False])
def test_a_run_of_the_books_before_is_written_back_by_nobody(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch, well: bool
) -> None:
    """Whoever ran it comes late, and so does the sweeper that looked before."""
    work(source, 1)
    home, lease = source.hub().home, lease_name("shop", "things")
    taken = home.leases.take(lease)
    home.runs.finish(taken, home.runs.recent(None, None, 1)[0], StreamState("shop", "things", consecutive_failures=1))
    home.leases.release(taken)
    source.export("full")
    world = here.world()
    world.shelf.fill(9)
    process = world.process()
    process.fetch()
    process.pump()
    (run,) = process.home.runs.unfinished("shop", "things")
    run.state, run.finished_at = "settled", here.clock.now()
    replaced_in_the_middle(monkeypatch, here, source.archive("full"), lambda: process.home.runs.conclude(run))
    assert process.home.runs.get(run.id) is None
    note_result(make_stream(), process.home, run, well=well)
    assert process.home.runs.get(run.id) is None
    assert conclude_runs(make_stream(), process.home) == []
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_no_launch_is_accepted_while_the_books_are_replaced(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1)
    source.export("full")
    home = here.hub().home
    home.blobs.write("uploads/shop/things/a", b"x")
    launch = Launch("shop", "things", 7, here.clock.now(), file="uploads/shop/things/a", size=1)

    def asking() -> None:
        with pytest.raises(StoreUnavailable, match="being imported"):
            ask(home, launch)

    replaced_in_the_middle(monkeypatch, here, source.archive("full"), asking)
    assert home.launches.recent("shop", "things", 9) == []
    assert ask(home, launch) == launch


def test_a_launch_that_came_in_between_keeps_its_file_or_is_not_accepted(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1)
    source.export("full")
    home, now = here.hub().home, here.clock.now()
    for name in ("uploads/shop/things/kept", "uploads/shop/things/gone"):
        home.blobs.write(name, b"x")
        os.utime(here.home / "blobs" / name, (0, 0))
    kept = Launch("shop", "things", 7, now, file="uploads/shop/things/kept", size=1)
    replaced_in_the_middle(monkeypatch, here, source.archive("full"), lambda: home.launches.add(kept))
    assert home.blobs.read(kept.file) == b"x"
    with pytest.raises(StoreUnavailable):
        ask(home, msgspec.structs.replace(kept, file="uploads/shop/things/gone"))
    (late, first) = home.launches.recent("shop", "things", 9)
    assert (late.state, late.cancelled_by, first.state) == ("cancelled", NOT_ACCEPTED, "waiting")


def test_the_leases_are_kept_while_files_of_nobody_are_deleted(source: Installation) -> None:
    home = source.hub().home
    names = ["archive/shop/things/gone/0", "uploads/shop/things/a", "exports/shop/things/7/x.0.0"]
    for name in names:
        home.blobs.write(name, b"x")
        os.utime(source.home / "blobs" / name, (0, 0))
    kept: list[list[str]] = []
    drop_files_of_nobody(home, source.clock.now(), lambda: kept.append([name for name, _ in home.blobs.names("")]))
    assert [len(left) for left in kept] == [3, 2, 1]
    assert list(home.blobs.names("")) == []


@pytest.mark.parametrize("type", ["ALL", "SETUP"])
def test_what_a_human_paused_stays_so(source: Installation, here: Installation, type: Any) -> None:
    work(source, 1)
    source.export("full", type)
    here.hub().home.schedule.pause("shop")
    report = here.restore(source.archive("full"))
    assert here.hub().home.schedule.paused("shop")
    assert report["differences"] == ["shop is paused here and not in the snapshot, and stays so: ./waybill resume shop"]


def test_an_import_that_cannot_be_finished_gives_way_to_another_whole_one(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1, 2)
    source.export("bad")
    work(source, 3)
    source.export("good")
    source.export("some", "INCREMENTAL")
    source.export("setup", "SETUP")
    place = Import.place

    def placing(one: Import) -> None:
        if "bad" in one.archive.name:
            raise ConfigError("there is no place for it")
        place(one)

    monkeypatch.setattr(Import, "place", placing)
    for _ in range(2):
        with pytest.raises(ConfigError, match="no place for it"):
            here.restore(source.archive("bad"))
    for attempt in (
        lambda: here.export("own"),
        lambda: here.restore(source.archive("some")),
        lambda: here.restore(source.archive("setup")),
    ):
        with pytest.raises(ConfigError, match="cannot be brought to its end") as raised:
            attempt()
        assert "ALL_INCREMENTAL" in raised.value.cure
    torn = here.folder / "torn.zip"
    torn.write_bytes(source.archive("good").read_bytes()[:-40])
    with pytest.raises(ConfigError):
        here.restore(torn)
    first, *_ = here.restore(source.archive("good"))["notes"]
    assert first.endswith("bad.zip was interrupted, and this one takes its place")
    assert books_of(here.hub().home) == books_of(source.hub().home)
    assert here.hub().home.history.unfinished() is None


def test_an_import_that_was_to_take_the_place_of_another_and_stopped_leaves_that_to_be_finished(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1, 2)
    source.hub().home.schedule.pause("shop")
    source.export("first")
    expected = books_of(source.hub().home)
    work(source, 3)
    source.export("second")
    with monkeypatch.context() as patched:
        patched.setattr(Import, "place", lambda one: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            here.restore(source.archive("first"))
        patched.setattr(Import, "replace", lambda one: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            here.restore(source.archive("second"))
    note, *_ = here.export("own", "SETUP")["notes"]
    assert note.endswith("first.zip was interrupted, and was brought to its end first")
    assert here.hub().home.history.unfinished() is None
    assert books_of(here.hub().home) == expected
    assert here.hub().home.schedule.paused("shop")
    assert not list((here.snapshots / "data" / "snapshots").glob("imports/*"))


def test_a_set_up_that_was_interrupted_lets_nobody_replace_the_books_of_a_run(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import took no lease of a stream: whoever had one has it."""
    work(source, 1)
    source.export("full")
    source.export("setup", "SETUP")
    home = here.hub().home
    lease = home.leases.take(lease_name("shop", "things"))
    with monkeypatch.context() as patched:
        patched.setattr(Import, "place", lambda one: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            here.restore(source.archive("setup"))
    with pytest.raises(Leased):
        here.restore(source.archive("full"))
    home.leases.renew(lease)
    home.leases.release(lease)
    here.restore(source.archive("full"))
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_a_set_up_that_cannot_be_finished_gives_way_too(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(source, 1)
    source.export("full")
    source.export("setup", "SETUP")
    with monkeypatch.context() as patched:
        patched.setattr(Import, "place", lambda one: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            here.restore(source.archive("setup"))
    (copy,) = (here.snapshots / "data" / "snapshots" / "imports").glob("*.zip")
    copy.unlink()
    with pytest.raises(ConfigError, match="its copy is gone"):
        here.export("own")
    first, *_ = here.restore(source.archive("full"))["notes"]
    assert first.endswith("setup.zip was interrupted, and this one takes its place")
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_a_launch_that_was_taken_meanwhile_is_accepted(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of a set-up keeps nobody who has the lease from beginning it."""
    home = here.hub().home
    home.blobs.write("uploads/shop/things/a", b"x")
    launch = Launch("shop", "things", 7, here.clock.now(), file="uploads/shop/things/a", size=1)
    add = type(home.launches).add

    def taking(launches: Any, launch: Launch) -> bool:
        added = add(launches, launch)
        launches.note(msgspec.structs.replace(launch, state="taken"))
        home.history.replace(b"x", None)
        return added

    monkeypatch.setattr(type(home.launches), "add", taking)
    assert ask(home, launch) == launch
    assert home.launches.recent("shop", "things", 9)[0].state == "taken"
    home.history.finish(b"x")


def test_a_launch_that_went_with_the_books_is_not_accepted(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    home = here.hub().home
    add = type(home.launches).add

    def gone(launches: Any, launch: Launch) -> bool:
        added = add(launches, launch)
        home.history.replace(b"x", lambda: iter(()))
        home.history.finish(b"x")
        return added

    monkeypatch.setattr(type(home.launches), "add", gone)
    with pytest.raises(StoreUnavailable):
        ask(home, Launch("shop", "things", 7, here.clock.now()))


def test_a_window_from_the_beginning_of_time_is_carried(source: Installation, here: Installation) -> None:
    source.streams["things"]["since"] = "0001-01-01T00:00:00+00:00"
    work(source, 1)
    home, lease = source.hub().home, lease_name("shop", "things")
    taken = home.leases.take(lease)
    (run,) = home.runs.recent(None, None, 9)
    home.runs.commit(taken, msgspec.structs.replace(run, window=Window(datetime.min.replace(tzinfo=UTC), START)))
    home.leases.release(taken)
    source.export("full")
    here.restore(source.archive("full"))
    assert books_of(here.hub().home) == books_of(source.hub().home)
