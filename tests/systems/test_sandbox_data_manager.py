"""The fake Data Manager API keeps what the vendor documents, over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.sandbox.data_manager import PER_DAY, DataManager
from tests.sandbox.google_system import DAY
from tests.systems.google_script import Row, hashed, served

DESTINATION = {"operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1"}, "productDestinationId": "77"}


def event(number: int, **fields: Any) -> Row:
    return {
        "transactionId": str(number),
        "eventTimestamp": "2026-05-31T12:00:00Z",
        "adIdentifiers": {"gclid": f"g{number}"},
    } | fields


def member(text: str) -> Row:
    return {"userData": {"userIdentifiers": [{"emailAddress": text}]}}


def post(system: DataManager, url: str, path: str, body: Row, token: str = "") -> requests.Response:
    headers = {"Authorization": f"Bearer {token or system.token}"}
    body = {"destinations": [DESTINATION], "encoding": "HEX"} | body
    return requests.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=10)


def violations(answer: requests.Response) -> list[tuple[str, str]]:
    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    return [(each["field"], each["reason"]) for each in error["details"][1]["fieldViolations"]]


def test_one_bad_record_refuses_all_and_every_bad_one_is_named() -> None:
    with served(DataManager) as (system, url, _):
        bad = [event(1), event(2, eventTimestamp=""), event(3), event(4, adIdentifiers=None)]
        assert violations(post(system, url, "events:ingest", {"events": bad})) == [
            ("events.events[1].event_timestamp", "REQUIRED_FIELD_MISSING"),
            ("events.events[3]", "NO_IDENTIFIERS_PROVIDED"),
        ]
        system.names_records = False
        error = post(system, url, "events:ingest", {"events": bad}).json()["error"]
        assert [each["reason"] for each in error["details"]] == ["INVALID_ARGUMENT"]
        assert (system.events, system.stats()["events"]) == ([], 0)


@pytest.mark.parametrize(
    ("value", "encoding", "reason"),
    [
        ("a@example.com", "HEX", "INVALID_HEX_ENCODING"),
        ("a@example.com", "BASE64", "INVALID_BASE64_ENCODING"),
        ("YQ==", "BASE64", "INVALID_SHA256_FORMAT"),
        (hashed("a"), "", "REQUIRED_FIELD_MISSING"),
    ],
)
def test_identifiers_have_to_be_hashed(value: str, encoding: str, reason: str) -> None:
    with served(DataManager) as (system, url, _):
        body = {"audienceMembers": [member(hashed("b")), member(value)], "encoding": encoding}
        found = violations(post(system, url, "audienceMembers:ingest", body))
        assert reason in [each[1] for each in found]
        assert system.members == {}


@pytest.mark.parametrize(
    ("path", "name", "most"),
    [("events:ingest", "events", 2_000), ("audienceMembers:ingest", "audienceMembers", 10_000)],
)
def test_the_limits_of_a_request(path: str, name: str, most: int) -> None:
    records = [event(each) if name == "events" else member(hashed(str(each))) for each in range(most + 1)]
    with served(DataManager) as (system, url, _):
        assert post(system, url, path, {name: records[:-1]}).json() == {"requestId": "t-00000000"}
        snake = "events" if name == "events" else "audience_members"
        assert violations(post(system, url, path, {name: records})) == [(snake, f"TOO_MANY_{snake.upper()}")]
        assert violations(post(system, url, path, {name: []})) == [(snake, "REQUIRED_FIELD_MISSING")]
        eleven = {name: records[:1], "destinations": [DESTINATION] * 11}
        assert violations(post(system, url, path, eleven)) == [("destinations", "TOO_MANY_DESTINATIONS")]
        many = {"userIdentifiers": [{"emailAddress": hashed(str(each))} for each in range(11)]}
        crowded = event(1, userData=many) if name == "events" else {"userData": many}
        assert violations(post(system, url, path, {name: [crowded]}))[0][1] == "TOO_MANY_USER_IDENTIFIERS"


def test_repeats_are_taken_and_counted_once() -> None:
    with served(DataManager) as (system, url, time):
        first = post(system, url, "events:ingest", {"events": [event(1), event(2, transactionId="")]})
        again = post(system, url, "events:ingest", {"events": [event(1), event(2, transactionId=""), event(3)]})
        assert (first.status_code, again.status_code, len(system.events)) == (200, 200, 3)
        assert len(system.stats()["repeated"]) == 2
        headers = {"Authorization": f"Bearer {system.token}"}
        status = f"{url}/v1/requestStatus:retrieve?requestId={again.json()['requestId']}"
        (early,) = requests.get(status, headers=headers, timeout=10).json()["requestStatusPerDestination"]
        time.now += system.processing
        (late,) = requests.get(status, headers=headers, timeout=10).json()["requestStatusPerDestination"]
        assert early["requestStatus"] == "PROCESSING"
        assert (late["requestStatus"], late["eventsIngestionStatus"]) == ("PARTIAL_SUCCESS", {"recordCount": "3"})
        assert {each["reason"] for each in late["errorInfo"]["errorCounts"]} == {
            "PROCESSING_ERROR_REASON_DUPLICATE_GCLID",
            "PROCESSING_ERROR_REASON_DUPLICATE_TRANSACTION_ID",
        }
        unknown = requests.get(f"{url}/v1/requestStatus:retrieve?requestId=x", headers=headers, timeout=10)
        assert violations(unknown) == [("request_id", "INVALID_REQUEST_ID")]


def test_members_leave_and_a_request_that_is_only_validated_takes_nothing() -> None:
    with served(DataManager) as (system, url, _):
        both = {"audienceMembers": [member(hashed("a")), member(hashed("b"))]}
        assert post(system, url, "audienceMembers:ingest", both | {"validateOnly": True}).json()["requestId"][0] == "v"
        assert system.members == {}
        post(system, url, "audienceMembers:ingest", both)
        post(system, url, "audienceMembers:remove", {"audienceMembers": [member(hashed("a"))]})
        assert system.stats()["members"] == {"77": 1}


def test_quotas_of_a_minute_and_a_day_are_those_of_their_kind() -> None:
    with served(DataManager) as (system, url, time):
        for _ in range(300):
            assert post(system, url, "events:ingest", {"events": [event(1)]}).status_code == 200
        refused = post(system, url, "events:ingest", {"events": [event(1)]})
        error = refused.json()["error"]
        assert (refused.status_code, error["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert error["details"][0]["metadata"] == {"quota_limit": "IngestionMutateRequestsPerMinutePerProject"}
        headers = {"Authorization": f"Bearer {system.token}"}
        status = requests.get(f"{url}/v1/requestStatus:retrieve?requestId=t-00000000", headers=headers, timeout=10)
        assert status.status_code == 200
        time.now += 60
        assert post(system, url, "events:ingest", {"events": [event(1)]}).status_code == 200
        system.quotas["ingest"].days[int(time.now // DAY)] = PER_DAY
        time.now += 60
        error = post(system, url, "events:ingest", {"events": [event(1)]}).json()["error"]
        assert error["details"][0]["metadata"] == {"quota_limit": "IngestionMutateRequestsPerDayPerProject"}
        time.now += DAY
        assert post(system, url, "events:ingest", {"events": [event(1)]}).status_code == 200


def test_another_token_and_another_path_are_refused() -> None:
    with served(DataManager) as (system, url, _):
        assert post(system, url, "events:ingest", {"events": [event(1)]}, token="x").status_code == 401
        assert post(system, url, "events:drop", {}).status_code == 404
        assert system.environment(url) == {"DATA_MANAGER_URL": url, "GOOGLE_OAUTH_ACCESS_TOKEN": system.token}
        with pytest.raises(ValueError, match="by hand"):
            system.add(1)
