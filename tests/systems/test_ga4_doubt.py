"""GA4 out of order: one outcome per event, none counted twice, and none called delivered in vain."""

from __future__ import annotations

import traceback
from threading import Lock

import msgspec
import pytest

from infra.systems.ga4.events import COLLECTED, PATIENCE, ROUND
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNDOCUMENTED_ANSWER,
    UNREACHABLE,
    AuthError,
)
from shared.outcome import Answer, CannotAsk, InDoubt, Outcome, Passing, Verdict, delivered
from tests.loopback import LOST, FakeClock, Reply, Request, refused_port, reply
from tests.systems.ga4_script import TAKEN, answer_of, change, changes, connection_to, opened, property_of, scripted


@pytest.mark.parametrize(
    ("given", "number", "status"),
    [(reply(429, headers={"Retry-After": "7"}), RATE_LIMITED, 429), (reply(503), UNAVAILABLE, 503)],
)
def test_what_was_not_taken_may_pass_later(given: Reply, number: int, status: int) -> None:
    answer = answer_of(given)
    assert isinstance(answer, Passing) and (answer.number, answer.http_status) == (number, status)
    assert answer.after == (7.0 if status == 429 else None)


@pytest.mark.parametrize("given", [LOST, reply(500), reply(502), reply(504)])
def test_a_lost_answer_is_in_doubt_and_nobody_can_be_asked(given: Reply) -> None:
    assert isinstance(answer_of(given), InDoubt)
    with scripted(lambda _: given) as (_, sink):
        assert list(sink.find(changes(2))) == [CannotAsk(), CannotAsk()]
        assert not any(sink.repeatable(each) for each in changes(2))


def test_a_page_of_html_is_nobodys_confirmation() -> None:
    answer = answer_of(reply(200, b"\n<html>Sign in to the network</html>"))
    assert isinstance(answer, Verdict) and (answer.outcome, answer.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)
    assert answer_of(reply(200, b"")) == answer_of(reply(204)) == delivered(COLLECTED)


def test_nobody_there_is_no_doubt() -> None:
    with opened(connection_to(f"http://127.0.0.1:{refused_port()}")) as sink:
        answers = sink.write(changes(40, clients=40))
    assert {answer.number for answer in answers if isinstance(answer, Passing)} <= {UNREACHABLE, GENERAL}
    assert all(isinstance(answer, Passing) for answer in answers)


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, Outcome.REJECTED), (413, Outcome.REJECTED), (302, Outcome.UNKNOWN)]
)
def test_an_answer_that_is_none_of_these_is_taken_as_it_is(status: int, outcome: Outcome) -> None:
    answer = answer_of(reply(status))
    assert isinstance(answer, Verdict) and (answer.outcome, answer.http_status) == (outcome, status)
    assert answer.number == (REFUSED if outcome is Outcome.REJECTED else UNDOCUMENTED_ANSWER)


def test_a_refused_request_is_sent_again_event_by_event() -> None:
    def handler(request: Request) -> Reply:
        return reply(400) if b'"row":7' in request.body else TAKEN

    with scripted(handler) as (server, sink):
        answers = sink.write(changes(10))
    assert [place for place, answer in enumerate(answers) if answer != delivered(COLLECTED)] == [7]
    assert len(server.requests) == 11


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_target_that_refuses_every_call_stops_the_stream(status: int) -> None:
    with scripted(lambda _: reply(status)) as (server, sink):
        with pytest.raises(AuthError) as caught:
            sink.write(changes(100, clients=100))
        assert len(server.requests) <= ROUND
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_what_was_taken_before_a_refusal_is_not_forgotten() -> None:
    def handler(request: Request) -> Reply:
        row = msgspec.json.decode(request.body)["events"][0]["params"]["row"]
        return TAKEN if row < ROUND else reply(403)

    with scripted(handler) as (_, sink):
        answers = sink.write(changes(100, clients=100))
        with pytest.raises(AuthError):
            sink.write(changes(100, clients=100)[ROUND:])
    assert set(answers[:ROUND]) == {delivered(COLLECTED)}
    assert {answer.number for answer in answers[ROUND:] if isinstance(answer, Passing)} == {CREDENTIALS}


def test_a_wish_for_a_pause_is_handed_on() -> None:
    with scripted(lambda _: reply(429, headers={"Retry-After": "60"})) as (server, sink):
        answers = sink.write(changes(100, clients=100))
    assert len(server.requests) <= ROUND
    assert {(a.number, a.after) for a in answers if isinstance(a, Passing)} == {(RATE_LIMITED, 60.0)}


def test_an_outage_ends_a_call_after_a_round() -> None:
    with scripted(lambda _: reply(503)) as (server, sink):
        answers = sink.write(changes(100, clients=100))
    assert len(server.requests) == ROUND and all(isinstance(answer, Passing) for answer in answers)


def test_a_slow_target_is_left_to_the_next_call_after_a_while() -> None:
    clock, turn = FakeClock(), Lock()

    def handler(request: Request) -> Reply:
        with turn:
            clock.at += 0.6 * PATIENCE / ROUND
        return TAKEN

    with scripted(handler, clock=clock) as (server, sink):
        answers = sink.write(changes(100, clients=100))
    assert len(server.requests) == 2 * ROUND
    assert [isinstance(answer, Passing) for answer in answers] == [False] * 2 * ROUND + [True] * (100 - 2 * ROUND)


def test_purchases_are_repeated_only_where_somebody_says_so() -> None:
    purchase = change(1, name="purchase", params={"transaction_id": "T1"})
    with opened(connection_to("http://localhost:1")) as sink:
        assert not sink.repeatable(purchase)
    with opened(connection_to("http://localhost:1", repeat_purchases=True)) as sink:
        assert sink.repeatable(purchase)
        assert not sink.repeatable(change(2, name="purchase")) and not sink.repeatable(change(3))
        assert not sink.repeatable(Change("4", "upsert", {"client_id": "1", "name": "purchase"}))
        assert not sink.repeatable(Change("5", "delete", {}))
    with opened(connection_to("http://localhost:1", repeat_purchases=True, firebase_app_id="1:2")) as sink:
        assert not sink.repeatable(purchase)


@pytest.mark.parametrize(
    "faults", ["", "503=30%", "429=30%", "drop=30%", "drop_before=20%", "500=20%,503=20%,drop=10%"]
)
def test_nothing_is_collected_twice_or_called_collected_in_vain(faults: str) -> None:
    given = changes(300, clients=120)
    with property_of(faults) as (system, sink):
        found: dict[str, Answer] = {}
        left = given
        for _ in range(60):
            answers = sink.write(left)
            assert len(answers) == len(left) and None not in answers
            found |= {c.key: a for c, a in zip(left, answers, strict=True) if a is not None}
            left = [c for c, a in zip(left, answers, strict=True) if isinstance(a, Passing)]
            if not left:
                break
        stats = system.stats()
        there = {str(event["params"]["row"]) for event in system.events}
    assert not left and stats["repeated"] == {} and len(there) == stats["events"]
    assert {key for key, answer in found.items() if answer == delivered(COLLECTED)} <= there
    assert there <= {key for key, a in found.items() if a == delivered(COLLECTED) or isinstance(a, InDoubt)}
    assert faults or stats["largest_request"] == 3


@pytest.mark.parametrize("given", [LOST, reply(500), reply(503), reply(403), reply(404)])
def test_the_secret_stands_in_no_error_and_in_no_answer(given: Reply) -> None:
    with scripted(lambda _: given) as (_, sink):
        try:
            told = repr(sink.write([change(1)]))
        except AuthError as error:
            told = "".join(traceback.format_exception(error))
        assert "s3cr3t" not in told + repr(sink) + str(sink)
