"""Customer Match: members that come and go by jobs, which end later."""

from __future__ import annotations

from typing import Any

import pytest

from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import (
    MALFORMED,
    NOT_HASHED,
    OVER_A_LIMIT,
    REFUSED,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
)
from shared.outcome import CannotAsk, InDoubt, Outcome
from tests.loopback import LOST, reply
from tests.systems.google_script import Row, break_it, failure, hashed, outcomes, upsert, verdicts
from tests.systems.test_google_ads import account, answering, sink_at

LIST = "customers/1234567890/userLists/7"
SETTINGS = {"user_list": 7, "consent": {"ad_user_data": "GRANTED"}}
MATCH: dict[str, Any] = {"settings": SETTINGS, "write": "customer_match"}


def member(number: int, count: int = 1, **fields: Any) -> Change:
    one = {"hashed_email": hashed(str(number))} | fields
    more = [{"hashed_email": hashed(f"{number} {each}")} for each in range(count - 1)]
    return upsert(f"m{number}", {"user_identifiers": [one, *more]})


def leaving(number: int) -> Change:
    return Change(f"m{number}", "delete", member(number).content)


def members(count: int) -> list[Change]:
    return [member(number) for number in range(count)]


def test_a_job_is_created_filled_and_run_and_its_name_is_kept() -> None:
    name = "customers/1234567890/offlineUserDataJobs/3"
    with answering({"resourceName": name}, {}, {"name": "operations/1"}, **MATCH) as (script, sink):
        given = verdicts(sink.write([member(1)]))
    assert [each.target_id for each in given] == [name]
    assert [request.target for request, _ in script.asked] == [
        "/v26/customers/1234567890/offlineUserDataJobs:create",
        f"/v26/{name}:addOperations",
        f"/v26/{name}:run",
    ]
    assert script.bodies == [
        {
            "job": {
                "type": "CUSTOMER_MATCH_USER_LIST",
                "customerMatchUserListMetadata": {"userList": LIST, "consent": {"adUserData": "GRANTED"}},
            }
        },
        {
            "operations": [{"create": {"userIdentifiers": [{"hashedEmail": hashed("1")}]}}],
            "enablePartialFailure": True,
        },
        {},
    ]


def test_members_come_and_go_in_jobs_of_their_own() -> None:
    with account(**MATCH) as (system, sink, _):
        sink.write(members(3))
        assert outcomes(sink.write([leaving(1), member(5), leaving(2)])) == [Outcome.DELIVERED] * 3
        assert (len(system.jobs), len(system.members[LIST])) == (3, 2)
        (verdict,) = verdicts(sink.write([Change("m0", "delete", {})]))
    assert (verdict.outcome, verdict.number) == (Outcome.INVALID, UNMAPPABLE)


@pytest.mark.parametrize(("count", "jobs"), [(10_000, 1), (10_001, 2)])
def test_ten_thousand_members_share_a_job(count: int, jobs: int) -> None:
    with account(**MATCH) as (system, sink, _):
        assert sink.bulk == 10_000
        assert set(outcomes(sink.write(members(count)))) == {Outcome.DELIVERED}
        assert (len(system.jobs), len(system.members[LIST])) == (jobs, count)


def test_a_hundred_thousand_identifiers_share_a_request() -> None:
    full = [member(number, 20) for number in range(5_000)]
    with account(**MATCH) as (system, sink, _):
        sink.write(full)
        assert len(system.jobs) == 1
        sink.write([*full, member(5_000)])
        assert (len(system.jobs), len(system.members[LIST])) == (3, 5_001)


def test_twenty_identifiers_are_taken_and_twenty_one_are_not_sent() -> None:
    with account(**MATCH) as (system, sink, _):
        taken, refused = verdicts(sink.write([member(1, 20), member(2, 21)]))
        assert len(system.members[LIST]) == 1
    assert taken.outcome is Outcome.DELIVERED
    assert (refused.outcome, refused.number) == (Outcome.INVALID, OVER_A_LIMIT)


@pytest.mark.parametrize(
    ("content", "number", "field"),
    [
        ({"user_identifiers": [{"hashed_email": "a@b.cn"}]}, NOT_HASHED, "userIdentifiers[0].hashedEmail"),
        (
            {"user_identifiers": [{"address_info": {"hashed_first_name": "Ana"}}]},
            NOT_HASHED,
            "userIdentifiers[0].addressInfo.hashedFirstName",
        ),
        ({"user_identifiers": "x"}, MALFORMED, "userIdentifiers"),
        ({}, UNMAPPABLE, "userIdentifiers"),
    ],
)
def test_what_is_not_hashed_does_not_leave(content: Row, number: int, field: str) -> None:
    with account(**MATCH) as (system, sink, _):
        (verdict,) = verdicts(sink.write([upsert("m", content)]))
        assert system.jobs == {}
    assert (verdict.outcome, verdict.number, verdict.field) == (Outcome.INVALID, number, field)


def test_an_operation_that_is_refused_spoils_no_other() -> None:
    with account(**MATCH) as (system, sink, _):
        system.codes[hashed("1")] = "INVALID_SHA256_FORMAT"
        good, bad, other = verdicts(sink.write(members(3)))
        assert len(system.members[LIST]) == 2
    assert [good.outcome, other.outcome] == [Outcome.DELIVERED] * 2
    assert (bad.outcome, bad.number, bad.field) == (Outcome.REJECTED, REFUSED, "create.user_identifiers")
    assert bad.target_id == ""


def test_a_job_of_nobody_is_not_run() -> None:
    with account(**MATCH) as (system, sink, _):
        system.codes[hashed("0")] = "INVALID_SHA256_FORMAT"
        sink.write(members(1))
        assert [job["ran"] for job in system.jobs.values()] == [None]


def test_a_request_that_is_refused_as_a_whole_is_narrowed_down() -> None:
    name = {"resourceName": "customers/1234567890/offlineUserDataJobs/3"}
    with answering(name, failure(400), name, failure(400), name, {}, {}, **MATCH) as (_, sink):
        assert outcomes(sink.write(members(2))) == [Outcome.REJECTED, Outcome.DELIVERED]


# Later


def test_a_job_is_pending_and_then_confirmed_or_failed() -> None:
    with account(**MATCH) as (system, sink, time):
        (first,) = verdicts(sink.write(members(1)))
        assert sink.confirm(first.target_id) == Confirmation(first.target_id, "pending")
        time.now += system.processing
        assert sink.confirm(first.target_id) == Confirmation(first.target_id, "confirmed")
        system.failure_of_jobs = "NEWLY_OBSERVED_USER_LIST"
        assert sink.confirm(first.target_id) == Confirmation(
            first.target_id, "failed", refused={"NEWLY_OBSERVED_USER_LIST": 0}
        )
        nobody = "customers/1234567890/offlineUserDataJobs/99"
        assert sink.confirm(nobody) == Confirmation(nobody, "gone")
        assert sink.confirm("x' OR 'x' = 'x") == Confirmation("x' OR 'x' = 'x", "gone")


@pytest.mark.parametrize(
    "odd", [[], {"results": "x"}, {"results": [{}]}, {"results": [{"offlineUserDataJob": {"status": "?"}}]}]
)
def test_an_odd_status_is_an_error_and_no_confirmation(odd: Any) -> None:
    with answering(odd, **MATCH) as (_, sink), pytest.raises(ProtocolError):
        sink.confirm("customers/1/offlineUserDataJobs/1")
    with answering(failure(400), **MATCH) as (_, sink), pytest.raises(ProtocolError):
        sink.confirm("customers/1/offlineUserDataJobs/1")


# Doubt


def test_every_member_may_be_repeated_and_is_there_once() -> None:
    with account(**MATCH) as (system, sink, _):
        assert sink.repeatable(member(1)) and sink.repeatable(leaving(1))
        assert list(sink.find([member(1)])) == [CannotAsk()]
        break_it(system, "drop=100%")
        with pytest.raises(TransientError):
            sink.write(members(3))
        break_it(system, "")
        assert outcomes(sink.write(members(3))) == [Outcome.DELIVERED] * 3
        assert len(system.members[LIST]) == 3


def test_a_job_without_a_name_or_not_run_leaves_doubt_that_a_repeat_ends() -> None:
    name = {"resourceName": "customers/1234567890/offlineUserDataJobs/3"}
    for answers in ([{}], [{"resourceName": "x"}], [name, {}, failure(400)]):
        with answering(*answers, **MATCH) as (_, sink):
            assert all(isinstance(answer, InDoubt) for answer in sink.write(members(2)))
    for lost in (LOST, reply(500)):
        with answering(name, {}, lost, **MATCH) as (_, sink), pytest.raises(TransientError):
            sink.write(members(2))


def test_a_list_that_is_refused_blames_no_member() -> None:
    with answering(failure(400), **MATCH) as (_, sink), pytest.raises(AuthError, match="INVALID_ARGUMENT"):
        sink.write(members(2))


@pytest.mark.parametrize("settings", [{}, {"user_list": "mine"}, {"user_list": LIST, "lifespan": 30}])
def test_wrong_settings_are_named_before_anything_is_called(settings: Row) -> None:
    with pytest.raises(ConfigError):
        sink_at("http://localhost:1", settings, "customer_match")
