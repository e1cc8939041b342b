"""Chains of increments: what one adds to, and which archive it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra import snapshots
from infra.snapshots.exporting import Export
from shared.errors import ConfigError
from tests.unit.fakes import Shelf, Target
from tests.unit.installations import Installation, books_of, params_of, unpacked
from tests.unit.snapshots.test_archive import PARAMS, zipped
from tests.unit.snapshots.test_import import chain, work


def name_a_period(made: Installation) -> None:
    file = made.folder / "periods.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("periods: [{name: spring, from: 2026-03-01T00:00:00Z, until: 2026-03-20T00:00:00Z}]")
    made.environ["WAYBILL_PERIODS"] = str(file)


@pytest.mark.parametrize("how", ["SETUP is exported", "SETUP is imported", "an export fails"])
def test_an_increment_over_named_periods_stands_no_matter_what_became_of_the_set_up(
    source: Installation, here: Installation, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    other = Installation(source.folder.parent / "other", source.clock)
    other.export("setup", "SETUP")
    name_a_period(source)
    chain(source, Shelf(), Target())
    spans = [{"period": "spring", "from": "2026-03-01T00:00:00Z", "until": "2026-03-20T00:00:00Z"}]
    assert params_of(source.archive("full"))["periods"] == spans
    here.restore(source.archive("full"))
    match how:
        case "SETUP is exported":
            here.export("setup", "SETUP")
        case "SETUP is imported":
            here.restore(other.archive("setup"))
        case "an export fails":
            with monkeypatch.context() as patched:
                patched.setattr(Export, "write_povs", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    here.export("own")
    for name in ("some", "more"):
        here.restore(source.archive(name))
    assert books_of(here.hub().home) == books_of(source.hub().home)
    other.close()


def without_periods(made: Installation, name: str) -> Path:
    files = unpacked(made.archive(name))
    params: dict[str, Any] = json.loads(files[PARAMS])
    del params["periods"]
    archive = made.folder / f"{name}.zip"
    archive.write_bytes(zipped(files | {PARAMS: json.dumps(params).encode()}))
    return archive


def test_archives_that_say_no_periods_have_those_of_their_set_up(source: Installation, here: Installation) -> None:
    name_a_period(source)
    chain(source, Shelf(), Target())
    for name in ("full", "some", "more"):
        here.restore(without_periods(source, name))
    assert books_of(here.hub().home) == books_of(source.hub().home)


def is_noted(made: Installation, name: str, type: str) -> bool:
    notes = made.export(name, type, overwrite=True)["notes"]
    assert all("ALL_INCREMENTAL" in note for note in notes)
    return bool(notes)


@pytest.mark.parametrize("type", ["INCREMENTAL", "SETUP"])
@pytest.mark.parametrize("name", ["full", "some", "more"])
def test_what_takes_the_place_of_a_link_says_so(source: Installation, name: str, type: str) -> None:
    chain(source, Shelf(), Target())
    work(source, 40)
    assert is_noted(source, name, type)


@pytest.mark.parametrize("type", ["ALL", "ALL_INCREMENTAL"])
def test_what_begins_a_chain_has_nothing_to_say(source: Installation, type: str) -> None:
    chain(source, Shelf(), Target())
    assert not is_noted(source, "some", type)


@pytest.mark.parametrize("type", ["INCREMENTAL", "SETUP"])
def test_an_increment_that_changed_nothing_is_needed_by_nobody(
    source: Installation, here: Installation, type: str
) -> None:
    work(source, 1)
    source.export("full")
    report = source.export("nightly", "INCREMENTAL")
    assert report["baseProcessId"] == report["lastProcessId"]
    work(source, 2)
    assert not is_noted(source, "nightly", type)
    source.export("last", "INCREMENTAL")
    here.restore(source.archive("full"))
    if type == "INCREMENTAL":
        here.restore(source.archive("nightly"))
    here.restore(source.archive("last"))
    assert books_of(here.hub().home) == books_of(source.hub().home)


@pytest.mark.parametrize("type", ["INCREMENTAL", "SETUP"])
def test_what_another_archive_stands_in_for_is_needed_by_nobody(source: Installation, type: str) -> None:
    chain(source, Shelf(), Target())
    source.export("setup", "SETUP")
    inbox = source.snapshots / "inbox"
    inbox.mkdir()
    (inbox / "some.zip").write_bytes(source.archive("some").read_bytes())
    work(source, 40)
    assert not is_noted(source, "setup", type)
    assert not is_noted(source, "some", type)
    source.export("whole", "ALL_INCREMENTAL")
    for name in ("full", "more"):
        assert not is_noted(source, name, type)
    assert is_noted(source, "whole", type)


@pytest.mark.parametrize("type", ["INCREMENTAL", "SETUP"])
def test_a_link_whose_base_is_kept_elsewhere_is_needed(source: Installation, type: str) -> None:
    chain(source, Shelf(), Target())
    source.archive("full").unlink()
    assert is_noted(source, "some", type)


@pytest.mark.parametrize(("change", "taken"), [({"cells": 1}, False), ({"launches": 0}, True)])
def test_an_increment_counts_what_it_does_not_carry_as_its_base_does(
    source: Installation, here: Installation, tmp_path: Path, change: dict[str, int], taken: bool
) -> None:
    chain(source, Shelf(), Target())
    here.restore(source.archive("full"))
    files = unpacked(source.archive("some"))
    params: dict[str, Any] = json.loads(files[PARAMS])
    params["povs"][0]["counts"] |= change
    assert "data/output/shop/things/2026-03.csv" not in files
    archive = tmp_path / "some.zip"
    archive.write_bytes(zipped(files | {PARAMS: json.dumps(params).encode()}))
    if not taken:
        with pytest.raises(ConfigError, match="is not what the archive adds to"):
            here.restore(archive)
        return
    here.restore(archive)
    here.export("own", "ALL_INCREMENTAL")
    assert snapshots.examine(source.hub(), here.archive("own"))["counts"] == params_of(here.archive("own"))["counts"]
