"""Whatever the pages and the stops, every row is read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from shared.fetch import Order
from tests.unit.fakes import (
    IN_MEMORY,
    STEADY,
    Process,
    World,
    make_stream,
)
from tests.unit.fetch.conftest import (
    NOW,
)


def everything(process: Process) -> list[tuple[str, str]]:
    return sorted(
        (record.key, record.version) for envelope in process.envelopes() for record in envelope.records
    )  # fmt: skip


def expected(process: Process) -> list[tuple[str, str]]:
    return sorted((thing.data["key"], thing.version) for thing in process.world.shelf.things.values())


@STEADY
@given(
    count=st.integers(0, 40),
    sizes=st.lists(st.integers(1, 9), max_size=6),
    page_size=st.integers(1, 15),
    lanes=st.integers(1, 4),
    batch_size=st.integers(1, 9),
    stops=st.lists(st.integers(0, 12), max_size=4),
    per_second=st.integers(1, 5),
)
def test_any_pages_and_any_stops_give_every_row_once(
    count: int, sizes: list[int], page_size: int, lanes: int, batch_size: int, stops: list[int], per_second: int
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(lanes=lanes, batch_size=batch_size), page_size=page_size)
        world.shelf.fill(count, per_second=per_second)
        process = world.process()
        process.source.sizes = sizes
        for pages in stops:
            until = process.source.given + pages
            process.fetch(stopping=lambda until=until: process.source.given >= until)  # type: ignore[misc]
            if not process.runs[0].resumable:
                break
        runs = process.fetch(Order(summoned=bool(stops)))
        assert everything(process) == expected(process)
        assert len({run.id for run in process.runs if run.fetched}) <= 1
        assert all(run.fetched == len(everything(process)) for run in runs)
        assert process.state.cursor == NOW or not process.runs or process.runs[0].resumable
        world.close()


@STEADY
@given(
    count=st.integers(1, 25),
    page_size=st.integers(1, 6),
    moves=st.dictionaries(st.integers(0, 8), st.integers(1, 25), max_size=6),
)
def test_rows_that_move_while_they_are_paged_are_never_lost(count: int, page_size: int, moves: dict[int, int]) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(), page_size=page_size)
        world.shelf.fill(count)
        process = world.process()

        def move(page: int) -> None:
            number = moves.get(page)
            if number is not None and number <= count:
                world.shelf.put(number, 100 + page, key=f"K{number}", name=f"moved {page}")

        process.source.meanwhile = move
        process.fetch()
        assert set(expected(process)) <= set(everything(process))
        process.settle()
        for thing in world.shelf.things.values():
            assert world.target.contents_of(thing.data["key"]) == [{"name": thing.data["name"]}]
        world.close()


@STEADY
@given(limit=st.integers(1, 30), count=st.integers(0, 25), page_size=st.integers(1, 9))
def test_a_limit_reads_the_first_rows_whatever_the_pages(limit: int, count: int, page_size: int) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(), page_size=page_size)
        world.shelf.fill(count)
        process = world.process()
        run = process.fetch(Order(limit=limit))[-1]
        assert run.fetched == min(limit, count)
        assert everything(process) == sorted(
            (thing.data["key"], thing.version) for thing in list(world.shelf.things.values())[:limit]
        )
        world.close()
