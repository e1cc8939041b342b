"""Offline conversions for Campaign Manager 360: one outcome each, never twice, a request a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from infra.google_api import DAY_IS_OVER, QUOTAS
from infra.quantities import Rate
from infra.systems.cm360 import open_sink, ordinal_of
from shared.ends import Change
from shared.errors import (
    GENERAL,
    MALFORMED,
    NOT_HASHED,
    NOT_MATCHED,
    RATE_LIMITED,
    REFUSED,
    TOO_EARLY,
    TOO_OLD,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    TransientError,
)
from shared.outcome import CannotAsk, InDoubt, Outcome, Passing, delivered
from tests.loopback import LOST, reply
from tests.sandbox.cm360 import PER_DAY, Cm360
from tests.sandbox.google_system import bad_request
from tests.systems.google_script import (
    NOW,
    TOKEN,
    Joined,
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

SETTINGS = {"floodlight_configuration_id": 11, "floodlight_activity_id": 22}
DAY = 86_400


def sink_at(url: str, settings: Any = SETTINGS, profile: str = "4242", token: str = TOKEN, **named: Any) -> Any:
    secrets = {"GOOGLE_OAUTH_ACCESS_TOKEN": token, "CM360_PROFILE_ID": profile}
    rate = named.pop("rate", None)
    connection = connection_to(url, secrets, settings, **({"clock": Joined(Time())} | named))
    return open_sink(msgspec.structs.replace(connection, rate=rate), "conversions")


@contextmanager
def account(faults: str = "", **named: Any) -> Iterator[tuple[Cm360, Any, Joined]]:
    with served(Cm360, faults) as (system, url, time):
        clock = Joined(time)
        sink = sink_at(url, token=system.token, clock=clock, **named)
        try:
            yield system, sink, clock
        finally:
            sink.close()


@contextmanager
def answering(*answers: Any, **named: Any) -> Iterator[tuple[Script, Any]]:
    script = Script(*answers)
    with scripted(script, lambda url: sink_at(url, **named)) as (_, sink):
        yield script, sink


def micros(seconds_ago: float = DAY) -> int:
    return int((NOW.timestamp() - seconds_ago) * 1_000_000)


def conversion(number: int, **fields: Any) -> Change:
    content = {"gclid": f"gclid{number}", "timestamp_micros": micros(), "value": 9.5, **fields}
    return upsert(f"c{number}", {name: value for name, value in content.items() if value is not None})


def conversions(count: int) -> list[Change]:
    return [conversion(number) for number in range(count)]


def all_taken(body: Row) -> Row:
    return {"hasFailures": False, "status": [{"conversion": each} for each in body["conversions"]]}


def test_conversions_travel_with_their_floodlight_and_an_ordinal_of_their_own() -> None:
    info = {"encryption_entity_id": 5, "encryption_source": "AD_SERVING"}
    given = [conversion(1), conversion(2, floodlight_activity_id=33, ordinal=7, quantity=2)]
    with answering(all_taken, settings={**SETTINGS, "encryption_info": info}) as (script, sink):
        assert list(sink.write(given)) == [delivered(ordinal_of("c1")), delivered("7")]
    ((request, body),) = script.asked
    assert request.target == "/dfareporting/v5/userprofiles/4242/conversions/batchinsert"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    common = {"floodlightConfigurationId": "11", "timestampMicros": str(micros()), "value": 9.5}
    assert body == {
        "conversions": [
            {**common, "floodlightActivityId": "22", "gclid": "gclid1", "ordinal": ordinal_of("c1"), "quantity": "1"},
            {**common, "floodlightActivityId": "33", "gclid": "gclid2", "ordinal": "7", "quantity": "2"},
        ],
        "encryptionInfo": {"encryptionEntityId": "5", "encryptionSource": "AD_SERVING"},
    }


def test_an_ordinal_is_the_same_each_time_and_fits_into_a_signed_number() -> None:
    ordinals = {ordinal_of(f"key {each}") for each in range(10_000)}
    assert len(ordinals) == 10_000
    assert all(0 <= int(each) < 2**63 for each in ordinals)
    assert ordinal_of("c1") == ordinal_of("c1")


@pytest.mark.parametrize(("count", "requests"), [(1_000, 1), (1_001, 2)])
def test_a_thousand_share_a_request_and_one_more_has_its_own(count: int, requests: int) -> None:
    with account() as (system, sink, _):
        assert sink.bulk == 1_000
        assert set(outcomes(sink.write(conversions(count)))) == {Outcome.DELIVERED}
        assert (sum(system.requests.values()), len(system.conversions)) == (requests, count)


def test_a_second_lies_between_two_requests_unless_the_account_was_granted_more() -> None:
    with account() as (system, sink, clock):
        for number in range(5):
            assert outcomes(sink.write([conversion(number)])) == [Outcome.DELIVERED]
        assert set(system.statuses) == {"200"}
        assert sum(clock.slept) >= 4
    with account(rate=Rate(10, 1.0)) as (system, sink, clock):
        system.spacing = 0.1
        for number in range(11):
            sink.write([conversion(number)])
        assert set(system.statuses) == {"200"}
        assert 1 <= sum(clock.slept) < 2


# One outcome each


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "PERMISSION_DENIED", "A_CODE_OF_TOMORROW"])
def test_a_conversion_that_is_refused_keeps_its_code_and_spoils_no_other(code: str) -> None:
    with account() as (system, sink, _):
        system.codes["gclid1"] = code
        good, bad, other = verdicts(sink.write(conversions(3)))
        assert len(system.conversions) == 2
    assert [good.outcome, other.outcome] == [Outcome.DELIVERED] * 2
    assert (bad.outcome, bad.number, bad.reason) == (Outcome.REJECTED, REFUSED, f"{code}: {code} of ***.")


def test_an_internal_error_of_a_conversion_may_pass() -> None:
    with account() as (system, sink, _):
        system.codes["gclid1"] = "INTERNAL"
        good, passing = sink.write([conversion(0), conversion(1)])
        assert good == delivered(ordinal_of("c0"))
        assert isinstance(passing, Passing) and passing.number == GENERAL
        system.codes.clear()
        assert outcomes(sink.write([conversion(1)])) == [Outcome.DELIVERED]


@pytest.mark.parametrize(("age", "early"), [(6 * 3_600 - 60, True), (6 * 3_600 + 60, False)])
def test_a_click_that_is_not_found_may_be_too_recent_for_six_hours(age: float, early: bool) -> None:
    with account() as (system, sink, _):
        system.unknown_clicks = {"gclid1"}
        (answer,) = sink.write([conversion(1, timestamp_micros=micros(age))])
        if early:
            assert isinstance(answer, Passing) and answer.number == TOO_EARLY
            assert answer.after == pytest.approx(60.0)
        else:
            assert (answer.outcome, answer.number) == (Outcome.REJECTED, NOT_MATCHED)


def test_a_conversion_that_was_too_recent_is_taken_once_its_click_is_known() -> None:
    with account() as (system, sink, clock):
        system.settling = 2 * 3_600
        given = [conversion(1, timestamp_micros=micros(3_600))]
        (early,) = sink.write(given)
        assert isinstance(early, Passing)
        clock.time.now += early.after
        assert outcomes(sink.write(given)) == [Outcome.DELIVERED]


def test_what_is_denied_for_all_blames_none_unless_they_name_another_floodlight() -> None:
    with account() as (system, sink, _):
        system.codes = {f"gclid{number}": "PERMISSION_DENIED" for number in range(3)}
        with pytest.raises(AuthError):
            sink.write(conversions(3))
        assert outcomes(sink.write([conversion(1, floodlight_activity_id=9)])) == [Outcome.REJECTED]


def test_several_errors_of_a_conversion_come_to_the_worst() -> None:
    errors = [{"code": "INTERNAL"}, {"code": "INVALID_ARGUMENT", "message": "no"}]
    with answering({"hasFailures": True, "status": [{"errors": errors}]}) as (_, sink):
        (verdict,) = verdicts(sink.write(conversions(1)))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "INVALID_ARGUMENT: no")


# Before sending


@pytest.mark.parametrize(
    ("fields", "number", "field"),
    [
        ({"timestamp_micros": None}, UNMAPPABLE, "timestampMicros"),
        ({"timestamp_micros": "2026-05-31"}, MALFORMED, "timestampMicros"),
        ({"timestamp_micros": micros() // 1_000}, MALFORMED, "timestampMicros"),
        ({"timestamp_micros": micros() // 1_000_000}, MALFORMED, "timestampMicros"),
        ({"value": None}, UNMAPPABLE, "value"),
        ({"quantity": "many"}, MALFORMED, "quantity"),
        ({"ordinal": "first"}, MALFORMED, "ordinal"),
        ({"gclid": None}, UNMAPPABLE, "gclid"),
        ({"user_identifiers": "x"}, MALFORMED, "userIdentifiers"),
        ({"user_identifiers": [{"hashed_email": "a@b.cn"}]}, NOT_HASHED, "userIdentifiers[0].hashedEmail"),
        (
            {"user_identifiers": [{"address_info": {"hashed_last_name": "Silva"}}]},
            NOT_HASHED,
            "userIdentifiers[0].addressInfo.hashedLastName",
        ),
    ],
)
def test_a_conversion_that_is_malformed_is_invalid_without_a_call(fields: Row, number: int, field: str) -> None:
    with answering(all_taken) as (script, sink):
        (verdict,) = verdicts(sink.write([conversion(1, **fields)]))
    assert (verdict.outcome, verdict.number, verdict.field) == (Outcome.INVALID, number, field)
    assert script.asked == []


@pytest.mark.parametrize(("age", "taken"), [(28 * DAY, True), (28 * DAY + 1, False)])
def test_a_conversion_is_at_most_twenty_eight_days_old(age: float, taken: bool) -> None:
    with account() as (system, sink, _):
        (verdict,) = verdicts(sink.write([conversion(1, timestamp_micros=micros(age))]))
        assert len(system.conversions) == taken
    assert (verdict.outcome, verdict.number) == ((Outcome.DELIVERED, 0) if taken else (Outcome.INVALID, TOO_OLD))


def test_hashed_identifiers_are_taken_and_a_deletion_and_a_missing_floodlight_are_not() -> None:
    known = [{"hashed_email": hashed("a"), "address_info": {"hashed_last_name": hashed("b")}}]
    with account() as (_, sink, _):
        given = [conversion(1, gclid=None, user_identifiers=known), Change("c2", "delete", {})]
        assert outcomes(sink.write(given)) == [Outcome.DELIVERED, Outcome.REJECTED]
    with account(settings={}) as (_, sink, _):
        (verdict,) = verdicts(sink.write([conversion(1)]))
    assert (verdict.outcome, verdict.field) == (Outcome.INVALID, "floodlightConfigurationId")


# Whole requests


@pytest.mark.parametrize("reason", sorted(QUOTAS - {"RATE_LIMIT_EXCEEDED"}))
def test_a_quota_that_is_used_up_took_nothing_and_passes(reason: str) -> None:
    with account() as (system, sink, _):
        system.quota_reason = reason
        with pytest.raises(TransientError) as caught:
            sink.write(conversions(2))
        assert caught.value.number == RATE_LIMITED
        assert caught.value.after == (DAY_IS_OVER if reason == "dailyLimitExceeded" else None)
        system.quota_reason = ""
        assert outcomes(sink.write(conversions(2))) == [Outcome.DELIVERED] * 2


def test_fifty_thousand_requests_a_day_are_taken_and_one_more_waits() -> None:
    with account() as (system, sink, clock):
        system.quota.days[int(clock.time.now // DAY)] = PER_DAY - 1
        assert outcomes(sink.write([conversion(1)])) == [Outcome.DELIVERED]
        with pytest.raises(TransientError):
            sink.write([conversion(2)])
        clock.time.now += DAY
        clock.at += DAY
        assert outcomes(sink.write([conversion(2)])) == [Outcome.DELIVERED]


@pytest.mark.parametrize("reason", ["forbidden", "insufficientPermissions", "accessNotConfigured"])
def test_any_other_403_stops_the_stream(reason: str) -> None:
    with account() as (system, sink, _):
        system.denied = reason
        with pytest.raises(AuthError, match=reason) as caught:
            sink.write(conversions(2))
        assert system.token not in str(caught.value)


def test_another_profile_token_or_version_stops_the_stream() -> None:
    for named in ({"profile": "1"}, {"token": "x"}, {"settings": {**SETTINGS, "api_version": "v4"}}):
        with served(Cm360) as (system, url, time):
            sink = sink_at(url, **({"token": system.token, "clock": Joined(time)} | named))
            with pytest.raises(AuthError):
                sink.write(conversions(2))
            sink.close()
            assert system.conversions == {}


def test_a_request_that_is_refused_for_one_conversion_is_narrowed_down() -> None:
    given = [conversion(number, value="much" if number == 5 else 1) for number in range(16)]
    with account() as (system, sink, _):
        system.strict = True
        answers = verdicts(sink.write(given))
        assert len(system.conversions) == 15
    assert [place for place, each in enumerate(answers) if each.outcome is Outcome.REJECTED] == [5]
    assert answers[5].reason.startswith("parseError")
    violation = {"field": "conversions[5].value", "description": "Invalid value"}
    with answering(failure(400, bad_request([violation])), all_taken) as (script, sink):
        answers = verdicts(sink.write(given))
    assert (answers[5].outcome, answers[5].field, len(script.asked)) == (Outcome.REJECTED, "value", 2)


# Doubt


def test_a_lost_answer_is_repeated_and_counts_once() -> None:
    with account() as (system, sink, _):
        break_it(system, "drop=100%")
        with pytest.raises(TransientError):
            sink.write(conversions(3))
        break_it(system, "")
        assert outcomes(sink.write(conversions(3))) == [Outcome.DELIVERED] * 3
        assert len(system.conversions) == 3
        assert set(system.taken.values()) == {2}


@pytest.mark.parametrize("lost", [LOST, reply(500), reply(502), reply(503)])
def test_every_failure_of_a_call_may_be_repeated(lost: Any) -> None:
    with answering(lost) as (_, sink):
        assert sink.repeatable(conversion(1))
        assert list(sink.find([conversion(1)])) == [CannotAsk()]
        with pytest.raises(TransientError):
            sink.write(conversions(2))


@pytest.mark.parametrize("odd", [{}, [], {"status": "x"}, reply(200, b"<html>"), reply(204)])
def test_an_odd_answer_is_no_success(odd: Any) -> None:
    with answering(odd) as (_, sink):
        assert all(isinstance(answer, InDoubt) for answer in sink.write(conversions(2)))


def test_a_conversion_of_which_nothing_is_said_is_in_doubt() -> None:
    with answering({"hasFailures": False, "status": [{}]}) as (_, sink):
        first, second = sink.write(conversions(2))
    assert first == delivered(ordinal_of("c0"))
    assert isinstance(second, InDoubt)
    with answering({"hasFailures": True, "status": ["x", {"errors": "x"}]}) as (_, sink):
        assert all(isinstance(answer, InDoubt) for answer in sink.write(conversions(2)))


@pytest.mark.parametrize(
    ("settings", "profile"), [({"floodlight": 1}, "4242"), ({"api_version": "5"}, "4242"), ({}, "me"), ({}, "")]
)
def test_wrong_settings_are_named_before_anything_is_called(settings: Row, profile: str) -> None:
    with pytest.raises(ConfigError):
        sink_at("http://localhost:1", settings, profile)
    with pytest.raises(ConfigError, match="no 'updates'"):
        open_sink(connection_to("http://localhost:1", {}, SETTINGS), "updates")
