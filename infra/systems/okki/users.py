"""OKKI's users, each with the departments that they are in.

The list of users has neither pages nor a filter by time, and a user has no time of change: every run reads all of them,
by one call per state, and the run's own instant is the version of each. So a change is found by its content. Pages are
cut here, by `user_id` as a number; whoever resumes reads everything again and goes on behind the last one given.

All three states are read whatever is wanted of them, so that a frozen or deleted user is known to be one and is never
guessed from being absent. One that changes its state between two of the calls is given as it was read last, or not at
all, and then met by the next run.

The departments are joined by their id as text, since a user names the same one by a number and by a text; 0 is the root
and a department like any other. One that is not in the list of departments is null.

Facts: vendor documentation, its examples for the types; nothing says that a nickname is unique.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

import msgspec

from infra.systems import Connection
from infra.systems.okki.api import Api, rows_of, text_of, whole
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import BAD_IDENTITY, NO_SOURCE_ID, ConfigError, GuardTripped
from shared.record import version_at

LIST: Final = "/v1/user/list"
DEPARTMENTS: Final = "/v1/user/departmentList"
USER_ID: Final = "user_id"
NORMAL: Final = "1"
STATES: Final = (NORMAL, "0", "2")
"""Normal, frozen, deleted: `enable_flag`."""

_CURE: Final = "ask OKKI's support why the list is cut, then run again"
_NO_ID: Final = (NO_SOURCE_ID, "the user has no user_id")
Department = dict[str, Any]


class Users:
    """The source of users. Of the options, `request` holds parameters that go with every call of the list; `key` names
    the field that users are known by, if it is not the user_id, and `inactive` says that all of them are wanted."""

    system = "okki"

    def __init__(self, connection: Connection) -> None:
        if connection.page_size < 1:
            raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
        self._size = connection.page_size
        request = connection.options.get("request") or {}
        self._key = str(connection.options.get("key") or USER_ID)
        self._inactive = bool(connection.options.get("inactive"))
        self._request = {name: "" if value is None else str(value) for name, value in request.items()}
        self._api = Api(connection, "user")
        self.location = self._api.location(LIST)

    def now(self) -> datetime:
        return self._api.now(DEPARTMENTS)

    def total(self, window: Window) -> int | None:
        """OKKI does not say how many users there are."""
        return None

    def close(self) -> None:
        self._api.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """`after` is the last user_id given. Users without one come with the last page, and one that a list names more
        than once stands there as often."""
        if after and whole(after) is None:
            raise GuardTripped(f"{after!r} is no place among OKKI's users")
        behind = int(after or -1)
        users, nameless = self._read(window.until)
        left = iter(sorted(each for each in users if each > behind))
        ids = list(islice(left, self._size))
        if not ids and nameless and not after:
            yield Page(nameless, "0")
        while ids:
            following = list(islice(left, self._size))
            rows = [row for each in ids for row in users[each]]
            yield Page(rows if following else rows + nameless, str(ids[-1]))
            ids = following

    def _read(self, instant: datetime) -> tuple[dict[int, list[Row]], list[Row]]:
        """The users by their id, each row as it was read, and those that have none."""
        departments = departments_of(self._whole(DEPARTMENTS))
        users: dict[int, list[Row]] = {}
        nameless: list[Row] = []
        for state in STATES:
            answered: dict[int, list[Row]] = {}
            for place, user in enumerate(self._whole(LIST, {**self._request, "enable_flag": state})):
                number = whole(user.get("user_id")) if isinstance(user, dict) else None
                if number is None or number < 0:
                    data = user if isinstance(user, dict) else {"row": user}
                    nameless.append(Row("", "", f"enable_flag:{state} row:{place}", data, problem=_NO_ID))
                    continue
                origin = str(number)
                data = {**user, "user_id": origin, **_joined(user, departments)}
                row = Row(origin, version_at(instant, origin), f"users({origin})", data)
                answered.setdefault(number, []).append(row)
            # What another call gave too is the same row, read again.
            users |= answered
        if not departments and any(text_of(row.data.get("department_id")) for rows in users.values() for row in rows):
            raise GuardTripped("OKKI gives no department at all, not even the root", cure=_CURE)
        if self._key != USER_ID:
            self._set_shared_apart(users)
        return users, nameless

    def _whole(self, path: str, params: dict[str, str] | None = None) -> list[Any]:
        """A list that holds as many rows as it says. Raises GuardTripped if it does not, twice."""
        for _ in range(2):
            rows, total = rows_of(self._api.read(path, params or {}), path)
            if total is None or len(rows) >= total:
                return rows
        raise GuardTripped(f"{path} says that it holds {total} rows and gave {len(rows)}, twice", cure=_CURE)

    def _set_shared_apart(self, users: dict[int, list[Row]]) -> None:
        """Gives each user a problem whose key another one has too. Who is not wanted takes it from nobody."""
        holders: dict[str, list[int]] = {}
        for number, (*_, row) in users.items():
            if self._inactive or text_of(row.data.get("enable_flag")) in ("", NORMAL):
                holders.setdefault(" ".join(text_of(row.data.get(self._key)).split()), []).append(number)
        for key, numbers in holders.items():
            if key and len(numbers) > 1:
                problem = (BAD_IDENTITY, f"another user has this {self._key} too")
                for number in numbers:
                    users[number] = [msgspec.structs.replace(row, problem=problem) for row in users[number]]


def departments_of(rows: list[Any]) -> dict[str, Department]:
    """The departments by their id, each with the names from the root down to it."""
    found: dict[str, Department] = {}
    for row in rows:
        if isinstance(row, dict) and (number := text_of(row.get("id"))):
            found[number] = {
                "id": number,
                "name": row.get("name"),
                "layer": whole(row.get("layer")),
                "parent_id": text_of(row.get("parent_id")),
                "parent_name": row.get("parent_name"),
            }
    paths = {number: _path(number, found) for number in found}
    return {number: {**department, "path": paths[number]} for number, department in found.items()}


def _path(number: str, departments: dict[str, Department]) -> list[Any]:
    names: list[Any] = []
    seen: set[str] = set()
    while number in departments and number not in seen:
        seen.add(number)
        names.append(departments[number]["name"])
        number = departments[number]["parent_id"]
    return names[::-1]


def _joined(user: dict[str, Any], departments: dict[str, Department]) -> dict[str, Any]:
    """The user's first department, and what stands in each of `departments`."""
    joined: dict[str, Any] = {"department": departments.get(text_of(user.get("department_id")))}
    if isinstance(several := user.get("departments"), list):
        joined["departments"] = [
            {**each, "department": departments.get(text_of(each.get("department_id")))}
            if isinstance(each, dict)
            else each
            for each in several
        ]
    return joined
