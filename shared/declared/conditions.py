"""Which records travel, as integration.yaml declares it, made into the filters of `Rules`.

only:
  - {name: active, field: enable_flag, is: "1"}
  - {field: department.name, in: [Sales, 销售部]}
  - {field: create_time, above: "2024-01-01"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any

import msgspec

from shared.declared import convert
from shared.declared.faults import Fault, Faults, shown
from shared.declared.paths import MISSING, Path, look, path_at
from shared.errors import RecordError
from shared.rules import Filter

Scalar = str | int | float | bool


class Condition(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"is_": "is", "not_": "not", "in_": "in"}.get,
    kw_only=True,
):
    """A condition that a record must meet to travel; all that it names must hold.

    Values are compared as text, true being 1 and false 0; `above` and `below` as numbers where the bound is one.
    `matches` is a regular expression for the whole text. A field that is absent is null, which is nothing but null.
    """

    field: str
    name: str | None = None
    is_: Scalar | msgspec.UnsetType | None = msgspec.UNSET
    not_: Scalar | msgspec.UnsetType | None = msgspec.UNSET
    in_: list[Scalar | None] | msgspec.UnsetType = msgspec.UNSET
    above: int | float | str | msgspec.UnsetType = msgspec.UNSET
    below: int | float | str | msgspec.UnsetType = msgspec.UNSET
    matches: str | msgspec.UnsetType = msgspec.UNSET


def compile_conditions(only: Sequence[Condition]) -> list[Filter]:
    """The filters: each is true for a record that does not meet its condition, and so stays home under its name, which
    is `only_<field>` unless it has one. They raise RecordError for what cannot be compared. Raises Faults."""
    faults: list[Fault] = []
    filters: list[Filter] = []
    for number, condition in enumerate(only):
        tests = list(_tests(condition, f"only[{number}]", faults))
        path = path_at(condition.field, f"only[{number}].field", faults)
        filters.append((condition.name or f"only_{condition.field}", partial(_fails, condition.field, path, tests)))
    if faults:
        raise Faults(faults)
    return filters


Test = Callable[[Any], bool]


def _tests(condition: Condition, at: str, faults: list[Fault]) -> Iterator[Test]:
    """What the value must pass, one test for each key that was given."""
    accepted: list[Any] = [] if condition.in_ is msgspec.UNSET else condition.in_
    given = condition.is_, condition.not_, condition.above, condition.below, condition.matches
    if condition.in_ == [] or (condition.in_ is msgspec.UNSET and all(each is msgspec.UNSET for each in given)):
        known = "is, not, in, above, below, matches"
        faults.append(Fault(at, "no comparison", f"one of {known}", f"add one of {known}"))
    if any(isinstance(each, float) and not isfinite(each) for each in (*given, *accepted)):
        faults.append(Fault(at, "infinity or no number", "a number", "write a number that is one"))
    if condition.name == "":
        faults.append(Fault(f"{at}.name", "an empty text", "a name", "write a name, or remove it"))
    if condition.is_ is not msgspec.UNSET:
        yield partial(_same, condition.is_)
    if condition.not_ is not msgspec.UNSET:
        yield lambda value: not _same(condition.not_, value)
    if condition.in_ is not msgspec.UNSET:
        yield lambda value: any(_same(each, value) for each in accepted)
    if condition.above is not msgspec.UNSET:
        yield partial(_beyond, condition.above, 1)
    if condition.below is not msgspec.UNSET:
        yield partial(_beyond, condition.below, -1)
    if condition.matches is not msgspec.UNSET:
        try:
            form = re.compile(condition.matches)
        except (re.error, RecursionError, OverflowError) as error:
            cure = f"correct it: {error}"
            faults.append(Fault(f"{at}.matches", shown(condition.matches), "a regular expression", cure))
        else:
            yield lambda value: value is not None and form.fullmatch(convert.text(value)) is not None


def _fails(field: str, path: Path, tests: Sequence[Test], record: dict[str, Any]) -> bool:
    value = look(record, path)
    try:
        return not all(test(None if value is MISSING else value) for test in tests)
    except ValueError as error:
        raise RecordError(f"{field} is {error}", field=field) from None


def _same(wanted: Any, value: Any) -> bool:
    if wanted is None or value is None or type(value) in (dict, list):
        return wanted is None and value is None
    if type(wanted) is bool or type(value) is bool:
        return _truth(wanted) == _truth(value)
    return convert.text(wanted) == convert.text(value)


def _truth(value: Any) -> str:
    """A value beside a boolean: `true` and 1 are one, whatever else there is stays itself."""
    return {"true": "1", "false": "0"}.get(convert.compared(value), convert.compared(value))


def _beyond(bound: int | float | str, direction: int, value: Any) -> bool:
    if value is None:
        return False
    limit = _number(bound)
    if limit is not None:
        number = convert.decimal(value)
        return number > limit if direction > 0 else number < limit
    text, edge = convert.text(value), str(bound)
    return text > edge if direction > 0 else text < edge


def _number(bound: Any) -> Decimal | None:
    try:
        return convert.decimal(bound)
    except ValueError:
        return None
