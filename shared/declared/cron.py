"""Cron expressions of five fields, as the schedules of a scheme's metadata have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shared.declared.faults import Wrong, shown

_CRON_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_CRON_PART: Final = re.compile(r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def judge_cron(text: str) -> None:
    """Raises Wrong unless it is a cron expression of five fields, as the platform's schedules are."""
    fields = text.lower().split()
    if len(fields) != len(_CRON_FIELDS):
        raise Wrong(shown(text), "five fields: minute, hour, day, month, weekday", 'write for example "0 3 * * *"')
    for field, (name, lowest, highest) in zip(fields, _CRON_FIELDS, strict=True):
        for part in field.split(","):
            match = _CRON_PART.fullmatch(part)
            ends = [_cron_number(end, name) for end in match.groups()[:2] if end is not None] if match else [-1]
            if not all(lowest <= end <= highest for end in ends) or ends != sorted(ends) or (match and match[3] == "0"):
                cure = f"correct the {name}: {lowest} to {highest}, such as {lowest} or {lowest}-{highest}/2"
                raise Wrong(f"{name} {shown(part)}", f"a {name} of a cron expression", cure)


def _cron_number(end: str, name: str) -> int:
    names: Mapping[str, int] = {}
    if name == "month":
        names = {month: number for number, month in enumerate(_MONTHS, 1)}
    elif name == "weekday":
        names = {day: number for number, day in enumerate(_DAYS)}
    return names.get(end, int(end) if end.isdecimal() else -1)
