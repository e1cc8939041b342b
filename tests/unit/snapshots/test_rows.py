"""The files of a snapshot: whatever a row holds is read again as it was."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.books import Batch, Failure
from shared.ledger import Cell
from shared.objects import Object
from shared.outcome import Outcome, Verdict
from shared.record import Record
from shared.snapshot.history import KindOfObject, Stored
from shared.snapshot.rows import (
    COLUMNS,
    OBJECT_COLUMNS,
    object_rows,
    objects_in,
    pov_row,
    read,
    row_of,
    thing_of,
    written,
)
from tests.unit.fakes import spare_the_disk
from tests.unit.installations import Installation, books_of

AT = datetime(2026, 3, 1, 13, tzinfo=UTC)
# A lone surrogate is in no text that a home can keep; a pair of them is one character.
TEXTS = st.text(alphabet="\r\n\",;\0\x1a\x1c\x85\u2028\u2029\ufeff\ufffd\U0001f600\\' \ta", max_size=8) | st.text()
VALUES = st.recursive(TEXTS | st.none() | st.booleans() | st.integers(-9, 9), lambda each: st.lists(each, max_size=3))
FIELDS = st.dictionaries(TEXTS, VALUES, max_size=4)


def of(columns: tuple[str, ...], rows: Any) -> list[list[str]]:
    return list(read(io.BytesIO(b"".join(written(columns, rows))), columns))


@given(st.lists(st.tuples(TEXTS, FIELDS), max_size=4))
def test_whatever_keys_and_documents_hold_they_are_read_as_they_were(given: list[tuple[str, dict[str, Any]]]) -> None:
    rows = []
    for number, (text, fields) in enumerate(given):
        cell = Cell(text, version=text, target_id=text, origin=text, run=text, at=AT)
        record = Record(text, text, "upsert", text, text, fields)
        verdict = Verdict(Outcome.INVALID, 10, text, text)
        batch = Batch(text, text, "shop", "things", "fetch", 0, [], [], "", AT)
        failure = msgspec.structs.replace(Failure.of(record, verdict, batch, number, AT, text), id=text)
        rows += [row_of("cell", text, number, None, cell), row_of("failure", text, number, AT, failure)]
    found = [pov_row(row) for row in of(COLUMNS, rows)]
    assert found == rows
    assert [
        row_of(row.row, row.id, row.process_id, None, thing_of(row, "shop", "things")).document for row in found
    ] == [row.document for row in rows]


@given(TEXTS.filter(bool), st.lists(TEXTS), st.lists(st.tuples(TEXTS, FIELDS), max_size=4))
def test_whatever_ids_and_fields_of_objects_hold_they_are_read_as_they_were(
    name: str, fields: list[str], given: list[tuple[str, dict[str, Any]]]
) -> None:
    kind, objects = KindOfObject(name, fields), [Object(id, each, AT) for id, each in given]
    found = list(objects_in(of(OBJECT_COLUMNS, object_rows(kind, objects))))
    assert found == [kind, *(Stored(name, each) for each in objects)]


@pytest.mark.parametrize("type", ["ALL", "ALL_INCREMENTAL"])
def test_a_key_with_a_carriage_return_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str) -> None:
    spare_the_disk(monkeypatch)
    source = Installation(tmp_path / "source")
    here = Installation(tmp_path / "here", source.clock)
    world = source.world()
    world.shelf.put(1, 3500, key="ana@example.org\r")
    world.process().run()
    source.hub().home.objects.put("customers", {"a\rb": {"c\rd": "e\rf"}}, source.clock.now())
    source.export("full", type, with_data=True)
    here.restore(source.archive("full"))
    assert books_of(here.hub().home, with_data=True) == books_of(source.hub().home, with_data=True)
    assert [each.id for each in here.hub().home.objects.page("customers", "", 9)] == ["a\rb"]
    for installation in (source, here):
        installation.close()
