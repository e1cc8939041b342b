"""Cells of an exported file: no spreadsheet takes one for a formula, and nothing else is touched."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.systems.exports import Style, neutral, text
from tests.unit.fakes import STEADY

FORMULAS = (
    "=1+1", "=cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "+1+1", "-1+1", "-2+3+cmd|' /C calc'!A0", "+A1", "-A1",
    "+", "-", "--1", "+-1", "-1-2", "=", "@", "+(1)", "-1;2",
)  # fmt: skip
HARMLESS = (
    "", "1+1", "a=b", "'=1", " =1", "-1", "+1", "-1.5", "-.5", "-5.", "-1,234.50", "-1.234,50", "-1 000", "+1e5",
    "-1.5E-3", "-12%", "+55 11 98765-4321", "+55 (11) 98765.4321", "+4930/123456", "ana@example.com", "O'Neil",
)  # fmt: skip


@pytest.mark.parametrize("cell", FORMULAS, ids=repr)
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert neutral(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", HARMLESS, ids=repr)
def test_numbers_phone_numbers_and_texts_stay_as_they_are(cell: str) -> None:
    assert neutral(cell) == cell


@STEADY
@given(cells=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), min_size=1))
def test_whatever_is_written_is_read_again_but_for_the_apostrophes(cells: list[str]) -> None:
    for delimiter in (",", ";", "\t"):
        escaped = next(csv.reader(io.StringIO(Style(delimiter).line(cells), newline=""), delimiter=delimiter))
        assert escaped == [neutral(cell) for cell in cells]
        assert not any(cell.startswith(("=", "@", "\t", "\r")) for cell in escaped)
        as_they_are = Style(delimiter, escape_formulas=False).line(cells)
        assert next(csv.reader(io.StringIO(as_they_are, newline=""), delimiter=delimiter)) == cells


@pytest.mark.parametrize(
    ("value", "cell"), [("a", "a"), (None, ""), (1, "1"), (True, "true"), (["a", 1], '["a",1]')], ids=repr
)
def test_a_value_becomes_text(value: object, cell: str) -> None:
    assert text(value) == cell
