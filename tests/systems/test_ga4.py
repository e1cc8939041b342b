"""Sending to GA4: few requests, in its own words, and only what it takes as it is."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from infra.quantities import Rate
from infra.systems.ga4 import open_sink
from infra.systems.ga4.events import BULK, COLLECTED, grouped
from infra.systems.ga4.limits import BODY_BYTES, body_of, divided
from shared.ends import Change
from shared.errors import NOT_VALID, ONLY_VALIDATED, OUTSIDE_WINDOW, WRONG_EVENT_NAME, ConfigError
from shared.outcome import Outcome, Passing, Verdict, delivered
from tests.loopback import LOST, FakeClock, Reply, reply
from tests.systems.ga4_script import (
    KEYS,
    TAKEN,
    Row,
    answer_of,
    bodies,
    change,
    changes,
    connection_to,
    opened,
    outcomes,
    property_of,
    scripted,
)


def test_an_event_is_posted_in_the_apis_own_words() -> None:
    one = change(1, user_id="u", consent={"ad_user_data": "GRANTED"})
    with scripted(lambda _: TAKEN) as (server, sink):
        assert list(sink.write([one])) == [delivered(COLLECTED)]
    (request,) = server.requests
    assert (request.method, urlsplit(request.target).path) == ("POST", "/mp/collect")
    query = parse_qs(urlsplit(request.target).query)
    assert query == {"measurement_id": ["G-ABC123"], "api_secret": ["s3cr3t/+ x"]}
    assert msgspec.json.decode(request.body) == {
        "client_id": "1.1",
        "user_id": "u",
        "consent": {"ad_user_data": "GRANTED"},
        "events": [{"name": "lead", "params": {"row": 1}}],
    }


def test_an_app_stream_is_named_by_its_option() -> None:
    event = Change("1", "upsert", {"app_instance_id": "a", "name": "lead"})
    with scripted(lambda _: TAKEN, firebase_app_id="1:2:android:3") as (server, sink):
        assert list(sink.write([event])) == [delivered(COLLECTED)]
        assert outcomes(sink.write([change(1)])) == [Outcome.INVALID]
    (request,) = server.requests
    assert parse_qs(urlsplit(request.target).query)["firebase_app_id"] == ["1:2:android:3"]


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (25, 1), (26, 2), (60, 3), (200, 8)])
def test_events_of_a_client_travel_together_by_25(count: int, requests: int) -> None:
    with scripted(lambda _: TAKEN) as (server, sink):
        assert set(outcomes(sink.write(changes(count)))) == {Outcome.DELIVERED}
    sent = [event["params"]["row"] for body in bodies(server) for event in body["events"]]
    assert len(server.requests) == requests and sorted(sent) == list(range(count))


def test_only_what_says_the_same_of_all_travels_together() -> None:
    kinds: list[Row] = [
        {"client": "1.2"}, {"user_id": "u"}, {"user_id": "v"}, {"user_properties": {"a": {"value": 1}}},
        {"consent": {"ad_user_data": "DENIED"}}, {"ip_override": "1.2.3.4"},
    ]  # fmt: skip
    given = [change(10 * kind + each, **fields) for each in range(3) for kind, fields in enumerate([{}, *kinds])]
    with scripted(lambda _: TAKEN) as (server, sink):
        assert set(outcomes(sink.write(given))) == {Outcome.DELIVERED}
    assert sorted(len(body["events"]) for body in bodies(server)) == [3] * (len(kinds) + 1)
    together = [{event["params"]["row"] // 10 for event in body["events"]} for body in bodies(server)]
    assert sorted(map(tuple, together)) == [(kind,) for kind in range(len(kinds) + 1)]


def test_events_of_different_times_travel_together() -> None:
    at = int(FakeClock().now().timestamp() * 1e6)
    with scripted(lambda _: TAKEN) as (server, sink):
        sink.write([change(each, timestamp_micros=at - each) for each in range(3)])
    (body,) = bodies(server)
    assert [event["timestamp_micros"] for event in body["events"]] == [at, at - 1, at - 2]


@pytest.mark.parametrize("extra", [0, 1])
def test_a_request_stays_below_130_kilobytes(extra: int) -> None:
    contents = {place: change(place).content for place in range(25)}
    contents[24] = change(24, params={"x": ""}).content
    common = divided(contents[0])[0]
    size = len(body_of(common, *(divided(each)[1] for each in contents.values())))
    contents[24] = change(24, params={"x": "x" * (BODY_BYTES - 1 - size + extra)}).content
    groups = list(grouped(contents))
    sizes = [len(body_of(group.common, *group.events)) for group in groups]
    assert (len(groups), max(sizes) < BODY_BYTES) == (1 + extra, True)
    assert extra or sizes == [BODY_BYTES - 1]
    assert sorted(place for group in groups for place in group.places) == list(range(25))


def test_what_is_beyond_a_limit_is_invalid_and_its_neighbours_go() -> None:
    old = int((FakeClock().now().timestamp() - 73 * 3600) * 1e6)
    given = [change(1), change(2, name="1x"), change(3, timestamp_micros=old), change(4)]
    with scripted(lambda _: TAKEN) as (server, sink):
        answers = list(sink.write(given))
    assert outcomes(answers) == [Outcome.DELIVERED, Outcome.INVALID, Outcome.INVALID, Outcome.DELIVERED]
    wrong = [(answer.number, answer.field) for answer in answers[1:3] if isinstance(answer, Verdict)]
    assert wrong == [(WRONG_EVENT_NAME, "name"), (OUTSIDE_WINDOW, "timestamp_micros")]
    assert [event["params"]["row"] for body in bodies(server) for event in body["events"]] == [1, 4]


def test_what_was_collected_is_neither_changed_nor_deleted() -> None:
    later = msgspec.structs.replace(change(1), target_id=COLLECTED)
    with scripted(lambda _: TAKEN) as (server, sink):
        answers = sink.write([later, Change("2", "delete", {}, COLLECTED)])
    assert outcomes(answers) == [Outcome.REJECTED] * 2 and server.requests == []


@pytest.mark.parametrize("missing", ["GA4_API_SECRET", "GA4_MEASUREMENT_ID"])
def test_a_sink_needs_a_stream_and_its_secret(missing: str) -> None:
    keys = {name: value for name, value in KEYS.items() if name != missing}
    with pytest.raises(ConfigError, match="GA4"):
        open_sink(connection_to("http://localhost:1", keys), "events")
    with pytest.raises(ConfigError, match="hits"):
        open_sink(connection_to("http://localhost:1"), "hits")


@pytest.mark.parametrize(
    ("rate", "bulk"), [(None, BULK), (Rate(60, 60.0), 20), (Rate(1, 60.0), 1), (Rate(10_000, 1.0), BULK)]
)
def test_a_call_is_as_large_as_the_pace_allows(rate: Rate | None, bulk: int) -> None:
    with opened(connection_to("http://localhost:1", rate=rate)) as sink:
        assert sink.bulk == bulk


def test_valid_events_are_not_called_delivered_by_the_validation_server() -> None:
    with property_of(validate=True) as (system, sink):
        answers = sink.write(changes(30))
        assert all(sink.repeatable(each) for each in changes(2))
        assert (system.stats()["events"], system.stats()["validated"]) == (0, 30)
    assert outcomes(answers) == [Outcome.REJECTED] * 30
    assert {answer.number for answer in answers if isinstance(answer, Verdict)} == {ONLY_VALIDATED}


def test_the_validation_servers_words_are_kept_and_the_persons_are_not() -> None:
    message = {
        "fieldPath": "events.params.x",
        "description": "Param [x] has value [Ana Lima] of 16727230000197 at ana@x.com.",
        "validationCode": "VALUE_INVALID",
    }
    given = reply(200, msgspec.json.encode({"validationMessages": [message]}))
    with scripted(lambda _: given, validate=True) as (server, sink):
        (answer,) = sink.write([change(1, params={"x": "Ana Lima"})])
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number, answer.field) == (Outcome.REJECTED, NOT_VALID, "events.params.x")
    assert answer.reason.startswith("VALUE_INVALID: Param [x]")
    assert not any(private in answer.reason for private in ("Ana", "16727230000197", "ana@"))
    (request,) = server.requests
    assert urlsplit(request.target).path == "/debug/mp/collect"
    assert msgspec.json.decode(request.body)["validation_behavior"] == "ENFORCE_RECOMMENDATIONS"


@pytest.mark.parametrize(
    "given", [reply(200, b"<html>"), reply(200, b"{}"), reply(200, b'{"validationMessages":[1]}'), LOST]
)
def test_a_validation_without_an_answer_may_pass_later(given: Reply) -> None:
    assert isinstance(answer_of(given, validate=True), Passing)
