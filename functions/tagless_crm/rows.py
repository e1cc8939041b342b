"""Rows as nested contents: what stands in columns such as `params.value` or in JSON, by what a destination has.

A destination's fields are a mapping of their names, each to the fields below it or to a function that reads a cell.
What is empty is left out. A column that the destination does not have is not sent, since an export holds more than any
API wants; but where it is nearly the name of a field that the row lacks, the row is invalid, so that a slip of the pen
costs no value silently. So it is below a field that there is: whoever writes `ad_identifiers.x` means the API.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from functions.tagless_crm.values import wrong_type
from shared.declared.faults import nearest
from shared.errors import UNKNOWN_FIELD, UNMAPPABLE, RecordError
from shared.tabular import IDENTITY

Value: TypeAlias = Callable[[Any, str], Any]
"""Reads a cell (or what JSON has in its place), told the name of its column. Raises RecordError."""
Fields: TypeAlias = "Mapping[str, Value | Fields]"

ALIKE: Final = 0.8
"""How alike two names are of which one is a slip. With less, `customer_id` would be one of `customer_type`."""
_REMEMBERED: Final = 1_000


class Table(NamedTuple):
    """The columns of a destination. A `short` name stands for a longer one, with dots."""

    fields: Fields
    short: Mapping[str, str] = {}

    def path_of(self, column: str) -> tuple[str, ...]:
        first, *below = column.split(".")
        return (*self.short.get(first, first).split("."), *below)


def content_maker(
    table: Table, exempt: Collection[str] = (), ignored: Collection[str] = ()
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes contents of rows; the order of their columns is of no account. `exempt` columns may be called what they
    like, and `ignored` ones are never sent."""
    meant = lru_cache(_REMEMBERED)(partial(_meant, sorted({*_names(table.fields), *table.short})))

    def content(row: dict[str, Any]) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        foreign = []
        for column, cell in row.items():
            if column == IDENTITY or column in ignored or is_empty(cell):
                continue
            path = table.path_of(column)
            if path[0] in table.fields:
                _put(nested, path, cell, column)
            elif column not in exempt:
                foreign.append(column)
        for column in foreign:
            for name in meant(column):
                if name not in row and not _holds(nested, table.path_of(name)):
                    raise _unknown(column, f"{name} is: rename the column, or name it under `ignore`")
        return object_of(table.fields, nested, "")

    return content


def is_empty(cell: Any) -> bool:
    return cell is None or cell in ([], {}) or (isinstance(cell, str) and not cell.strip())


def object_of(fields: Fields, given: Any, column: str) -> dict[str, Any]:
    """The fields of an object, each as it is to be read. Raises RecordError, also for one that there is not."""
    made = {}
    for name, cell in items_of(given, column):
        place = f"{column}.{name}" if column else name
        if name not in fields:
            near = nearest(name, fields)
            raise _unknown(place, f"{near} is" if near else f"there are {', '.join(fields)}")
        made[name] = read(fields[name], cell, place)
    return _filled(made)


def read(kind: Value | Fields, cell: Any, column: str) -> Any:
    return kind(cell, column) if callable(kind) else object_of(kind, cell, column)


def items_of(given: Any, column: str) -> Iterator[tuple[str, Any]]:
    """The fields of an object that hold something. Raises RecordError for anything else than an object."""
    found = _decoded(given)
    if not isinstance(found, dict):
        raise wrong_type(column, "object: write its fields as columns with dots, or all of it as JSON")
    return ((name, cell) for name, cell in found.items() if not is_empty(cell))


def any_names(kind_of: Callable[[str], Value | Fields]) -> Value:
    """An object whose names are up to its sender."""

    def read_object(given: Any, column: str) -> dict[str, Any]:
        return _filled({name: read(kind_of(name), cell, f"{column}.{name}") for name, cell in items_of(given, column)})

    return read_object


def list_of(kind: Value | Fields) -> Value:
    """A list: as JSON, or as columns with places (`custom_variables.0.value`)."""

    def read_list(given: Any, column: str) -> list[Any]:
        found = listed(given)
        if found is None:
            raise wrong_type(column, f"list: write JSON such as [...], or a column such as {column}.0 for each")
        made = [read(kind, each, f"{column}.{place}") for place, each in found]
        return [each for each in made if not is_empty(each)]

    return read_list


def one_or_more(kind: Value | Fields) -> Value:
    """A single one, or a list of them."""
    as_list = list_of(kind)

    def read_either(given: Any, column: str) -> Any:
        return read(kind, given, column) if listed(given) is None else as_list(given, column)

    return read_either


def listed(given: Any) -> list[tuple[str, Any]] | None:
    """What a list holds, with the places; None for what is no list."""
    found = _decoded(given)
    if isinstance(found, list):
        pairs = [(str(place), each) for place, each in enumerate(found)]
    elif isinstance(found, dict) and found and all(name.isascii() and name.isdigit() for name in found):
        pairs = sorted(found.items(), key=lambda pair: (int(pair[0][:9]), pair[0]))
    else:
        return None
    return [(place, each) for place, each in pairs if not is_empty(each)]


def _decoded(given: Any) -> Any:
    """What a text says in JSON; anything else, and a text that is none, as it is."""
    if not isinstance(given, str) or given.strip()[:1] not in ("{", "["):
        return given
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return given


def _put(nested: dict[str, Any], path: Sequence[str], cell: Any, column: str) -> None:
    """Writes a cell at its place; an object by what it holds, whose names may have dots too."""
    if isinstance(cell, dict):
        for name, each in cell.items():
            if not is_empty(each):
                _put(nested, (*path, *name.split(".")), each, f"{column}.{name}")
        return
    *above, last = path
    for name in above:
        nested = nested.setdefault(name, {})
        if not isinstance(nested, dict):
            raise _twice(column)
    if last in nested:
        raise _twice(column)
    nested[last] = cell


def _holds(nested: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(nested, dict) or name not in nested:
            return False
        nested = nested[name]
    return True


def _filled(made: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in made.items() if not is_empty(each)}


def _names(fields: Fields, above: str = "") -> Iterator[str]:
    """The names of all fields, with dots."""
    for name, kind in fields.items():
        yield above + name
        if not callable(kind):
            yield from _names(kind, f"{above}{name}.")


def _meant(known: list[str], column: str) -> list[str]:
    """The name that a column may have been meant for, and the one that its first part may have."""
    column = column[:100].lower()
    parts = dict.fromkeys((column, column.partition(".")[0]))
    return [name for part in parts if (name := nearest(part, known, ALIKE)) is not None]


def _unknown(column: str, instead: str) -> RecordError:
    return RecordError(f"the destination has no {column}; {instead}", field=column, number=UNKNOWN_FIELD)


def _twice(column: str) -> RecordError:
    return RecordError(f"{column} is given twice, or as a whole and in parts", field=column, number=UNMAPPABLE)
