"""The table of error numbers, and the classes of errors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shared import errors
from shared.errors import NUMBERS, RETRIED, SENT, TransientError, WaybillError

ROOT = Path(__file__).parents[2]
CONSTANTS = {
    name: value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)
}  # fmt: skip
CLASSES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, WaybillError) and each is not WaybillError
]


def test_every_number_has_a_name_and_every_name_a_line() -> None:
    assert set(CONSTANTS.values()) == set(NUMBERS)
    assert len(set(CONSTANTS.values())) == len(CONSTANTS)


@pytest.mark.parametrize("line", NUMBERS.values(), ids=lambda line: str(line.number))
def test_the_range_of_a_number_says_its_class(line: errors.ErrorNumber) -> None:
    expected = "marker" if line.number < 0 else "retriable" if 10 <= line.number < 50 else "permanent"
    assert line.kind == expected
    assert line.number < 0 or line.number >= 10
    assert line.meaning
    assert line.advice


def test_the_markers_are_those_of_the_older_system() -> None:
    assert (SENT, RETRIED) == (-2, -4)


def names_used(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_number_is_met_by_a_test() -> None:
    met: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            met |= names_used(path)
    assert set(CONSTANTS) <= met


def test_every_number_but_the_markers_is_given_by_something() -> None:
    used: set[str] = set()
    for package in ("shared", "infra", "functions"):
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "shared" / "errors.py":
                used |= names_used(path)
    # TransientError gives UNAVAILABLE to whoever names no other number.
    assert TransientError("x").number == errors.UNAVAILABLE
    given = used | {"UNAVAILABLE"}
    assert {name for name in CONSTANTS if name not in given} <= {"SENT", "RETRIED"}


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    named = set(re.findall(r"[A-Z][a-z]+[A-Z]\w+|Leased|Fenced", errors.__doc__))
    assert {each.__name__ for each in CLASSES} == named - {"WaybillError"}


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_says_what_it_is_and_what_to_do(error: type[WaybillError]) -> None:
    made = error("something happened")
    assert str(made) == "something happened"
    assert error.__doc__
    assert made.cure or error is errors.RecordError


def test_a_cure_can_be_given_with_the_error() -> None:
    assert errors.GuardTripped("x", cure="narrow it").cure == "narrow it"
    assert errors.GuardTripped("x").cure == errors.GuardTripped.cure
    assert WaybillError.cure == ""
