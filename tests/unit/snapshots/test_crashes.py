"""An export and an import, ended at every call that leaves the process, and called again: what it all comes to."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

import shared.group
from infra import snapshots
from infra.snapshots import packing, replacing
from infra.snapshots.folders import Folders, Intended
from infra.snapshots.replacing import Import
from infra.wiring import Hub
from shared.errors import ConfigError, Fenced, StoreUnavailable
from tests.unit.fakes import IN_MEMORY, Fuse, World, spare_the_disk
from tests.unit.installations import FragileHub, Installation, books_of, until_the_crash

MONTH = 31 * 86_400


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


def put(world: World, first: int, count: int, name: str = "name") -> None:
    """Things that changed a moment ago."""
    since = (world.clock.now() - world.stream.since).total_seconds()
    for number in range(first, first + count):
        world.shelf.put(number, since - 0.5, key=f"K{number}", name=f"{name} {number}")
    world.shelf.put(99, since - 0.5, key="K99", bad=True)


def worked_in_two_months(folder: Path) -> Installation:
    """One with two POVs, and a snapshot ALL of them."""
    made = Installation(folder)
    world = made.world()
    for first in (1, 11):
        put(world, first, 10)
        world.process().run()
        made.clock.advance(MONTH)
    made.export("base")
    return made


def change_a_pov_and_begin_another(made: Installation) -> None:
    world = made.world()
    put(world, 21, 5)
    world.process().run()
    made.close()


def check_archives(made: Installation) -> None:
    """Every archive is whole."""
    for path in (made.snapshots / "outbox").rglob("*"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
        snapshots.show(made.hub(), f"outbox/{path.name}")


def copied(made: Installation, folder: Path) -> Installation:
    shutil.copytree(made.folder, folder)
    return Installation(folder, made.clock)


def calls_of(made: Installation, work: Callable[[Hub], object]) -> int:
    hub = FragileHub(made, Fuse())
    assert not until_the_crash(hub, work)
    return len(hub.fuse.calls)


def crashed_everywhere(
    template: Installation, folder: Path, work: Callable[[Hub], object]
) -> Iterator[tuple[Installation, str]]:
    """An installation after each crash, and what crashed."""
    calls = calls_of(copied(template, folder / "whole"), work)
    assert calls > 20
    for at in range(1, calls + 1):
        for late in (False, True):
            made = copied(template, folder / f"{at}-{late}")
            hub = FragileHub(made, Fuse(at, after=late))
            crashed = until_the_crash(hub, work)
            # There is nothing after a call that says by an exception what it found.
            assert crashed or late
            if crashed:
                yield made, f"{hub.fuse.calls[-1]} ({at} of {calls}, {'after' if late else 'before'})"
            made.close()
            shutil.rmtree(made.folder)


AT_ITS_END = ("snapshots.delete", "snapshots.size", "leases.release")
"""What an export does after it counts."""


@pytest.mark.parametrize("type", ["ALL", "INCREMENTAL", "ALL_INCREMENTAL"])
def test_an_export_that_crashed_is_finished_by_the_next_one(tmp_path: Path, type: Any) -> None:
    crash_exports(tmp_path, type)


def crash_exports(tmp_path: Path, type: Any) -> None:
    template = worked_in_two_months(tmp_path / "template")
    change_a_pov_and_begin_another(template)
    copies = copied(template, tmp_path / "right")
    expected = copies.export("next", type)
    wanted = books_of(template.hub().home)
    template.close()
    for made, where in crashed_everywhere(template, tmp_path, lambda hub: snapshots.export(hub, "next", type)):
        check_archives(made)
        try:
            found = made.export("next", type)
        except ConfigError:
            # It had come to its end, and only the answer was lost.
            assert where.startswith(AT_ITS_END), where
            found = snapshots.show(made.hub(), "next")
            assert not (made.snapshots / "data" / "snapshots" / "next.json").exists(), where
        assert found["counts"] == expected["counts"], where
        assert (found["baseProcessId"], found["lastProcessId"]) == (
            expected["baseProcessId"],
            expected["lastProcessId"],
        ), where
        check_archives(made)
        restored = Installation(tmp_path / "restored", made.clock)
        if type == "INCREMENTAL":
            restored.restore(made.archive("base"))
        restored.restore(made.archive("next"))
        assert books_of(restored.hub().home) == wanted, where
        assert restored.folder_files() == made.folder_files(), where
        assert made.export("last", "INCREMENTAL")["povs"]["exported"] == 0, where
        restored.close()
        shutil.rmtree(restored.folder)


@pytest.mark.parametrize("next_call", ["import", "export"])
@pytest.mark.parametrize("type", ["ALL", "INCREMENTAL", "SETUP"])
def test_an_import_that_crashed_leaves_the_old_or_the_new_and_is_finished(
    tmp_path: Path, type: Any, next_call: str
) -> None:
    crash_imports(tmp_path, type, next_call)


def crash_imports(tmp_path: Path, type: Any, next_call: str) -> None:
    source = worked_in_two_months(tmp_path / "source")
    template = Installation(tmp_path / "template", source.clock)
    template.restore(source.archive("base"))
    change_a_pov_and_begin_another(source)
    source.export("next", type)
    old = books_of(template.hub().home)
    new = old if type == "SETUP" else books_of(source.hub().home)
    template.close()
    archive = source.archive("next")
    for made, where in crashed_everywhere(template, tmp_path, lambda hub: snapshots.restore(hub, archive)):
        found = books_of(made.hub().home)
        assert found in (old, new), where
        left = made.hub().home.history.unfinished()
        if next_call == "import":
            notes = made.restore(archive)["notes"]
            found = new
        else:
            notes = made.export("after", "INCREMENTAL")["notes"]
        assert any("was interrupted" in note for note in notes) is (left is not None), where
        assert books_of(made.hub().home) == found, where
        if found == new and type != "SETUP":
            assert made.export("last", "INCREMENTAL")["povs"]["exported"] == 0, where
        assert made.hub().home.history.unfinished() is None, where
        assert not list((made.snapshots / "data" / "snapshots").glob("imports/*")), where


def counts_before_it_is_there(folders: Folders, done: Intended, watch: Callable[[int], None]) -> None:
    packing.settle(folders, done.params)
    packing.pack(folders, done, watch)


def test_an_export_that_cannot_be_finished_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.snapshots.exporting.pack", counts_before_it_is_there)
    with pytest.raises((AssertionError, ConfigError, StoreUnavailable)):
        crash_exports(tmp_path, "INCREMENTAL")


def test_what_a_crashed_export_wrote_is_relied_on_by_nobody(tmp_path: Path) -> None:
    crash_exports_with_data(tmp_path)


def crash_exports_with_data(tmp_path: Path) -> None:
    """Files with data in them lie in the folder, and the next snapshot is to have none."""
    template = worked_in_two_months(tmp_path / "template")
    template.close()
    for made, where in crashed_everywhere(
        template, tmp_path, lambda hub: snapshots.export(hub, "next", with_data=True)
    ):
        made.export("bare", "ALL_INCREMENTAL")
        with zipfile.ZipFile(made.archive("bare")) as archive:
            assert not any(b"name 99" in archive.read(name) for name in archive.namelist()), where
        check_archives(made)


def test_an_export_that_relies_on_what_another_one_wrote_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.snapshots.exporting.Export.distrust", lambda export, names: None)
    with pytest.raises((AssertionError, StoreUnavailable)):
        crash_exports_with_data(tmp_path)


def places_first(one: Import) -> None:
    one.place()
    one.home.history.replace(one.intent, one.entries)
    one.home.history.finish(one.intent)


def replaces_in_two_writes(one: Import) -> None:
    entries = list(one.entries())
    one.home.history.replace(one.intent, lambda: iter(entries[: len(entries) // 2]))
    one.home.history.replace(one.intent, lambda: iter(entries))
    one.place()


@pytest.mark.parametrize("wrong", [places_first, replaces_in_two_writes])
def test_an_import_that_is_not_all_or_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.setattr(Import, "replace", wrong)
    with pytest.raises((AssertionError, ConfigError, Fenced, StoreUnavailable, msgspec.DecodeError)):
        crash_imports(tmp_path, "ALL", "import")


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_increment_whose_answer_was_lost_is_not_written_over_by_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    made = worked_in_two_months(tmp_path)
    change_a_pov_and_begin_another(made)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(packing, "settle", crash)
        with pytest.raises(KeyboardInterrupt):
            snapshots.export(made.hub(), "next", "INCREMENTAL", overwrite)
    made.close()
    written = made.archive("next").read_bytes()
    found = made.export("next", "INCREMENTAL", overwrite=overwrite)
    assert "interrupted" in found["notes"][0] and found["counts"]["cells"]
    assert made.archive("next").read_bytes() == written
    assert made.export("last", "INCREMENTAL")["povs"]["exported"] == 0


def test_a_run_while_an_increment_is_looked_through_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = worked_in_two_months(tmp_path / "source")
    made = Installation(tmp_path / "made", source.clock)
    made.restore(source.archive("base"))
    change_a_pov_and_begin_another(source)
    source.export("next", "INCREMENTAL")
    world = made.world()
    put(world, 31, 5)
    leases_of = Import.leases

    def leases(one: Import) -> list[str]:
        world.process().run()
        return leases_of(one)

    monkeypatch.setattr(Import, "leases", leases)
    with pytest.raises(ConfigError, match="has worked since"):
        made.restore(source.archive("next"))
    world.process().run()
    assert set(world.target.arrivals().values()) == {1}


def test_a_mistake_in_the_configuration_after_the_books_were_replaced_leaves_the_rest_to_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = worked_in_two_months(tmp_path / "source")
    source.hub().home.schedule.pause("shop")
    source.export("paused")
    made = Installation(tmp_path / "made", source.clock)

    overlay_of, calls = replacing.overlay_of, []

    def refuse(*given: Any) -> bytes:
        calls.append(given)
        if len(calls) > 1:
            raise ConfigError("somebody edits it")
        return overlay_of(*given)

    with monkeypatch.context() as patched:
        patched.setattr(replacing, "overlay_of", refuse)
        with pytest.raises(ConfigError, match="edits"):
            made.restore(source.archive("paused"))
    made.export("after", "SETUP")
    assert made.hub().home.schedule.paused("shop")
    assert (made.snapshots / "data" / "snapshots" / "overlay.yaml").exists()
    assert not list((made.snapshots / "data" / "snapshots").glob("imports/*"))
