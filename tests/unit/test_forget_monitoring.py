"""A person is forgotten in the embedded monitoring table: their rows go, the sums stay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.local.database import Database
from infra.local.erase import find_traces, forget
from infra.local.home import EmbeddedHome
from shared.errors import REFUSED, SENT, StoreUnavailable
from shared.forget import Telling
from shared.monitoring import Monitored, MonitoringRow
from tests.contract import make
from tests.contract.world import START, ManualClock

PERSON, NUMBER, NAME = "52998224725", "7", "Zulmira Esquecida"
TABLE, OTHER_TABLE = "tcrm_monitoring_table", "other_table"
TELLING = Telling(make.SHOP, "tasks", make.CUSTOMERS, "crm", lambda data: str(data.get("of", "")))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[EmbeddedHome]:
    home = EmbeddedHome(tmp_path / "home", ManualClock())
    yield home
    home.close()


def failed(key: str, place: int, stream: str = "customers", info: str = "{}") -> MonitoringRow:
    return MonitoringRow(f"shop.{stream}", START, REFUSED, "crm", f"row({place})", info, key)


def sent(key: str, place: int, count: int) -> MonitoringRow:
    return MonitoringRow("shop.customers", START, SENT, "crm", f"row({place})", str(count), key)


def tell(home: EmbeddedHome, *rows: MonitoringRow, table: str = TABLE, stream: str = make.CUSTOMERS) -> None:
    make.commit(home.ports, make.run(stream=stream), monitored=Monitored(table, rows))


def remember(home: EmbeddedHome) -> None:
    """Rows of the person, of the time before they had a document, of a task that tells of them, and of strangers
    before and after each."""
    make.commit_cells(home.ports, [make.cell(PERSON, origin=NUMBER)])
    mine = f'{{"name":"{NAME}"}}'
    tell(home, failed("other", 1), failed(PERSON, 2, info=mine), failed("other", 3), sent(PERSON, 2, 3))
    tell(home, failed(f"crm:{NUMBER}", 4, info=mine), failed("crm:17", 5), sent("other", 1, 2), table=OTHER_TABLE)
    tell(
        home,
        failed("t1", 1, "tasks", f'{{"of":"{PERSON}","who":"{NAME}"}}'),
        failed("t2", 2, "tasks", '{"of":"other"}'),
        stream="tasks",
    )


def rows(home: EmbeddedHome, table: str = TABLE) -> list[tuple[str, int, str, str]]:
    with closing(sqlite3.connect(home.folder / "state.db")) as connection:
        return connection.execute(f"SELECT dag_name, type_id, position, info FROM {table}").fetchall()


def everything(home: EmbeddedHome) -> str:
    files = [file for file in home.folder.rglob("*") if file.is_file()]
    return "".join(file.read_bytes().decode("latin1") for file in files)


def test_the_rows_of_a_person_go_and_the_sums_stay(home: EmbeddedHome) -> None:
    remember(home)
    assert NAME in everything(home)
    assert find_traces(home, PERSON, [TELLING])["monitoring rows"] == 4

    receipt = forget(home, PERSON, [TELLING])

    assert receipt["erased"]["monitoring rows"] == 4
    assert rows(home) == [
        ("shop.customers", REFUSED, "row(1)", "{}"),
        ("shop.customers", REFUSED, "row(3)", "{}"),
        ("shop.customers", SENT, "", "3"),
        ("shop.tasks", REFUSED, "row(2)", '{"of":"other"}'),
    ]
    assert rows(home, OTHER_TABLE) == [
        ("shop.customers", REFUSED, "row(5)", "{}"),
        ("shop.customers", SENT, "row(1)", "2"),
    ]
    assert NAME not in everything(home) and PERSON not in everything(home)
    assert find_traces(home, PERSON, [TELLING])["monitoring rows"] == 0


def test_a_stranger_is_found_after_the_file_was_rewritten(home: EmbeddedHome) -> None:
    """VACUUM gives the rows of such a table other numbers."""
    remember(home)
    forget(home, PERSON, [TELLING])

    assert forget(home, "other", [TELLING])["erased"]["monitoring rows"] == 4

    assert rows(home) == [("shop.customers", SENT, "", "3")]
    assert rows(home, OTHER_TABLE) == [("shop.customers", REFUSED, "row(5)", "{}"), ("shop.customers", SENT, "", "2")]


def test_rows_that_are_equal_in_every_column_are_forgotten_by_their_keys(home: EmbeddedHome) -> None:
    alike: dict[str, Any] = {"place": 1, "info": "{}"}
    tell(home, failed("a", **alike), failed("b", **alike), failed("c", 2))
    assert forget(home, "b")["erased"]["monitoring rows"] == 2
    assert [position for _, _, position, _ in rows(home)] == ["row(2)"]


def test_rows_that_somebody_dropped_are_no_hindrance(home: EmbeddedHome) -> None:
    remember(home)
    with closing(sqlite3.connect(home.folder / "state.db")) as connection:
        connection.execute(f"DROP TABLE {TABLE}")
    assert forget(home, PERSON, [TELLING])["erased"]["monitoring rows"] == 1


def test_of_a_forgetting_that_failed_the_next_one_finds_what_is_left(
    home: EmbeddedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(home)
    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr("infra.local.erase._rewrite", gone)
        forget(home, PERSON, [TELLING])
    forget(home, PERSON, [TELLING])
    assert NAME not in everything(home) and PERSON not in everything(home)


def gone(database: Database) -> None:
    raise StoreUnavailable("gone")
