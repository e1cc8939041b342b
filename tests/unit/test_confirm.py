"""When a target is asked what became of a request, and what its answers come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.confirm import (
    FIRST_LOOK,
    LAST_LOOK,
    NEVER_CONFIRMED,
    Awaited,
    Confirmation,
    accepted,
    look_again,
    looked_at,
    postponed,
    together,
)
from shared.errors import FAILED_LATER, NUMBERS, REFUSED_LATER
from shared.outcome import Outcome
from tests.unit.fakes import STEADY

AT = datetime(2026, 3, 1, tzinfo=UTC)
PENDING = Confirmation("q", "pending")
LOOKS = 7
"""After half an hour, one, two, four, eight, sixteen and twenty-four."""


def a_request(records: int = 1) -> Awaited:
    one = accepted("q", "shop", "things", "b", AT)
    return one if records == 1 else together(one, a_request(records - 1))


def test_a_request_is_looked_at_for_a_day_with_growing_waits() -> None:
    looks = [look_again(each) for each in range(9)]
    assert looks[:3] == [FIRST_LOOK, 2 * FIRST_LOOK, 4 * FIRST_LOOK]
    assert looks[6:] == [LAST_LOOK, None, None]
    assert [each for each in looks if each] == sorted(each for each in looks if each)


def test_asked_in_time_it_is_asked_seven_times_and_then_gone() -> None:
    request, asked = a_request(), []
    while request.state == "pending":
        asked.append((request.look_at - AT).total_seconds() / 3600)
        request = looked_at(request, PENDING, request.look_at)
    assert asked == [0.5, 1, 2, 4, 8, 16, 24]
    assert (request.state, request.looks, request.ended_at) == ("gone", LOOKS, AT + timedelta(days=1))


@STEADY
@given(st.lists(st.floats(0, 200_000), min_size=LOOKS, max_size=LOOKS), st.data())
def test_however_late_it_is_asked_each_look_is_later_and_there_is_a_last_one(
    late: list[float], data: st.DataObject
) -> None:
    request = a_request()
    for looks, wait in enumerate(late, start=1):
        now = request.look_at + timedelta(seconds=wait)
        if data.draw(st.booleans()):
            request = postponed(request, now)
            assert request.look_at == now + timedelta(seconds=FIRST_LOOK)
            now = request.look_at
        request = looked_at(request, PENDING, now)
        assert request.looks == looks
        if request.state == "pending":
            assert request.look_at >= now + timedelta(seconds=FIRST_LOOK)
    assert (request.state, request.looks) == ("gone", LOOKS)


@pytest.mark.parametrize("state", ["confirmed", "partial", "failed", "gone"])
def test_what_ended_is_kept_as_it_was_said(state: str) -> None:
    said = Confirmation("q", state, 9, {"A": 2}, 3, {"W": 4})  # type: ignore[arg-type]
    found = looked_at(a_request(9), said, AT + timedelta(hours=1))
    assert (found.state, found.records, found.refused, found.repeats, found.warnings) == (
        state,
        9,
        {NEVER_CONFIRMED: 9} if state == "gone" else {"A": 2},
        3,
        {"W": 4},
    )
    assert (found.looks, found.ended_at) == (1, AT + timedelta(hours=1))


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, {"UNSPECIFIED": 9}),
        ({"A": 0}, {"A": 9}),
        ({"A": 9}, {"A": 9}),
        ({"A": 0, "B": 0}, {"A or B": 9}),
        ({"A": 4, "B": 0}, {"A": 4, "B": 5}),
        ({"A": 9, "B": 0}, {"A": 9}),
    ],
)
def test_a_failed_request_that_counts_nothing_counts_all_that_it_carried(
    told: dict[str, int], kept: dict[str, int]
) -> None:
    assert looked_at(a_request(9), Confirmation("q", "failed", refused=told), AT).refused == kept


@STEADY
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=8), st.booleans())
def test_records_of_one_request_add_up_and_it_is_asked_about_again(parts: list[int], ended: bool) -> None:
    request = Awaited("q", "shop", "things", "b", parts[0], AT, AT + timedelta(seconds=FIRST_LOOK))
    for number, records in enumerate(parts[1:], start=1):
        if ended:
            request = looked_at(request, Confirmation("q", "confirmed"), AT)
        at = AT + timedelta(seconds=number)
        request = together(request, Awaited("q", "shop", "things", "b", records, at, at + timedelta(hours=1)))
        assert (request.state, request.looks, request.ended_at) == ("pending", 0, None)
        assert request.look_at == at + timedelta(hours=1)
    assert (request.records, request.sent_at) == (sum(parts), AT)


@pytest.mark.parametrize(
    ("refused", "passing", "outcome", "number"),
    [
        ({"NO_CONSENT": 3}, set(), Outcome.REJECTED, REFUSED_LATER),
        ({"NO_CONSENT": 3, "TOO_OLD": 1}, set(), Outcome.REJECTED, REFUSED_LATER),
        ({"NO_CONSENT": 3, "INTERNAL_ERROR": 1}, {"INTERNAL_ERROR"}, Outcome.EXHAUSTED, FAILED_LATER),
        ({"UNSPECIFIED": 0}, set(), Outcome.EXHAUSTED, FAILED_LATER),
        ({}, set(), Outcome.EXHAUSTED, FAILED_LATER),
    ],
)
def test_a_failure_is_for_good_if_every_reason_is(
    refused: dict[str, int], passing: set[str], outcome: Outcome, number: int
) -> None:
    verdict = Confirmation("q", "failed", refused=refused, passing=frozenset(passing)).verdict
    assert (verdict.outcome, verdict.number) == (outcome, number)
    assert all(reason in verdict.reason for reason in refused)
    assert NUMBERS[number].kind == ("permanent" if outcome is Outcome.REJECTED else "retriable")
