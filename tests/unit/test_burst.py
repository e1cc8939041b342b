"""The concurrent client: every request gets the answer that is its own, or the truth about not having one."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import infra.connection
from infra.burst import Burst, Result
from infra.clock import SystemClock
from infra.http import Answer, InDoubtError
from infra.pace import Pace
from infra.quantities import Rate
from shared.errors import CREDENTIALS, RATE_LIMITED, UNREACHABLE, AuthError, ConfigError, TransientError
from shared.ports import Clock
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Loopback, Reply, Request, certificate, refused_port, reply

Handler = Callable[[Request], Reply]
ONCE = RetryPolicy(1, 0.0)


def echo(request: Request) -> Reply:
    return reply(201, request.body)


@contextmanager
def burst_to(
    url: str, connections: int = 4, retry: RetryPolicy = ONCE, clock: Clock | None = None, **options: Any
) -> Iterator[Burst]:
    clock = clock or FakeClock()
    pace = options.pop("pace", None) or Pace(None, clock)
    burst = Burst(url + "/api", {"Authorization": "t0ken"}, connections, pace, retry, clock, **options)
    try:
        yield burst
    finally:
        burst.close()


def posts(number: int) -> list[tuple[str, str, bytes]]:
    return [("POST", "/contacts", b"%d" % each) for each in range(number)]


def bodies(results: list[Result]) -> list[bytes]:
    return [result.body for result in results if isinstance(result, Answer)]


@pytest.mark.parametrize("connections", [1, 3, 64])
def test_every_request_gets_its_own_answer(connections: int) -> None:
    with Loopback(echo) as server, burst_to(server.url, connections) as burst:
        for number in (200, 1, 0, 57):
            assert bodies(burst.send(posts(number))) == [b"%d" % each for each in range(number)]
        assert server.connections <= connections
        first = server.requests[0]
        assert (first.method, first.target) == ("POST", "/api/contacts")
        assert first.headers["authorization"] == "t0ken"
        assert first.headers["host"] == server.url.removeprefix("http://")
        assert Counter(request.body for request in server.requests)[b"199"] == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("given_reply", "status", "body"),
    [
        (reply(200, b"abcde"), 200, b"abcde"),
        (Reply(CHUNKED), 200, b"abcde"),
        (Reply(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b""),
        (Reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + CHUNKED), 200, b"abcde"),
        (reply(200, b"abcde", close=True), 200, b"abcde"),
        (Reply(b"HTTP/1.1 200 OK\r\n\r\nabcde", close=True), 200, b"abcde"),
        (Reply(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde", close=True), 200, b"abcde"),
        (Reply(reply(200, b"abcde").raw, close=True), 200, b"abcde"),
        (reply(302, headers={"Location": "http://elsewhere.invalid"}), 302, b""),
        (reply(422, b"{}"), 422, b"{}"),
        (reply(200, b"x" * 1_000_000), 200, b"x" * 1_000_000),
    ],
)
def test_answers_of_every_form_are_understood(given_reply: Reply, status: int, body: bytes) -> None:
    # A server that closes without a word may do so while the next request is being written.
    again = RetryPolicy(20, 0.0)
    with Loopback(lambda request: given_reply) as server, burst_to(server.url, 2, again) as burst:
        for result in burst.send(posts(7), repeatable=True):
            assert isinstance(result, Answer)
            assert (result.status, result.body) == (status, body)


def test_header_names_come_in_lower_case() -> None:
    with Loopback(lambda request: reply(200, headers={"X-Kind": "B"})) as server, burst_to(server.url) as burst:
        (answer,) = burst.send(posts(1))
        assert isinstance(answer, Answer)
        assert answer.headers["x-kind"] == "B"


@pytest.mark.parametrize(
    "broken",
    [
        LOST,
        Reply(b"nonsense\r\n\r\n"),
        Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", close=True),
        Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", close=True),
        Reply(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\ncut", close=True),
        Reply(b"HTTP/1.1 200 OK\r\nX: y", close=True),
        Reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", close=True),
        reply(500),
        reply(502),
    ],
)
def test_without_a_usable_answer_a_request_is_in_doubt_and_not_sent_again(broken: Reply) -> None:
    retry = RetryPolicy(3, 0.0)
    with Loopback(lambda request: broken) as server, burst_to(server.url, 3, retry) as burst:
        results = burst.send(posts(10))
        assert all(isinstance(result, InDoubtError) for result in results)
        assert len(server.requests) == 10


def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.connection, "BODY_LIMIT", 1000)
    with Loopback(lambda request: reply(200, b"x" * 5000)) as server, burst_to(server.url) as burst:
        assert isinstance(burst.send(posts(1))[0], InDoubtError)


def test_an_answer_that_nobody_asked_for_goes_to_nobody() -> None:
    twice = Reply(reply(200, b"mine").raw + reply(200, b"whose?").raw)
    with Loopback(lambda request: twice) as server, burst_to(server.url, 2) as burst:
        assert bodies(burst.send(posts(9), repeatable=True)) == [b"mine"] * 9


def test_a_repeatable_request_is_sent_again_after_a_lost_answer() -> None:
    seen: Counter[bytes] = Counter()
    lock = Lock()

    def every_other(request: Request) -> Reply:
        with lock:
            seen[request.body] += 1
            return LOST if seen[request.body] == 1 else echo(request)

    with Loopback(every_other) as server, burst_to(server.url, 4, RetryPolicy(2, 0.0)) as burst:
        assert len(bodies(burst.send(posts(20), repeatable=True))) == 20
    assert set(seen.values()) == {2}


@pytest.mark.parametrize("refusal", [429, 503])
def test_what_was_certainly_not_taken_is_sent_again(refusal: int) -> None:
    numbers = count()

    def sometimes(request: Request) -> Reply:
        return reply(refusal, headers={"Retry-After": "0"}) if next(numbers) % 3 == 0 else echo(request)

    with Loopback(sometimes) as server, burst_to(server.url, 1, RetryPolicy(9, 0.0)) as burst:
        assert bodies(burst.send(posts(30))) == [b"%d" % each for each in range(30)]


def test_a_429_holds_the_pace_for_everybody() -> None:
    clock = FakeClock()
    pace = Pace(None, clock)
    with (
        Loopback(lambda request: reply(429, headers={"Retry-After": "40"})) as server,
        burst_to(server.url, 1, clock=clock, pace=pace) as burst,
    ):
        (result,) = burst.send(posts(1))
    assert isinstance(result, TransientError)
    assert (result.number, result.after, result.http_status) == (RATE_LIMITED, 40, 429)
    assert pace.claim() == 40


def test_connections_that_were_closed_while_idle_leave_nothing_in_doubt() -> None:
    with Loopback(echo) as server, burst_to(server.url, 8) as burst:
        for _ in range(5):
            assert len(bodies(burst.send(posts(40)))) == 40
            server.close_connections()


def test_where_nobody_listens_nothing_was_sent() -> None:
    with burst_to(f"http://localhost:{refused_port()}", 8, RetryPolicy(2, 0.0)) as burst:
        results = burst.send(posts(50))
    assert all(isinstance(result, TransientError) and result.number == UNREACHABLE for result in results)


def test_an_unknown_host_is_no_connection() -> None:
    with burst_to("http://nowhere.invalid") as burst:
        (result,) = burst.send(posts(1))
    assert isinstance(result, TransientError)


def test_refused_credentials_stop_what_was_not_sent() -> None:
    with Loopback(lambda request: reply(401)) as server, burst_to(server.url, 2, RetryPolicy(3, 0.0)) as burst:
        results = burst.send(posts(50))
        sent = len(server.requests)
    assert sent <= 4
    assert sum(isinstance(result, AuthError) for result in results) == sent
    rest = [result for result in results if not isinstance(result, AuthError)]
    assert all(isinstance(result, TransientError) and result.number == CREDENTIALS for result in rest)


def test_silence_is_in_doubt_and_its_connection_is_not_used_again() -> None:
    with Loopback(echo) as server:

        def silent_once(request: Request) -> Reply:
            if request.body == b"3":
                server.never.wait()
            return echo(request)

        server.handler = silent_once
        with burst_to(server.url, 2, clock=SystemClock(), timeout=(5.0, 0.3)) as burst:
            results = burst.send(posts(8))
            assert isinstance(results[3], InDoubtError)
            assert bodies(results) == [b"0", b"1", b"2", b"4", b"5", b"6", b"7"]
            assert bodies(burst.send(posts(3))) == [b"0", b"1", b"2"]


def test_a_large_body_goes_out_in_pieces() -> None:
    body = b"x" * 6_000_000
    with Loopback(lambda request: reply(200, b"%d" % len(request.body))) as server, burst_to(server.url, 2) as burst:
        assert bodies(burst.send([("PUT", "/a", body)] * 4)) == [b"6000000"] * 4


def test_the_pace_is_kept() -> None:
    clock = FakeClock()
    clock.tick = 0.05
    pace = Pace(Rate(10, 1.0), clock)
    with Loopback(echo) as server, burst_to(server.url, 8, clock=clock, pace=pace) as burst:
        assert len(bodies(burst.send(posts(21)))) == 21
    assert clock.at - 1000 >= 2.0


def test_a_stop_lets_nothing_more_out_and_waits_for_what_is_under_way() -> None:
    clock = FakeClock()
    clock.tick = 0.001
    pace = Pace(Rate(1, 60.0), clock, stopping=lambda: True)
    with Loopback(echo) as server, burst_to(server.url, 8, RetryPolicy(3, 0.0), clock, pace=pace) as burst:
        results = burst.send(posts(5))
        assert len(server.requests) == 1
    assert bodies(results) == [b"0"]
    assert all(isinstance(result, TransientError) for result in results[1:])


@pytest.mark.parametrize(
    "request_line", [("POST", "/a b"), ("POST", "/a\r\nX: y"), ("PO ST", "/a"), ("POST", "a"), ("POST", "/ç")]
)
def test_what_would_not_be_one_request_is_not_sent(request_line: tuple[str, str]) -> None:
    with Loopback(echo) as server, burst_to(server.url) as burst, pytest.raises(ConfigError):
        burst.send([(*request_line, b"")])


def test_an_exception_in_the_middle_leaves_no_answer_to_the_wrong_request() -> None:
    with Loopback(echo) as server:
        clock = FakeClock()
        pace = Pace(None, clock)
        with burst_to(server.url, 4, clock=clock, pace=pace) as burst:
            burst.send(posts(4))
            with pytest.raises(ConfigError):
                burst.send([*posts(3), ("POST", "no slash", b"")])
            assert bodies(burst.send([("POST", "/x", b"new%d" % each) for each in range(20)])) == [
                b"new%d" % each for each in range(20)
            ]


def test_over_tls(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    if file is None:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))
    with Loopback(lambda request: reply(200, request.body * 3), context) as server:
        with burst_to(server.url, 4, context=trusting) as burst:
            for _ in range(2):
                assert bodies(burst.send(posts(50))) == [b"%d" % each * 3 for each in range(50)]
            assert server.connections <= 4
            body = b"y" * 500_000
            assert bodies(burst.send([("POST", "/a", body)] * 5)) == [body * 3] * 5
            server.close_connections()
            assert len(bodies(burst.send(posts(9)))) == 9
            server.handler = lambda request: LOST
            assert all(isinstance(result, InDoubtError) for result in burst.send(posts(3)))
        sent = len(server.requests)
        with burst_to(server.url, 2) as burst:
            (result,) = burst.send(posts(1))
            assert isinstance(result, TransientError)
            assert len(server.requests) == sent


FATES = st.sampled_from(["ok", "ok", "close", "lost", "cut", "429", "503", "500", "422"])
REPLIES = {
    "close": reply(201, close=True),
    "lost": LOST,
    "cut": Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", close=True),
    "ok": reply(201),
}


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(FATES, max_size=40),
    connections=st.integers(1, 8),
    again=st.booleans(),
    tries=st.integers(1, 3),
)
def test_no_result_says_more_than_what_happened(fates: list[str], connections: int, again: bool, tries: int) -> None:
    """Not repeatable: an answer or a doubt means that it was taken just once, a TransientError that it never was."""
    taken: Counter[bytes] = Counter()
    lock = Lock()

    def by_fate(request: Request) -> Reply:
        fate = fates[int(request.body)]
        with lock:
            taken[request.body] += fate not in ("429", "503")
        return REPLIES[fate] if fate in REPLIES else reply(int(fate))

    with Loopback(by_fate) as server, burst_to(server.url, connections, RetryPolicy(tries, 0.0)) as burst:
        results = burst.send(posts(len(fates)), repeatable=again)
        tried = Counter(request.body for request in server.requests)
    for place, (fate, result) in enumerate(zip(fates, results, strict=True)):
        body = b"%d" % place
        if fate in ("ok", "close", "422"):
            assert isinstance(result, Answer)
            assert tried[body] == 1
        elif fate in ("429", "503") or again:
            assert isinstance(result, TransientError)
            assert tried[body] == tries
        else:
            assert isinstance(result, InDoubtError)
            assert taken[body] == 1
