"""The fake Google Ads keeps what the vendor documents, over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.sandbox.google_ads import GoogleAds
from tests.sandbox.google_system import Quota
from tests.systems.google_script import Row, hashed, served


def post(system: GoogleAds, url: str, path: str, body: Row, **headers: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {system.token}", "developer-token": system.developer_token} | headers
    return requests.post(f"{url}/v26/customers/{system.customer}{path}", json=body, headers=headers, timeout=10)


def conversion(number: int, **fields: Any) -> Row:
    return {
        "conversionAction": "customers/1/conversionActions/2",
        "gclid": f"g{number}",
        "orderId": str(number),
        "conversionDateTime": "2026-05-31 12:00:00-03:00",
    } | fields


def upload(system: GoogleAds, url: str, *conversions: Row, **fields: Any) -> requests.Response:
    return post(system, url, ":uploadClickConversions", {"conversions": conversions, "partialFailure": True} | fields)


def codes(error: Row) -> list[tuple[str, int | None]]:
    (detail,) = error["details"]
    return [
        (
            next(iter(each["errorCode"].values())),
            each["location"]["fieldPathElements"][0]["index"] if "location" in each else None,
        )
        for each in detail["errors"]
    ]


def refusal(answer: requests.Response) -> list[tuple[str, int | None]]:
    assert answer.status_code >= 400
    return codes(answer.json()["error"])


def test_rows_that_fail_have_an_empty_result_and_an_error_with_their_index() -> None:
    with served(GoogleAds) as (system, url, _):
        system.codes["2"] = "EXPIRED_EVENT"
        given = upload(system, url, conversion(1), conversion(2), conversion(3, conversionDateTime="x")).json()
        assert [bool(each) for each in given["results"]] == [True, False, False]
        assert codes(given["partialFailureError"]) == [("EXPIRED_EVENT", 1), ("REQUIRED", 2)]
        assert system.stats()["conversions"] == 1


def test_repeats_are_refused_later_and_in_one_request() -> None:
    with served(GoogleAds) as (system, url, _):
        upload(system, url, conversion(1), conversion(2, orderId=""))
        again = upload(system, url, conversion(1, gclid="x"), conversion(2, orderId="")).json()
        assert codes(again["partialFailureError"]) == [
            ("ORDER_ID_ALREADY_IN_USE", 0),
            ("CLICK_CONVERSION_ALREADY_EXISTS", 1),
        ]
        twice = upload(system, url, conversion(3), conversion(3, gclid="y"), conversion(4)).json()
        assert codes(twice["partialFailureError"]) == [("DUPLICATE_ORDER_ID", 0), ("DUPLICATE_ORDER_ID", 1)]
        assert system.stats()["conversions"] == 3


def test_the_limits_of_a_request() -> None:
    with served(GoogleAds) as (system, url, time):
        many = [conversion(number) for number in range(2_001)]
        assert upload(system, url, *many[:-1]).status_code == 200
        assert refusal(upload(system, url, *many)) == [("TOO_MANY_CONVERSIONS_IN_REQUEST", None)]
        assert refusal(upload(system, url, conversion(1), partialFailure=False)) == [
            ("PARTIAL_FAILURE_MODE_REQUIRED", None)
        ]
        known = [{"hashedEmail": hashed(str(each))} for each in range(6)]
        given = upload(
            system, url, conversion(9_001, userIdentifiers=known[:5]), conversion(9_002, userIdentifiers=known)
        )
        assert codes(given.json()["partialFailureError"]) == [("TOO_MANY_USER_IDENTIFIERS", 1)]
        plain = upload(system, url, conversion(9_003, userIdentifiers=[{"hashedEmail": "a@b.cn"}])).json()
        assert codes(plain["partialFailureError"]) == [("INVALID_USER_IDENTIFIER", 0)]
        system.quota = Quota(None, 2)
        assert upload(system, url, conversion(9_004), conversion(9_005)).status_code == 200
        refused = upload(system, url, conversion(9_006))
        assert (refused.status_code, refusal(refused)) == (429, [("RESOURCE_EXHAUSTED", None)])
        time.now += 86_400
        assert upload(system, url, conversion(9_006)).status_code == 200


def test_a_caller_needs_both_tokens_its_customer_and_a_version_that_lives() -> None:
    with served(GoogleAds) as (system, url, _):
        body = {"conversions": [conversion(1)], "partialFailure": True}
        path = ":uploadClickConversions"
        assert post(system, url, path, body, Authorization="Bearer x").status_code == 401
        assert refusal(post(system, url, path, body, **{"developer-token": "x"})) == [
            ("DEVELOPER_TOKEN_NOT_APPROVED", None)
        ]
        assert post(system, url, f"0{path}", body).status_code == 403
        assert post(system, url, ":drop", body).status_code == 404
        headers = {"Authorization": f"Bearer {system.token}"}
        assert requests.post(f"{url}/v1/customers/1", json={}, headers=headers, timeout=10).status_code == 404
        system.allowlisted = False
        assert refusal(post(system, url, path, body)) == [("CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", None)]
        assert system.environment(url)["GOOGLE_ADS_CUSTOMER_ID"] == system.customer


def operation(verb: str, *emails: str) -> Row:
    return {verb: {"userIdentifiers": [{"hashedEmail": hashed(each)} for each in emails]}}


def test_a_job_never_mixes_runs_once_and_keeps_its_limits() -> None:
    with served(GoogleAds) as (system, url, _):
        metadata = {"customerMatchUserListMetadata": {"userList": "customers/1/userLists/7"}}
        assert refusal(post(system, url, "/offlineUserDataJobs:create", {"job": {}})) != []
        name = post(system, url, "/offlineUserDataJobs:create", {"job": metadata}).json()["resourceName"]
        job = name.removeprefix(f"customers/{system.customer}")

        def add(*operations: Row) -> requests.Response:
            return post(system, url, f"{job}:addOperations", {"operations": operations})

        assert add(operation("create", *map(str, range(20)))).json() == {}
        assert refusal(add(operation("create", *map(str, range(21))))) == [("TOO_MANY_USER_IDENTIFIERS", None)]
        assert refusal(add(operation("remove", "a"))) == [("CANNOT_MIX_CREATE_AND_REMOVE", None)]
        plain = add({"create": {"userIdentifiers": [{"hashedEmail": "a@b.cn"}]}}).json()
        assert codes(plain["partialFailureError"]) == [("INVALID_SHA256_FORMAT", 0)]
        assert post(system, url, f"{job}:run", {}).status_code == 200
        assert refusal(post(system, url, f"{job}:run", {})) == [("JOB_ALREADY_RUNNING", None)]
        assert system.stats()["members"] == {"customers/1/userLists/7": 1}


@pytest.mark.parametrize(("count", "taken"), [(5_000, True), (5_001, False)])
def test_a_request_holds_a_hundred_thousand_identifiers(count: int, taken: bool) -> None:
    emails = [{"hashedEmail": hashed("a")}] * 20
    with served(GoogleAds) as (system, url, _):
        metadata = {"customerMatchUserListMetadata": {"userList": "l"}}
        name = post(system, url, "/offlineUserDataJobs:create", {"job": metadata}).json()["resourceName"]
        job = name.removeprefix(f"customers/{system.customer}")
        operations = [{"create": {"userIdentifiers": emails}}] * count
        given = post(system, url, f"{job}:addOperations", {"operations": operations})
        assert (given.status_code == 200) is taken
