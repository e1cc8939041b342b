"""The fakes of Google's APIs in one sandbox, and what somebody outside can do in them, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
import requests

from infra.environment import SYSTEM_VARIABLES, backend, system_settings
from infra.systems.bigquery import open_source
from infra.systems.data_manager import open_sink
from shared.books import Window
from shared.errors import ConfigError
from shared.outcome import Outcome
from tests.sandbox.google_system import GoogleSystem
from tests.systems import test_sandbox_cm360 as cm360
from tests.systems import test_sandbox_data_manager as data_manager
from tests.systems import test_sandbox_google_ads as google_ads
from tests.systems.google_script import NOW, Row, connection_to, hashed, outcomes, upsert
from tests.systems.sandboxed import Start, World, worlds


@pytest.fixture
def start() -> Iterator[Start]:
    with worlds() as started:
        yield lambda **options: started(**{"customers": 0, **options})


def ingest(world: World, *records: Row, path: str = "events:ingest") -> requests.Response:
    body = {"events" if path.startswith("events") else "audienceMembers": records}
    return data_manager.post(world.sandbox.data_manager, world.sandbox.urls["data_manager"], path, body)


def upload(world: World, *conversions: Row) -> Row:
    given: Row = google_ads.upload(world.sandbox.google_ads, world.sandbox.urls["google_ads"], *conversions).json()
    return given


def insert(world: World, *conversions: Row) -> requests.Response:
    return cm360.post(world.sandbox.cm360, world.sandbox.urls["cm360"], *conversions)


def stats(world: World, system: str, *names: str) -> list[Any]:
    found = world.control("stats", system)
    return [found[name] for name in names]


# The environment


def test_the_environment_is_enough_for_every_system_and_switches_no_backend(start: Start) -> None:
    sandbox = start().sandbox
    for name in sandbox.systems:
        assert system_settings(name, sandbox.environment).url.startswith(sandbox.urls[name])
    with pytest.raises(ConfigError):
        system_settings("prisma", sandbox.environment)
    tokens = {system.token for system in sandbox.systems.values() if isinstance(system, GoogleSystem)}
    assert tokens == {sandbox.environment["GOOGLE_OAUTH_ACCESS_TOKEN"]}
    assert backend(sandbox.environment) == "embedded" and "GOOGLE_CLOUD_PROJECT" not in sandbox.environment
    known = {name for each in SYSTEM_VARIABLES.values() for name in (each.url_variable, *each.secrets, *each.optional)}
    assert sandbox.environment.keys() <= known


def test_conversions_of_bigquery_travel_to_data_manager(start: Start) -> None:
    sandbox = start(conversions=250, seed=3).sandbox
    token = {"GOOGLE_OAUTH_ACCESS_TOKEN": sandbox.environment["GOOGLE_OAUTH_ACCESS_TOKEN"]}
    table: Row = {"table": "sandbox.crm.conversions", "key": ["transaction_id"]}
    with closing(open_source(connection_to(sandbox.urls["bigquery"], token, {}, 100, **table), "rows")) as source:
        pages = list(source.pages(Window(NOW - timedelta(days=3), NOW), ""))
    rows = [row.data for page in pages for row in page.rows]
    assert [len(page.rows) for page in pages] == [100, 100, 50]
    destination = {
        "operating_account": {"account_type": "GOOGLE_ADS", "account_id": "1"},
        "product_destination_id": "7",
    }
    settings = {"destinations": [destination]}
    with closing(open_sink(connection_to(sandbox.urls["data_manager"], token, settings), "events")) as sink:
        changes = [upsert(row.pop("_identity"), row) for row in rows]
        assert outcomes(sink.write(changes)) == [Outcome.DELIVERED] * 250
    again = start(conversions=260, seed=3).sandbox.bigquery
    assert again.rows()[:250] == sandbox.bigquery.rows() != start(conversions=250).sandbox.bigquery.rows()
    assert sandbox.data_manager.stats()["events"] == 250
    ids = {event["transactionId"] for event in sandbox.data_manager.events}
    assert ids == {row["transaction_id"] for row in sandbox.bigquery.rows()}


def test_tables_and_queries_are_put_there_from_outside(start: Start) -> None:
    world = start()
    schema = [{"name": "id", "type": "INTEGER"}, {"name": "at", "type": "TIMESTAMP"}]
    table = {"schema": schema, "rows": [{"id": number, "at": 1_780_000_000_000_000} for number in range(3)]}
    assert world.control("tables", "bigquery", **{"shop.crm.leads": table})["shop.crm.leads"] == 3
    assert world.control("queries", "bigquery", **{"SELECT id FROM leads": table})
    wrong = {"good.a.b": table, "bad.a.b": table | {"rows": [{"idd": 1}]}}
    assert "no column idd" in world.control("tables", "bigquery", **wrong)["error"]
    assert world.control("tables", "bigquery", **{"bad.a.b": {"rows": []}})["error"]
    token = {"GOOGLE_OAUTH_ACCESS_TOKEN": world.sandbox.bigquery.token}
    reads: list[Row] = [{"table": "shop.crm.leads"}, {"query": "SELECT id FROM leads", "project": "shop-1"}]
    for asked in reads:
        with closing(open_source(connection_to(world.sandbox.urls["bigquery"], token, {}, **asked), "rows")) as source:
            (page,) = source.pages(Window(NOW - timedelta(days=3), NOW), "")
            assert {row.data["id"] for row in page.rows} == {0, 1, 2}
    assert stats(world, "bigquery", "jobs", "rows") == [2, {"sandbox.crm.conversions": 0, "shop.crm.leads": 3}]


# Refusals, and what came twice


def test_data_manager_refuses_chosen_records_until_they_are_mended(start: Start) -> None:
    world, events = start(), [data_manager.event(number) for number in range(4)]
    world.control("refuse", "data_manager", values=["g1", 3])
    world.control("refuse", "data_manager", values=["g1"], code="INVALID_GCLID")
    assert data_manager.violations(ingest(world, *events)) == [
        ("events.events[1]", "INVALID_GCLID"), ("events.events[3]", "INVALID_ARGUMENT"),
    ]  # fmt: skip
    assert stats(world, "data_manager", "received", "events", "repeated") == [4, 0, {}]
    assert world.control("mend", "data_manager", values=["g1"]) == {"refused": 1}
    assert ingest(world, *events[:3]).status_code == 200
    assert world.control("mend", "data_manager") == {"refused": 0}
    assert ingest(world, *events[2:]).status_code == 200
    assert stats(world, "data_manager", "received", "events", "repeated") == [9, 4, {"77 transaction 2": 2}]


def test_an_event_without_an_id_counts_each_time_and_is_named_all_the_same(start: Start) -> None:
    world, event = start(), {"eventTimestamp": "2026-05-31T12:00:00Z", "clientId": "1.2"}
    for value in (1, 1, 2):
        ingest(world, event | {"conversionValue": value})
    events, repeated = stats(world, "data_manager", "events", "repeated")
    assert (events, list(repeated.values())) == (3, [2])


def test_a_member_that_left_may_come_again(start: Start) -> None:
    world, member = start(), data_manager.member(hashed("a"))
    for verb, repeated in (("ingest", 0), ("remove", 0), ("ingest", 0), ("ingest", 1), ("remove", 0), ("remove", 1)):
        ingest(world, member, path=f"audienceMembers:{verb}")
        assert len(stats(world, "data_manager", "repeated")[0]) == repeated, verb


def test_google_ads_refuses_chosen_conversions_until_they_are_mended(start: Start) -> None:
    world, some = start(), [google_ads.conversion(number) for number in range(3)]
    world.control("refuse", "google_ads", values=["g0"])
    world.control("refuse", "google_ads", values=["2"], code="TOO_RECENT_EVENT")
    error = upload(world, *some)["partialFailureError"]
    assert google_ads.codes(error) == [("INVALID_CONVERSION_ACTION", 0), ("TOO_RECENT_EVENT", 2)]
    world.control("mend", "google_ads")
    assert "partialFailureError" not in upload(world, some[0], some[2])
    assert stats(world, "google_ads", "received", "conversions", "repeated") == [5, 3, {}]
    upload(world, some[2])
    (repeated,) = stats(world, "google_ads", "repeated")
    assert set(repeated.values()) == {2} and len(repeated) == 2
    assert stats(world, "google_ads", "conversions") == [3]


def test_cm360_refuses_chosen_conversions_until_they_are_mended(start: Start) -> None:
    world, some = start(cm360_per_minute=None), [cm360.conversion(number) for number in range(3)]
    world.control("refuse", "cm360", values=["g1"], code="NOT_FOUND")
    assert cm360.codes(insert(world, *some)) == ["", "NOT_FOUND", ""]
    world.control("mend", "cm360")
    assert cm360.codes(insert(world, some[1])) == [""]
    assert stats(world, "cm360", "received", "conversions", "repeated") == [4, 3, {}]
    assert cm360.codes(insert(world, some[1])) == [""]
    assert list(stats(world, "cm360", "repeated")[0].values()) == [2]


def test_ga4_cannot_refuse_and_bigquery_takes_no_records(start: Start) -> None:
    world = start()
    for system in ("ga4", "bigquery", "ploomes"):
        assert "no POST" in world.control("refuse", system, values=["1"])["error"]
    assert world.control("refuse", "cm360", values="g1")["error"]


# What is decided later


@pytest.mark.parametrize(
    ("asked", "status", "counts"),
    [
        ({}, "SUCCESS", {}),
        ({"status": "SUCCESS"}, "SUCCESS", {}),
        ({"status": "PARTIAL_SUCCESS"}, "PARTIAL_SUCCESS", {"INTERNAL_ERROR": "1"}),
        ({"status": "FAILED", "reason": "CONSENT_DENIED"}, "FAILED", {"CONSENT_DENIED": "2"}),
    ],
)
def test_requests_of_data_manager_end_at_once(start: Start, asked: Row, status: str, counts: Row) -> None:
    world = start()

    def state(request: str) -> Row:
        headers = {"Authorization": f"Bearer {world.sandbox.data_manager.token}"}
        url = f"{world.sandbox.urls['data_manager']}/v1/requestStatus:retrieve?requestId={request}"
        found: Row = requests.get(url, headers=headers, timeout=10).json()["requestStatusPerDestination"][0]
        return found

    request = ingest(world, data_manager.event(1), data_manager.event(2)).json()["requestId"]
    assert state(request)["requestStatus"] == "PROCESSING"
    assert world.control("finish", "data_manager", **asked) == {"finished": 1}
    assert world.control("finish", "data_manager", status="FAILED") == {"finished": 0}
    ended = state(request)
    assert ended["requestStatus"] == status
    found = {each["reason"]: each["recordCount"] for each in ended.get("errorInfo", {}).get("errorCounts", [])}
    assert found == {f"PROCESSING_ERROR_REASON_{reason}": count for reason, count in counts.items()}
    later = ingest(world, data_manager.event(3)).json()["requestId"]
    assert state(later)["requestStatus"] == "PROCESSING"
    assert world.control("finish", "data_manager", status="DONE")["error"]


@pytest.mark.parametrize(
    ("asked", "ended"),
    [
        ({}, {"status": "SUCCESS"}),
        ({"status": "FAILED", "reason": "INSUFFICIENT_MATCHED_TRANSACTIONS"},
         {"status": "FAILED", "failureReason": "INSUFFICIENT_MATCHED_TRANSACTIONS"}),
    ],
)  # fmt: skip
def test_jobs_of_google_ads_end_at_once(start: Start, asked: Row, ended: Row) -> None:
    world = start()
    system, url = world.sandbox.google_ads, world.sandbox.urls["google_ads"]

    def post(path: str, body: Row) -> Row:
        given: Row = google_ads.post(system, url, path, body).json()
        return given

    metadata = {"customerMatchUserListMetadata": {"userList": "customers/1/userLists/7"}}
    name = post("/offlineUserDataJobs:create", {"job": metadata})["resourceName"]
    path = name.removeprefix(f"customers/{system.customer}")
    world.control("refuse", "google_ads", values=[hashed("b")], code="INVALID_SHA256_FORMAT")
    operations = [google_ads.operation("create", "a"), google_ads.operation("create", "b")]
    error = post(f"{path}:addOperations", {"operations": operations})["partialFailureError"]
    assert google_ads.codes(error) == [("INVALID_SHA256_FORMAT", 1)]
    assert world.control("finish", "google_ads") == {"finished": 0}
    post(f"{path}:run", {})
    assert world.control("finish", "google_ads", **asked) == {"finished": 1}
    found = post("/googleAds:search", {"query": f"WHERE offline_user_data_job.resource_name = '{name}'"})
    assert found["results"] == [{"offlineUserDataJob": {"resourceName": name} | ended}]
    assert world.control("finish", "google_ads", status="PARTIAL_SUCCESS")["error"]
    assert stats(world, "google_ads", "received", "members") == [2, {"customers/1/userLists/7": 1}]
    post(f"{path}:addOperations", {"operations": operations[:1]})
    assert list(stats(world, "google_ads", "repeated")[0].values()) == [2]


# Quotas


def test_quotas_are_those_of_the_vendors_unless_told_otherwise(start: Start) -> None:
    world = start()
    assert [quota.per_minute for quota in world.sandbox.data_manager.quotas.values()] == [300, 300]
    assert [quota.per_day for quota in world.sandbox.data_manager.quotas.values()] == [100_000, 100_000]
    assert (world.sandbox.cm360.spacing, world.sandbox.cm360.quota.per_day) == (1.0, 50_000)
    assert world.sandbox.google_ads.quota.per_day is None
    assert insert(world, cm360.conversion(1)).status_code == 200
    assert cm360.refusal(insert(world, cm360.conversion(2))) == (403, "rateLimitExceeded")
    assert world.control("limit", "cm360", per_minute=None) == {"per_minute": None}
    assert [insert(world, cm360.conversion(number)).status_code for number in (2, 3)] == [200, 200]
    world.control("limit", "cm360", per_day=3)
    assert cm360.refusal(insert(world, cm360.conversion(4))) == (403, "dailyLimitExceeded")


def test_quotas_can_be_set_and_lifted(start: Start) -> None:
    world = start(data_manager_per_minute=2, google_ads_per_day=2)
    events = [data_manager.event(number) for number in range(4)]
    assert [ingest(world, each).status_code for each in events[:3]] == [200, 200, 429]
    world.control("limit", "data_manager", per_minute=None)
    assert ingest(world, events[2]).status_code == 200
    world.control("limit", "data_manager", per_day=3)
    assert ingest(world, events[3]).status_code == 429
    assert "no per_hour" in world.control("limit", "data_manager", per_hour=1)["error"]
    assert "per_minute" in world.control("limit", "ga4", per_day=1)["error"]
    conversions = [google_ads.conversion(number) for number in range(3)]
    assert "error" in upload(world, *conversions)
    world.control("limit", "google_ads", per_day=None)
    assert len(upload(world, *conversions)["results"]) == 3
