"""Declared fields where one of the two ends is a table, whose columns are called what people like."""

from __future__ import annotations

import pytest

from shared.declared.faults import Faults
from shared.declared.fields import FieldRule, compile_fields
from shared.errors import RecordError

ODD = ("No. of items", "a..b", " a", "a.", ".", "x.0.y" * 9, "E-Mail (1)")


@pytest.mark.parametrize("column", ODD)
def test_a_column_that_is_no_path_is_read_and_made_all_the_same(column: str) -> None:
    assert compile_fields({"n": column}, of_row=True)({column: "3"}) == {"n": "3"}
    assert compile_fields({column: "n"}, as_row=True)({"n": 3}) == {column: 3}
    assert compile_fields({"n": column}, as_row=True)({column: 3}) == {"n": 3}


def test_the_columns_of_a_row_are_never_paths() -> None:
    read = compile_fields({"city": "at.city", "at.zip": FieldRule(from_="zip", as_="integer")}, of_row=True)
    assert read({"at": {"city": "Salto"}, "at.city": "Rocha", "zip": "11"}) == {"city": "Rocha", "at": {"zip": 11}}
    assert read({"at": "text"}) == {}
    with pytest.raises(RecordError) as refused:
        read({"zip": "eleven"})
    assert refused.value.field == "zip"


def test_of_an_object_a_name_goes_before_a_path() -> None:
    made = compile_fields({"a.b": "x.y"}, as_row=True)
    assert made({"x": {"y": 1}}) == {"a.b": 1}
    assert made({"x": {"y": 1}, "x.y": 2}) == {"a.b": 2}
    assert made({"x.y": None, "x": {"y": 1}}) == {}


@pytest.mark.parametrize(
    ("fields", "place"),
    [({"n": " "}, "fields.n.from"), ({"": "n"}, "fields."), ({"n": FieldRule(from_="")}, "fields.n.from")],
)
def test_a_column_without_a_name_is_a_mistake(fields: dict[str, str | FieldRule], place: str) -> None:
    for ends in ({"of_row": True}, {"as_row": True}):
        with pytest.raises(Faults) as refused:
            compile_fields(fields, **ends)
        assert place in [each.path for each in refused.value.mistakes]
