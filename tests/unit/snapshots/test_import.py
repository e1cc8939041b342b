"""Imports: what an installation is afterwards, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import snapshots
from shared.errors import ConfigError
from shared.launches import Launch
from tests.unit.fakes import START, Order, Shelf, Target, World
from tests.unit.installations import Installation, books_of, params_of, unpacked

MONTH = 31 * 86_400


def work(made: Installation, *numbers: int, name: str = "name", **ends: Any) -> World:
    """Runs once over things that changed a moment ago, one of which is refused and one invalid."""
    world = made.world(**ends)
    world.target.refused = {"K3"}
    seconds = (made.clock.now() - START).total_seconds() - 0.5
    for number in numbers:
        world.shelf.put(number, seconds, key=f"K{number}", name=f"{name} {number}")
    world.shelf.put(90, seconds, key="K90", bad=True)
    process = world.process()
    process.run()
    process.close()
    made.clock.advance(60)
    return world


def chain(source: Installation, shelf: Shelf, target: Target) -> None:
    """Three snapshots, each with changes: `full`, `some` and `more`, which adds to `some`."""
    work(source, *range(1, 12), shelf=shelf, target=target)
    source.export("full")
    source.clock.advance(MONTH)
    work(source, *range(8, 20), name="changed", shelf=shelf, target=target)
    source.export("some", "INCREMENTAL")
    source.clock.advance(MONTH)
    work(source, 3, 30, name="later", shelf=shelf, target=target)
    source.export("more", "INCREMENTAL")


def test_an_empty_hub_becomes_what_was_exported_and_sends_nothing_twice(
    source: Installation, here: Installation
) -> None:
    shelf, target = Shelf(), Target()
    work(source, *range(1, 30), shelf=shelf, target=target)
    source.export("full")
    report = here.restore(source.archive("full"))
    assert (report["processId"], report["type"], report["differences"]) == (0, "ALL", [])
    assert report["replaced"] == dict.fromkeys(["runs", "batches", "cells", "failures", "requests", "launches"], 0)
    assert books_of(here.hub().home) == books_of(source.hub().home)
    before = len(target.effects)
    process = here.world(shelf=shelf, target=target).process()
    process.run(Order(full=True))
    assert len(target.effects) == before
    assert process.audit().balanced
    assert process.audit().counts.fetched == 30


def test_incremental_snapshots_add_up(source: Installation, here: Installation) -> None:
    chain(source, Shelf(), Target())
    for name in ("full", "some", "more"):
        here.restore(source.archive(name))
    assert books_of(here.hub().home) == books_of(source.hub().home)
    assert here.folder_files() == source.folder_files()
    assert here.export("own", "INCREMENTAL")["povs"]["exported"] == 0


def test_what_a_hub_holds_is_replaced_by_all(source: Installation, here: Installation) -> None:
    chain(source, Shelf(), Target())
    work(here, *range(100, 120))
    here.export("own")
    source.export("everything", "ALL_INCREMENTAL")
    report = here.restore(source.archive("everything"))
    assert report["replaced"]["cells"] == 21
    assert books_of(here.hub().home) == books_of(source.hub().home)
    assert here.folder_files() == source.folder_files()


def test_what_was_pending_here_is_replaced_too(source: Installation, here: Installation) -> None:
    work(source, 1, 2)
    source.export("full")
    world = here.world()
    world.shelf.fill(9)
    world.process().fetch()
    here.hub().home.launches.add(Launch("shop", "things", 7, here.clock.now()))
    here.restore(source.archive("full"))
    process = here.world().process()
    process.settle()
    assert process.audit().balanced
    assert books_of(here.hub().home) == books_of(source.hub().home)


@pytest.mark.parametrize("before", [[], ["full"], ["full", "some", "more"], ["elsewhere"]])
def test_an_incremental_snapshot_without_its_base_is_refused_and_says_which_it_is(
    source: Installation, here: Installation, tmp_path: Path, before: list[str]
) -> None:
    chain(source, Shelf(), Target())
    other = Installation(tmp_path / "other", source.clock)
    work(other, 1, 2)
    other.export("elsewhere")
    for name in before:
        here.restore((other if name == "elsewhere" else source).archive(name))
    found = books_of(here.hub().home)
    name = "some" if before[-1:] == ["more"] else "more"
    base = params_of(source.archive(name))["baseProcessId"]
    with pytest.raises(ConfigError, match=str(base)):
        here.restore(source.archive(name))
    inbox = here.snapshots / "inbox"
    inbox.mkdir(parents=True)
    for known in ("full", "some"):
        (inbox / f"{known}.zip").write_bytes(source.archive(known).read_bytes())
    with pytest.raises(ConfigError) as raised:
        here.restore(source.archive(name))
    assert {"some": "inbox/full.zip", "more": "inbox/some.zip"}[name] in raised.value.cure
    assert books_of(here.hub().home) == found
    other.close()


@pytest.mark.parametrize("how", ["works", "begins", "launches", "loses a file", "changes a file"])
def test_an_incremental_snapshot_is_refused_where_its_base_is_not_what_it_was(
    source: Installation, here: Installation, how: str
) -> None:
    chain(source, Shelf(), Target())
    here.restore(source.archive("full"))
    kept = here.snapshots / "data" / "snapshots" / "data" / "output" / "shop" / "things" / "2026-03.csv"
    match how:
        case "works":
            work(here, 200)
        case "begins":
            world = here.world()
            world.shelf.put(1, 90 * 86_400, key="K1")
            world.process().fetch()
        case "launches":
            here.hub().home.launches.add(Launch("shop", "things", 7, here.clock.now()))
        case "loses a file":
            kept.unlink()
        case "changes a file":
            kept.write_bytes(kept.read_bytes().replace(b"K1", b"K7"))
    before = books_of(here.hub().home)
    assert "data/output/shop/things/2026-03.csv" not in unpacked(source.archive("some"))
    with pytest.raises(ConfigError, match=r"has worked since|is not what the archive adds to"):
        here.restore(source.archive("some"))
    assert books_of(here.hub().home) == before
    source.export("everything", "ALL_INCREMENTAL")
    here.restore(source.archive("everything"))
    assert books_of(here.hub().home) == books_of(source.hub().home)


def test_looking_ahead_writes_nothing(source: Installation, here: Installation) -> None:
    work(source, 1, 2, 3)
    source.export("full")
    work(here, 5)
    before = {path: path.read_bytes() for path in here.snapshots.rglob("*")}
    found = snapshots.examine(here.hub(), source.archive("full"))
    assert (found["counts"]["cells"], found["replaced"]["cells"]) == (4, 2)
    assert {path: path.read_bytes() for path in here.snapshots.rglob("*")} == before
    assert found.items() <= here.restore(source.archive("full")).items()


def test_a_failure_without_its_data_is_no_reason_to_send_again(source: Installation, here: Installation) -> None:
    shelf, target = Shelf(), Target()
    work(source, 1, 2, 3, shelf=shelf, target=target)
    source.export("full")
    report = here.restore(source.archive("full"))
    assert any("without their data" in note for note in report["notes"])
    process = here.world(shelf=shelf, target=target).process()
    process.run(Order(full=True))
    assert process.sink.sent == []
    assert {f.key for f in process.failures()} == {"K3", "K90"}
    assert process.audit().balanced


def test_data_comes_along_where_it_was_asked_for(source: Installation, here: Installation) -> None:
    work(source, 1, 2, 3)
    source.hub().home.objects.put("customers", {"1": {"email": "a@example.org"}}, source.clock.now())
    source.export("full", with_data=True)
    here.hub().home.objects.put("customers", {"2": {"email": "b@example.org"}}, source.clock.now())
    report = here.restore(source.archive("full"))
    assert report["replaced"]["objects"] == 1
    home = here.hub().home
    assert books_of(home, with_data=True) == books_of(source.hub().home, with_data=True)
    assert [each.id for each in home.objects.page("customers", "", 9)] == ["1"]
    assert home.objects.find("customers", "email", ["a@example.org"]) == {"a@example.org": ["1"]}
    assert home.objects.fields("customers") == ["email"]
    work(here, 5)
    source.export("bare")
    here.restore(source.archive("bare"))
    assert [each.id for each in here.hub().home.objects.page("customers", "", 9)] == ["1"]


def test_whoever_does_not_know_whether_an_increment_came_through_imports_it_again(
    source: Installation, here: Installation
) -> None:
    work(source, 1, 2)
    source.export("full")
    work(source, 3)
    source.export("some", "INCREMENTAL")
    for name in ("full", "some", "some"):
        here.restore(source.archive(name))
    assert books_of(here.hub().home) == books_of(source.hub().home)
    work(here, 4)
    with pytest.raises(ConfigError, match="has worked since"):
        here.restore(source.archive("some"))


def test_a_snapshot_of_the_set_up_changes_no_books(source: Installation, here: Installation) -> None:
    work(source, 1)
    work(here, 7)
    here.export("own")
    source.hub().home.schedule.pause("shop")
    source.streams["things"]["schedule"] = "5 5 * * *"
    source.export("setup", "SETUP")
    before, folder = books_of(here.hub().home), here.folder_files()
    report = here.restore(source.archive("setup"))
    assert report["processId"] > 0
    assert report["replaced"] == {}
    assert books_of(here.hub().home) == before
    after = here.folder_files()
    assert {path for path in after if after[path] != folder.get(path)} == {"setup/streams.csv", "setup/schedules.csv"}
    assert here.hub().home.schedule.paused("shop")


def test_what_is_configured_otherwise_is_named_and_an_overlay_makes_it_the_same(
    source: Installation, here: Installation
) -> None:
    source.streams["things"] |= {"schedule": "5 5 * * *", "overlap": "10m"}
    source.streams["others"] = {"enabled": False}
    here.streams["things"] |= {"hold_back": "1m"}
    here.streams["more"] = {"schedule": "0 0 * * *"}
    work(source, 1)
    source.export("full")
    report = here.restore(source.archive("full"))
    assert report["differences"] == [
        'shop.streams.things.hold_back is "0s" in the snapshot, and "1m" here',
        'shop.streams.things.overlap is "10m" in the snapshot, and "0s" here',
        'shop.streams.things.schedule is "5 5 * * *" in the snapshot, and "0 * * * *" here',
        "shop.streams: `more` is set only here",
        "shop.streams: `others` is set only in the snapshot",
    ]
    overlay = Path(report["overlay"])
    assert yaml.safe_load(overlay.read_text()) == {
        "shop": {
            "streams": {
                "others": {"enabled": False},
                "things": {"hold_back": "0s", "overlap": "10m", "schedule": "5 5 * * *"},
                "more": None,
            }
        }
    }
    here.environ["WAYBILL_OVERLAY"] = str(overlay)
    assert here.hub().integrations["shop"].streams == source.hub().integrations["shop"].streams
    assert here.restore(source.archive("full"))["differences"] == []


def test_another_mapping_is_named(source: Installation, here: Installation) -> None:
    work(source, 1)
    source.export("full")
    hub = here.hub()
    (here.folder / "functions" / "shop" / "mapping.py").write_text("STREAMS = {}\n")
    assert "shop: mapping.py is another one here" in snapshots.examine(hub, source.archive("full"))["differences"]


def test_archives_are_listed_and_shown(source: Installation) -> None:
    assert snapshots.listing(source.hub()) == []
    work(source, 1)
    source.export("full")
    del source.streams["things"]
    source.streams["others"] = {"enabled": False}
    source.export("some", "INCREMENTAL")
    inbox = source.snapshots / "inbox"
    inbox.mkdir()
    (inbox / "broken.zip").write_bytes(b"PK nothing")
    (inbox / "full.zip").write_bytes(source.archive("full").read_bytes())
    found = {each["file"]: each for each in snapshots.listing(source.hub())}
    assert set(found) == {"outbox/full.zip", "outbox/some.zip", "inbox/broken.zip", "inbox/full.zip"}
    assert (found["outbox/some.zip"]["type"], found["inbox/full.zip"]["type"]) == ("INCREMENTAL", "ALL")
    assert "error" in found["inbox/broken.zip"] and "type" not in found["inbox/broken.zip"]
    shown = snapshots.show(source.hub(), "some")
    assert shown["removed"] == [{"location": "shop", "category": "things", "period": "2026-03"}]
    assert shown["povs"] == []
    assert {each["path"] for each in shown["files"]} == unpacked(source.archive("some")).keys() - {
        "data/SnapshotParams.json"
    }
    assert snapshots.show(source.hub(), "inbox/full.zip")["counts"]["runs"] == 1


@pytest.mark.parametrize("name", ["nobody", "outbox/nobody.zip", "inbox/../outbox/full.zip", "elsewhere/full.zip", ""])
def test_what_is_not_there_is_said_to_be_so(source: Installation, here: Installation, name: str) -> None:
    source.export("full")
    for call in (snapshots.restore, snapshots.examine, snapshots.show):
        with pytest.raises(ConfigError):
            call(source.hub(), name)
    with pytest.raises(ConfigError, match="there is no file"):
        here.restore(here.folder / "nothing.zip")


def test_ids_go_on_above_those_that_were_imported(source: Installation, here: Installation) -> None:
    shelf, target = Shelf(), Target()
    work(source, 1, shelf=shelf, target=target)
    mark = source.export("full")["lastProcessId"]
    here.restore(source.archive("full"))
    world = work(here, 2, shelf=shelf, target=target)
    process = world.process()
    assert len({run.id for run in process.runs}) == 2
    assert [run.id for run in process.runs] == [run.id for run in sorted(process.runs, key=lambda r: r.started_at)][
        ::-1
    ]
    report = here.export("own", "INCREMENTAL")
    assert (report["baseProcessId"], report["lastProcessId"] > mark) == (mark, True)


def test_names_in_the_snapshot_folders_can_be_imported(source: Installation) -> None:
    work(source, 1)
    source.export("full")
    found = books_of(source.hub().home)
    work(source, 2)
    source.restore("outbox/full.zip")
    assert books_of(source.hub().home) == found
    (source.snapshots / "bare.zip").write_bytes(source.archive("full").read_bytes())
    source.restore("bare.zip")
