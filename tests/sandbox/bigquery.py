"""A fake of BigQuery's REST API: query jobs and the pages of their results.

It knows no SQL but the statements of Waybill's own source: everything of a table, or of a query that a test has put
there under its text; rows within a window of a column; and how many different rows a key has. A result is what was
there when the job ran, in an order of its own at each run, is kept for a day, and is paged by tokens or by a row to
start at. `busy` is how often a job is asked for before it is done, `largest_page` what an answer holds at most. A
repeated `requestId` names the job that it made before.

It also knows the one statement that removes monitoring rows, and what a subscription of Pub/Sub with `use_table_schema`
writes into a table. `streamed_since` is when the rows begin that no statement may change yet.
"""

import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from tests.sandbox.conversions import CONVERSIONS, SCHEMA, conversions
from tests.sandbox.google_system import GoogleSystem, Refused
from tests.sandbox.system import Answer, Request, Row, Setup, answer

KEPT = 86_400.0
STATEMENT = re.compile(
    r"SELECT t\.\*(?:, COUNT\(DISTINCT TO_JSON_STRING\(t\)\) OVER \(PARTITION BY (?P<key>[^)]+)\) AS `_rows_of_key`)?"
    r" FROM (?:`(?P<table>[^`]+)`|\(\n(?P<query>.*)\n\)) AS t"
    r"(?: WHERE \((?P<cursor>t\.[^ ]+) >= @since AND (?P=cursor) < @until\) OR (?P=cursor) IS NULL)?",
    re.DOTALL,
)
REMOVAL = re.compile(r"DELETE FROM `(?P<table>[^`]+)` WHERE timestamp < @before AND STARTS_WITH\(dag_name, @dag\)")
COUNT = {"name": "_rows_of_key", "type": "INTEGER"}


class Refusal(Refused):
    """An error in the form of the older APIs, with its reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, message)
        self.reason = reason


class Table(msgspec.Struct):
    """Columns as in a schema, and rows as Python or JSON values: microseconds for a TIMESTAMP, bytes in base64."""

    schema: list[Row]
    rows: list[Row] = []

    def write(self, message: bytes) -> None:
        """What a subscription writes of one message. Raises ValueError for one that it would not write."""
        fields, columns = msgspec.json.decode(message, type=Row), {each["name"]: each for each in self.schema}
        required = {name for name, column in columns.items() if column.get("mode") == "REQUIRED"}
        if not fields.keys() <= columns.keys() or not required <= fields.keys():
            raise ValueError(f"{sorted(fields)} are not the columns of the table")
        self.rows.append({name: _stored(columns[name]["type"], value) for name, value in fields.items()})


class Job(msgspec.Struct):
    """A query that was run, and its result."""

    project: str
    table: Table
    made: float
    asked: int = 0
    affected: int | None = None
    """Of a statement that changes rows, how many."""


class BigQuery(GoogleSystem):
    """`tables` by project.dataset.table, `queries` by their text; `jobs` are all that ran."""

    name: ClassVar[str] = "bigquery"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.tables = {CONVERSIONS: Table(SCHEMA, conversions(setup))}
        self.queries: dict[str, Table] = {}
        self.jobs: dict[str, Job] = {}
        self.requests_by_id: dict[str, str] = {}
        self.parameters: list[Mapping[str, str]] = []
        self.busy = 0
        self.streamed_since: datetime | None = None
        self.largest_page = 10_000
        self.location = "US"
        self._order = random.Random(f"{setup.seed} bigquery")

    def environment(self, url: str) -> dict[str, str]:
        return {"BIGQUERY_URL": url, "GOOGLE_OAUTH_ACCESS_TOKEN": self.token}

    def stats(self) -> dict[str, Any]:
        """As for every system, with the number of query jobs, and of rows by table."""
        with self.lock:
            held = {name: len(table.rows) for name, table in self.tables.items()}
            return super().stats() | {"jobs": len(self.jobs), "rows": held}

    @property
    def hands(self) -> Mapping[str, Callable[[Row], Row]]:
        return {
            "tables": lambda body: _put(self.tables, body),
            "queries": lambda body: _put(self.queries, body),
        }

    def rows(self) -> list[Row]:
        return [row for table in self.tables.values() for row in table.rows]

    def failure(self, refused: Refused) -> Answer:
        given = super().failure(refused)
        if not isinstance(refused, Refusal):
            return given
        body = msgspec.json.decode(given.body)
        body["error"]["errors"] = [{"domain": "global", "reason": refused.reason, "message": refused.message}]
        return answer(refused.status, body)

    def carried_out(self, request: Request, body: Row) -> Any:
        found = re.fullmatch(r"/bigquery/v2/projects/([^/]+)/queries(?:/([^/]+))?", request.path)
        match request.method, found:
            case "POST", re.Match() if found[2] is None:
                return self._run(unquote(found[1]), body)
            case "GET", re.Match() if found[2] is not None:
                return self._results(unquote(found[1]), unquote(found[2]), request.query)
        raise Refusal(404, "notFound", f"Not found: {request.path}")

    def _run(self, project: str, body: Row) -> Row:
        if body.get("useLegacySql") is not False or body.get("parameterMode") != "NAMED":
            raise Refusal(400, "invalid", "this fake takes standard SQL with named parameters only")
        parameters = {each["name"]: each["parameterValue"]["value"] for each in body.get("queryParameters", [])}
        if removal := REMOVAL.fullmatch(str(body["query"])):
            return self._remove(project, removal["table"], parameters, str(body["requestId"]))
        table = self._result_of(str(body["query"]), parameters)
        if body.get("dryRun"):
            return {"schema": {"fields": table.schema}, "jobComplete": True, "totalBytesProcessed": "0"}
        self.parameters.append(parameters)
        request_id = str(body.get("requestId", ""))
        job_id = self.requests_by_id.get(request_id) or f"job_{len(self.jobs)}"
        if job_id not in self.jobs:
            self._order.shuffle(table.rows)
            self.jobs[job_id] = Job(project, table, self.clock())
        if request_id:
            self.requests_by_id[request_id] = job_id
        return self._page(job_id, 0, int(body.get("maxResults", self.largest_page)))

    def _remove(self, project: str, name: str, parameters: Mapping[str, str], request_id: str) -> Row:
        held = self.tables.get(name)
        if held is None:
            raise Refusal(404, "notFound", f"Not found: Table {name} was not found in location {self.location}")
        if request_id not in self.requests_by_id:
            before = _microseconds(parameters["before"])
            old = [r for r in held.rows if r["timestamp"] < before and r["dag_name"].startswith(parameters["dag"])]
            since = self.streamed_since
            if since is not None and any(row["timestamp"] >= _microseconds(since.isoformat()) for row in old):
                what = f"UPDATE or DELETE statement over table {name} would affect rows in the streaming buffer"
                raise Refusal(400, "invalidQuery", f"{what}, which is not supported")
            held.rows = [row for row in held.rows if row not in old]
            self.requests_by_id[request_id] = f"job_{len(self.jobs)}"
            self.jobs[f"job_{len(self.jobs)}"] = Job(project, Table([]), self.clock(), affected=len(old))
        return self._page(self.requests_by_id[request_id], 0, 0)

    def _results(self, project: str, job_id: str, query: Mapping[str, str]) -> Row:
        job = self.jobs.get(job_id)
        if job is None or job.project != project or self.clock() > job.made + KEPT:
            raise Refusal(404, "notFound", f"Not found: Job {project}:{job_id}")
        if query.get("location") != self.location:
            raise Refusal(404, "notFound", f"Not found: Job {project}:{job_id} in this location")
        if query.get("formatOptions.useInt64Timestamp") != "true":
            raise Refusal(400, "invalid", "this fake gives timestamps in microseconds only")
        start = int(query.get("startIndex", 0))
        if token := query.get("pageToken"):
            start = int(token.removeprefix(f"{job_id}-"), 36)
        return self._page(job_id, start, int(query.get("maxResults", self.largest_page)))

    def _page(self, job_id: str, start: int, most: int) -> Row:
        job = self.jobs[job_id]
        reference = {"projectId": job.project, "jobId": job_id, "location": self.location}
        job.asked += 1
        if job.asked <= self.busy:
            return {"jobReference": reference, "jobComplete": False}
        if job.affected is not None:
            return {"jobReference": reference, "jobComplete": True, "numDmlAffectedRows": str(job.affected)}
        rows = job.table.rows
        end = min(start + min(most, self.largest_page), len(rows))
        page: Row = {
            "jobReference": reference,
            "jobComplete": True,
            "schema": {"fields": job.table.schema},
            "totalRows": str(len(rows)),
        }
        if start < end:
            page["rows"] = [{"f": [_cell(field, row.get(field["name"])) for field in job.table.schema]}
                            for row in rows[start:end]]  # fmt: skip
        if end < len(rows):
            page["pageToken"] = f"{job_id}-{_base36(end)}"
        return page

    def _result_of(self, statement: str, parameters: Mapping[str, str]) -> Table:
        found = STATEMENT.fullmatch(statement)
        if found is None:
            raise Refusal(400, "invalidQuery", "Syntax error: this fake knows no such statement")
        held = self.queries.get(found["query"]) if found["query"] else self.tables.get(found["table"])
        if held is None:
            what = f"Table {found['table']}" if found["table"] else "the query"
            raise Refusal(404, "notFound", f"Not found: {what} was not found in location {self.location}")
        rows = [dict(row) for row in held.rows]
        if found["cursor"]:
            name = _names(found["cursor"])[0]
            since, until = (_microseconds(parameters[each]) for each in ("since", "until"))
            rows = [row for row in rows if row[name] is None or since <= row[name] < until]
        if not found["key"]:
            return Table(held.schema, rows)
        names = _names(found["key"])
        different: dict[str, set[str]] = {}
        for row in rows:
            different.setdefault(repr([row[name] for name in names]), set()).add(repr(sorted(row.items())))
        for row in rows:
            row["_rows_of_key"] = len(different[repr([row[name] for name in names])])
        return Table([*held.schema, COUNT], rows)


def _put(held: dict[str, Table], body: Row) -> Row:
    """Puts tables there, or replaces them: all of these or none."""
    given = msgspec.convert(body, dict[str, Table])
    for name, table in given.items():
        columns = {field["name"] for field in table.schema}
        if unknown := {column for row in table.rows for column in row} - columns:
            raise ValueError(f"{name} has no column {', '.join(sorted(unknown))}")
    held.update(given)
    return {name: len(table.rows) for name, table in held.items()}


def _names(columns: str) -> list[str]:
    return re.findall(r"t\.`([^`]+)`", columns)


def _stored(kind: str, value: Any) -> Any:
    """A field of JSON as a column of this type keeps it. Raises ValueError for one that does not fit."""
    if kind == "TIMESTAMP" and isinstance(value, str):
        return _microseconds(value)
    if type(value) is not {"INTEGER": int, "STRING": str}.get(kind):
        raise ValueError(f"{value!r} is no {kind}")
    return value


def _microseconds(text: str) -> int:
    instant = datetime.fromisoformat(text)
    assert instant.tzinfo is not None
    return round((instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


def _cell(field: Row, value: Any) -> Row:
    """A cell as the API writes it: texts, null, and `f` and `v` all the way down."""
    if field.get("mode") == "REPEATED":
        return {"v": [_cell(field | {"mode": "NULLABLE"}, each) for each in value or ()]}
    if value is None:
        return {"v": None}
    if field["type"] == "RECORD":
        return {"v": {"f": [_cell(each, value.get(each["name"])) for each in field["fields"]]}}
    if isinstance(value, bool):
        return {"v": "true" if value else "false"}
    return {"v": msgspec.json.encode(value).decode() if field["type"] == "JSON" else str(value)}


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = digits[number % 36]
    while number := number // 36:
        text = digits[number % 36] + text
    return text
