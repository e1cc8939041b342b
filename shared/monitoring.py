"""The monitoring table: a row for what was sent, one for each record that was not, and one for each replay.

| `type_id` | when | `location` | `position` | `info` |
|---|---|---|---|---|
| -2 | a settlement that delivers records | where they came from | of the first of them | how many |
| an error number | a failure, as it is recorded | the same | the record's own | the source's row as JSON |
| -4 | a replay begins | the same | | |

The sum of `info` over the rows of -2 is the number of records delivered, replays included, as long as no row was
removed and none came twice. Columns and numbers are TaglessCRM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.errors import RETRIED, SENT

if TYPE_CHECKING:
    from shared.books import Batch, Failure, Run
    from shared.record import Record

COLUMNS: Final = ("dag_name", "timestamp", "type_id", "location", "position", "info")
INFO_BYTES: Final = 900_000
"""A larger row of a source would not pass through Pub/Sub: of it the table says how large it is."""


class MonitoringRow(msgspec.Struct, frozen=True):
    """One row. `timestamp` is when it was written."""

    dag_name: str
    timestamp: datetime
    type_id: int
    location: str
    position: str
    info: str
    key: str = ""
    """The key of the record that it is about; no column, but what it is found by when a person is forgotten."""

    def columns(self) -> dict[str, str | int]:
        """As it stands in the table: the time in RFC 3339, in UTC and to the microsecond, so that text sorts."""
        return {name: getattr(self, name) for name in COLUMNS} | {"timestamp": instant_text(self.timestamp)}


class Monitored(msgspec.Struct, frozen=True):
    """Rows that are written with a commit or a settlement, and the name of their table."""

    table: str
    rows: Sequence[MonitoringRow]


def monitored(table: str, rows: Callable[[], Sequence[MonitoringRow]]) -> Monitored | None:
    """None where monitoring is off (no table), when no row is made either, or where there is nothing to say."""
    made = rows() if table else ()
    return Monitored(table, made) if made else None


def dag_name(integration: str, stream: str) -> str:
    return f"{integration}.{stream}"


def instant_text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sent_rows(batch: Batch, location: str, records: Sequence[Record], at: datetime) -> list[MonitoringRow]:
    """One row for the records of a batch that were delivered since the last settlement, in the batch's order."""
    if not records:
        return []
    name, first = dag_name(batch.integration, batch.stream), records[0]
    return [MonitoringRow(name, at, SENT, location, first.position, str(len(records)), first.key)]


def failure_rows(failures: Sequence[Failure], at: datetime) -> list[MonitoringRow]:
    """A row each."""
    return [
        MonitoringRow(dag_name(f.integration, f.stream), at, f.number, f.location, f.position, info_of(f.data), f.key)
        for f in failures
    ]


def retried_row(run: Run, location: str) -> MonitoringRow:
    """A replay begins."""
    return MonitoringRow(dag_name(run.integration, run.stream), run.started_at, RETRIED, location, "", "")


def info_of(data: dict[str, Any]) -> str:
    """A source's row as JSON, without what was added to it. One that is too large is `{"_bytes": its size}`."""
    from shared.tabular.identity import IDENTITY  # only a failure that is monitored needs it

    encoded = msgspec.json.encode({name: value for name, value in data.items() if name != IDENTITY})
    return encoded.decode() if len(encoded) <= INFO_BYTES else msgspec.json.encode({"_bytes": len(encoded)}).decode()
