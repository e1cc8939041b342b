"""BigQuery's cells as values of JSON, by the types of their columns.

Whole numbers and floats become numbers, NUMERIC and BIGNUMERIC stay texts (a float would round them), as do NaN and the
infinities (JSON has none), BYTES in base64; DATE, TIME, DATETIME, GEOGRAPHY, INTERVAL and RANGE are texts as BigQuery
writes them. TIMESTAMP becomes ISO 8601 in UTC, JSON what it holds, RECORD an object and REPEATED a list.

Facts: vendor documentation of rows in REST answers: every scalar is a text or null, under `v`; fields of a record are
under `f`; with `useInt64Timestamp` a TIMESTAMP is microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final

import msgspec

from shared.errors import ProtocolError, RecordError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Column(msgspec.Struct, frozen=True):
    """A field of the result's schema."""

    name: str
    type: str
    mode: str = "NULLABLE"
    fields: tuple[Column, ...] = ()


class _Schema(msgspec.Struct, frozen=True):
    fields: tuple[Column, ...] = ()


def columns_of(schema: Any) -> tuple[Column, ...]:
    """Raises ProtocolError."""
    try:
        return msgspec.convert(schema, _Schema).fields
    except msgspec.ValidationError as error:
        raise ProtocolError(f"BigQuery answered with a schema that is none: {error}") from error


def row_of(columns: tuple[Column, ...], row: Any) -> dict[str, Any]:
    """Raises RecordError for a cell that its type does not allow, ProtocolError for what is no row at all."""
    cells = row.get("f") if isinstance(row, dict) else None
    if not isinstance(cells, list) or len(cells) != len(columns):
        raise ProtocolError("BigQuery answered with a row that does not fit its schema")
    found: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if not isinstance(cell, dict) or "v" not in cell:
            raise ProtocolError("BigQuery answered with a row that does not fit its schema")
        try:
            found[column.name] = _value(column, cell["v"])
        except (ValueError, TypeError, OverflowError, msgspec.DecodeError) as error:
            raise RecordError(f"{column.name} is no {column.type}", field=column.name) from error
    return found


def instant_of(microseconds: Any) -> datetime:
    """Raises ValueError, TypeError or OverflowError."""
    return EPOCH + timedelta(microseconds=int(microseconds))


def _value(column: Column, value: Any) -> Any:
    if column.mode == "REPEATED":
        single = msgspec.structs.replace(column, mode="NULLABLE")
        return [_value(single, each["v"]) for each in value or ()]
    if value is None:
        return None
    if column.type in ("RECORD", "STRUCT"):
        return row_of(column.fields, value)
    return _SCALARS.get(column.type, str)(value)


def _float(value: Any) -> float | str:
    number = float(value)
    return number if isfinite(number) else str(value)


def _boolean(value: Any) -> bool:
    if value not in ("true", "false"):
        raise ValueError("neither true nor false")
    return bool(value == "true")


def _timestamp(value: Any) -> str:
    return instant_of(value).isoformat().replace("+00:00", "Z")


_SCALARS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "INTEGER": int,
    "INT64": int,
    "FLOAT": _float,
    "FLOAT64": _float,
    "BOOLEAN": _boolean,
    "BOOL": _boolean,
    "TIMESTAMP": _timestamp,
    "JSON": lambda value: msgspec.json.decode(value),
}
