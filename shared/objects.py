"""The hub's own store of customers and what belongs to them: a system like the outside ones (`infra/systems/store`),
kept beside the books."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from shared.errors import ConfigError

FINDABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
"""The names of fields by whose value an object can be found."""
ID: Final = "id"
"""The field in which an object has its customer's id."""
MOST: Final = 1000
"""How many ids, values or objects one call takes or gives."""
TICK: Final = timedelta(microseconds=1)
"""As finely as both homes keep an instant."""


class Object(msgspec.Struct, frozen=True):
    """One object of a kind. `fields` hold what JSON can; `changed_at` is when the last of them changed."""

    id: str
    fields: dict[str, Any]
    changed_at: datetime


class Objects(Protocol):
    """Objects by kind and id. Whatever a call was given, it writes all of it or none per object."""

    def get(self, kind: str, ids: Sequence[str]) -> dict[str, Object]:
        """Those that are there, in one round trip."""

    def find(self, kind: str, field: str, values: Sequence[str]) -> dict[str, list[str]]:
        """The ids of the objects of which a field has one of these values (as `text_of` has it), by value: at most two
        of each, which is enough to know that it tells nobody apart. Raises ConfigError for a field that is not
        FINDABLE."""

    def put(self, kind: str, objects: Mapping[str, Mapping[str, Any]], at: datetime) -> None:
        """Sets these fields of these objects and leaves their other fields as they are, whoever else writes meanwhile.
        An object that holds all of it already keeps its `changed_at`, and one that changes never goes back in time,
        whatever the clocks of its writers say (`later`); one that is not there is made."""

    def remove(self, kind: str, ids: Sequence[str]) -> None:
        """One that is not there is none the less removed."""

    def page(self, kind: str, after: str, most: int) -> list[Object]:
        """Those behind the one with the id `after` (empty: from the first one on), in an order of the home's own in
        which each has its place by its id: whatever is there all the time while it is read page by page comes once."""

    def changed(
        self, kind: str, since: datetime, until: datetime, after: tuple[datetime, str] | None, most: int
    ) -> list[Object]:
        """Those changed from `since` (inclusive) to `until` (exclusive), by `changed_at` and then in the order of
        `page`, behind the one that `after` names with when it changed."""

    def fields(self, kind: str) -> list[str]:
        """The names of all fields that any object of the kind ever had, in the order in which they came up."""


def later(at: datetime, before: datetime) -> datetime:
    """When an object changed that had changed before: its versions are in the order in which they were written."""
    return max(at, before + TICK)


def check_findable(field: str) -> None:
    """Raises ConfigError for a field by which nothing is found."""
    if not FINDABLE.fullmatch(field):
        raise ConfigError(f"{field!r} is no field to find objects by", cure="use letters, digits and underscores")


def text_of(field: str, value: Any) -> str | None:
    """What has to be asked for to find an object by this field: a text as it is, a whole number by its digits. None
    where nobody finds it."""
    if not FINDABLE.fullmatch(field):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
