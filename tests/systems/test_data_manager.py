"""Writing to the Data Manager API: one outcome per record where one bad record refuses them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.narrowing import PATIENCE
from infra.systems.data_manager import Audience, Events, open_sink
from shared.ends import Change
from shared.errors import (
    GENERAL,
    MALFORMED,
    NOT_HASHED,
    OVER_A_LIMIT,
    RATE_LIMITED,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    UNMAPPABLE,
    AuthError,
    TransientError,
)
from shared.outcome import Answer, CannotAsk, InDoubt, Outcome, Passing, Verdict, delivered
from tests.loopback import LOST, FakeClock, Reply, refused_port, reply
from tests.sandbox.data_manager import DataManager
from tests.sandbox.google_system import bad_request
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

ACCOUNT = {"account_type": "GOOGLE_ADS", "account_id": "1234567890"}
DESTINATION = {"operating_account": ACCOUNT, "product_destination_id": "77"}
SETTINGS = {"destinations": [DESTINATION], "consent": {"ad_user_data": "CONSENT_GRANTED"}}


def sink_at(url: str, write: str = "events", token: str = TOKEN, settings: Any = SETTINGS, **named: Any) -> Any:
    return open_sink(connection_to(url, {"GOOGLE_OAUTH_ACCESS_TOKEN": token}, settings, **named), write)


@contextmanager
def account(write: str = "events", faults: str = "", **named: Any) -> Iterator[tuple[DataManager, Any, Time]]:
    with served(DataManager, faults) as (system, url, time):
        sink = sink_at(url, write, system.token, **named)
        try:
            yield system, sink, time
        finally:
            sink.close()


@contextmanager
def answering(*answers: Any, write: str = "events", **named: Any) -> Iterator[tuple[Script, Any]]:
    script = Script(*answers)
    with scripted(script, lambda url: sink_at(url, write, **named)) as (_, sink):
        yield script, sink


def event(number: int, **fields: Any) -> Change:
    content = {
        "transaction_id": f"order-{number}",
        "event_timestamp": "2026-05-31T12:00:00Z",
        "ad_identifiers": {"gclid": f"gclid{number}"},
        "conversion_value": number,
        **fields,
    }
    return upsert(f"e{number}", {name: value for name, value in content.items() if value is not None})


def events(count: int) -> list[Change]:
    return [event(number) for number in range(count)]


def member(number: int, **identifiers: Any) -> Change:
    identifiers = identifiers or {"email_address": hashed(f"{number}@example.com")}
    return upsert(f"m{number}", {"user_data": {"user_identifiers": [identifiers]}})


def bad_if(*numbers: int) -> Callable[[Row], tuple[str, str] | None]:
    bad = {f"order-{number}" for number in numbers}
    return lambda record: ("currency", "INVALID_CURRENCY_CODE") if record.get("transactionId") in bad else None


# Requests


def test_events_travel_in_one_request_with_the_token_and_the_names_of_json() -> None:
    with answering({"requestId": "t-1"}) as (script, sink):
        assert list(sink.write(events(2))) == [delivered("t-1")] * 2
    ((request, body),) = script.asked
    assert (request.method, request.target) == ("POST", "/v1/events:ingest")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert body == {
        "destinations": [
            {
                "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
                "productDestinationId": "77",
            }
        ],
        "encoding": "HEX",
        "consent": {"adUserData": "CONSENT_GRANTED"},
        "events": [
            {
                "transactionId": f"order-{number}",
                "eventTimestamp": "2026-05-31T12:00:00Z",
                "adIdentifiers": {"gclid": f"gclid{number}"},
                "conversionValue": number,
            }
            for number in range(2)
        ],
    }


@pytest.mark.parametrize(
    ("write", "most", "make"), [("events", 2_000, event), ("audience", 10_000, member)], ids=["events", "audience"]
)
def test_a_request_holds_as_many_records_as_allowed_and_never_more(
    write: str, most: int, make: Callable[[int], Change]
) -> None:
    with account(write) as (system, sink, _):
        assert sink.bulk == most
        given = verdicts(sink.write([make(number) for number in range(most)]))
        assert {each.target_id for each in given} == {"t-00000000"}
        given = verdicts(sink.write([make(most + number) for number in range(most + 1)]))
        assert [each.target_id for each in given] == ["t-00000001"] * most + ["t-00000002"]
        held = len(system.events) if write == "events" else len(system.members["77"])
        assert held == 2 * most + 1


@pytest.mark.parametrize(("size", "bulk"), [(0, 1), (7, 7), (2_000, 2_000), (2_001, 2_000)])
def test_batches_may_be_smaller(size: int, bulk: int) -> None:
    sink = sink_at("http://localhost:1", page_size=size)
    assert sink.bulk == bulk
    sink.close()


def test_members_join_and_leave_an_audience_in_requests_of_their_own() -> None:
    with account("audience") as (system, sink, _):
        sink.write([member(1), member(2)])
        leaving = Change("m1", "delete", member(1).content)
        assert outcomes(sink.write([leaving, member(3)])) == [Outcome.DELIVERED] * 2
        assert len(system.members["77"]) == 2
        nobody = Change("m2", "delete", {})
        (verdict,) = verdicts(sink.write([nobody]))
    assert (verdict.outcome, verdict.number, verdict.field) == (Outcome.INVALID, UNMAPPABLE, "userData")


def test_an_event_cannot_be_taken_back() -> None:
    with answering({"requestId": "t-1"}) as (script, sink):
        answers = verdicts(sink.write([Change("e1", "delete", {}), event(2)]))
    assert [each.outcome for each in answers] == [Outcome.REJECTED, Outcome.DELIVERED]
    assert [len(body["events"]) for body in script.bodies] == [1]


# Before sending


def identifiers(count: int) -> Row:
    return {"user_identifiers": [{"email_address": hashed(str(each))} for each in range(count)]}


@pytest.mark.parametrize("write", ["events", "audience"])
def test_ten_identifiers_are_taken_and_eleven_are_not_sent(write: str) -> None:
    def known_by(count: int) -> Change:
        data = {"user_data": identifiers(count)}
        return event(count, **data) if write == "events" else upsert("m", data)

    with account(write) as (system, sink, _):
        assert outcomes(sink.write([known_by(10)])) == [Outcome.DELIVERED]
        (verdict,) = verdicts(sink.write([known_by(11)]))
        assert (verdict.outcome, verdict.number) == (Outcome.INVALID, OVER_A_LIMIT)
        assert sum(system.requests.values()) == 1


def test_ten_mobile_ids_are_taken_and_eleven_are_not_sent() -> None:
    with account("audience") as (_, sink, _):
        ten = upsert("a", {"mobile_data": {"mobile_ids": [str(each) for each in range(10)]}})
        eleven = upsert("b", {"mobile_data": {"mobile_ids": [str(each) for each in range(11)]}})
        assert outcomes(sink.write([ten, eleven])) == [Outcome.DELIVERED, Outcome.INVALID]


ADDRESS = {"given_name": hashed("a"), "family_name": hashed("b"), "region_code": "BR", "postal_code": "01000"}


@pytest.mark.parametrize(
    ("identifier", "field"),
    [
        ({"email_address": "a@example.com"}, "emailAddress"),
        ({"phone_number": "+5511999990000"}, "phoneNumber"),
        ({"email_address": hashed("a")[:-1]}, "emailAddress"),
        ({"email_address": hashed("a") + "0"}, "emailAddress"),
        ({"address": ADDRESS | {"given_name": "ana"}}, "address.givenName"),
        ({"address": ADDRESS | {"family_name": "silva"}}, "address.familyName"),
    ],
)
def test_what_is_not_hashed_does_not_leave(identifier: Row, field: str) -> None:
    with answering({"requestId": "t-1"}, write="audience") as (script, sink):
        bad, good = verdicts(sink.write([member(1, **identifier), member(2)]))
    assert (bad.outcome, bad.number, bad.field) == (
        Outcome.INVALID,
        NOT_HASHED,
        f"userData.userIdentifiers[0].{field}",
    )
    assert not any(str(value) in bad.reason for value in identifier.values())
    assert good == delivered("t-1")
    assert [len(body["audienceMembers"]) for body in script.bodies] == [1]


def test_identifiers_may_be_encoded_in_base64() -> None:
    text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    settings = {**SETTINGS, "encoding": "BASE64"}
    with account("audience", settings=settings) as (_, sink, _):
        answers = sink.write([member(1, email_address=text), member(2, email_address=hashed("x"))])
    assert outcomes(answers) == [Outcome.DELIVERED, Outcome.INVALID]


@pytest.mark.parametrize(
    ("fields", "number", "field"),
    [
        ({"event_timestamp": None}, UNMAPPABLE, "eventTimestamp"),
        ({"event_timestamp": "31/05/2026"}, MALFORMED, "eventTimestamp"),
        ({"event_timestamp": "2026-05-31T12:00:00"}, MALFORMED, "eventTimestamp"),
        ({"user_data": {"user_identifiers": []}}, MALFORMED, "userData.userIdentifiers"),
        ({"user_data": "x"}, MALFORMED, "userData.userIdentifiers"),
        ({"user_data": {"user_identifiers": [{"address": "x"}]}}, MALFORMED, "userData.userIdentifiers[0].address"),
        (
            {"user_data": {"user_identifiers": [{"address": {**ADDRESS, "postal_code": ""}}]}},
            UNMAPPABLE,
            "userData.userIdentifiers[0].address.postalCode",
        ),
    ],
)
def test_an_event_that_is_malformed_is_invalid_without_a_call(fields: Row, number: int, field: str) -> None:
    with answering({"requestId": "t-1"}) as (script, sink):
        (verdict,) = verdicts(sink.write([event(1, **fields)]))
    assert (verdict.outcome, verdict.number, verdict.field) == (Outcome.INVALID, number, field)
    assert script.asked == []


# One bad record refuses all


@pytest.mark.parametrize("names", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize("bad", [(0,), (63,), (5, 6, 40), tuple(range(64))], ids=len)
def test_each_bad_record_is_found_and_no_other_is_blamed_or_sent_twice(names: bool, bad: tuple[int, ...]) -> None:
    with account() as (system, sink, _):
        system.bad, system.names_records = bad_if(*bad), names
        answers = verdicts(sink.write(events(64)))
        assert [place for place, each in enumerate(answers) if each.outcome is Outcome.REJECTED] == list(bad)
        assert len(system.events) == 64 - len(bad)
        assert system.stats()["repeated"] == {}
        if names:
            assert sum(system.requests.values()) == (1 if len(bad) == 64 else 2)
    first = answers[bad[0]]
    assert (first.number, first.http_status) == (REFUSED, 400)
    assert (first.field, first.reason.partition(":")[0]) == (
        ("currency", "INVALID_CURRENCY_CODE") if names else ("", "INVALID_ARGUMENT")
    )


def test_the_field_of_a_type_error_is_read_as_well() -> None:
    at = {"field": "events[1].conversion_value", "description": "Invalid value at 'x' (TYPE_DOUBLE), \"a lot\""}
    with answering(failure(400, bad_request([at])), {"requestId": "t-1"}) as (_, sink):
        good, bad = verdicts(sink.write([event(1), event(2, conversion_value="a lot")]))
    assert good == delivered("t-1")
    assert (bad.outcome, bad.field) == (Outcome.REJECTED, "conversion_value")
    assert "TYPE_DOUBLE" in bad.reason and "a lot" not in bad.reason


def test_a_refusal_that_quotes_the_record_is_kept_without_the_quotation() -> None:
    message = "order-7 of gclid7, a@b.cn and +55 11 99999-0000 is not valid"
    with answering(failure(400, message=message)) as (_, sink):
        (verdict,) = verdicts(sink.write([event(7)]))
    assert verdict.reason.startswith("INVALID_ARGUMENT: ") and "is not valid" in verdict.reason
    assert not any(private in verdict.reason for private in ("order-7", "gclid7", "a@b", "99999"))


def test_a_place_that_is_not_in_the_request_names_nobody() -> None:
    odd = failure(400, bad_request([{"field": "events.events[9].currency", "reason": "INVALID_CURRENCY_CODE"}]))
    with answering(odd) as (script, sink):
        assert outcomes(sink.write(events(2))) == [Outcome.REJECTED] * 2
    assert [len(body["events"]) for body in script.bodies] == [2, 1, 1]


@pytest.mark.parametrize("seconds", [PATIENCE / 20, PATIENCE * 2])
def test_looking_for_bad_records_pauses_after_a_while_and_comes_to_an_end(seconds: float) -> None:
    clock = FakeClock()

    def slow(body: Any) -> Any:
        clock.at += seconds
        bad = any(each["transactionId"] in ("order-7", "order-50") for each in body["events"])
        return failure(400) if bad else {"requestId": "t-1"}

    left, found = events(64), {}
    with answering(slow, clock=clock) as (_, sink):
        while left:
            answers: list[Answer] = list(sink.write(left))
            assert {each.number for each in answers if isinstance(each, Passing)} <= {GENERAL}
            found |= {c.key: a.outcome for c, a in zip(left, answers, strict=True) if isinstance(a, Verdict)}
            again = [c for c, a in zip(left, answers, strict=True) if isinstance(a, Passing)]
            assert len(again) < len(left)
            left = again
    assert {key for key, outcome in found.items() if outcome is Outcome.REJECTED} == {"e7", "e50"}
    assert len(found) == 64


@pytest.mark.parametrize(
    "violation",
    [
        ("destinations.destinations[0].product_destination_id", "INVALID_CONVERSION_ACTION_ID"),
        ("destinations.destinations[0]", ""),
        ("encoding", "REQUIRED_FIELD_MISSING"),
        ("terms_of_service", "TERMS_AND_CONDITIONS_NOT_SIGNED"),
        ("events.events[0].destination_references[0]", "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED"),
    ],
)
def test_what_no_record_can_be_blamed_for_stops_the_stream(violation: tuple[str, str]) -> None:
    field, reason = violation
    refusal = failure(400, bad_request([{"field": field, "reason": reason, "description": "No."}]))
    with answering(refusal) as (script, sink), pytest.raises(AuthError, match=reason or "INVALID_ARGUMENT") as caught:
        sink.write(events(3))
    assert len(script.asked) == 1
    assert "settings" in caught.value.cure


@pytest.mark.parametrize("reason", ["DESTINATION_ACCOUNT_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS"])
def test_a_destination_that_is_refused_takes_nothing(reason: str) -> None:
    with account() as (system, sink, _):
        system.refused_destination = reason
        with pytest.raises(AuthError, match=reason):
            sink.write(events(3))
        assert system.events == []


# Calls as a whole


@pytest.mark.parametrize(
    ("answer", "number", "after"),
    [
        (reply(429, headers={"Retry-After": "7"}), RATE_LIMITED, 7.0),
        (failure(429, kind="RESOURCE_EXHAUSTED"), RATE_LIMITED, None),
        (
            failure(429, {"@type": "t/google.rpc.RetryInfo", "retryDelay": "12.5s"}, kind="RESOURCE_EXHAUSTED"),
            RATE_LIMITED,
            12.5,
        ),
        (
            failure(429, {"metadata": {"quota_limit": "IngestionMutateRequestsPerDayPerProject"}}),
            RATE_LIMITED,
            3600.0,
        ),
    ],
)
def test_a_quota_that_is_used_up_took_nothing(answer: Reply, number: int, after: float | None) -> None:
    with answering(answer) as (_, sink), pytest.raises(TransientError) as caught:
        sink.write(events(3))
    assert (caught.value.number, caught.value.after, caught.value.http_status) == (number, after, 429)


def test_three_hundred_requests_a_minute_are_taken_and_one_more_waits() -> None:
    with account() as (system, sink, time):
        for number in range(300):
            assert outcomes(sink.write([event(number)])) == [Outcome.DELIVERED]
        with pytest.raises(TransientError) as caught:
            sink.write([event(300)])
        assert caught.value.number == RATE_LIMITED
        time.now += 60
        assert outcomes(sink.write([event(300)])) == [Outcome.DELIVERED]
        assert len(system.events) == 301


def test_a_quota_in_the_middle_keeps_what_is_known() -> None:
    quota = reply(429, headers={"Retry-After": "7"})
    with answering(failure(400), failure(400), quota) as (_, sink):
        first, second = sink.write(events(2))
    assert isinstance(first, Verdict) and first.outcome is Outcome.REJECTED
    assert isinstance(second, Passing) and (second.number, second.after) == (RATE_LIMITED, 7.0)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refusal_of_the_caller_stops_the_stream_and_names_no_token(status: int) -> None:
    kind = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}.get(status, "NOT_FOUND")
    with answering(failure(status, kind=kind)) as (script, sink), pytest.raises(AuthError, match=kind) as caught:
        sink.write(events(3))
    assert TOKEN not in str(caught.value) and caught.value.cure
    assert len(script.asked) == 1


def test_a_wrong_token_is_refused() -> None:
    with served(DataManager) as (_, url, _), pytest.raises(AuthError, match="UNAUTHENTICATED"):
        sink = sink_at(url)
        try:
            sink.write(events(1))
        finally:
            sink.close()


def test_an_api_that_is_not_there_took_nothing() -> None:
    sink = sink_at(f"http://localhost:{refused_port()}")
    with pytest.raises(TransientError):
        sink.write(events(1))
    sink.close()


# Doubt

COLLAPSING = {"transaction_id": "order", "ad_identifiers": None}
BY_CLICK = {"transaction_id": None}
NEITHER = {"transaction_id": None, "ad_identifiers": {"gbraid": "x"}}
ADS, FLOODLIGHT, ANALYTICS = (
    {"operating_account": {"account_type": kind, "account_id": "1"}, "product_destination_id": "2"}
    for kind in ("GOOGLE_ADS", "FLOODLIGHT_CONFIG", "GOOGLE_ANALYTICS_PROPERTY")
)


@pytest.mark.parametrize(
    ("destinations", "fields", "repeatable"),
    [
        ([ADS], COLLAPSING, True),
        ([ADS], BY_CLICK, True),
        ([ADS], NEITHER, False),
        ([FLOODLIGHT], COLLAPSING, True),
        ([FLOODLIGHT], BY_CLICK, False),
        ([ADS, FLOODLIGHT], COLLAPSING, True),
        ([ADS, FLOODLIGHT], BY_CLICK, False),
        ([ANALYTICS], COLLAPSING, False),
        ([ADS, ANALYTICS], COLLAPSING, False),
    ],
)
def test_an_event_may_be_repeated_where_every_destination_knows_the_repeat(
    destinations: list[Row], fields: Row, repeatable: bool
) -> None:
    sink = sink_at("http://localhost:1", settings={"destinations": destinations})
    assert isinstance(sink, Events)
    assert sink.repeatable(event(1, **fields)) is repeatable
    assert list(sink.find([event(1)])) == [CannotAsk()]
    sink.close()


def test_a_member_may_always_be_repeated() -> None:
    sink = sink_at("http://localhost:1", "audience")
    assert isinstance(sink, Audience)
    assert sink.repeatable(member(1)) and sink.repeatable(Change("m1", "delete", {}))
    sink.close()


def test_a_lost_answer_is_repeated_where_that_is_harmless_and_counts_once() -> None:
    with account() as (system, sink, _):
        break_it(system, "drop=100%")
        with pytest.raises(TransientError):
            sink.write(events(3))
        break_it(system, "")
        assert outcomes(sink.write(events(3))) == [Outcome.DELIVERED] * 3
        assert len(system.events) == 3


@pytest.mark.parametrize("lost", [LOST, reply(500), reply(502), reply(504)])
def test_a_lost_answer_leaves_doubt_where_a_repeat_would_count_twice(lost: Reply) -> None:
    with answering(lost) as (script, sink):
        answers = sink.write([event(1, **NEITHER), event(2, **NEITHER)])
    assert all(isinstance(answer, InDoubt) for answer in answers)
    assert len(script.asked) == 1


def test_an_odd_answer_is_no_success() -> None:
    for odd in ({}, {"requestId": 7}, reply(200, b"<html>"), reply(204)):
        with answering(odd) as (_, sink):
            assert all(isinstance(answer, InDoubt) for answer in sink.write(events(2)))
        with answering(odd) as (_, sink):
            (verdict,) = verdicts(sink.write([event(1, **NEITHER)]))
        assert (verdict.outcome, verdict.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)
