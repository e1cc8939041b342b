"""The one statement that reads a stream: names that are checked, and values as parameters only.

Without a cursor nothing tells which of two rows with one key is newer, and their order is another one at every run. So
BigQuery counts how many different rows each key has, and whoever shares a key is invalid. Rows without a time of change
are read by every run: they would be in no window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.books import Window
from shared.errors import ConfigError
from shared.tabular import key_of

COUNTED: Final = "_rows_of_key"

_TABLE: Final = re.compile(r"(?:([a-z][a-z0-9.:-]{2,62}[a-z0-9])\.)?(\w{1,1024})\.([\w -]{1,1024}\*?)", re.ASCII)
_COLUMN: Final = re.compile(r"[A-Za-z_]\w{0,299}(?:\.[A-Za-z_]\w{0,299})*", re.ASCII)
_PROJECT: Final = re.compile(r"[a-z][a-z0-9.:-]{2,62}[a-z0-9]")
_LOCATION: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")


class Reading(msgspec.Struct, frozen=True):
    """What a stream reads, and in which project."""

    project: str
    location: str
    key: tuple[str, ...]
    cursor: str
    sql: str
    name: str
    """For people."""

    def request(self, window: Window) -> dict[str, Any]:
        """The body of the call that runs it."""
        body: dict[str, Any] = {
            "query": self.sql,
            "useLegacySql": False,
            "parameterMode": "NAMED",
            "queryParameters": [_timestamp("since", window.since), _timestamp("until", window.until)],
            "formatOptions": {"useInt64Timestamp": True},
        }
        return body | ({"location": self.location} if self.location else {})


def reading_of(options: Mapping[str, Any], default_project: str) -> Reading:
    """Raises ConfigError."""
    table, query = options.get("table"), options.get("query")
    if bool(table) == bool(query) or not isinstance(table or query, str):
        raise ConfigError("neither `table` nor `query` says what is read, or both", cure="set one of them")
    key, cursor, location = key_of(options), options.get("cursor") or "", options.get("location") or ""
    for name in (*key, *([cursor] if cursor else [])):
        if not isinstance(name, str) or not _COLUMN.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a column", cure="write the column as BigQuery names it")
    if location and (not isinstance(location, str) or not _LOCATION.fullmatch(location)):
        raise ConfigError(f"location is {location!r}", cure="write it as BigQuery names it, e.g. southamerica-east1")
    found = None if query else _TABLE.fullmatch(str(table).strip())
    if table and found is None:
        raise ConfigError(f"table is {table!r}", cure="write [project.]dataset.table")
    project = options.get("project") or default_project or (found[1] if found else "")
    if not isinstance(project, str) or not _PROJECT.fullmatch(project):
        raise ConfigError(
            "no project says where the query runs", cure="export GOOGLE_CLOUD_PROJECT=..., or set project"
        )
    whole = f"{found[1] or project}.{found[2]}.{found[3]}" if found else ""
    origin = f"`{whole}`" if found else f"(\n{str(query).strip().rstrip(';')}\n)"
    name = f"bq://{whole}" if found else f"bq://{project} (query)"
    return Reading(project, location, key, cursor, _statement(origin, key, cursor), name)


def _statement(origin: str, key: tuple[str, ...], cursor: str) -> str:
    # Only checked names and the stream's own query are put together here.
    if cursor:
        column = _quoted(cursor)
        within = f"{column} >= @since AND {column} < @until"
        return f"SELECT t.* FROM {origin} AS t WHERE ({within}) OR {column} IS NULL"  # noqa: S608
    if not key:
        return f"SELECT t.* FROM {origin} AS t"  # noqa: S608
    columns = ", ".join(map(_quoted, key))
    counted = f"COUNT(DISTINCT TO_JSON_STRING(t)) OVER (PARTITION BY {columns}) AS `{COUNTED}`"
    return f"SELECT t.*, {counted} FROM {origin} AS t"  # noqa: S608


def _quoted(column: str) -> str:
    return "t." + ".".join(f"`{part}`" for part in column.split("."))


def _timestamp(name: str, instant: Any) -> dict[str, Any]:
    return {
        "name": name,
        "parameterType": {"type": "TIMESTAMP"},
        "parameterValue": {"value": instant.isoformat(sep=" ")},
    }
