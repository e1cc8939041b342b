"""Files through the whole story: every row once at the target, however often it is read and wherever a run stops."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.systems import Connection
from infra.systems.files import open_source
from shared.fetch import Order
from shared.group import Group
from shared.retry import RetryPolicy
from shared.rules import Rules
from shared.tabular import identify
from tests.systems.test_files import as_old_as_written, write
from tests.unit.fakes import START, Process, World, make_stream, spare_the_disk

__all__ = ["as_old_as_written"]

RULES = Rules("rows", "objects", identify, lambda row: {"name": row["name"]})
Made = tuple[World, Path]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    spare_the_disk(monkeypatch)
    made = World(tmp_path / "home", make_stream(rules=RULES, overlap=timedelta(minutes=30), source_system="files"))
    yield made
    made.close()


def process_of(world: World, folder: Path, key: list[str], page_size: int = 3) -> Process:
    options: dict[str, Any] = {"path": str(folder), "key": key}
    process = world.process()
    connection = Connection("", {}, None, page_size, RetryPolicy(), world.clock, None, lambda: False, options)
    process.source = open_source(connection, "rows")  # type: ignore[assignment]
    return process


def put(folder: Path, name: str, text: str, at: datetime = START + timedelta(minutes=50)) -> None:
    write(folder / name, text, at)


def sent(world: World) -> int:
    return sum(world.target.arrivals().values())


@pytest.mark.parametrize("key", [["id"], []])
def test_files_that_are_read_again_send_nothing_again(world: World, tmp_path: Path, key: list[str]) -> None:
    folder = tmp_path / "in"
    rows = [f"{n % 20},{'x' if n < 20 else 'y'}{n % 3}" for n in range(40)]
    put(folder, "a.csv", "id,name\n" + "\n".join(rows))
    process = process_of(world, folder, key)
    (first,) = process.run()
    assert first.state == "running" and first.fetched == 40
    before = sent(world)
    assert before >= (20 if key else 40)
    (second,) = process.run(Order(full=True))
    assert second.fetched == 40 and sent(world) == before
    put(folder, "b.csv", "name,id\n" + "\n".join(",".join(reversed(row.split(","))) for row in rows))
    process.run(Order(full=True))
    assert sent(world) == before
    if key:
        assert {world.target.contents_of(str(n))[-1]["name"] for n in range(20)} == {"y0", "y1", "y2"}


@pytest.mark.parametrize("key", [["id"], []])
def test_a_run_in_slices_of_a_group_each_reads_every_row_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: list[str]
) -> None:
    monkeypatch.setattr(Group, "is_full", lambda self: self.size >= 5)
    folder = tmp_path / "in"
    for number in range(3):
        put(folder, f"{number}.csv", "id,name\n" + "".join(f'{number}-{n},"a\nb"\n' for n in range(17)))
    world.hands_over = True
    process = process_of(world, folder, key)
    process.run()
    (run,) = process.home.runs.recent("shop", "things", 9)
    assert run.slice > 3 and run.fetched == 51
    assert process.home.books.counts(run.id).as_dict()["delivered"] == 51 == sent(world)


def test_a_bad_file_leaves_the_cursor_alone_until_it_is_mended(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    put(folder, "a.csv", "id,name\n1,a\n")
    put(folder, "b.csv", "")
    put(folder, "c.csv", "id,name\n3,c\n4\n")
    process = process_of(world, folder, ["id"])
    (run,) = process.run()
    assert (run.state, run.error_class, process.state.cursor) == ("failed", "GuardTripped", None)
    assert "b.csv" in run.error and sent(world) == 2
    put(folder, "b.csv", "id,name\n2,b\n", START + timedelta(minutes=55))
    (run,) = process.run()
    assert (run.state, run.fetched, sent(world)) == ("running", 4, 3)
    assert process.state.cursor is not None
    counts = process.home.books.counts(run.id)
    assert (counts.delivered, counts.unchanged, counts.duplicate) == (1, 2, 1)
    assert msgspec.json.encode(run)
