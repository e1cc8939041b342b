"""Periods: named spans of time, UTC months where nothing is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Final

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A period names a file."""
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")


class Span(msgspec.Struct, frozen=True, rename={"name": "period", "since": "from"}):
    """A period from an instant (inclusive) to another one (exclusive)."""

    name: str
    since: Instant
    until: Instant


class Periods(msgspec.Struct, frozen=True):
    """The named spans, of which no two overlap."""

    spans: tuple[Span, ...] = ()

    def of(self, instant: datetime) -> str:
        """The span that the instant lies in, else its month in UTC."""
        for span in self.spans:
            if span.since <= instant < span.until:
                return span.name
        return f"{instant.astimezone(UTC):%Y-%m}"


def faults(spans: Sequence[Span]) -> list[str]:
    """What is wrong with named spans, each in words."""
    found = []
    for span in spans:
        if NAME.fullmatch(span.name) is None:
            found.append(f"{span.name!r} names no file: letters, digits, `_`, `-` and `.` do")
        if _MONTH.fullmatch(span.name):
            found.append(f"{span.name!r} is the name of a month, which is a period anyhow")
        if span.since >= span.until:
            found.append(f"{span.name} ends before it begins")
    names = [span.name for span in spans]
    found += [f"{name} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    in_order = sorted(spans, key=lambda span: span.since)
    for one, other in pairwise(in_order):
        if other.since < one.until:
            found.append(f"{one.name} and {other.name} overlap")
    return found
