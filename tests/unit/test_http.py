"""The ordinary client: what it repeats, what it leaves in doubt, and what it never says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests.exceptions
import urllib3.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

import infra.http
from infra.http import (
    EFFECTS,
    Answer,
    Http,
    InDoubtError,
    effect_of,
    redact,
    retry_after,
    translated,
)
from infra.pace import Pace
from infra.quantities import Rate
from shared.errors import (
    RATE_LIMITED,
    UNAVAILABLE,
    UNREACHABLE,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
)
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Loopback, Reply, Request, certificate, refused_port, reply

KEY = "A1B2C3D4SECRET"


class Script:
    """Replies one after another; the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)

    def __call__(self, request: Request) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Rig:
    """A server with a script, and a client of it on a clock that does not take time."""

    def __init__(self, *replies: Reply, attempts: int = 3, timeout: tuple[float, float] = (5.0, 30.0)) -> None:
        self.clock = FakeClock()
        self.stopping = False
        self.server = Loopback(Script(*replies or (reply(200, b"{}"),)))
        self.server.__enter__()
        self.pace = Pace(None, self.clock, stopping=lambda: self.stopping)
        self.http = Http(
            self.server.url + "/api/",
            {"User-Key": KEY},
            self.pace,
            RetryPolicy(attempts, 5.0),
            self.clock,
            timeout,
            secrets=[KEY],
        )

    def get(self, path: str = "/x", **params: str | int) -> Answer:
        return self.http.request("GET", path, params=params, repeatable=True)

    def post(self, json: Any = None) -> Answer:
        return self.http.request("POST", "/x", json=json or {"a": 1}, repeatable=False)

    def close(self) -> None:
        self.http.close()
        self.server.__exit__(None, None, None)


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.close()


@pytest.fixture
def rig_of(rigs: list[Rig]) -> Any:
    def make(*replies: Reply, **options: Any) -> Rig:
        rigs.append(Rig(*replies, **options))
        return rigs[-1]

    return make


def test_a_request_carries_its_query_body_and_headers(rig_of: Any) -> None:
    rig = rig_of(reply(200, b'{"id": 7}', {"X-Kind": "b"}))
    rig.get("/Contacts", **{"$filter": "Name eq 'A&B+ç' and Id gt 5", "$top": 3})
    answer = rig.post({"name": "ç"})
    read, written = rig.server.requests
    assert read.target == "/api/Contacts?$filter=Name%20eq%20'A%26B%2B%C3%A7'%20and%20Id%20gt%205&$top=3"
    assert read.headers["user-key"] == KEY
    assert (written.method, written.body) == ("POST", '{"name":"ç"}'.encode())
    assert written.headers["content-type"] == "application/json"
    assert (answer.json(), answer.headers["x-kind"]) == ({"id": 7}, "b")


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_certainly_not_taken_is_sent_again(rig_of: Any, status: int) -> None:
    rig = rig_of(reply(status), reply(status), reply(201, b"7"))
    assert rig.post().status == 201
    assert len(rig.server.requests) == 3
    assert rig.clock.at > 1000


@pytest.mark.parametrize("status", [500, 502, 504, 520])
def test_a_write_answered_by_another_5xx_is_in_doubt_and_not_sent_again(rig_of: Any, status: int) -> None:
    rig = rig_of(reply(status), reply(201))
    with pytest.raises(InDoubtError):
        rig.post()
    assert len(rig.server.requests) == 1


@pytest.mark.parametrize("failure", [reply(500), reply(502), reply(503), reply(504), reply(429), LOST])
def test_a_repeatable_request_is_sent_again_after_any_passing_failure(rig_of: Any, failure: Reply) -> None:
    rig = rig_of(failure, failure, reply(200, b"[]"))
    assert rig.get().status == 200
    assert len(rig.server.requests) == 3


def test_when_the_tries_are_used_up_the_error_says_what_it_was(rig_of: Any) -> None:
    rig = rig_of(reply(429, headers={"Retry-After": "7"}))
    with pytest.raises(TransientError) as caught:
        rig.get()
    assert (caught.value.number, caught.value.http_status, caught.value.after) == (RATE_LIMITED, 429, 7.0)
    assert len(rig.server.requests) == 3
    rig = rig_of(reply(503))
    with pytest.raises(TransientError) as caught:
        rig.post()
    assert (caught.value.number, caught.value.http_status) == (UNAVAILABLE, 503)


def test_a_lost_answer_leaves_a_write_in_doubt(rig_of: Any) -> None:
    rig = rig_of(LOST, reply(201))
    with pytest.raises(InDoubtError):
        rig.post()
    assert len(rig.server.requests) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_answer_that_is_broken_leaves_a_write_in_doubt(rig_of: Any, raw: bytes) -> None:
    rig = rig_of(Reply(raw, close=True))
    with pytest.raises(InDoubtError):
        rig.post()
    assert len(rig.server.requests) == 1


def test_silence_leaves_a_write_in_doubt_and_a_read_to_be_tried_again(rig_of: Any) -> None:
    rig = rig_of(timeout=(5.0, 0.05))

    def silent(request: Request) -> Reply:
        rig.server.never.wait()
        return LOST

    rig.server.handler = silent
    with pytest.raises(InDoubtError):
        rig.post()
    with pytest.raises(TransientError):
        rig.get()
    assert [request.method for request in rig.server.requests] == ["POST", "GET", "GET", "GET"]


def test_no_connection_is_certain_and_tried_again() -> None:
    clock = FakeClock()
    http = Http(f"http://127.0.0.1:{refused_port()}", {}, Pace(None, clock), RetryPolicy(4, 1.0), clock)
    with pytest.raises(TransientError) as caught:
        http.request("POST", "/x", json={}, repeatable=False)
    assert caught.value.number == UNREACHABLE
    assert len(clock.slept) >= 3
    http.close()


def test_an_unknown_host_is_certain() -> None:
    clock = FakeClock()
    http = Http("http://nowhere.invalid", {}, Pace(None, clock), RetryPolicy(1, 1.0), clock)
    with pytest.raises(TransientError):
        http.request("POST", "/x", json={}, repeatable=False)
    http.close()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told_apart_and_not_tried_again(rig_of: Any, status: int) -> None:
    rig = rig_of(reply(status))
    with pytest.raises(AuthError):
        rig.get()
    assert len(rig.server.requests) == 1


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 409, 422])
def test_everything_else_is_an_answer(rig_of: Any, status: int) -> None:
    rig = rig_of(reply(status, headers={"Location": "http://elsewhere.invalid/"}))
    assert rig.post().status == status


def test_a_429_holds_everybody_back_as_long_as_the_other_side_asks(rig_of: Any) -> None:
    rig = rig_of(reply(429, headers={"Retry-After": "60"}), reply(200))
    rig.get()
    assert 1060 <= rig.clock.at < 1062
    rig = rig_of(reply(429), attempts=1)
    with pytest.raises(TransientError):
        rig.get()
    assert rig.pace.claim() == pytest.approx(5.0)


def test_a_wait_that_is_too_long_is_left_to_the_queue(rig_of: Any) -> None:
    rig = rig_of(reply(503, headers={"Retry-After": "3600"}), reply(200))
    with pytest.raises(TransientError) as caught:
        rig.get()
    assert caught.value.after == 3600
    assert len(rig.server.requests) == 1


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "9" * 400}, 86_400),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 10:00:30 GMT", "date": "Thu, 01 Jan 2026 10:00:00 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 09:00:00 GMT", "date": "Thu, 01 Jan 2026 10:00:00 GMT"}, 0),
    ],
)
def test_retry_after_comes_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOON) == seconds


def test_the_body_is_bounded(rig_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.http, "BODY_LIMIT", 1000)
    rig = rig_of(reply(200, b"x" * 5000), attempts=1)
    with pytest.raises(TransientError):
        rig.get()
    with pytest.raises(InDoubtError):
        rig.post()


def test_an_answer_that_trickles_for_ever_is_given_up(rig_of: Any) -> None:
    rig = rig_of(reply(200, b"x" * 300_000), attempts=1)
    rig.clock.tick = 200.0
    with pytest.raises(TransientError):
        rig.get()


def test_a_body_that_is_not_json_is_said_without_quoting_it() -> None:
    with pytest.raises(ProtocolError) as caught:
        Answer(200, b"<html>Maria</html>").json()
    assert "Maria" not in str(caught.value)


def test_the_clock_of_the_other_side_is_kept(rig_of: Any) -> None:
    rig = rig_of(reply(200, headers={"Date": "Thu, 01 Jan 2026 10:00:00 GMT"}))
    assert rig.http.server_now() is None
    rig.get()
    rig.clock.at += 5
    assert rig.http.server_now() == datetime(2026, 1, 1, 10, 0, 5, tzinfo=UTC)


def test_a_stop_ends_the_waiting_between_two_tries(rig_of: Any) -> None:
    rig = rig_of(reply(503))
    rig.stopping = True
    with pytest.raises(TransientError):
        rig.get()
    assert len(rig.server.requests) == 1


def test_a_pooled_connection_that_was_closed_while_idle_is_replaced(rig_of: Any) -> None:
    rig = rig_of(reply(200))
    rig.post()
    rig.server.close_connections()
    assert rig.post().status == 200


def test_the_rate_is_kept(rig_of: Any) -> None:
    rig = rig_of(reply(200))
    rig.http.pace = Pace(Rate(60, 60.0), rig.clock)
    for _ in range(11):
        rig.get()
    assert 10 <= rig.clock.at - 1000 <= 10.5


def classes_of(module: Any) -> list[type[Exception]]:
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, Exception)
        and not issubclass(each, Warning)
        and each.__module__ == module.__name__
    ]


def test_every_exception_of_the_libraries_has_an_effect() -> None:
    known = classes_of(requests.exceptions) + classes_of(urllib3.exceptions)
    assert len(known) > 40
    assert [each for each in known if each not in EFFECTS] == []


@pytest.mark.parametrize("library", [requests.exceptions, urllib3.exceptions])
def test_every_exception_of_the_libraries_is_translated(library: Any) -> None:
    for each in classes_of(library):
        error = each.__new__(each)
        error.args = ("http://user:password@host/?token=hidden",)
        if isinstance(error, urllib3.exceptions.MaxRetryError):
            error.reason = None
        for repeatable in (True, False):
            told = translated(error, repeatable, "GET http://host/x")
            assert isinstance(told, TransientError | InDoubtError | ConfigError)
            assert "hidden" not in str(told)
            if EFFECTS[each] == "doubt":
                assert isinstance(told, TransientError) is repeatable


def test_what_a_wrapper_holds_decides() -> None:
    refused = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
    wrapped = urllib3.exceptions.MaxRetryError(None, "/", refused)  # type: ignore[arg-type]
    assert effect_of(requests.exceptions.ConnectionError(wrapped)) == "none"
    untrusted = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError(1, "untrusted"))
    assert effect_of(requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", untrusted))) == "none"  # type: ignore[arg-type]
    reset = urllib3.exceptions.ProtocolError("aborted", ConnectionResetError())
    assert effect_of(requests.exceptions.ConnectionError(reset)) == "doubt"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://u:p@h.example:8443/a?status=3&documento=12345678901",
            "https://h.example:8443/a?status=3&documento=***",
        ),
        (
            "https://h/a?User-Key=abc&api_secret=x&access_token=y",
            "https://h/a?User-Key=***&api_secret=***&access_token=***",
        ),
        ("https://h/C?$filter=CNPJ eq '16727230000197' and Id gt 5", "https://h/C?$filter=CNPJ eq *** and Id gt 5"),
        ("https://h/cliente/123.456.789-09", "https://h/cliente/***"),
        ("https://h/alterar/200001?q=maria@example.com", "https://h/alterar/200001?q=***"),
        ("https://h/a?x=1%0Aforged", "https://h/a?x=1%0Aforged"),
        ("http://[", "***"),
    ],
)
def test_an_address_is_redacted(url: str, shown: str) -> None:
    assert redact(url) == shown


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=6), st.text())
def test_no_secret_and_no_password_survives(secret: str, other: str) -> None:
    text = redact(f"https://user:{secret.encode().hex()}@host/{secret}?x={secret}&y={other}", [secret])
    assert secret.encode().hex() not in text
    assert secret not in text or secret in "https://host/***?x=***&y="


@pytest.mark.parametrize("script", [reply(429), reply(500, b"Maria"), LOST, reply(401, b"Maria")])
def test_no_error_says_a_secret_or_a_body(rig_of: Any, script: Reply) -> None:
    rig = rig_of(script, attempts=1)
    for call in (lambda: rig.get(key="1", q=KEY), lambda: rig.post({"name": "Maria", "key": KEY})):
        with pytest.raises((TransientError, InDoubtError, AuthError)) as caught:
            call()  # type: ignore[no-untyped-call]
        assert "Maria" not in str(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host", "http://", "http://ho st", "http://h:99999", "https://h/?a=1"]
)
def test_an_address_that_cannot_be_used_is_a_mistake_of_the_configuration(url: str) -> None:
    clock = FakeClock()
    with pytest.raises(ConfigError):
        Http(url, {}, Pace(None, clock), RetryPolicy(), clock)


@pytest.mark.parametrize("value", ["", "two\nlines", "chave-ç", " padded"])
def test_a_header_that_cannot_be_sent_is_a_mistake_of_the_configuration(value: str) -> None:
    clock = FakeClock()
    with pytest.raises(ConfigError) as caught:
        Http("http://localhost", {"User-Key": value}, Pace(None, clock), RetryPolicy(), clock)
    assert "User-Key" in str(caught.value)
    assert not value.strip() or value not in str(caught.value)


def test_a_certificate_that_is_not_trusted_means_that_nothing_was_sent(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    if file is None:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    clock = FakeClock()
    with Loopback(lambda request: reply(200), context) as server:
        http = Http(server.url, {}, Pace(None, clock), RetryPolicy(1, 1.0), clock)
        with pytest.raises(TransientError) as caught:
            http.request("POST", "/", json={}, repeatable=False)
        assert caught.value.number == UNREACHABLE
        assert server.requests == []
        http.close()
