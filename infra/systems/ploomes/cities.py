"""The city of an address: Ploomes takes its number, other systems know its name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any, Final

from shared.errors import ProtocolError

EXPANDED: Final = "State"
LARGEST_PAGE: Final = 300

Ask = Callable[[str, dict[str, str | int]], list[Any]]
"""Asks an entity set with these options and gives its rows. Raises ProtocolError for an answer without a list."""


def folded(name: object) -> str:
    """A name as it is compared: without case, accents and doubled blanks. Empty for anything but a text."""
    if not isinstance(name, str):
        return ""
    plain = "".join(each for each in unicodedata.normalize("NFKD", name) if not unicodedata.combining(each))
    return " ".join(plain.casefold().split())


def quoted(text: str) -> str:
    """A text as a literal of a filter."""
    return "'" + text.replace("'", "''") + "'"


class Cities:
    """Numbers of cities, each asked for once.

    Whether `eq` minds case and accents is not documented: where it finds nothing, the state's cities are read once and
    compared here. A name that stands for none or for several is no city.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[tuple[str, str], int | None] = {}
        self._states: dict[str, list[Any]] = {}

    def number_of(self, name: str, state: str) -> int | None:
        """`state` by its two letters, empty if it is not known."""
        place = folded(name), folded(state)
        if place not in self._known:
            asked = f"Name eq {quoted(name)}" + (f" and State/Short eq {quoted(state.upper())}" if state else "")
            rows = self._ask("Cities", {"$filter": asked, "$top": LARGEST_PAGE, "$expand": EXPANDED})
            found = _numbers(rows, *place)
            if not found and state:
                found = _numbers(self._of_state(state.upper()), *place)
            self._known[place] = found.pop() if len(found) == 1 else None
        return self._known[place]

    def _of_state(self, state: str) -> list[Any]:
        if state not in self._states:
            cities: list[Any] = []
            last = 0
            # A state has less than a thousand; its end is an empty page.
            while rows := self._ask(
                "Cities",
                {
                    "$filter": f"State/Short eq {quoted(state)} and Id gt {last}",
                    "$orderby": "Id asc",
                    "$top": LARGEST_PAGE,
                    "$expand": EXPANDED,
                },
            ):
                first, last = last, max((number_in(row) for row in rows), default=0)
                if last <= first:
                    raise ProtocolError("a list of cities does not go on")
                cities += rows
            self._states[state] = cities
        return self._states[state]


def number_in(row: Any) -> int:
    """The Id of a row, 0 if it has none."""
    found = row.get("Id") if isinstance(row, dict) else None
    return found if type(found) is int else 0


def is_city(city: Any, name: str, state: str) -> bool:
    """Whether a city with its state expanded is the one of these folded names; without a state, the name decides."""
    if not isinstance(city, dict) or folded(city.get("Name")) != name:
        return False
    of_state = city.get("State")
    return not state or folded(of_state.get("Short") if isinstance(of_state, dict) else None) == state


def _numbers(rows: list[Any], name: str, state: str) -> set[int]:
    return {number_in(row) for row in rows if is_city(row, name, state)} - {0}
