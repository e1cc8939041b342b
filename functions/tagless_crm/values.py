"""Cells as the values that an API wants. From CSV all of them are texts, from JSON lines and BigQuery they have types.

Each function takes a cell and the name of its column. It raises RecordError, which names the column and never quotes
what is in it. Nothing is guessed: a decimal comma is no number, and an instant without its offset is none.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

from shared.declared import convert
from shared.declared.convert import EPOCH
from shared.errors import MAIL_IN_CLEAR, MALFORMED, WRONG_TYPE, RecordError

_MICROS: Final = re.compile(r"[0-9]{1,19}")
_MAIL: Final = re.compile(r"[^\s@]+@[^\s@.]+(\.[^\s@.]+)+")
_UTC: Final = re.compile(r" ?UTC$")


def as_is(cell: Any, column: str) -> Any:
    return cell


def text(cell: Any, column: str) -> str:
    """A text, or a whole number by its digits. An e-mail address has columns of its own, in which it is hashed."""
    if type(cell) is int:
        return str(cell)
    if not isinstance(cell, str):
        raise wrong_type(column, "text")
    if _MAIL.fullmatch(cell.strip()):
        raise RecordError(f"{column} is an e-mail address in clear", field=column, number=MAIL_IN_CLEAR)
    return cell


def number(cell: Any, column: str) -> int | float:
    """A number, or a text that is one: digits with a point before the decimals."""
    try:
        return convert.number(_no_boolean(cell))
    except ValueError:
        raise wrong_type(column, "number") from None


def whole(cell: Any, column: str) -> int:
    try:
        return convert.integer(_no_boolean(cell))
    except ValueError:
        raise wrong_type(column, "whole number") from None


def boolean(cell: Any, column: str) -> bool:
    """True and false, 1 and 0, yes and no."""
    try:
        return convert.boolean(cell)
    except ValueError:
        raise wrong_type(column, "true or false") from None


def instant(cell: Any, column: str) -> datetime:
    """ISO 8601 with its offset, also as BigQuery exports it (`2026-01-31 12:00:00 UTC`)."""
    try:
        found = datetime.fromisoformat(_UTC.sub("+00:00", cell.strip()) if isinstance(cell, str) else "")
    except ValueError:
        raise _no_instant(column) from None
    if found.tzinfo is None:
        raise _no_instant(column)
    return found


def micros(cell: Any, column: str) -> int:
    """Microseconds since 1970, as such or as an instant."""
    if type(cell) is int:
        return cell
    if isinstance(cell, str) and _MICROS.fullmatch(cell.strip()):
        return int(cell)
    return (instant(cell, column) - EPOCH) // timedelta(microseconds=1)


def rfc_3339(cell: Any, column: str) -> str:
    """An instant as Data Manager wants it."""
    return instant(cell, column).isoformat().replace("+00:00", "Z")


def seconds_with_offset(cell: Any, column: str) -> str:
    """An instant as Google Ads wants it, `2026-01-31 12:00:00-03:00`: fractions of a second are left off."""
    return instant(cell, column).isoformat(sep=" ", timespec="seconds")


def wrong_type(column: str, wanted: str) -> RecordError:
    return RecordError(f"{column} is no {wanted}", field=column, number=WRONG_TYPE)


def _no_boolean(cell: Any) -> Any:
    if isinstance(cell, bool):
        raise ValueError
    return cell


def _no_instant(column: str) -> RecordError:
    reason = f"{column} is no instant with an offset, such as 2026-01-31T12:00:00-03:00"
    return RecordError(reason, field=column, number=MALFORMED)
