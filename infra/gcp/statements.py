"""Statements that change a table of BigQuery, over its REST API.

Facts: vendor documentation of `jobs.query` (a `requestId` makes a repeat harmless for 15 minutes; `numDmlAffectedRows`
is a text), of `jobs.getQueryResults`, and of DML: rows streamed within the last 30 to 90 minutes may be refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from infra.environment import SystemSettings
from infra.gcp.calls import Patience
from infra.gcp.errors import MISSING, REFUSED, UNFIT
from infra.google_api import GoogleApi, fault_of, whole
from infra.http import Answer
from infra.systems import Connection
from shared.errors import AuthError, ConfigError, ProtocolError, StoreUnavailable, TransientError
from shared.ports import Clock
from shared.retry import RetryPolicy

SCOPE: Final = "https://www.googleapis.com/auth/bigquery"
WAIT: Final = 10_000
"""Milliseconds that BigQuery is asked to wait for a statement before it answers that it is still running."""
MOST_LOOKS: Final = 30
STREAMED: Final = "streaming buffer"


class Statements:
    """A client in one project."""

    def __init__(self, project: str, settings: SystemSettings, patience: Patience, clock: Clock) -> None:
        connection = Connection(settings.url, settings.secrets, None, 1, RetryPolicy(1), clock, None, lambda: False)
        self._path = f"/bigquery/v2/projects/{quote(project, safe='')}/queries"
        self._api = GoogleApi(connection, SCOPE)
        self._patience = patience
        self._clock = clock

    def run(self, sql: str, values: Mapping[str, tuple[str, str]]) -> int:
        """Runs a statement with these parameters (name -> type and value), and says how many rows it changed.

        Raises StoreUnavailable, and ConfigError for what only a human can mend.
        """
        body = self._asked(
            "POST",
            self._path,
            json={
                "query": sql,
                "useLegacySql": False,
                "parameterMode": "NAMED",
                "queryParameters": [
                    {"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}}
                    for name, (kind, value) in values.items()
                ],
                "requestId": uuid.uuid4().hex,
                "timeoutMs": WAIT,
            },
        )
        job = body.get("jobReference") or {}
        for _ in range(MOST_LOOKS):
            if body.get("jobComplete"):
                return whole(body.get("numDmlAffectedRows"))
            self._clock.sleep(1.0)
            params: dict[str, str | int] = {"timeoutMs": WAIT, "formatOptions.useInt64Timestamp": "true"}
            if job.get("location"):
                params["location"] = str(job["location"])
            body = self._asked("GET", f"{self._path}/{quote(str(job.get('jobId')), safe='')}", params=params)
        raise StoreUnavailable("a statement of BigQuery does not end", cure="look again later: it goes on by itself")

    def close(self) -> None:
        self._api.close()

    def _asked(self, method: str, path: str, **named: Any) -> dict[str, Any]:
        """Tries again as long as patience lasts; a repeat of either call is harmless."""
        why = "it does not answer"
        for _ in self._patience.tries():
            try:
                return _checked(self._api.request(method, path, repeatable=True, **named))
            except (TransientError, ProtocolError) as error:
                why = str(error)
            except AuthError as error:
                raise ConfigError(str(error), cure=REFUSED) from error
        raise StoreUnavailable(f"BigQuery: {why}")


def _checked(answer: Answer) -> dict[str, Any]:
    if answer.status == 200:
        body = answer.json()
        if isinstance(body, dict):
            return body
        raise ProtocolError("an answer that is no object")
    fault = fault_of(answer)
    text = f"BigQuery refused a statement: {fault}"
    if STREAMED in fault.message:
        raise StoreUnavailable(text, cure="try again in 90 minutes, or by a greater age: these rows are too young")
    raise ConfigError(text, cure=MISSING if answer.status == 404 else UNFIT)
