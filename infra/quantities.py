"""Durations and rates as people write them in integration.yaml: pure, and what is printed parses back to the same."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import msgspec

DURATION_FORMS: Final = "a duration of 0s to 36500d such as 250ms, 0.5s, 30s, 10m, 2h or 50d"
RATE_FORMS: Final = "a rate such as 120/min, 1/s or 10/h, or none"

LONGEST: Final = 36_500 * 86_400.0
"""Seconds. Beyond it, adding the duration to an instant leaves the calendar."""

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_RATE: Final = re.compile(r"([0-9]{1,9})/(s|min|h)")
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3_600.0}


class Rate(msgspec.Struct, frozen=True):
    """At most `count` calls in any sliding `seconds`."""

    count: int
    seconds: float


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError with what was found and the accepted forms."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"found {text!r}, expected {DURATION_FORMS}")
    number, unit = match.groups()
    # A thousandth as an exponent is rounded once; multiplied by 0.001 it would be rounded twice.
    seconds = float(f"{number}e-3") if unit == "ms" else float(number) * _UNITS[unit]
    if seconds > LONGEST:
        raise ValueError(f"found {text!r}, expected {DURATION_FORMS}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest usual form, such as 10m, 90s, 250ms; `parse_duration` gives exactly `seconds` back.

    Raises ValueError outside of what `parse_duration` accepts.
    """
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"found {seconds!r} seconds, expected {DURATION_FORMS}")
    if seconds == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    thousandths = round(seconds * 1000)
    if seconds < 1 and thousandths / 1000 == seconds:
        return f"{thousandths}ms"
    return f"{Decimal(repr(float(seconds))):f}s"


def parse_rate(text: str) -> Rate | None:
    """None for `none`: no limit. Raises ValueError with what was found and the accepted forms."""
    if text == "none":
        return None
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"found {text!r}, expected {RATE_FORMS}")
    return Rate(int(match[1]), _PERIODS[match[2]])


def format_rate(rate: Rate | None) -> str:
    """`120/min` or `none`; `parse_rate` gives the same back. Raises ValueError where there is no such form."""
    if rate is None:
        return "none"
    for period, seconds in _PERIODS.items():
        if rate.seconds == seconds and 1 <= rate.count <= 999_999_999:
            return f"{rate.count}/{period}"
    raise ValueError(f"found {rate!r}, expected {RATE_FORMS}")
