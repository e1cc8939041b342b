"""Click conversions for Google Ads: every row of a partial failure comes to exactly one outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.systems.google_ads import open_sink
from infra.systems.google_ads.calls import LATER, OF_ACCOUNT, OF_ACTION
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    MALFORMED,
    NOT_HASHED,
    NOT_MATCHED,
    OVER_A_LIMIT,
    RATE_LIMITED,
    REFUSED,
    TOO_EARLY,
    TOO_OLD,
    UNDOCUMENTED_ANSWER,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    TransientError,
)
from shared.outcome import CannotAsk, InDoubt, Outcome, Passing, Verdict, delivered
from tests.loopback import LOST, Reply, reply
from tests.sandbox.google_ads import BASIC_PER_DAY, GoogleAds, error_of, failure_of
from tests.sandbox.google_system import Quota, bad_request
from tests.systems.google_script import (
    TOKEN,
    Row,
    Script,
    Time,
    break_it,
    connection_to,
    failure,
    hashed,
    outcomes,
    scripted,
    served,
    upsert,
    verdicts,
)

SETTINGS = {"conversion_action": 55}
SECRETS = {
    "GOOGLE_OAUTH_ACCESS_TOKEN": TOKEN,
    "GOOGLE_ADS_CUSTOMER_ID": "123-456-7890",
    "GOOGLE_ADS_DEVELOPER_TOKEN": "d3v-t0k3n",
}
ACTION = "customers/1234567890/conversionActions/55"


def sink_at(url: str, settings: Any = SETTINGS, write: str = "conversions", **named: Any) -> Any:
    secrets = SECRETS | named.pop("secrets", {})
    return open_sink(connection_to(url, secrets, settings, **named), write)


@contextmanager
def account(
    settings: Any = SETTINGS, write: str = "conversions", faults: str = ""
) -> Iterator[tuple[GoogleAds, Any, Time]]:
    with served(GoogleAds, faults) as (system, url, time):
        sink = sink_at(url, settings, write, secrets={"GOOGLE_OAUTH_ACCESS_TOKEN": system.token})
        try:
            yield system, sink, time
        finally:
            sink.close()


@contextmanager
def answering(*answers: Any, settings: Any = SETTINGS, **named: Any) -> Iterator[tuple[Script, Any]]:
    script = Script(*answers)
    with scripted(script, lambda url: sink_at(url, settings, **named)) as (_, sink):
        yield script, sink


def conversion(number: int, **fields: Any) -> Change:
    content = {
        "gclid": f"gclid{number}",
        "conversion_date_time": "2026-05-31 12:00:00-03:00",
        "order_id": f"order-{number}",
        "conversion_value": 9.5,
        "currency_code": "BRL",
        **fields,
    }
    return upsert(f"c{number}", {name: value for name, value in content.items() if value is not None})


def conversions(count: int) -> list[Change]:
    return [conversion(number) for number in range(count)]


def all_taken(body: Row) -> Row:
    return {"results": [{"gclid": each.get("gclid", "x")} for each in body["conversions"]]}


def test_conversions_travel_with_both_tokens_and_partial_failure() -> None:
    settings = {**SETTINGS, "login_customer_id": 9876543210, "consent": {"ad_user_data": "GRANTED"}}
    with answering(all_taken, settings=settings) as (script, sink):
        assert list(sink.write([conversion(1), conversion(2, conversion_action="7", order_id=None)])) == [
            delivered("order-1"),
            delivered(),
        ]
    ((request, body),) = script.asked
    assert request.target == "/v26/customers/1234567890:uploadClickConversions"
    headers = request.headers
    assert (headers["authorization"], headers["developer-token"], headers["login-customer-id"]) == (
        f"Bearer {TOKEN}",
        "d3v-t0k3n",
        "9876543210",
    )
    assert body == {
        "partialFailure": True,
        "conversions": [
            {
                "conversionAction": ACTION,
                "consent": {"adUserData": "GRANTED"},
                "gclid": "gclid1",
                "conversionDateTime": "2026-05-31 12:00:00-03:00",
                "orderId": "order-1",
                "conversionValue": 9.5,
                "currencyCode": "BRL",
            },
            {
                "conversionAction": "customers/1234567890/conversionActions/7",
                "consent": {"adUserData": "GRANTED"},
                "gclid": "gclid2",
                "conversionDateTime": "2026-05-31 12:00:00-03:00",
                "conversionValue": 9.5,
                "currencyCode": "BRL",
            },
        ],
    }


def test_two_thousand_share_a_request_and_one_more_has_its_own() -> None:
    with account() as (system, sink, _):
        assert sink.bulk == 2_000
        assert set(outcomes(sink.write(conversions(2_000)))) == {Outcome.DELIVERED}
        assert sum(system.requests.values()) == 1
        assert set(outcomes(sink.write([conversion(5_000 + number) for number in range(2_001)]))) == {Outcome.DELIVERED}
        assert sum(system.requests.values()) == 3
        assert len(system.conversions) == 4_001


# One outcome per row

CODES = {
    "EXPIRED_EVENT": TOO_OLD,
    "EXPIRED_CALL": TOO_OLD,
    "EVENT_NOT_FOUND": NOT_MATCHED,
    "CLICK_NOT_FOUND": NOT_MATCHED,
    "CALL_NOT_FOUND": NOT_MATCHED,
    "UNPARSEABLE_GCLID": MALFORMED,
    "UNPARSEABLE_GBRAID": MALFORMED,
    "TOO_MANY_USER_IDENTIFIERS": OVER_A_LIMIT,
    "CONVERSION_PRECEDES_EVENT": REFUSED,
    "UNAUTHORIZED_CUSTOMER": REFUSED,
    "CUSTOM_VARIABLE_NOT_ENABLED": REFUSED,
    "INVALID_USER_IDENTIFIER": REFUSED,
    "ORDER_ID_CONTAINS_PII": REFUSED,
    "NO_CONVERSION_ACTION_FOUND": REFUSED,
    "A_CODE_OF_TOMORROW": REFUSED,
}


@pytest.mark.parametrize("code", CODES)
def test_a_row_that_is_refused_for_good_keeps_its_code_and_spoils_no_other(code: str) -> None:
    with account() as (system, sink, _):
        system.codes["order-1"], system.sensitive = code, True
        good, bad, other = verdicts(sink.write(conversions(3)))
    assert [good, other] == [delivered("order-0"), delivered("order-2")]
    assert (bad.outcome, bad.number, bad.reason.partition(":")[0]) == (Outcome.REJECTED, CODES[code], code)
    assert "order-1" not in bad.reason and "gclid1" not in bad.reason
    assert bad.field == ("gclid" if code == "UNPARSEABLE_GCLID" else "")


@pytest.mark.parametrize("code", ["TOO_RECENT_EVENT", "TOO_RECENT_CONVERSION_ACTION", "TOO_RECENT_CALL"])
def test_a_row_that_is_too_recent_is_wanted_six_hours_later(code: str) -> None:
    with account() as (system, sink, _):
        system.codes["order-1"] = code
        first, early = sink.write(conversions(2))
        assert first == delivered("order-0")
        assert isinstance(early, Passing) and (early.number, early.after) == (TOO_EARLY, LATER)
        system.codes.clear()
        assert outcomes(sink.write([conversion(1)])) == [Outcome.DELIVERED]


@pytest.mark.parametrize(
    ("code", "number"),
    [("INTERNAL_ERROR", GENERAL), ("TRANSIENT_ERROR", GENERAL), ("RESOURCE_EXHAUSTED", RATE_LIMITED)],
)
def test_a_row_that_failed_for_a_passing_reason_may_go_again(code: str, number: int) -> None:
    with account() as (system, sink, _):
        system.codes["order-0"] = code
        (passing,) = sink.write(conversions(1))
    assert isinstance(passing, Passing) and passing.number == number


@pytest.mark.parametrize("by", [{}, {"order_id": None}], ids=["order", "click"])
def test_what_is_there_already_counts_as_delivered(by: Row) -> None:
    with account() as (system, sink, _):
        sink.write([conversion(1, **by)])
        assert outcomes(sink.write([conversion(1, **by), conversion(2)])) == [Outcome.DELIVERED] * 2
        assert len(system.conversions) == 2


def test_two_rows_that_collapse_do_not_share_a_request() -> None:
    given = [conversion(1), conversion(2, order_id="order-1"), conversion(3, gclid="gclid1"), conversion(4)]
    with account() as (system, sink, _):
        assert outcomes(sink.write(given)) == [Outcome.DELIVERED] * 4
        assert sum(system.requests.values()) == 2
        assert len(system.conversions) == 2


def test_the_worst_of_several_errors_of_a_row_decides() -> None:
    errors = [error_of("TOO_RECENT_EVENT", "conversions", 0), error_of("EXPIRED_EVENT", "conversions", 0, "gclid")]
    given = {"results": [{}], "partialFailureError": {"details": [failure_of(errors)]}}
    with answering(given) as (_, sink):
        (verdict,) = verdicts(sink.write(conversions(1)))
    assert (verdict.number, verdict.field) == (TOO_OLD, "gclid")


def test_a_row_of_which_nothing_is_said_is_unknown() -> None:
    nameless = {
        "results": [{"gclid": "x"}, {}],
        "partialFailureError": {"details": [failure_of([error_of("REQUIRED")])]},
    }
    with answering(nameless) as (_, sink):
        first, second, third = verdicts(sink.write(conversions(3)))
    assert first == delivered("order-0")
    assert {(each.outcome, each.number) for each in (second, third)} == {(Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)}


@pytest.mark.parametrize("code", sorted(OF_ACCOUNT | OF_ACTION))
def test_what_meets_every_row_is_the_account_and_blames_none(code: str) -> None:
    with account() as (system, sink, _):
        system.codes |= {f"order-{number}": code for number in range(3)}
        with pytest.raises(AuthError, match=code):
            sink.write(conversions(3))
        if code in OF_ACTION:
            assert outcomes(sink.write([conversion(1, conversion_action=9)])) == [Outcome.REJECTED]


# Before sending


@pytest.mark.parametrize(
    ("fields", "number", "field"),
    [
        ({"conversion_date_time": None}, UNMAPPABLE, "conversionDateTime"),
        ({"conversion_date_time": "2026-05-31T12:00:00-03:00"}, MALFORMED, "conversionDateTime"),
        ({"conversion_date_time": "2026-05-31 12:00:00"}, MALFORMED, "conversionDateTime"),
        ({"gclid": None}, UNMAPPABLE, "gclid"),
        ({"user_identifiers": "x"}, MALFORMED, "userIdentifiers"),
        ({"user_identifiers": [{"hashed_email": "a@example.com"}]}, NOT_HASHED, "userIdentifiers[0].hashedEmail"),
        (
            {"user_identifiers": [{"address_info": {"hashed_first_name": "Ana"}}]},
            NOT_HASHED,
            "userIdentifiers[0].addressInfo.hashedFirstName",
        ),
        (
            {"user_identifiers": [{"hashed_email": hashed("a")}, {"hashed_phone_number": "+551199"}]},
            NOT_HASHED,
            "userIdentifiers[1].hashedPhoneNumber",
        ),
    ],
)
def test_a_conversion_that_is_malformed_is_invalid_without_a_call(fields: Row, number: int, field: str) -> None:
    with answering(all_taken) as (script, sink):
        (verdict,) = verdicts(sink.write([conversion(1, **fields)]))
    assert (verdict.outcome, verdict.number, verdict.field) == (Outcome.INVALID, number, field)
    assert script.asked == []


def test_five_identifiers_are_taken_and_six_are_not_sent() -> None:
    def known_by(count: int) -> Change:
        return conversion(count, user_identifiers=[{"hashed_email": hashed(str(each))} for each in range(count)])

    with account() as (system, sink, _):
        assert outcomes(sink.write([known_by(5), known_by(6)])) == [Outcome.DELIVERED, Outcome.INVALID]
        assert len(system.conversions) == 1


def test_without_an_action_a_conversion_is_invalid_and_a_deletion_is_refused() -> None:
    with answering(all_taken, settings={}) as (script, sink):
        first, second = verdicts(sink.write([conversion(1), Change("c2", "delete", {})]))
    assert (first.outcome, first.field) == (Outcome.INVALID, "conversionAction")
    assert second.outcome is Outcome.REJECTED
    assert script.asked == []


# Whole requests


def test_a_request_that_is_refused_for_one_row_is_narrowed_down() -> None:
    def strict(body: Row) -> Any:
        bad = [place for place, each in enumerate(body["conversions"]) if each["conversionValue"] == "much"]
        return failure(400) if bad else all_taken(body)

    given = [conversion(number, **({"conversion_value": "much"} if number == 5 else {})) for number in range(16)]
    with answering(strict) as (_, sink):
        answers = verdicts(sink.write(given))
    assert [place for place, each in enumerate(answers) if each.outcome is Outcome.REJECTED] == [5]
    violation = {"field": "conversions[5].conversion_value", "description": "Invalid value"}
    with answering(failure(400, bad_request([violation])), all_taken) as (script, sink):
        answers = verdicts(sink.write(given))
    assert [place for place, each in enumerate(answers) if each.outcome is Outcome.REJECTED] == [5]
    assert (answers[5].field, len(script.asked)) == ("conversion_value", 2)


def test_a_limit_that_was_lowered_is_met_in_halves() -> None:
    def lowered(body: Row) -> Any:
        few = len(body["conversions"]) <= 3
        return all_taken(body) if few else failure(400, failure_of([error_of("TOO_MANY_CONVERSIONS_IN_REQUEST")]))

    with answering(lowered) as (_, sink):
        assert set(outcomes(sink.write(conversions(10)))) == {Outcome.DELIVERED}


def test_a_used_up_quota_waits_as_long_as_google_ads_asks() -> None:
    with account() as (system, sink, time):
        system.quota = Quota(None, BASIC_PER_DAY)
        system.quota.days[int(time.now // 86_400)] = BASIC_PER_DAY - 2
        assert outcomes(sink.write(conversions(2))) == [Outcome.DELIVERED] * 2
        with pytest.raises(TransientError) as caught:
            sink.write([conversion(3)])
    assert (caught.value.number, caught.value.after) == (RATE_LIMITED, 900.0)


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ({"secrets": {"GOOGLE_ADS_DEVELOPER_TOKEN": "other"}}, SETTINGS),
        ({"secrets": {"GOOGLE_ADS_CUSTOMER_ID": "1"}}, SETTINGS),
        ({"secrets": {"GOOGLE_OAUTH_ACCESS_TOKEN": "other"}}, SETTINGS),
        ({}, {**SETTINGS, "api_version": "v10"}),
    ],
)
def test_a_refusal_of_the_caller_stops_the_stream(named: Row, settings: Row) -> None:
    with served(GoogleAds) as (system, url, _):
        secrets = {"GOOGLE_OAUTH_ACCESS_TOKEN": system.token} | named.get("secrets", {})
        sink = sink_at(url, settings, secrets=secrets)
        with pytest.raises(AuthError) as caught:
            sink.write(conversions(2))
        sink.close()
        assert system.conversions == []
    assert not any(secret in str(caught.value) for secret in (system.token, "other", "d3v-t0k3n"))


def test_a_developer_token_that_may_not_is_told_so() -> None:
    with account() as (system, sink, _):
        system.allowlisted = False
        with pytest.raises(AuthError, match="CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE"):
            sink.write(conversions(2))


def test_a_refusal_of_the_caller_in_the_middle_keeps_what_is_known() -> None:
    given = [conversion(1), conversion(2, order_id="order-1")]
    with answering(all_taken, failure(403, kind="PERMISSION_DENIED")) as (_, sink):
        first, second = sink.write(given)
    assert first == delivered("order-1")
    assert isinstance(second, Passing) and second.number == CREDENTIALS


# Doubt


@pytest.mark.parametrize(
    ("fields", "repeatable"),
    [
        ({}, True),
        ({"order_id": None}, True),
        ({"gclid": None, "wbraid": "w"}, True),
        ({"gclid": None, "order_id": None, "user_identifiers": [{"hashed_email": hashed("a")}]}, False),
        ({"gclid": None, "user_identifiers": [{"hashed_email": hashed("a")}]}, True),
    ],
)
def test_a_conversion_may_be_repeated_where_google_ads_knows_the_repeat(fields: Row, repeatable: bool) -> None:
    sink = sink_at("http://localhost:1")
    assert sink.repeatable(conversion(1, **fields)) is repeatable
    assert list(sink.find([conversion(1)])) == [CannotAsk()]
    sink.close()


def test_a_lost_answer_is_repeated_and_counts_once() -> None:
    with account() as (system, sink, _):
        break_it(system, "drop=100%")
        with pytest.raises(TransientError):
            sink.write(conversions(3))
        break_it(system, "")
        assert outcomes(sink.write(conversions(3))) == [Outcome.DELIVERED] * 3
        assert len(system.conversions) == 3


NEITHER = {"gclid": None, "order_id": None, "user_identifiers": [{"hashed_email": hashed("a")}]}


@pytest.mark.parametrize("lost", [LOST, reply(500), reply(502)])
def test_a_lost_answer_leaves_doubt_where_a_repeat_would_count_twice(lost: Reply) -> None:
    with answering(lost) as (script, sink):
        answers = sink.write([conversion(1, **NEITHER), conversion(2)])
    assert all(isinstance(answer, InDoubt) for answer in answers)
    assert len(script.asked) == 1


@pytest.mark.parametrize("odd", [{}, [], reply(200, b"<html>")])
def test_an_odd_answer_is_no_success(odd: Any) -> None:
    with answering(odd) as (_, sink):
        assert all(isinstance(answer, InDoubt) for answer in sink.write(conversions(2)))
        (verdict,) = sink.write([conversion(1, **NEITHER)])
    assert isinstance(verdict, Verdict) and verdict.number == UNDOCUMENTED_ANSWER


@pytest.mark.parametrize(
    ("settings", "secrets", "named"),
    [
        ({"conversion_action": "shop"}, {}, "conversionAction"),
        ({"conversion": "1"}, {}, "conversion"),
        ({"api_version": "26"}, {}, "apiVersion"),
        ({"login_customer_id": "me"}, {}, "loginCustomerId"),
        ({}, {"GOOGLE_ADS_CUSTOMER_ID": "me"}, "GOOGLE_ADS_CUSTOMER_ID"),
        ({}, {"GOOGLE_ADS_CUSTOMER_ID": ""}, "GOOGLE_ADS_CUSTOMER_ID"),
        ({}, {"GOOGLE_ADS_DEVELOPER_TOKEN": ""}, "GOOGLE_ADS_DEVELOPER_TOKEN"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_called(settings: Row, secrets: Row, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sink_at("http://localhost:1", settings, secrets=secrets)
    with pytest.raises(ConfigError, match="no 'leads'"):
        sink_at("http://localhost:1", write="leads")
