"""Exports: what each type carries, file by file, and what it leaves alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.snapshots.setup import COLUMNS
from shared.books import FailureQuery
from shared.errors import ConfigError, Leased
from shared.launches import Launch
from shared.outcome import Outcome
from shared.snapshot.history import EXPORT, IMPORT
from tests.contract.make import commit
from tests.unit.fakes import START, Shelf, World, spare_the_disk
from tests.unit.installations import THINGS, Installation, params_of, unpacked

MONTH = 31 * 86_400
SETUP = {f"setup/{name}.csv" for name in COLUMNS}
ALWAYS = {*SETUP, "data/SnapshotParams.json", "data/removed.csv"}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    spare_the_disk(monkeypatch)
    streams = {name: dict(THINGS) for name in ("things", "others", "more")}
    installation = Installation(tmp_path, streams=streams)
    yield installation
    installation.close()


def put(world: World, *numbers: int, name: str = "name", **more: Any) -> None:
    """Things that changed a moment ago."""
    seconds = (world.clock.now() - START).total_seconds() - 0.5
    for number in numbers:
        world.shelf.put(number, seconds, key=f"K{number}", name=f"{name} {number}", **more)


def work(
    made: Installation, stream: str, *numbers: int, shelf: Shelf | None = None, refused: Any = (), **more: Any
) -> World:
    world = made.world(stream, shelf)
    world.target.refused = set(refused)
    put(world, *numbers, **more)
    process = world.process()
    process.run()
    process.close()
    return world


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def povs(files: dict[str, bytes]) -> set[str]:
    prefix = "data/output/shop/"
    return {name.removeprefix(prefix).removesuffix(".csv") for name in files if name.startswith(prefix)}


def check_listed(files: dict[str, bytes]) -> dict[str, Any]:
    """Every file but SnapshotParams.json is listed there, with its sum and its rows."""
    params: dict[str, Any] = json.loads(files["data/SnapshotParams.json"])
    listed = {each["path"]: (each["sha256"], each["rows"]) for each in params["files"]}
    found = {
        name: (hashlib.sha256(data).hexdigest(), len(rows(data)))
        for name, data in files.items()
        if name != "data/SnapshotParams.json"
    }
    assert listed == found
    return params


def test_all_carries_the_set_up_and_every_thing_that_is_known_once(made: Installation) -> None:
    world = work(made, "things", *range(1, 20))
    made.clock.advance(60)
    put(world, 30, bad=True)
    world.process().run()
    report = made.export("full.zip")
    files = unpacked(made.archive("full"))
    params = check_listed(files)
    assert set(files) == ALWAYS | {"data/output/shop/things/2026-03.csv"}
    assert (params["format"], params["type"], params["baseProcessId"]) == (1, "ALL", None)
    found = rows(files["data/output/shop/things/2026-03.csv"])
    process = world.process()
    for kind, ids in (
        ("run", [run.id for run in process.runs]),
        ("batch", [batch.id for batch in process.batches()]),
        ("cell", [cell.key for cell in process.home.ledger.scan("shop", "things")]),
        ("failure", [failure.id for failure in process.failures()]),
    ):
        assert sorted(row["id"] for row in found if row["row"] == kind) == sorted(ids), kind
    starts = {run.id: int(run.started_at.timestamp() * 1_000_000) for run in process.runs}
    assert {row["id"]: int(row["process_id"]) for row in found if row["row"] == "run"} == starts
    assert params["lastProcessId"] == max(starts.values())
    assert report["counts"] == params["counts"] == {
        "runs": 2, "batches": len(process.batches()), "cells": 20, "failures": 1, "requests": 0, "launches": 0,
        "objects": 0,
    }  # fmt: skip
    assert (report["file"], report["size"]) == ("outbox/full.zip", made.archive("full").stat().st_size)
    assert {row["stream"] for row in rows(files["setup/streams.csv"])} == set(made.streams)


def test_three_povs_change_and_a_stream_goes(made: Installation) -> None:
    """What ALL, INCREMENTAL and ALL_INCREMENTAL carry of it, and what the data folder keeps."""
    shelves = {name: Shelf() for name in made.streams}
    for _ in range(3):
        for name, shelf in shelves.items():
            work(made, name, 1, 2, 3, 9, shelf=shelf, name=f"{made.clock.now():%m}", refused={"K9"})
        made.clock.advance(MONTH)
    made.export("full")
    every = {f"{name}/2026-{month:02d}" for name in made.streams for month in (3, 4, 5)}
    full = unpacked(made.archive("full"))
    assert povs(full) == every
    assert rows(full["data/removed.csv"]) == []

    # The failures of March to May close by a newer version, and two streams have a new month.
    work(made, "things", 9, shelf=shelves["things"], name="mended")
    work(made, "others", 4, shelf=shelves["others"])
    del made.streams["more"]

    base = params_of(made.archive("full"))["lastProcessId"]
    report = made.export("some", "INCREMENTAL")
    some = unpacked(made.archive("some"))
    params = check_listed(some)
    assert povs(some) == {f"things/2026-{month:02d}" for month in (3, 4, 5, 6)} | {"others/2026-06"}
    assert set(some) == ALWAYS | {f"data/output/shop/{pov}.csv" for pov in povs(some)}
    assert (params["baseProcessId"], params["lastProcessId"] > base) == (base, True)
    gone = [{"location": "shop", "category": "more", "period": f"2026-{month:02d}"} for month in (3, 4, 5)]
    assert rows(some["data/removed.csv"]) == gone
    assert report["povs"] == {"exported": 5, "carried": 5, "removed": 3}
    assert report["notes"] == ["shop more: nobody configures it any more, and its history is not carried"]
    assert {row["stream"] for row in rows(some["setup/streams.csv"])} == {"things", "others"}

    report = made.export("everything", "ALL_INCREMENTAL")
    everything = unpacked(made.archive("everything"))
    params = check_listed(everything)
    left = {pov for pov in every if not pov.startswith("more/")} | {"things/2026-06", "others/2026-06"}
    assert povs(everything) == left
    assert params["baseProcessId"] is None
    assert report["povs"] == {"exported": 0, "carried": 8, "removed": 0}
    for name in povs(some) | {"others/2026-04"}:
        path = f"data/output/shop/{name}.csv"
        assert everything[path] == (some if name in povs(some) else full)[path]
    assert made.folder_files() == everything


def test_what_did_not_change_is_not_written_again(made: Installation) -> None:
    work(made, "things", 1, 2)
    made.export("full")
    before = {path: path.stat().st_mtime_ns for path in made.snapshots.rglob("output/**/*.csv")}
    report = made.export("nothing", "INCREMENTAL")
    assert report["povs"] == {"exported": 0, "carried": 0, "removed": 0}
    assert report["lastProcessId"] == report["baseProcessId"]
    made.export("all_of_it", "ALL_INCREMENTAL")
    assert {path: path.stat().st_mtime_ns for path in made.snapshots.rglob("output/**/*.csv")} == before
    made.export("anew", "ALL")
    after = {path: path.stat().st_mtime_ns for path in made.snapshots.rglob("output/**/*.csv")}
    assert after.keys() == before.keys() and after != before


@pytest.mark.parametrize("type", ["INCREMENTAL", "ALL_INCREMENTAL"])
def test_before_any_other_snapshot_an_incremental_one_carries_everything(made: Installation, type: str) -> None:
    work(made, "things", 1, 2)
    made.export("first", type)
    files = unpacked(made.archive("first"))
    assert povs(files) == {"things/2026-03"}
    assert check_listed(files)["baseProcessId"] is None


def test_a_snapshot_of_the_set_up_leaves_the_mark_alone(made: Installation) -> None:
    work(made, "things", 1)
    mark = made.export("full")["lastProcessId"]
    work(made, "things", 2)
    report = made.export("setup", "SETUP", with_data=True)
    files = unpacked(made.archive("setup"))
    assert set(files) == {*SETUP, "data/SnapshotParams.json"}
    assert check_listed(files)["povs"] == []
    assert (report["lastProcessId"], report["withData"]) == (mark, False)
    assert made.export("more", "INCREMENTAL")["baseProcessId"] == mark


def test_a_file_that_is_there_is_overwritten_only_if_somebody_says_so(made: Installation) -> None:
    made.export("full")
    before = made.archive("full").read_bytes()
    work(made, "things", 1)
    for name in ("full", "full.zip"):
        with pytest.raises(ConfigError, match="is there already"):
            made.export(name)
    assert made.archive("full").read_bytes() == before
    made.export("full", overwrite=True)
    assert povs(unpacked(made.archive("full"))) == {"things/2026-03"}


def test_an_increment_in_the_place_of_what_it_adds_to_says_so(made: Installation) -> None:
    work(made, "things", 1)
    made.export("full")
    for number, name in ((2, "first"), (3, "second"), (4, "other")):
        work(made, "things", number)
        assert made.export(name, "INCREMENTAL", overwrite=True)["notes"] == []
    work(made, "things", 5)
    for name in ("full", "first", "other"):
        (note,) = made.export(name, "INCREMENTAL", overwrite=True)["notes"]
        assert "ALL_INCREMENTAL" in note
    for type in ("ALL_INCREMENTAL", "ALL"):
        assert made.export("second", type, overwrite=True)["notes"] == []


@pytest.mark.parametrize("name", ["", ".zip", "../x", "a/b", "/x", ".hidden", "a\nb", "x" * 250, "-x", "a\\b"])
def test_a_name_that_leads_elsewhere_is_none(made: Installation, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a snapshot"):
        made.export(name)
    assert not (made.snapshots / "outbox").exists()


@pytest.mark.parametrize("lease", [EXPORT, IMPORT])
def test_one_export_is_made_at_a_time_and_none_while_an_import_is(made: Installation, lease: str) -> None:
    home = made.hub().home
    taken = home.leases.take(lease)
    with pytest.raises(Leased):
        made.export("full")
    home.leases.release(taken)
    made.export("full")


def test_data_is_carried_only_if_somebody_says_so(made: Installation) -> None:
    world = made.world("things")
    world.target.refused = {"K1"}
    put(world, 1, name="Zoë")
    world.process().run()
    home = made.hub().home
    home.objects.put("customers", {"a/b": {"email": "zoe@example.org"}}, made.clock.now())
    made.export("bare")
    bare = unpacked(made.archive("bare"))
    assert not any("Zoë".encode() in data or b"zoe@" in data for data in bare.values())
    found = [json.loads(row["document"]) for row in rows(bare["data/output/shop/things/2026-03.csv"])]
    (failure,) = [each for each in found if each.get("outcome")]
    assert (failure["data"], failure["reason"]) == ({}, "the target refused the record")

    # The file has to be another one, although nothing changed.
    report = made.export("whole", "INCREMENTAL", with_data=True)
    whole = unpacked(made.archive("whole"))
    assert check_listed(whole)["withData"] is True
    assert report["povs"]["exported"] == 1
    assert report["counts"]["objects"] == 1
    found = [json.loads(row["document"]) for row in rows(whole["data/output/shop/things/2026-03.csv"])]
    (failure,) = [each for each in found if each.get("outcome")]
    assert (failure["data"]["name"], failure["reason"]) == ("Zoë 1", "it is refused")
    assert rows(whole["data/objects/customers.csv"])[1]["id"] == "a/b"

    made.export("bare_again", "ALL_INCREMENTAL")
    again = unpacked(made.archive("bare_again"))
    assert not any("Zoë".encode() in data or b"zoe@" in data for data in again.values())
    assert not any("Zoë".encode() in data or b"zoe@" in data for data in made.folder_files().values())


def test_no_secret_enters_a_snapshot(made: Installation) -> None:
    secrets = {"PLOOMES_USER_KEY": "s3cret-of-ploomes", "MILVUS_TOKEN": "s3cret-of-milvus"}
    made.environ.update(secrets)
    overlay = made.folder / "overlay.yaml"
    overlay.write_text("shop: {alerts: {webhook: https://hooks.example.org/s3cret-of-hooks}}")
    made.environ["WAYBILL_OVERLAY"] = str(overlay)
    work(made, "things", 1)
    made.export("full", with_data=True)
    files = unpacked(made.archive("full"))
    assert not any(b"s3cret" in data for data in files.values())
    assert rows(files["setup/alert_rules.csv"]) == [
        {"integration": "shop", "consecutive_failures": "3", "webhook": "true"}
    ]


def test_periods_may_have_names_and_lose_them(made: Installation) -> None:
    periods = made.folder / "periods.yaml"
    periods.write_text("periods: [{name: spring, from: 2026-03-01T00:00:00Z, until: 2026-03-20T00:00:00+02:00}]")
    made.environ["WAYBILL_PERIODS"] = str(periods)
    shelf = Shelf()
    work(made, "things", 1, 2, shelf=shelf)
    made.clock.advance(20 * 86_400)
    work(made, "things", 3, shelf=shelf)
    made.export("full")
    files = unpacked(made.archive("full"))
    assert povs(files) == {"things/spring", "things/2026-03"}
    assert rows(files["setup/periods.csv"])[0]["period"] == "spring"
    periods.write_text("periods: []")
    made.export("some", "INCREMENTAL")
    some = unpacked(made.archive("some"))
    assert povs(some) == {"things/2026-03"}
    assert rows(some["data/removed.csv"]) == [{"location": "shop", "category": "things", "period": "spring"}]
    assert "data/output/shop/things/spring.csv" not in made.folder_files()


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("periods: [{name: a/b, from: 2026-03-01T00:00:00Z, until: 2026-04-01T00:00:00Z}]", "names no file"),
        ("periods: [{name: 2026-03, from: 2026-03-01T00:00:00Z, until: 2026-04-01T00:00:00Z}]", "name of a month"),
        ("periods: [{name: x, from: 2026-04-01T00:00:00Z, until: 2026-03-01T00:00:00Z}]", "ends before it begins"),
        ("periods: [{name: x, from: 2026-03-01, until: 2026-04-01T00:00:00Z}]", "offset"),
        ("periods: [{name: x}]", "name, from and until"),
        ("spans: []", "`spans`"),
        ("periods: 3", "a list"),
    ],
)
def test_a_mistake_in_the_periods_is_named_with_its_place(made: Installation, written: str, fault: str) -> None:
    periods = made.folder / "periods.yaml"
    periods.write_text(written)
    made.environ["WAYBILL_PERIODS"] = str(periods)
    with pytest.raises(ConfigError, match=fault) as raised:
        made.export("full")
    assert str(periods) in str(raised.value)


def test_launches_that_wait_are_named(made: Installation) -> None:
    home = made.hub().home
    now = made.clock.now()
    home.launches.add(Launch("shop", "things", 7, now, file="uploads/7", size=3))
    home.launches.add(Launch("shop", "things", 8, now, "cancelled", file="uploads/8", cancelled_by="api"))
    report = made.export("full")
    assert any("launch 7 waits" in note for note in report["notes"])
    found = rows(unpacked(made.archive("full"))["data/output/shop/things/2026-03.csv"])
    assert [(row["row"], row["id"], json.loads(row["document"])["file"]) for row in found] == [("launch", "8", "")]


def test_a_launch_whose_run_has_begun_is_carried_as_that(made: Installation) -> None:
    world = work(made, "things", 1, 2)
    process = world.process()
    (run,) = process.runs
    home = process.home
    launch = Launch("shop", "things", 7, made.clock.now(), file="uploads/7")
    home.launches.add(launch)
    commit(home, msgspec.structs.replace(run, id=launch.run))
    report = made.export("full")
    assert report["notes"] == []
    found = rows(unpacked(made.archive("full"))["data/output/shop/things/2026-03.csv"])
    (document,) = [json.loads(row["document"]) for row in found if row["row"] == "launch"]
    assert (document["state"], document["file"]) == ("begun", "")


def test_a_closed_failure_is_carried_as_what_it_is(made: Installation) -> None:
    world = made.world("things")
    world.target.refused = {"K1"}
    put(world, 1)
    world.process().run()
    world.target.refused = set()
    made.clock.advance(60)
    put(world, 1, name="mended")
    world.process().run()
    made.export("full")
    found = [
        json.loads(row["document"])
        for row in rows(unpacked(made.archive("full"))["data/output/shop/things/2026-03.csv"])
        if row["row"] == "failure"
    ]
    assert [each["closed_as"] for each in found] == [Outcome.SUPERSEDED.value]
    assert not list(world.process().home.failures.find(FailureQuery("shop", "things")))
