"""The hub's own store as a source, in both homes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from shared.books import Window
from shared.errors import ConfigError, GuardTripped
from shared.objects import MOST
from shared.tabular import identify
from tests.systems.store_world import AN_HOUR, HOMES, NOW, World, opened, origins, rows_of
from tests.unit.fakes import spare_the_disk


@pytest.fixture(params=HOMES)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    spare_the_disk(monkeypatch)
    with opened(request, tmp_path) as made:
        yield made


def test_a_row_is_an_object_with_its_id_and_the_time_of_its_change(world: World) -> None:
    world.put("7", 5, name="Ana", tags=["a", {"b": 1}], score=1.5, active=True, note=None)
    (row,) = rows_of(world.source())
    assert (row.origin, row.position, row.operation, row.problem) == ("7", "7", "upsert", None)
    assert row.version.startswith("2026-03-01T13:00:05.000000~")
    assert identify(row.data) == "7"
    fields = {"name": "Ana", "tags": ["a", {"b": 1}], "score": 1.5, "active": True, "note": None}
    assert {name: row.data[name] for name in row.data if name != "_identity"} == {"id": "7", **fields}


def test_a_field_called_id_is_the_objects_own(world: World) -> None:
    world.put("7|spring", 0, "campaign_data", id="7", campaign="spring")
    (row,) = rows_of(world.source("campaign_data"))
    assert (row.data["id"], row.origin, identify(row.data)) == ("7", "7|spring", "7|spring")


def test_objects_come_by_the_time_of_their_change_from_any_place_on(world: World) -> None:
    for number in range(20):
        world.put(str(number), (number * 7) % 20 // 4, n=number)
    world.put("before", -1)
    world.put("behind", 3600)
    pages = list(world.source(size=3).pages(AN_HOUR, ""))
    assert [len(page.rows) for page in pages] == [3] * 6 + [2]
    rows = [row for page in pages for row in page.rows]
    assert {row.origin for row in rows} == set(map(str, range(20)))
    times = [row.version[:26] for row in rows]
    assert times == sorted(times) and len(set(times)) == 5
    for number, page in enumerate(pages):
        assert rows_of(world.source(size=3), after=page.after) == rows[3 * number + 3 :]


def test_objects_that_changed_together_have_versions_of_their_own_that_tell_nobody(world: World) -> None:
    mails = [f"ana{number}@example.com" for number in range(50)]
    world.objects.put("customers", {mail: {} for mail in mails}, NOW)
    versions = [row.version for row in rows_of(world.source())]
    assert len(set(versions)) == 50
    assert not [version for version in versions if "ana" in version]


@pytest.mark.parametrize("everything", [False, True], ids=["by window", "all"])
def test_what_is_there_all_the_time_comes_once_whatever_others_write(world: World, everything: bool) -> None:
    """Between two pages one object changes, one goes and one comes."""
    stays = [f"s{number:02d}" for number in range(30)]
    for number in range(30):
        world.put(stays[number], number % 5, n=number)
        world.put(f"c{number:02d}", number % 5, n=number)
        world.put(f"g{number:02d}", number % 5, n=number)
    seen: list[str] = []
    source = world.source(size=4, all=everything)
    for turn, page in enumerate(source.pages(AN_HOUR, "")):
        seen += [row.origin for row in page.rows]
        world.put(f"c{turn:02d}", 4000, n=-turn)
        world.objects.remove("customers", [f"g{29 - turn:02d}"])
        world.put(f"n{turn:02d}", 4000, n=turn)
    assert len(seen) == len(set(seen))
    assert set(stays) <= set(seen)
    if not everything:
        later = origins(world.source(), Window(AN_HOUR.until, AN_HOUR.until + timedelta(hours=1)))
        assert set(seen) | set(later) >= {f"c{number:02d}" for number in range(30)}


def test_everything_is_everything_whatever_the_window(world: World) -> None:
    for number in range(10):
        world.put(str(number), -86_400 * number, n=number)
    world.put("1|x", 0, "priorities", id="1")
    nothing = Window(NOW, NOW + timedelta(milliseconds=1))
    assert sorted(origins(world.source(all=True), nothing)) == sorted(map(str, range(10)))
    assert origins(world.source(), nothing) == ["0"]


def test_the_clock_is_the_hubs_own_and_nobody_counts(world: World) -> None:
    source = world.source()
    assert (source.now(), source.total(AN_HOUR), source.location) == (NOW, None, "store:customers")
    world.clock.advance(5)
    assert source.now() == NOW + timedelta(seconds=5)


def test_a_page_is_never_larger_than_one_call_gives(world: World) -> None:
    world.objects.put("customers", {str(number): {} for number in range(MOST)}, NOW)
    world.put("one more")
    pages = list(world.source(size=5000).pages(AN_HOUR, ""))
    assert [len(page.rows) for page in pages] == [MOST, 1]


def test_a_token_of_something_else_is_no_place(world: World) -> None:
    with pytest.raises(GuardTripped):
        rows_of(world.source(), after="4711")


def test_a_kind_that_there_is_not_and_a_page_without_rows_are_refused(world: World) -> None:
    for opening in (lambda: world.source("people"), lambda: world.sink("people"), lambda: world.source(size=0)):
        with pytest.raises(ConfigError) as refused:
            opening()
        assert refused.value.cure
