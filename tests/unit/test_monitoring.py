"""The monitoring table: what each row says, that sums balance whatever happens, and that it is off unless asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.database import Database
from shared.books import FailureQuery
from shared.bury import bury
from shared.cleanup import OldRows, clean_up
from shared.errors import KILLED_ITS_SINK, NO_IDENTITY, RATE_LIMITED, REFUSED, RETRIED, SENT, UNMAPPABLE, ConfigError
from shared.fetch import Order
from shared.monitoring import COLUMNS, INFO_BYTES, Monitored, MonitoringRow, info_of, monitored
from shared.outcome import Passing, rejected
from shared.replay import replay
from shared.tabular import IDENTITY
from tests.unit.fakes import IN_MEMORY, START, STEADY, FakeSource, Process, Step, World, make_stream, spare_the_disk

TABLE = "tcrm_monitoring_table"
ON = {"monitored": TABLE}
SHELF = FakeSource.location

Make = Callable[..., Process]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    worlds: list[World] = []

    def made(count: int = 3, **stream: Any) -> Process:
        settings = {"lanes": 1, "batch_size": 100, **ON} | stream
        worlds.append(World(tmp_path / str(len(worlds)), make_stream(**settings)))
        worlds[-1].shelf.fill(count)
        return worlds[-1].process()

    yield made
    for world in worlds:
        world.close()


def rows(process: Process, table: str = TABLE) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(process.world.folder / "state.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]


def names(process: Process) -> set[str]:
    with closing(sqlite3.connect(process.world.folder / "state.db")) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def of_type(process: Process, type_id: int) -> list[tuple[str, str, str]]:
    return [(r["location"], r["position"], r["info"]) for r in rows(process) if r["type_id"] == type_id]


def replay_all(process: Process, **asked: Any) -> None:
    process.world.clock.advance(60)
    replay(process.stream, process.home, FailureQuery("shop", "things", **asked), "mended", process.notice)
    process.settle()


def letters(process: Process, of: str) -> int:
    """How many records the batches of all runs settled on one of these outcomes."""
    return sum(batch.outcomes.count(letter) for batch in process.batches() for letter in of)


def assert_balanced(process: Process) -> None:
    """Each delivery is in just one sum, and each failure in just one row."""
    found = rows(process) if TABLE in names(process) else []
    assert sum(int(row["info"]) for row in found if row["type_id"] == SENT) == letters(process, "d")
    assert sum(row["type_id"] > 0 for row in found) == letters(process, "irxk")


# What a row says.


def test_a_row_has_the_columns_of_the_table_and_no_others() -> None:
    at = datetime(2026, 3, 1, 9, tzinfo=timezone(timedelta(hours=-3)))
    row = MonitoringRow("shop.things", at, -2, "bq://p.d.t", "7", "3", "K1")
    assert row.columns() == {
        "dag_name": "shop.things",
        "timestamp": "2026-03-01T12:00:00.000000Z",
        "type_id": -2,
        "location": "bq://p.d.t",
        "position": "7",
        "info": "3",
    }
    assert tuple(row.columns()) == COLUMNS


def test_times_sort_as_texts() -> None:
    instants = [datetime(2026, 3, 1, 12, 0, 0, micros, tzinfo=UTC) for micros in (0, 1, 10, 999_999)]
    texts = [MonitoringRow("a.b", at, 1, "", "", "").columns()["timestamp"] for at in instants]
    assert texts == sorted(texts, key=str)


def test_the_source_s_row_is_told_without_what_was_added_to_it() -> None:
    assert info_of({"name": "Zoë", IDENTITY: "k", "n": [1, None]}) == '{"name":"Zoë","n":[1,null]}'
    assert info_of({}) == "{}"


def test_of_a_row_that_no_message_holds_its_size_is_told() -> None:
    room = INFO_BYTES - len('{"a":""}')
    assert info_of({"a": "x" * room}) == '{"a":"' + "x" * room + '"}'
    assert info_of({"a": "x" * (room + 1)}) == f'{{"_bytes":{INFO_BYTES + 1}}}'


def test_where_monitoring_is_off_no_row_is_made() -> None:
    def never() -> list[MonitoringRow]:
        raise AssertionError("it was made")

    assert monitored("", never) is None
    assert monitored(TABLE, lambda: []) is None


# What is written.


def test_it_is_off_unless_asked_for(make: Make) -> None:
    process = make(monitored="")
    process.world.shelf.put(8, 5, name="no key")
    process.sink.script = {"K2": [rejected(REFUSED, "no")]}
    process.run()
    replay_all(process)
    assert TABLE not in names(process)
    assert rows(process, "monitored") == []


def test_each_kind_of_row_stands_in_the_table(make: Make) -> None:
    process = make(4)
    process.world.shelf.put(8, 5, key="K8", bad=True)
    process.world.shelf.put(9, 6, name="no key")
    process.sink.script = {"K1": [rejected(REFUSED, "no")]}
    process.run()
    at = process.world.clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
    replay_all(process, key="K1")
    assert {row["dag_name"] for row in rows(process)} == {"shop.things"}
    assert rows(process)[0]["timestamp"] == at
    assert of_type(process, NO_IDENTITY) == [(SHELF, "things(9)", '{"name":"no key"}')]
    assert of_type(process, REFUSED) == [(SHELF, "things(1)", '{"name":"name 1","key":"K1"}')]
    assert of_type(process, UNMAPPABLE) == [(SHELF, "things(8)", '{"name":"name 8","bad":true,"key":"K8"}')]
    assert of_type(process, SENT) == [(SHELF, "things(2)", "3"), (SHELF, "things(1)", "1")]
    assert of_type(process, RETRIED) == [(SHELF, "", "")]
    assert_balanced(process)


def test_a_replay_says_that_it_began_before_it_takes_anything_up(make: Make) -> None:
    process = make(2)
    process.sink.always = {"K1": rejected(REFUSED, "no"), "K2": rejected(REFUSED, "no")}
    process.run()
    replay_all(process)
    assert [row["type_id"] for row in rows(process)] == [REFUSED, REFUSED, RETRIED, REFUSED, REFUSED]
    assert_balanced(process)


def test_each_attempt_tells_of_what_it_delivered_itself(make: Make) -> None:
    process = make(3)
    busy = Passing("it is busy", RATE_LIMITED, http_status=429)
    process.sink.script = {"K1": [busy] * 3}
    process.run()
    assert of_type(process, SENT) == [(SHELF, "things(2)", "2"), (SHELF, "things(1)", "1")]


def test_the_first_in_the_source_is_named_whichever_was_delivered_first(make: Make) -> None:
    process = make(3)
    process.sink.script = {"K1": [Passing("it is busy", RATE_LIMITED, http_status=429)]}
    process.run()
    assert of_type(process, SENT) == [(SHELF, "things(1)", "3")]


def test_progress_in_the_middle_of_a_batch_is_told_once(make: Make) -> None:
    process = make(15)
    process.sink.meanwhile = lambda: process.world.clock.advance(11)
    process.run()
    assert [info for _, _, info in of_type(process, SENT)] == ["5", "5", "5"]


def test_what_was_found_at_the_target_counts_as_delivered(make: Make) -> None:
    process = make(3)
    process.sink.script = {"K2": [Step.DOUBT_AFTER]}
    process.run()
    assert of_type(process, SENT) == [(SHELF, "things(1)", "3")]


def test_what_is_unchanged_is_not_told(make: Make) -> None:
    process = make(3)
    process.run()
    process.run(Order(full=True))
    assert len(rows(process)) == 1


def test_a_buried_batch_is_told_record_by_record(make: Make) -> None:
    process = make(2)
    process.fetch()
    bury(process.envelopes()[0], process.home, TABLE)
    assert [place for place, *_ in of_type(process, KILLED_ITS_SINK)] == [SHELF, SHELF]
    assert [failure.location for failure in process.failures()] == [SHELF, SHELF]
    assert_balanced(process)


def test_a_replay_keeps_the_place_where_each_record_came_from(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [rejected(REFUSED, "no")], "K3": [rejected(REFUSED, "no")]}
    process.run()
    process.source.location = "https://elsewhere.example"
    process.world.shelf.put(3, 3650, key="K3")
    process.world.clock.advance(120)
    elsewhere = process.source
    process.open_source = lambda: elsewhere  # type: ignore[method-assign]
    process.run()
    assert {f.key: f.location for f in process.failures()} == {"K1": SHELF, "K3": elsewhere.location}
    replay_all(process)
    assert of_type(process, RETRIED) == [(SHELF, "", "")]
    assert of_type(process, SENT)[1:] == [(SHELF, "things(1)", "1"), (elsewhere.location, "things(3)", "1")]


STEPS = st.sampled_from(
    [
        Step.OK,
        *(Step.DOUBT_BEFORE, Step.DOUBT_AFTER, Step.SILENT_BEFORE, Step.SILENT_AFTER),
        rejected(REFUSED, "no"),
        Passing("it is busy", RATE_LIMITED, http_status=429),
        RuntimeError("it fell over"),
    ]
)


@STEADY
@given(
    st.dictionaries(st.integers(1, 12), st.lists(STEPS, max_size=5), max_size=12),
    st.sets(st.integers(1, 12), max_size=4),
    st.booleans(),
)
def test_the_sums_are_what_was_delivered_whatever_happens(
    steps: dict[int, list[Any]], bad: set[int], askable: bool
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(max_attempts=2, **ON), bulk=3, askable=askable)
        world.shelf.fill(12)
        for number in bad:
            world.shelf.put(number, number, key=f"K{number}", bad=True)
        world.shelf.put(13, 13, name="no key")
        process = world.process()
        process.sink.script = {f"K{number}": list(each) for number, each in steps.items()}
        process.run()
        assert_balanced(process)
        replay_all(process)
        assert_balanced(process)
        world.close()


def test_a_sum_that_is_told_twice_is_noticed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    process = make(3)
    write = Database.write

    def repeating(self: Database, work: Any) -> Any:
        value = write(self, work)
        if "settle" in work.__qualname__:
            row = MonitoringRow("shop.things", START, SENT, "", "", "3")
            process.home.runs.commit(process.home.leases.take("x"), process.runs[0], monitored=Monitored(TABLE, [row]))
        return value

    monkeypatch.setattr(Database, "write", repeating)
    process.run()
    with pytest.raises(AssertionError):
        assert_balanced(process)


@pytest.mark.parametrize("name", ["streams", "Cells", "runs_of", "sqlite_x", "a b", 'a"; DROP TABLE cells; --', ""])
def test_no_other_table_is_written_to(make: Make, name: str) -> None:
    process = make()
    lease, row = process.home.leases.take("x"), MonitoringRow("shop.things", START, RETRIED, "", "", "")
    process.fetch()
    before = names(process)
    with pytest.raises(ConfigError):
        process.home.runs.commit(lease, process.runs[0], monitored=Monitored(name, [row]))
    assert names(process) == before


# Clean-up.


def test_clean_up_removes_rows_by_age_and_nothing_goes_again(make: Make) -> None:
    process = make(3)
    process.sink.always = {"K2": rejected(REFUSED, "no")}
    process.run()
    day, ages = timedelta(days=1), (timedelta(days=400),) * 2
    assert clean_up(process.home, "shop", *ages, OldRows("d", TABLE, day)).monitoring == 0
    process.world.clock.advance(day.total_seconds() + 1)
    assert clean_up(process.home, "shop", *ages).monitoring == 0
    assert len(rows(process)) == 2
    assert clean_up(process.home, "other", *ages, OldRows("d", TABLE, day)).monitoring == 0
    assert clean_up(process.home, "shop", *ages, OldRows("d", TABLE, day)).monitoring == 2
    assert (rows(process), rows(process, "monitored")) == ([], [])
    assert [failure.key for failure in process.failures()] == ["K2"]
    assert process.cell("K1") is not None
    sent = list(process.sink.sent)
    process.run(Order(full=True))
    assert process.sink.sent == sent
    process.sink.always = {}
    replay_all(process)
    assert process.failures() == []
    assert [info for _, _, info in of_type(process, SENT)] == ["1"]


def test_a_table_that_somebody_dropped_is_made_again(make: Make) -> None:
    process = make(3)
    process.run()
    with closing(sqlite3.connect(process.world.folder / "state.db")) as connection:
        connection.execute(f"DROP TABLE {TABLE}")
    assert process.home.monitoring.remove("shop", "d", TABLE, START) == 0
    process.world.shelf.put(9, 3650, key="K9")
    process.world.clock.advance(120)
    process.run()
    assert [info for _, _, info in of_type(process, SENT)] == ["1"]
