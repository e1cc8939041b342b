"""What is wrong with something that people declared: place, what was found, what was expected, and the cure.

All faults of one declaration are gathered before anybody is told. Whoever knows the file adds its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.errors import ConfigError


class Fault(msgspec.Struct, frozen=True):
    """One thing to mend. `path` is the place, such as `request[1].value`; empty is the whole."""

    path: str
    found: str
    expected: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}found {self.found}, expected {self.expected}; {self.cure}"


class Faults(ConfigError):
    """All faults of one declaration, in its order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.mistakes = tuple(faults)
        super().__init__("\n".join(map(str, faults)), cure=faults[0].cure)


class Wrong(ValueError):
    """A value that cannot be used; its place is added where it is known."""

    def __init__(self, found: str, expected: str, cure: str) -> None:
        super().__init__(expected)
        self.found, self.expected, self.cure = found, expected, cure

    def at(self, path: str) -> Fault:
        return Fault(path, self.found, self.expected, self.cure)


def shown(value: Any) -> str:
    """A declared value on one line, shortened; containers by their kind only."""
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case None:
            return "null"
        case bool():
            return f"`{str(value).lower()}`"
        case int() if abs(value) >= 10**60:
            return "a huge number"
    line = " ".join(str(value).split())
    return f"`{line[:60]}…`" if len(line) > 60 else f"`{line}`" if line else "an empty text"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that was probably meant."""
    import difflib  # only mistakes need it, and every start would pay for it

    return next(iter(difflib.get_close_matches(name[:100], list(known), n=1, cutoff=cutoff)), None)


def unknown(what: str, name: str, known: Sequence[str], lead: str = "") -> Wrong:
    """A name that nobody knows, with those that somebody does."""
    near = nearest(name, known)
    cure = f"write {near}" if near else f"write one of {', '.join(known)}"
    return Wrong(f"{what} {shown(name)}", f"one of {lead}{', '.join(known)}", cure)
