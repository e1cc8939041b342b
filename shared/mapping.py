"""Small pure helpers for mappings: what a source object holds, in the form that a target wants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from shared.errors import RecordError

_NO_DIGITS: Final = re.compile(r"[^0-9]+")


def text(data: Mapping[str, Any], field: str) -> str:
    """A text without blanks around it, empty if there is none. Raises RecordError for anything else than a text."""
    value = data.get(field)
    if value is None:
        return ""
    if type(value) is str:
        return value.strip()
    raise RecordError(f"{field} is no text", field=field)


def line(data: Mapping[str, Any], field: str) -> str:
    """A text on one line, with single blanks. Raises RecordError for anything else than a text."""
    return " ".join(text(data, field).split())


def digits(value: str) -> str:
    """The digits 0 to 9 of a text."""
    return _NO_DIGITS.sub("", value)


def filled(**fields: Any) -> dict[str, Any]:
    """The fields that hold something. What is empty is left out, so that it never overwrites what the target has."""
    return {name: value for name, value in fields.items() if value not in ("", None, [], {})}
