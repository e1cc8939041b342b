"""What a scheme's `formatResponse` and `beatFlat` make of a row (names and results: vendor documentation).

Pure: the row that is passed in stays as it is. What cannot be converted is a RecordError that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from shared.declared import convert
from shared.declared.faults import Wrong, shown, unknown
from shared.declared.paths import MISSING, look, parse_path, put
from shared.errors import RecordError

MOST_ROWS: Final = 10_000
"""Rows of one row: several arrays multiply."""

Conversion = Callable[[Any, ZoneInfo], Any]
_FORM: Final = re.compile(r"\s*([A-Za-z]+)\s*(?:\((.*)\)\s*)?", re.DOTALL)

_DATES: Final[Mapping[str, Callable[[str, str], str]]] = {
    "date": lambda day, clock: day,
    "time": lambda day, clock: clock,
    "dateTime": lambda day, clock: f"{day} {clock[:5]}",
    "shortDate": lambda day, clock: day[5:],
    "shortTime": lambda day, clock: clock[:5],
    "shortDateTime": lambda day, clock: f"{day[5:]} {clock[:5]}",
}
"""Of `2024-03-15` and `14:30:25`. The vendor's dateTime has no seconds."""
_NUMBERED: Final[Mapping[str, tuple[int, int, int]]] = {"longText": (15, 1, 100_000), "round": (2, 0, 10)}
"""The number in brackets: what it is when left out, the least and the most."""
FORMATS: Final = (*_DATES, *_NUMBERED, "intval", "amount", "implode")


@lru_cache(maxsize=1024)
def conversion(text: str) -> Conversion:
    """What a format such as `round(2)` does. Raises Wrong for an unknown one, or for what it does not take."""
    match = _FORM.fullmatch(text)
    name, argument = (match[1], match[2]) if match else (text, None)
    if name == "dateDescription":
        cure = "write date: how long ago it was would change the row at each run"
        raise Wrong(shown(text), f"one of {', '.join(FORMATS)}", cure)
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    if name in _DATES:
        return _without(argument, name, lambda value, zone: _dated(value, zone, _DATES[name]))
    if name == "intval":
        return _without(argument, name, lambda value, zone: int(convert.decimal(_plain(value))))
    if name == "amount":
        return _without(argument, name, lambda value, zone: f"￥{convert.rounded(value, 2):,.2f}")
    if name == "implode":
        return lambda value, zone: _imploded(value, _separator(argument))
    size = _size(argument, name)
    if name == "longText":
        return lambda value, zone: _shortened(convert.text(value), size)
    return lambda value, zone: _rounded(value, size)


def formatted(row: dict[str, Any], formats: Iterable[tuple[str, str, str]], zone: ZoneInfo) -> dict[str, Any]:
    """The row with each (old, new, format) applied. All of them read the row as it came, so their order says nothing.

    Without `new` the old place is written. Where there is nothing, null or an empty text, nothing is written.
    """
    result = row
    for old, new, form in formats:
        value = look(row, parse_path(old))
        if value is MISSING or value in (None, ""):
            continue
        try:
            converted = conversion(form)(value, zone)
        except ValueError as error:
            raise RecordError(f"{old} is {error}", field=old) from None
        result = put(result, parse_path(new or old), converted)
    return result


def flattened(row: dict[str, Any], arrays: Sequence[str], id_field: str, first: int) -> list[dict[str, Any]]:
    """One row for each element of an array, its fields with the array's name before them (`details_goods`), and the id
    with the row's number after it (`OUT1-1`). `first` is the number of the first element.

    Several arrays are flattened one after the other. A row whose array is missing or empty stays one row, with its id.
    """
    rows = [row]
    for array in arrays:
        rows = [flat for each in rows for flat in _flat(each, array, id_field, first)]
        if len(rows) > MOST_ROWS:
            raise RecordError(f"{array} makes more than {MOST_ROWS} rows of one", field=array)
    return rows


def _flat(row: dict[str, Any], array: str, id_field: str, first: int) -> Iterable[dict[str, Any]]:
    elements = row.get(array)
    rest = {name: value for name, value in row.items() if name != array}
    if elements in (None, "", []):
        return [rest]
    if type(elements) is not list:
        raise RecordError(f"{array} is no list", field=array)
    identity = look(row, parse_path(id_field))
    if type(identity) not in (str, int) or identity == "":
        raise RecordError(f"{id_field} is no id", field=id_field)
    # Made one by one, so that what is too much is noticed before it is all in memory.
    return (
        put({**rest, **_prefixed(array, element, rest)}, parse_path(id_field), f"{identity}-{number}")
        for number, element in enumerate(elements, first)
    )


def _prefixed(array: str, element: Any, rest: Mapping[str, Any]) -> dict[str, Any]:
    if type(element) is not dict:
        return {array: element}
    named = {f"{array}_{name}": value for name, value in element.items()}
    for name in named:
        if name in rest:
            raise RecordError(f"{name} is there twice once {array} is flattened", field=array)
    return named


def _without(argument: str | None, name: str, done: Conversion) -> Conversion:
    if argument:
        raise Wrong(f"{name}({argument[:20]})", f"{name} without anything in brackets", f"write {name}")
    return done


def _size(argument: str | None, name: str) -> int:
    usual, least, most = _NUMBERED[name]
    if not argument:
        return usual
    if not re.fullmatch(r"\s*[0-9]{1,6}\s*", argument) or not least <= int(argument) <= most:
        raise Wrong(
            f"{name}({argument[:20]})", f"a number from {least} to {most}", f"write for example {name}({usual})"
        )
    return int(argument)


def _separator(argument: str | None) -> str:
    if argument is None or argument == "":
        return ","
    quoted = len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "'\""
    return argument[1:-1] if quoted else argument


def _dated(value: Any, zone: ZoneInfo, part: Callable[[str, str], str]) -> str:
    when = convert.moment(value, zone)
    return part(convert.day(when), convert.clock(when))


def _plain(value: Any) -> Any:
    return int(value) if type(value) is bool else value


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}..."


def _rounded(value: Any, places: int) -> int | float:
    result = convert.rounded(value, places)
    return float(result) if places else int(result)


def _imploded(value: Any, separator: str) -> str:
    if type(value) is not list:
        raise ValueError("no list")
    try:
        return separator.join(convert.text(each) for each in value)
    except ValueError:
        raise ValueError("no list of plain values") from None
