"""A value as another kind of value: what declarations and schemes call text, integer, number, boolean, date and so on.

Every function raises ValueError with what the value is not, and never quotes it: it may be a person's.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST: Final = 10**40
_ROOM: Final = Context(prec=100)
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?")
_TRUE: Final = frozenset({"1", "true", "yes"})
_FALSE: Final = frozenset({"0", "false", "no"})
_DATE_LENGTH: Final = 8
_DATETIME_LENGTH: Final = 14
_MILLISECONDS: Final = (12, 13)
"""How many digits a time in milliseconds has from 1973 to 2286; one in seconds has fewer."""


def text(value: Any) -> str:
    """Whole numbers lose their fraction, so that 1.0 and 1 are the same text; booleans are `true` and `false`."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return str(value).lower()
    if type(value) is int and abs(value) < _LARGEST:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < _LARGEST else repr(value)
    raise ValueError("no text")


def compared(value: Any) -> str:
    """The text by which two values are the same: true is 1, and 0 is false."""
    return str(int(value)) if type(value) is bool else text(value)


def decimal(value: Any) -> Decimal:
    """A number, or a text that is one, exactly as it is written."""
    if type(value) is int and abs(value) < _LARGEST:
        return Decimal(value)
    if type(value) is float and math.isfinite(value) and abs(value) < _LARGEST:
        return Decimal(repr(value))
    if type(value) is str and _DECIMAL.fullmatch(value.strip()):
        return Decimal(value.strip())
    raise ValueError("no number")


def integer(value: Any) -> int:
    """Booleans are 0 and 1. What has a fraction is no whole number."""
    if type(value) is bool:
        return int(value)
    try:
        exact = decimal(value)
    except ValueError:
        raise ValueError("no whole number") from None
    if exact != int(exact):
        raise ValueError("no whole number")
    return int(exact)


def number(value: Any) -> int | float:
    """Numbers stay as they are; a text becomes a whole number where it is written as one."""
    if type(value) is bool:
        return int(value)
    exact = decimal(value)
    if type(value) is str:
        return float(exact) if "." in value else int(exact)
    return value  # type: ignore[no-any-return]  # `decimal` takes nothing but int and float besides


def boolean(value: Any) -> bool:
    """True and false, 1 and 0, yes and no, whatever their case."""
    if type(value) is bool:
        return value
    try:
        word = text(value).strip().lower()
    except ValueError:
        word = ""
    if word not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return word in _TRUE


def moment(value: Any, zone: tzinfo | None) -> datetime:
    """A point in time: ISO 8601 (also with a blank for the T), `20240315143000`, `20240315`, or seconds or milliseconds
    since 1970 by their number of digits (vendor documentation of the date formats; the lengths are ours).

    With a zone it is in that zone, and a time without an offset is taken to be of that zone. Without one it keeps the
    offset that it has, if any.
    """
    try:
        found = _since_1970(value) or _written(value)
        if zone is None:
            return found
        return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(zone)
    except (ValueError, OverflowError):
        raise ValueError("no date") from None


def _since_1970(value: Any) -> datetime | None:
    written = "" if type(value) is bool else text(value).strip()
    if re.fullmatch(r"[0-9]+", written):
        if len(written) in (_DATE_LENGTH, _DATETIME_LENGTH):
            return None
        if len(written) > max(_MILLISECONDS):
            raise ValueError
        return EPOCH + timedelta(milliseconds=int(written) * (1 if len(written) in _MILLISECONDS else 1000))
    return EPOCH + timedelta(seconds=float(written)) if _DECIMAL.fullmatch(written) else None


def _written(value: Any) -> datetime:
    written = "" if type(value) is bool else text(value).strip()
    if re.fullmatch(r"[0-9]+", written):
        return datetime.strptime(written, "%Y%m%d" if len(written) == _DATE_LENGTH else "%Y%m%d%H%M%S")
    return datetime.fromisoformat(written)


def timestamp(value: Any, zone: tzinfo | None) -> int:
    """Whole seconds since 1970, rounded down."""
    return timestamp_ms(value, zone) // 1000


def timestamp_ms(value: Any, zone: tzinfo | None) -> int:
    """Whole milliseconds since 1970, rounded down."""
    when = moment(value, zone)
    if when.tzinfo is None:
        raise ValueError("no time with an offset, and there is no zone for it")
    return milliseconds(when)


def milliseconds(when: datetime) -> int:
    """Since 1970, rounded down; exact, which a float is not."""
    return (when - EPOCH) // timedelta(milliseconds=1)


def date(value: Any, zone: tzinfo | None) -> str:
    """The day in the zone; without one the day as it is written."""
    return day(_local(value, zone))


def date_time(value: Any, zone: tzinfo | None) -> str:
    """Day and time in the zone, without it; without one as they are written."""
    when = _local(value, zone)
    return f"{day(when)} {clock(when)}"


def _local(value: Any, zone: tzinfo | None) -> datetime:
    when = moment(value, zone)
    if zone is None and _since_1970(value) is not None:
        raise ValueError("no date that is the same everywhere, and there is no zone for it")
    return when


def day(when: datetime) -> str:
    return f"{when.year:04}-{when.month:02}-{when.day:02}"


def clock(when: datetime) -> str:
    return f"{when.hour:02}:{when.minute:02}:{when.second:02}"


def as_list(value: Any) -> list[Any]:
    """A list stays, anything else is the only element of one."""
    return value if type(value) is list else [value]


def as_json(value: Any) -> str:
    """JSON in one line. Keys are sorted, so that the same content is the same text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("nothing that JSON can hold") from None


def rounded(value: Any, places: int) -> Decimal:
    """Half is rounded away from zero, as people do and PHP does."""
    return decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, _ROOM)
