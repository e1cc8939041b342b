"""Mistakes in a configuration: each says its place, what was found, what was expected, and the cure.

All are gathered before anybody is told, so that one look mends everything. A value is shown shortened to one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec

from shared.errors import ConfigError


class Mistake(msgspec.Struct, frozen=True):
    """One thing to mend. `path` is the place in the file, such as `streams.customers.overlap`; empty is the whole file.

    `line` counts from 1. Where a key is missing it is the line of the section that lacks it.
    """

    file: str
    path: str
    line: int | None
    found: str
    expected: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.path}: " if self.path else ""
        return f"{place}: {key}found {self.found}, expected {self.expected}; {self.cure}"


class ConfigMistakes(ConfigError):
    """All mistakes of all files, in the order of files and lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0))
        count = len(self.mistakes)
        lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        super().__init__(f"{count} mistake{'s' if count > 1 else ''} in the configuration:{lines}")


def shown(value: Any) -> str:
    """A value as people wrote it, shortened; containers by their kind only."""
    match value:
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list"
        case None:
            return "null"
        case bool():
            return f"`{str(value).lower()}`"
        case date():
            return f"`{value.isoformat()}`"
    text = " ".join(str(value).split())
    return f"`{text[:60]}…`" if len(text) > 60 else f"`{text}`" if text else "an empty text"


def nearest(name: str, known: Iterable[Any]) -> str | None:
    import difflib  # only mistakes need it, and every start would pay for it

    return next(iter(difflib.get_close_matches(name, list(map(str, known)), n=1)), None)
