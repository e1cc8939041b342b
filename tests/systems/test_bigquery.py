"""Reading BigQuery: every row of one result once, with its types, whatever happens to the table or to a connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.systems import Connection
from infra.systems.bigquery import BigQuery, open_source
from infra.systems.bigquery.values import columns_of, row_of
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import (
    BAD_IDENTITY,
    BAD_VERSION,
    NO_IDENTITY,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    GuardTripped,
    ProtocolError,
    RecordError,
    TransientError,
)
from shared.record import version_at
from shared.retry import RetryPolicy
from tests.loopback import FakeClock
from tests.sandbox import bigquery
from tests.sandbox.bigquery import Table
from tests.systems.google_script import Time, served

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON)
TABLE = "shop-1.crm.events"
SCHEMA = [
    {"name": "id", "type": "INTEGER"}, {"name": "name", "type": "STRING"}, {"name": "at", "type": "TIMESTAMP"},
]  # fmt: skip


def micros(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond


def event(number: int, at: datetime | None = NOON - timedelta(hours=1), name: str = "") -> dict[str, Any]:
    return {"id": number, "name": name or f"n{number}", "at": None if at is None else micros(at)}


@contextmanager
def account(count: int = 0, faults: str = "") -> Iterator[tuple[bigquery.BigQuery, str, Time]]:
    with served(bigquery.BigQuery, faults) as (system, url, time):
        system.tables[TABLE] = Table(SCHEMA, [event(n) for n in range(count)])
        yield system, url, time


def connection_to(
    system: bigquery.BigQuery | None, url: str, size: int = 100, attempts: int = 3, token: str = "", **options: Any
) -> Connection:
    secrets = {
        "GOOGLE_OAUTH_ACCESS_TOKEN": token or (system.token if system else "t"),
        "GOOGLE_CLOUD_PROJECT": "jobs-1",
    }
    options = {"table": TABLE} | options
    options = {name: value for name, value in options.items() if value is not None}
    retry = RetryPolicy(attempts, 0.01)
    return Connection(url, secrets, None, size, retry, FakeClock(), None, lambda: False, options)


@contextmanager
def source_of(system: bigquery.BigQuery, url: str, **named: Any) -> Iterator[BigQuery]:
    source = open_source(connection_to(system, url, **named), "rows")
    try:
        yield source
    finally:
        source.close()


def pages(system: bigquery.BigQuery, url: str, after: str = "", window: Window = WINDOW, **named: Any) -> list[Page]:
    with source_of(system, url, **named) as source:
        return list(source.pages(window, after))


def rows(system: bigquery.BigQuery, url: str, **named: Any) -> list[Row]:
    return [row for page in pages(system, url, **named) for row in page.rows]


# Pages


@pytest.mark.parametrize("key", [["id"], []])
def test_reading_goes_on_exactly_behind_every_page_whatever_became_of_the_table(key: list[str]) -> None:
    with account(20) as (system, url, _):
        system.tables[TABLE].rows += [event(3), event(3)] if not key else []
        whole = pages(system, url, key=key, size=6)
        system.tables[TABLE].rows = [event(n) for n in range(50, 90)]
        for number, page in enumerate(whole, 1):
            rest = pages(system, url, page.after, key=key, size=6)
            assert [(each.rows, each.after) for each in rest] == [(each.rows, each.after) for each in whole[number:]]
            other = [row for each in pages(system, url, page.after, key=key, size=7) for row in each.rows]
            assert other == [row for each in rest for row in each.rows]
        assert len(system.jobs) == 1
    found = [row for page in whole for row in page.rows]
    assert sorted(row.data["id"] for row in found) == sorted([*range(20), *([3, 3] if not key else [])])
    assert len({row.origin for row in found}) == len(found)
    assert [page.total for page in whole] == [len(found), None, None, None]
    assert [row.position for row in found] == [str(n) for n in range(1, len(found) + 1)]


def test_answers_may_be_shorter_than_asked_for_and_an_empty_result_has_no_page() -> None:
    with account(10) as (system, url, _):
        system.largest_page = 4
        assert [len(page.rows) for page in pages(system, url, key=["id"])] == [4, 4, 2]
        system.tables[TABLE].rows = []
        assert pages(system, url, key=["id"]) == []


def test_a_job_that_takes_its_time_is_waited_for_by_pages_without_rows_and_asked_for_once() -> None:
    with account(3) as (system, url, _):
        system.busy = 3
        found = pages(system, url, key=["id"])
        assert [len(page.rows) for page in found] == [0, 0, 0, 3]
        assert len({page.after for page in found}) == 2
        again = pages(system, url, found[0].after, key=["id"])
        assert [row.origin for page in again for row in page.rows] == [row.origin for row in found[3].rows]
        assert len(system.jobs) == 1


def test_a_result_that_is_gone_trips_the_guard() -> None:
    with account(10) as (system, url, time):
        after = pages(system, url, key=["id"], size=4)[0].after
        time.now += 100_000
        with pytest.raises(GuardTripped, match="any more"):
            pages(system, url, after, key=["id"], size=4)


def test_fewer_rows_than_were_said_trip_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    with account(10) as (system, url, _):
        honest = system._page
        monkeypatch.setattr(system, "_page", lambda *given: honest(*given) | {"totalRows": "11"})
        with pytest.raises(GuardTripped, match="10 of 11"):
            pages(system, url, key=["id"])
        monkeypatch.setattr(system, "_page", lambda *given: honest(*given) | {"rows": [], "pageToken": "x"})
        with pytest.raises(GuardTripped, match="middle"):
            pages(system, url, key=["id"])


def test_a_result_without_an_end_trips_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    with account(10) as (system, url, _):
        honest, first = system._page, []

        def again(*given: Any) -> Any:
            first.append(given)
            return honest(*first[0]) | {"pageToken": "again"}

        monkeypatch.setattr(system, "_page", again)
        with pytest.raises(GuardTripped, match="more than the 10 rows"):
            pages(system, url, key=["id"], size=5)


@pytest.mark.parametrize("after", ["x", "[]", "7", '["p"]'])
def test_a_token_of_somebody_else_is_no_place(after: str) -> None:
    with account(1) as (system, url, _), pytest.raises(GuardTripped, match="no place"):
        pages(system, url, after)


def test_failures_of_every_kind_lose_nothing_and_run_the_query_once() -> None:
    with account(200, "429=5%,503=5%,500=5%,drop=5%,drop_before=5%,not_json=5%") as (system, url, _):
        found = rows(system, url, key=["id"], size=5, attempts=30)
        assert sorted(row.data["id"] for row in found) == list(range(200))
        assert len(system.jobs) == 1 and sum(system.struck.values()) > 5


def test_an_answer_that_was_lost_on_its_way_costs_no_second_query(monkeypatch: pytest.MonkeyPatch) -> None:
    with account(3) as (system, url, _):
        honest, lost = system.answer, iter([True])

        def losing(request: Any) -> Any:
            given = honest(request)
            return None if next(lost, False) else given

        monkeypatch.setattr(system, "answer", losing)
        assert len(rows(system, url, key=["id"])) == 3
        assert len(system.jobs) == 1 and len(system.parameters) == 2


def test_the_clock_is_that_of_the_answers_and_a_wrong_query_is_said_before_it_runs() -> None:
    with account(1) as (system, url, time):
        with source_of(system, url) as source:
            assert abs((source.now() - datetime.fromtimestamp(time.now, UTC)).total_seconds()) <= 1
        with source_of(system, url, table="crm.nobody") as source, pytest.raises(ProtocolError) as caught:
            source.now()
        assert "Not found: Table jobs-1.crm.nobody" in str(caught.value)
        assert system.jobs == {}


# Identity and version


def test_a_cursor_says_which_rows_a_window_holds_and_which_version_is_newer() -> None:
    second = timedelta(seconds=1)
    with account() as (system, url, _):
        system.tables[TABLE].rows = [
            event(1, WINDOW.since - second), event(2, WINDOW.since), event(3, NOON - second), event(4, NOON),
            event(3, NOON - 2 * second, "older"), event(5, None),
        ]  # fmt: skip
        found = {row.data["name"]: row for row in rows(system, url, key=["id"], cursor="at")}
        assert system.parameters[-1] == {"since": "2025-12-31 12:00:00+00:00", "until": "2026-01-01 12:00:00+00:00"}
        assert {name for name, row in found.items() if row.problem is None} == {"n2", "n3", "older"}
        assert found["older"].origin == found["n3"].origin == "3"
        assert version_at(NOON - 2 * second) < found["older"].version < version_at(NOON - second) < found["n3"].version
        nameless = found["n5"]
        assert nameless.problem is not None and nameless.problem[0] == BAD_VERSION
        later = Window(NOON, NOON + timedelta(days=1))
        again = [row for page in pages(system, url, window=later, key=["id"], cursor="at") for row in page.rows]
        assert nameless.version in {row.version for row in again} and len(again) == 2


def test_of_two_rows_with_one_key_and_time_the_same_one_is_newer_at_every_run() -> None:
    with account() as (system, url, _):
        system.tables[TABLE].rows = [event(7, name="a"), event(7, name="b")]
        runs = [{row.data["name"]: row.version for row in rows(system, url, key=["id"], cursor="at")} for _ in range(9)]
        assert all(run == runs[0] for run in runs) and len(set(runs[0].values())) == 2


def test_without_a_cursor_rows_that_share_a_key_are_invalid_and_equal_ones_are_not() -> None:
    with account(3) as (system, url, _):
        system.tables[TABLE].rows += [event(1, name="other"), event(2)]
        found = rows(system, url, key=["id"])
    assert sorted((row.data["id"], row.problem and row.problem[0]) for row in found if row.problem) == [
        (1, BAD_IDENTITY), (1, BAD_IDENTITY),
    ]  # fmt: skip
    assert not any("_rows_of_key" in row.data for row in found)
    equal = [row for row in found if row.data["id"] == 2]
    assert len(equal) == 2 and (equal[0].origin, equal[0].version) == (equal[1].origin, equal[1].version)
    assert all(row.version.startswith(version_at(NOON)[:27]) for row in found if not row.problem)


def test_a_row_without_its_key_says_so() -> None:
    with account() as (system, url, _):
        system.tables[TABLE].rows = [{"id": None, "name": "x", "at": None}, event(1)]
        found = rows(system, url, key=["id"])
    assert sorted(row.problem[0] if row.problem else 0 for row in found) == [0, NO_IDENTITY]


def test_without_a_key_a_row_is_the_same_record_in_whatever_order_rows_come() -> None:
    with account(6) as (system, url, _):
        system.tables[TABLE].rows += [event(1), event(1)]
        runs = [{row.origin for row in rows(system, url)} for _ in range(4)]
    assert all(run == runs[0] for run in runs) and len(runs[0]) == 8


def test_a_query_is_read_as_a_table_is() -> None:
    query = "SELECT id, name FROM crm.events -- all of them"
    with account() as (system, url, _):
        system.queries[query] = Table(SCHEMA[:2], [event(1), event(2)])
        with source_of(system, url, table=None, query=f"  {query};\n", key=["id"]) as source:
            assert source.location == "bq://jobs-1 (query)"
            assert sum(len(page.rows) for page in source.pages(WINDOW, "")) == 2
        assert open_source(connection_to(system, url), "").location == f"bq://{TABLE}"


# Values


def test_values_have_their_types() -> None:
    schema = {
        "fields": [
            {"name": "integer", "type": "INTEGER"}, {"name": "float", "type": "FLOAT"},
            {"name": "nan", "type": "FLOAT64"}, {"name": "numeric", "type": "NUMERIC"},
            {"name": "big", "type": "BIGNUMERIC"},
            {"name": "yes", "type": "BOOLEAN"}, {"name": "no", "type": "BOOL"}, {"name": "text", "type": "STRING"},
            {"name": "timestamp", "type": "TIMESTAMP"}, {"name": "early", "type": "TIMESTAMP"},
            {"name": "date", "type": "DATE"}, {"name": "datetime", "type": "DATETIME"},
            {"name": "time", "type": "TIME"}, {"name": "bytes", "type": "BYTES"},
            {"name": "json", "type": "JSON"}, {"name": "null", "type": "INTEGER"},
            {"name": "none", "type": "INTEGER", "mode": "REPEATED"},
            {"name": "list", "type": "INTEGER", "mode": "REPEATED"},
            {"name": "record", "type": "RECORD", "mode": "REPEATED", "fields": [
                {"name": "a", "type": "NUMERIC"}, {"name": "b", "type": "RECORD", "fields": [
                    {"name": "c", "type": "TIMESTAMP", "mode": "REPEATED"}]}]},
        ]
    }  # fmt: skip
    cells = [
        "9223372036854775807", "1.5", "NaN", "12345678901234567890.123456789", "1e5", "true", "false", "é\n",
        "1767268800123456", "-62135596800000000", "2026-01-01", "2026-01-01T12:00:00.5", "12:00:00", "AP8=",
        '{"a":[1,null]}', None, [], [{"v": "1"}, {"v": "2"}],
        [{"v": {"f": [{"v": "1.10"}, {"v": {"f": [{"v": [{"v": "0"}]}]}}]}}, {"v": {"f": [{"v": None}, {"v": None}]}}],
    ]  # fmt: skip
    assert list(row_of(columns_of(schema), {"f": [{"v": cell} for cell in cells]}).values()) == [
        9223372036854775807, 1.5, "NaN", "12345678901234567890.123456789", "1e5", True, False, "é\n",
        "2026-01-01T12:00:00.123456Z", "0001-01-01T00:00:00Z", "2026-01-01", "2026-01-01T12:00:00.5", "12:00:00",
        "AP8=", {"a": [1, None]}, None, [], [1, 2],
        [{"a": "1.10", "b": {"c": ["1970-01-01T00:00:00Z"]}}, {"a": None, "b": None}],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INTEGER", "x"),
        ("FLOAT", ""),
        ("BOOLEAN", "maybe"),
        ("TIMESTAMP", "1e30"),
        ("JSON", "{"),
        ("TIMESTAMP", "9" * 20),
    ],
)
def test_a_value_that_its_type_does_not_allow_is_that_rows_own_affair(kind: str, value: str) -> None:
    with pytest.raises(RecordError, match=f"a is no {kind}"):
        row_of(columns_of({"fields": [{"name": "a", "type": kind}]}), {"f": [{"v": value}]})
    with account(2) as (system, url, _):
        system.tables[TABLE].schema = [*SCHEMA[:2], {"name": "at", "type": "TIMESTAMP"}]
        system.tables[TABLE].rows[0]["at"] = "soon"
        found = rows(system, url, key=["id"])
    assert sorted(row.problem[0] if row.problem else 0 for row in found) == [0, UNMAPPABLE]


@pytest.mark.parametrize("row", [None, {}, {"f": []}, {"f": [{}]}, {"f": [5]}, {"f": [{"v": "1"}, {"v": "2"}]}])
def test_what_is_no_row_is_no_answer_of_bigquery(row: Any) -> None:
    with pytest.raises(ProtocolError, match="row"):
        row_of(columns_of({"fields": [{"name": "a", "type": "STRING"}]}), row)


@pytest.mark.parametrize("schema", [None, [], {"fields": 5}, {"fields": [{"name": "a"}]}])
def test_what_is_no_schema_is_no_answer_of_bigquery(schema: Any) -> None:
    with pytest.raises(ProtocolError, match="schema"):
        columns_of(schema)


# Refusals


def test_a_quota_is_waited_for_and_a_missing_right_is_not() -> None:
    with account(1) as (system, url, _):
        refusals = iter(["rateLimitExceeded", "quotaExceeded"])
        honest = system.carried_out

        def refusing(request: Any, body: Any) -> Any:
            reason = next(refusals, "")
            if reason:
                raise bigquery.Refusal(403, reason, "no")
            return honest(request, body)

        system.carried_out = refusing  # type: ignore[method-assign]
        assert len(rows(system, url, key=["id"], attempts=3)) == 1
        refusals = iter(["accessDenied"])
        with pytest.raises(AuthError):
            rows(system, url, key=["id"])
        refusals = iter(["rateLimitExceeded"] * 9)
        with pytest.raises(TransientError):
            rows(system, url, key=["id"])


def test_a_wrong_token_stops_the_stream() -> None:
    with account(1) as (system, url, _), pytest.raises(AuthError):
        rows(system, url, token="other")


def test_a_refusal_says_what_is_wrong_with_the_query_and_nothing_of_rows() -> None:
    with account(1) as (system, url, _):
        for message, told in (
            ("Syntax error: Unexpected keyword at [1:5]", True),
            ("Bad int64 value: joao@x.br", False),
        ):

            def refusing(request: Any, body: Any, message: str = message) -> Any:
                raise bigquery.Refusal(400, "invalidQuery", message)

            system.carried_out = refusing  # type: ignore[method-assign]
            with pytest.raises(ProtocolError, match="invalidQuery") as caught:
                rows(system, url)
            assert (message in str(caught.value)) is told


def test_a_column_that_is_not_for_a_source_to_give_is_refused() -> None:
    with account(1) as (system, url, _):
        system.tables[TABLE].schema = [*SCHEMA, {"name": "_identity", "type": "STRING"}]
        with pytest.raises(ProtocolError, match="_identity"):
            rows(system, url)


@pytest.mark.parametrize(
    "options",
    [
        {"table": None}, {"query": "SELECT 1"}, {"table": "events"}, {"table": "crm.events`; DROP TABLE x"},
        {"table": "a.b.c.d"}, {"table": 5}, {"key": ["id`"]}, {"key": ["a b"]}, {"key": ["id", "id"]},
        {"cursor": "at) OR (1=1"}, {"cursor": 5}, {"cursor": "1a"}, {"project": "Jobs 1"}, {"location": "a b"},
        {"size": 0},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_mistakes_of_the_configuration(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        open_source(connection_to(None, "http://localhost:1", **options), "")


def test_without_any_project_there_is_nowhere_to_run() -> None:
    connection = connection_to(None, "http://localhost:1", table="crm.events")
    connection.secrets.pop("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(ConfigError, match="project"):
        open_source(connection, "")
    connection.options["table"] = TABLE  # type: ignore[index]
    open_source(connection, "").close()
