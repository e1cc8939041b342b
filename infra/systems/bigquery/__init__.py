"""BigQuery as a source: the rows of a table or of a query, by its REST API.

Options of a stream: `table` ([project.]dataset.table) or `query`; `key`, the columns by which a row is known, or none;
`cursor`, a column of the type TIMESTAMP that says when a row was changed; `project`, in which the job runs and is paid
(else GOOGLE_CLOUD_PROJECT, else that of the table); `location`, where the data is, if it is neither in the US nor the
EU. A query may use the parameters @since and @until itself. Each row carries its identity in the column `_identity`.
"""

from __future__ import annotations

from infra.systems import Connection
from infra.systems.bigquery.source import BigQuery

__all__ = ["BigQuery", "open_source"]


def open_source(connection: Connection, read: str) -> BigQuery:
    """What is read is said by the options, and `read` says nothing. Raises ConfigError for options that cannot be."""
    return BigQuery(connection)
