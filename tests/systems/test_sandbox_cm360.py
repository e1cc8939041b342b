"""The fake Campaign Manager 360 keeps what the vendor documents, over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.sandbox.cm360 import PER_DAY, Cm360
from tests.systems.google_script import NOW, Row, hashed, served


def post(system: Cm360, url: str, *conversions: Row, **named: str) -> requests.Response:
    path = f"/dfareporting/v5/userprofiles/{named.get('profile', system.profile)}/conversions/batchinsert"
    headers = {"Authorization": f"Bearer {named.get('token', system.token)}"}
    return requests.post(url + path, json={"conversions": conversions}, headers=headers, timeout=10)


def conversion(number: int, age: float = 86_400, **fields: Any) -> Row:
    return {
        "floodlightConfigurationId": "1",
        "floodlightActivityId": "2",
        "gclid": f"g{number}",
        "timestampMicros": str(int((NOW.timestamp() - age) * 1_000_000)),
        "ordinal": str(number),
        "quantity": "1",
        "value": 1.5,
    } | fields


def codes(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200
    status = answer.json()["status"]
    assert answer.json()["hasFailures"] is any("errors" in each for each in status)
    return [each["errors"][0]["code"] if "errors" in each else "" for each in status]


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["errors"][0]["reason"]


def test_each_conversion_has_its_status_in_order() -> None:
    with served(Cm360) as (system, url, _):
        system.unknown_clicks, system.codes = {"g4"}, {"g5": "INTERNAL"}
        bad = [
            conversion(1, value=None),
            conversion(2, gclid=""),
            conversion(3, gclid="", userIdentifiers=[{"hashedEmail": "a@b.cn"}]),
            conversion(4),
            conversion(5),
            conversion(6, gclid="", userIdentifiers=[{"hashedEmail": hashed("a")}]),
        ]
        given = codes(post(system, url, conversion(0), *bad))
        assert given == ["", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", ""]
        assert system.stats()["conversions"] == 2


@pytest.mark.parametrize("field", ["ordinal", "timestampMicros", "gclid", "floodlightActivityId"])
def test_conversions_collapse_that_agree_in_everything_that_counts(field: str) -> None:
    with served(Cm360) as (system, url, time):
        other = conversion(2, **{name: value for name, value in conversion(1).items() if name != field})
        other[field] = "5" if field != "timestampMicros" else str(int(conversion(1)[field]) + 1)
        for _ in range(2):
            assert codes(post(system, url, conversion(1, value=7), other)) == ["", ""]
            time.now += 1
        assert system.stats()["conversions"] == 2
        assert set(system.stats()["repeated"].values()) == {2}


@pytest.mark.parametrize(("age", "code"), [(28 * 86_400, ""), (28 * 86_400 + 1, "INVALID_ARGUMENT")])
def test_a_timestamp_is_at_most_twenty_eight_days_old(age: float, code: str) -> None:
    with served(Cm360) as (system, url, _):
        assert codes(post(system, url, conversion(1, age))) == [code]


def test_the_limits_of_a_request_and_of_a_second_and_of_a_day() -> None:
    many = [conversion(number) for number in range(1_001)]
    with served(Cm360) as (system, url, time):
        assert set(codes(post(system, url, *many[:-1]))) == {""}
        assert refusal(post(system, url, conversion(1))) == (403, "rateLimitExceeded")
        time.now += 1
        assert refusal(post(system, url, *many)) == (400, "invalidArgument")
        time.now += 1
        system.quota.days[int(time.now // 86_400)] = PER_DAY - 1
        assert codes(post(system, url, conversion(1))) == [""]
        time.now += 1
        assert refusal(post(system, url, conversion(1))) == (403, "dailyLimitExceeded")
        time.now += 86_400
        assert codes(post(system, url, conversion(1))) == [""]


def test_another_token_and_another_profile_are_refused() -> None:
    with served(Cm360) as (system, url, time):
        assert refusal(post(system, url, conversion(1), token="x"))[0] == 401
        assert refusal(post(system, url, conversion(1), profile="1")) == (404, "notFound")
        time.now += 1
        system.denied = "insufficientPermissions"
        assert refusal(post(system, url, conversion(1))) == (403, "insufficientPermissions")
        assert system.environment(url)["CM360_PROFILE_ID"] == system.profile
