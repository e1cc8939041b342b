"""What the Data Manager API says later of accepted requests, and what a stream may set."""

from __future__ import annotations

from typing import Any

import pytest

from infra.systems.data_manager.status import confirmation
from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import ConfigError, ProtocolError, TransientError
from shared.outcome import Outcome
from tests.loopback import reply
from tests.systems.google_script import Row, outcomes, verdicts
from tests.systems.test_data_manager import DESTINATION, SETTINGS, account, answering, event, events, member, sink_at


def test_a_request_is_pending_and_then_confirmed() -> None:
    with account() as (system, sink, time):
        (first, *_) = verdicts(sink.write(events(3)))
        assert sink.confirm(first.target_id) == Confirmation(first.target_id, "pending")
        time.now += system.processing
        assert sink.confirm(first.target_id) == Confirmation(first.target_id, "confirmed", records=3)


def test_what_failed_later_is_counted_by_reason() -> None:
    reasons = {"order-1": "INVALID_GCLID", "order-2": "DENIED_CONSENT", "order-3": "INTERNAL_ERROR"}
    with account() as (system, sink, time):
        system.later = lambda record: reasons.get(record["transactionId"], "")
        (first, *_) = verdicts(sink.write([*events(5), event(9, event_timestamp="2026-01-01T00:00:00Z")]))
        time.now += system.processing
        found = sink.confirm(first.target_id)
    assert (found.state, found.records) == ("partial", 6)
    assert found.refused == {"INVALID_GCLID": 1, "DENIED_CONSENT": 1, "INTERNAL_ERROR": 1, "EVENT_TOO_OLD": 1}
    assert found.passing == {"INTERNAL_ERROR"}


def test_repeats_are_there_already_and_confirmed() -> None:
    with account() as (system, sink, time):
        sink.write(events(2))
        again = [*events(2), event(3, transaction_id=None), event(3, transaction_id=None)]
        (second, *_) = verdicts(sink.write(again))
        time.now += system.processing
        found = sink.confirm(second.target_id)
        assert len(system.events) == 3
    assert (found.state, found.repeats, found.refused) == ("confirmed", 3, {})


def test_all_of_a_request_may_fail_and_members_are_counted_too() -> None:
    with account("audience") as (system, sink, time):
        system.later = lambda record: "NO_CONSENT"
        (first, *_) = verdicts(sink.write([member(1), member(2)]))
        time.now += system.processing
        assert sink.confirm(first.target_id) == Confirmation(first.target_id, "failed", 2, {"NO_CONSENT": 2})
        leaving = Change("m1", "delete", member(1).content)
        assert outcomes(sink.write([leaving])) == [Outcome.DELIVERED]


def test_a_request_that_is_not_known_is_gone() -> None:
    with account() as (_, sink, _):
        assert sink.confirm("t-nobody") == Confirmation("t-nobody", "gone")


def status(word: str, **fields: Any) -> Row:
    return {"requestStatus": word, **fields}


def counted(reason: str, count: int) -> Row:
    return {"errorInfo": {"errorCounts": [{"reason": reason, "recordCount": str(count)}]}}


ODD = counted("NO_CONSENT", 2)
SEVEN = {"eventsIngestionStatus": {"recordCount": "7"}}


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ([status("SUCCESS"), status("SUCCESS")], "confirmed"),
        ([status("SUCCESS"), status("PROCESSING")], "pending"),
        ([status("REQUEST_STATUS_UNKNOWN")], "pending"),
        ([status("SOMETHING_NEW")], "pending"),
        ([status("SUCCESS"), status("FAILED")], "partial"),
        ([status("FAILED"), status("FAILURE")], "failed"),
        ([status("FAILED", **counted("NO_CONSENT", 7), **SEVEN)], "failed"),
        ([status("FAILED", **counted("NO_CONSENT", 6), **SEVEN)], "partial"),
        ([status("FAILED"), status("FAILED", **counted("DUPLICATE_GCLID", 2)), status("FAILED", **ODD)], "partial"),
        ([status("PARTIAL_SUCCESS")], "partial"),
        ([status("FAILED", **counted("PROCESSING_ERROR_REASON_DUPLICATE_GCLID", 2))], "confirmed"),
    ],
)
def test_a_request_is_as_far_as_its_slowest_destination(statuses: list[Row], state: str) -> None:
    found = confirmation("t-1", {"requestStatusPerDestination": statuses})
    assert found is not None and found.state == state


def test_counts_are_those_of_all_destinations_and_warnings_are_kept_apart() -> None:
    warned = {"warningInfo": {"warningCounts": [{"reason": "PROCESSING_WARNING_REASON_INVALID_KEK", "recordCount": 4}]}}
    sizes = {"audienceMembersIngestionStatus": {"mobileDataIngestionStatus": {"recordCount": "7", "mobileIdCount": 9}}}
    mismatch = counted("PROCESSING_ERROR_OPERATING_ACCOUNT_MISMATCH_FOR_AD_IDENTIFIER", 2)
    body = {
        "requestStatusPerDestination": [
            status("PARTIAL_SUCCESS", **mismatch, **sizes),
            status("PARTIAL_SUCCESS", **mismatch, **warned),
        ]
    }
    assert confirmation("t-1", body) == Confirmation(
        "t-1", "partial", 7, {"OPERATING_ACCOUNT_MISMATCH_FOR_AD_IDENTIFIER": 4}, 0, {"INVALID_KEK": 4}
    )


@pytest.mark.parametrize("odd", [{}, {"requestStatusPerDestination": []}, {"requestStatusPerDestination": ["x"]}, []])
def test_an_odd_status_is_an_error_and_no_confirmation(odd: Any) -> None:
    with answering(odd) as (_, sink), pytest.raises(ProtocolError):
        sink.confirm("t-1")


def test_a_status_that_is_not_answered_may_be_asked_for_again() -> None:
    with answering(reply(503)) as (_, sink), pytest.raises(TransientError):
        sink.confirm("t-1")


# Settings


def destinations(count: int) -> list[Row]:
    return [{**DESTINATION, "product_destination_id": str(each)} for each in range(count)]


def test_ten_destinations_are_taken_and_eleven_refused() -> None:
    with account(settings={"destinations": destinations(10)}) as (system, sink, _):
        assert outcomes(sink.write(events(2))) == [Outcome.DELIVERED] * 2
        assert len(system.events) == 20
    with pytest.raises(ConfigError, match="10 are allowed"):
        sink_at("http://localhost:1", settings={"destinations": destinations(11)})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (None, "destinations"),
        ("x", "settings"),
        ({}, "destinations"),
        ({"destinations": []}, "destinations"),
        ({"destinations": "x"}, "destinations"),
        ({"destinations": ["x"]}, r"destinations\[0\]"),
        ({"destinations": [{"product_destination_id": "1"}]}, r"destinations\[0\]"),
        ({"destinations": [{**DESTINATION, "product_destination_id": ""}]}, r"destinations\[0\]"),
        ({**SETTINGS, "encoding": "OCTAL"}, "encoding"),
        ({**SETTINGS, "consents": {}}, "consents"),
        ({**SETTINGS, "validate_only": True}, "validateOnly"),
        ({**SETTINGS, "terms_of_service": {}}, "termsOfService"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_called(settings: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        sink_at("http://localhost:1", settings=settings)
    assert caught.value.cure


def test_what_is_written_is_events_or_an_audience() -> None:
    with pytest.raises(ConfigError, match="no 'members'"):
        sink_at("http://localhost:1", "members")


def test_terms_of_service_go_with_members_that_join_and_not_with_those_that_leave() -> None:
    terms = {"customer_match_terms_of_service_status": "ACCEPTED"}
    with answering({"requestId": "t"}, write="audience", settings={**SETTINGS, "terms_of_service": terms}) as (
        script,
        sink,
    ):
        sink.write([member(1), Change("m2", "delete", member(2).content)])
    joining, leaving = script.bodies
    assert joining["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert leaving.keys() == {"destinations", "encoding", "audienceMembers"}
