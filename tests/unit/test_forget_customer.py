"""By which keys a customer of the hub's own store is known in the streams that read or write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.home import EmbeddedHome
from shared.errors import MALFORMED, RecordError
from shared.forget_customer import Keeping, Theirs, look_up
from shared.ledger import Cell
from shared.tabular import Parsed, Place
from shared.tabular.identity import first_of, joined
from shared.tabular.lines import EXCERPT
from tests.contract import make
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.world import START, ManualClock
from tests.unit.fakes import spare_the_disk

PERSON = "c|7"
"""As it stands before more: `c\\|7`."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedHome]:
    spare_the_disk(monkeypatch)
    made = EmbeddedHome(tmp_path, ManualClock())
    yield made
    made.close()


def keys(home: EmbeddedHome, *cells: Cell, **of: Any) -> set[str]:
    """What the person is called in a stream with these cells."""
    make.commit_cells(home.ports, cells)
    home.ports.objects.put("customers", {PERSON: {"email": "ana@example.org"}, "c": {"email": "c"}}, START)
    home.ports.objects.put("results", {"r1": {"id": PERSON}, "r2": {"id": "c"}}, START)
    keeping = Keeping(SHOP, CUSTOMERS, **of)
    return look_up(home.ports, PERSON, [], [keeping], [], home.objects.owned(PERSON)).keys_in((SHOP, CUSTOMERS))


def cell(key: str, origin: str = "", target: str = "") -> Cell:
    return make.cell(key, origin=origin, target_id=target)


def test_the_keys_of_a_stream_that_writes_customers_by_keys_of_its_own(home: EmbeddedHome) -> None:
    cells = cell("u1", "55", PERSON), cell("u2", "56", "c"), cell("u3", "7", f"{PERSON}|x"), cell(PERSON, "9")
    found = keys(home, *cells, source="crm", kind="customers", writes=True)
    assert found == {PERSON, "u1", "crm:55", "crm:9"}


def test_the_line_of_a_row_is_nobodys_name(home: EmbeddedHome) -> None:
    found = keys(home, cell("a@example.org", "12", PERSON), source="uploads", kind="customers", match="email")
    assert found == {PERSON, "a@example.org"}


def test_the_keys_of_a_stream_that_reads_the_store(home: EmbeddedHome) -> None:
    cells = cell("529", PERSON, "88"), cell("530", "c", "89"), cell("store:c", "c"), cell("531", "8", PERSON)
    found = keys(home, *cells, source="store", kind="customers", reads=True, writes=False)
    assert found == {PERSON, "529", f"store:{PERSON}"}


def test_what_a_customer_has_is_called_by_more_than_the_id(home: EmbeddedHome) -> None:
    names = [joined([PERSON, "spring"]), joined(["c", "7", "x"]), "c|7x", joined([PERSON, ""])]
    found = keys(home, *map(cell, names), source="uploads", kind="priorities", by_id=True)
    assert found == {PERSON, names[0], names[3]}


def test_results_are_found_by_the_field_that_names_the_customer(home: EmbeddedHome) -> None:
    found = keys(home, cell("r1"), cell("r2"), source="store", kind="results", reads=True, writes=False, by_id=True)
    assert found == {PERSON, "r1", "store:r1", f"store:{PERSON}"}


def test_what_was_never_delivered_is_known_from_the_batches(home: EmbeddedHome) -> None:
    batch = make.batch(0, keys=["ana@example.org", "bob@example.org", joined(["ana@example.org", "x"])])
    make.commit(home.ports, make.run(), batches=[batch])
    of: dict[str, Any] = {"source": "uploads", "match": "email"}
    assert keys(home, kind="customers", **of) == {PERSON, "ana@example.org"}
    assert keys(home, kind="priorities", **of) == {PERSON, "ana@example.org", batch.keys[2]}


def parsed(problem: bool = False, **data: Any) -> Parsed:
    return Parsed(3, data, Place(9, 4), (MALFORMED, "broken") if problem else None)


def no_id(row: dict[str, Any]) -> str:
    if not row.get("id"):
        raise RecordError("no id")
    return str(row["id"])


@pytest.mark.parametrize(
    ("row", "theirs"),
    [
        (parsed(id="c|7", name="x"), True),
        (parsed(id="1", name="c|7"), False),
        (parsed(id="", name=" ana@example.org "), True),
        (parsed(id="", name="Ana ana@example.org"), False),
        (parsed(problem=True, row="1,ana@example.org"), True),
        (parsed(problem=True, row="1,joana@example.org"), False),
        (parsed(problem=True, row="1;c|7;"), True),
        (parsed(problem=True, row="1;c|70"), False),
        (parsed(problem=True, row="x" * EXCERPT), True),
    ],
)
def test_a_row_is_theirs_if_it_is_known_by_them_or_may_be(row: Parsed, theirs: bool) -> None:
    keeping = Keeping(SHOP, CUSTOMERS, source="uploads", kind="customers", identify=no_id)
    assert Theirs(keeping, PERSON, "ana@example.org", []).is_row(row) is theirs


def test_where_nothing_is_known_of_a_stream_any_cell_may_name_them() -> None:
    theirs = Theirs(Keeping(SHOP, CUSTOMERS), PERSON, "", [])
    assert theirs.is_row(parsed(number="c|7", name="x")) and not theirs.is_row(parsed(number="c|70", name="x"))


@pytest.mark.parametrize(
    "values", [["a"], ["a", "b"], ["a|b", "c"], ["a\\", "b"], ["\\|", "", "x"], ["a\\|b", "c"], ["", "a"]]
)
def test_the_first_of_joined_values_is_found_again(values: list[str]) -> None:
    assert first_of(joined(values)) == values[0]


def test_a_text_of_one_value_with_a_bar_is_taken_for_several() -> None:
    assert first_of(joined(["a|b"])) == "a"
