"""Dotted paths into a record, such as `departments.0.department_name`: a number is the place in a list."""

from __future__ import annotations

import re
from typing import Any, Final

from shared.declared.faults import Fault, Wrong, shown
from shared.errors import RecordError

Path = tuple[str, ...]
MISSING: Final[Any] = object()
"""What `look` gives for what is not there."""

MOST_PARTS: Final = 16
_INDEX: Final = re.compile(r"[0-9]{1,9}")


def parse_path(text: str) -> Path:
    """Raises Wrong for a path with an empty part, blanks around one, or too many of them."""
    parts = tuple(text.split("."))
    if len(parts) > MOST_PARTS or not all(part and part == part.strip() for part in parts):
        cure = "write the names from the outside in, with a dot between two"
        raise Wrong(shown(text), "a path such as department.name or departments.0.name", cure)
    return parts


def path_at(text: str, place: str, faults: list[Fault]) -> Path:
    """The path of a declaration, whose mistake is added to the others."""
    try:
        return parse_path(text)
    except Wrong as wrong:
        faults.append(wrong.at(place))
        return ()


def look(record: dict[str, Any], path: Path) -> Any:
    """The value at a path, MISSING where a name, a place or what is above it is absent or null.

    Raises RecordError where the path goes through something that holds nothing.
    """
    value: Any = record
    for depth, part in enumerate(path):
        if type(value) is dict:
            value = value.get(part, MISSING)
        elif type(value) is list and _INDEX.fullmatch(part):
            value = value[int(part)] if int(part) < len(value) else MISSING
        elif value is None:
            return MISSING
        else:
            expected = "list" if _INDEX.fullmatch(part) else "object"
            raise RecordError(f"{'.'.join(path[:depth])} is no {expected}", field=".".join(path))
        if value is MISSING:
            return MISSING
    return value


def put(record: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The record with a value at a path; objects on the way are made. Changes nothing that was passed in."""
    name, *below = path
    if below:
        inner = record.get(name)
        if inner is not None and type(inner) is not dict:
            raise RecordError(f"{name} is no object", field=".".join(path))
        value = put(inner or {}, tuple(below), value)
    return {**record, name: value}
