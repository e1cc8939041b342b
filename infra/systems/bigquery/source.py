"""One query job and the pages of its result.

BigQuery keeps a job's result for about a day, and it never changes: so pages are consistent whatever happens to the
table, and a token names the job and how many of its rows were given. A result that is gone trips the guard, and the
next run asks anew. A job that is still running is waited for by pages without rows, each of which holds its place.

Of two rows with one key, the one with the later `cursor` is newer, and where that is equal the one whose content comes
later by its fingerprint: an order that does not change from run to run. Without a cursor every run reads all rows under
its own time, and changes are found by their content (`polled`).

Facts: vendor documentation of `jobs.query` (a `requestId` makes a repeat harmless for 15 minutes) and of
`jobs.getQueryResults` (`startIndex`, `pageToken`, `totalRows`, `jobComplete`; answers of at most 10 MB).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from infra.google_api import GoogleApi, fault_of
from infra.http import Answer, http_date
from infra.systems import Connection
from infra.systems.bigquery.statement import COUNTED, reading_of
from infra.systems.bigquery.values import EPOCH, Column, columns_of, row_of
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import (
    BAD_IDENTITY,
    BAD_VERSION,
    ConfigError,
    GuardTripped,
    ProtocolError,
    RecordError,
    TransientError,
)
from shared.record import content_hash, version_at
from shared.tabular import IDENTITY, Identities

SCOPE: Final = "https://www.googleapis.com/auth/bigquery"
PROJECT: Final = "GOOGLE_CLOUD_PROJECT"
WAIT: Final = 10_000
"""Milliseconds that BigQuery is asked to wait for a job before it answers that it is still running."""

_TELLING: Final = re.compile(r"Syntax error|Unrecognized name|Function not found|No matching signature|Not found: ")
"""How messages begin that speak of the query. Others may quote rows."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: a job, and how many rows of its result were given."""

    project: str
    location: str
    job: str
    rows: int = 0


class BigQuery:
    """The source of one table or query."""

    system = "bigquery"

    def __init__(self, connection: Connection) -> None:
        if connection.page_size < 1:
            raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
        self._reading = reading_of(connection.options, connection.secrets.get(PROJECT, ""))
        self._size = connection.page_size
        self._clock = connection.clock
        self._retry = connection.retry
        self._api = GoogleApi(connection, SCOPE)
        self.location = self._reading.name

    def now(self) -> datetime:
        """BigQuery's clock. Asks by a query that is checked and not run, which says early if it cannot be."""
        window = Window(EPOCH, self._clock.now())
        answer = self._ask("POST", self._path(), json={**self._reading.request(window), "dryRun": True})
        self._checked(answer)
        return http_date(answer.headers.get("date", "")) or self._clock.now()

    def total(self, window: Window) -> int | None:
        """A result says its rows itself, and is verified by them."""
        return None

    def close(self) -> None:
        self._api.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """Raises GuardTripped where a result is gone, or gives fewer rows than it says."""
        given = _place_of(after)
        place, body = (given, None) if given is not None else self._begun(window)
        body = body or self._results(place, start=self._first_row(place))
        while not body.get("jobComplete"):
            yield Page((), _token(place))
            self._clock.sleep(1.0)
            body = self._results(place, start=self._first_row(place))
        columns = columns_of(body.get("schema"))
        if any(column.name == IDENTITY for column in columns):
            raise ProtocolError(f"the result has a column {IDENTITY}, which is not for a source to give")
        total, index = _whole(body.get("totalRows")), self._first_row(place)
        first = place.rows if given is not None else 0
        identities = Identities(self._reading.key)
        while True:
            found = body.get("rows") or []
            rows = [self._row(columns, row, index + at, window, identities) for at, row in enumerate(found)]
            index += len(found)
            if (fresh := index - first) > 0:
                page = rows[max(0, len(rows) - fresh) :]
                yield Page(
                    page, _token(msgspec.structs.replace(place, rows=index)), total if index == len(page) else None
                )
            token = body.get("pageToken")
            if not token:
                break
            if not found:
                raise GuardTripped("BigQuery gave a page without rows in the middle of a result")
            if index >= total:
                raise GuardTripped(f"BigQuery has more than the {total} rows that it says a result has")
            body = self._results(place, token=str(token))
        if index != total:
            raise GuardTripped(f"BigQuery gave {index} of {total} rows of a result")

    def _first_row(self, place: Place) -> int:
        """Without a key every row has to be seen again, to know what came before."""
        return place.rows if self._reading.key else 0

    def _begun(self, window: Window) -> tuple[Place, dict[str, Any]]:
        request = {
            **self._reading.request(window),
            "requestId": uuid.uuid4().hex,
            "maxResults": self._size,
            "timeoutMs": WAIT,
        }
        body = self._checked(self._ask("POST", self._path(), json=request))
        job = body.get("jobReference")
        if not isinstance(job, dict) or not isinstance(job.get("jobId"), str):
            raise ProtocolError("BigQuery answered a query without naming its job")
        return Place(
            str(job.get("projectId") or self._reading.project), str(job.get("location") or ""), job["jobId"]
        ), body

    def _results(self, place: Place, start: int = 0, token: str = "") -> dict[str, Any]:
        params: dict[str, str | int] = {
            "maxResults": self._size,
            "timeoutMs": WAIT,
            "formatOptions.useInt64Timestamp": "true",
        }
        params |= {"pageToken": token} if token else {"startIndex": start}
        if place.location:
            params["location"] = place.location
        answer = self._ask("GET", f"{self._path(place.project)}/{quote(place.job, safe='')}", params=params)
        if answer.status == 404:
            raise GuardTripped("BigQuery does not hold the result any more", cure="run again: the query is run anew")
        return self._checked(answer)

    def _path(self, project: str = "") -> str:
        return f"/bigquery/v2/projects/{quote(project or self._reading.project, safe='')}/queries"

    def _ask(self, method: str, path: str, **named: Any) -> Answer:
        """Asks again, by the policy, after a passing failure; a repeat of any of these calls is harmless."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._api.request(method, path, repeatable=True, **named)
                if answer.status >= 400 or isinstance(answer.json(), dict):
                    return answer
                error: TransientError | ProtocolError = ProtocolError("BigQuery answered with no object")
            except (TransientError, ProtocolError) as caught:
                error = caught
            after = error.after if isinstance(error, TransientError) else None
            wait = self._retry.next_wait(attempt, after, self._clock.random)
            if wait is None:
                raise error
            self._clock.sleep(wait)

    def _checked(self, answer: Answer) -> dict[str, Any]:
        if answer.status != 200:
            fault = fault_of(answer)
            text = fault.message.splitlines()[0][:200] if _TELLING.match(fault.message) else ""
            raise ProtocolError(
                f"BigQuery refused the query: {fault}{': ' if text else ''}{text}",
                cure="mend `query`, `table`, `key` or `cursor`, then run again",
            )
        body: dict[str, Any] = answer.json()
        return body

    def _row(self, columns: tuple[Column, ...], cells: Any, index: int, window: Window, identities: Identities) -> Row:
        position, data = str(index + 1), {}
        problem: tuple[int, str] | None = None
        origin, changed = "", window.until
        try:
            data = row_of(columns, cells)
            same_key = _whole(data.pop(COUNTED, 1))
            origin = identities.of(data)
            if same_key > 1:
                raise RecordError("another row has its key too, and no cursor says which is newer", number=BAD_IDENTITY)
            if self._reading.cursor:
                changed = _changed(data, self._reading.cursor)
        except RecordError as error:
            problem, changed = (error.number, error.reason), EPOCH
            data = data or {"row": cells}
        fingerprint = content_hash(data)
        if problem is not None:
            return Row(origin or fingerprint, version_at(changed, fingerprint), position, data, problem=problem)
        data[IDENTITY] = origin
        return Row(origin, version_at(changed, fingerprint), position, data)


def _changed(data: dict[str, Any], cursor: str) -> datetime:
    value: Any = data
    for part in cursor.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise ValueError("without a zone it may be any hour")
        return instant.astimezone(UTC)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{cursor} is no time", field=cursor, number=BAD_VERSION) from error


def _whole(value: Any) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit():
        raise ProtocolError("BigQuery answered without the number of rows")
    return int(text)


def _token(place: Place) -> str:
    return msgspec.json.encode(place).decode()


def _place_of(after: str) -> Place | None:
    if not after:
        return None
    try:
        return msgspec.json.decode(after, type=Place)
    except msgspec.DecodeError as error:
        raise GuardTripped(f"{after!r} is no place in a result of BigQuery") from error
