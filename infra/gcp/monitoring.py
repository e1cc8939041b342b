"""The monitoring table in BigQuery: its rows are messages of a topic, whose subscription writes them to the table.

A message is JSON with the table's columns and nothing else, as a BigQuery subscription with `use_table_schema` takes
it; there is no code in between. The table has no keys, so that nobody can be found in it to be forgotten.

Facts: vendor documentation of BigQuery subscriptions: messages are written at least once, and one with a field that the
table lacks not at all.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from infra.gcp.calls import Lazy
from infra.log import notice_to
from shared.errors import ConfigError, WaybillError
from shared.monitoring import Monitored, dag_name, instant_text
from shared.ports import Bus, Message, monitoring_topic

if TYPE_CHECKING:
    from infra.gcp.statements import Statements

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+")


def publish_rows(bus: Bus, integration: str, monitored: Monitored | None) -> None:
    """Returns when all of them are safe with Pub/Sub. Raises StoreUnavailable, and ConfigError where there is no such
    topic."""
    if monitored is not None:
        messages = [Message(msgspec.json.encode(row.columns())) for row in monitored.rows]
        bus.publish(monitoring_topic(integration), messages)


def publish_or_tell(bus: Bus, integration: str, monitored: Monitored | None) -> None:
    """As `publish_rows`, for rows about what was sent already: rather than leave those records in doubt for want of a
    report, it gives the report up, and says so in the log."""
    try:
        publish_rows(bus, integration, monitored)
    except WaybillError as error:
        rows = 0 if monitored is None else len(monitored.rows)
        notice_to(integration=integration)("monitoring_lost", rows=rows, error=type(error).__name__)


class GoogleMonitoring:
    """`statements` is None where there is no BigQuery: beside an emulator of Pub/Sub nothing writes the table."""

    def __init__(self, project: str, statements: Lazy[Statements] | None) -> None:
        self._project = project
        self._statements = statements

    def remove(self, integration: str, dataset: str, table: str, before: datetime) -> int:
        """Raises ConfigError where there is no such table."""
        if self._statements is None:
            return 0
        name = f"{self._project}.{dataset}.{table}"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no table", cure="mend GOOGLE_CLOUD_PROJECT and `monitoring`")
        # The name is checked; values are parameters.
        sql = f"DELETE FROM `{name}` WHERE timestamp < @before AND STARTS_WITH(dag_name, @dag)"  # noqa: S608
        values = {"before": ("TIMESTAMP", instant_text(before)), "dag": ("STRING", dag_name(integration, ""))}
        return self._statements().run(sql, values)
