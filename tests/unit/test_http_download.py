"""Bodies that are read as they come, and bodies that are no JSON: the same pace, tries, translation and silence."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator

import pytest

from infra.http import BODY_LIMIT, Content, Http
from infra.pace import Pace
from infra.quantities import Rate
from shared.errors import RATE_LIMITED, UNREACHABLE, AuthError, TransientError
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Loopback, Reply, Request, reply

SECRET = "A1B2C3D4SECRET"
CUT = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", close=True)


class Rig:
    """A server that gives these replies, the last one for ever, and a client of it."""

    def __init__(self, *replies: Reply, timeout: float = 30.0, rate: Rate | None = None) -> None:
        self.replies = list(replies)
        self.clock = FakeClock()
        self.server = Loopback(self.answer)
        self.server.__enter__()
        pace = Pace(rate, self.clock)
        url, retry = self.server.url, RetryPolicy(3, 5.0)
        self.http = Http(url, {"User-Key": SECRET}, pace, retry, self.clock, (5.0, timeout), [SECRET])

    def answer(self, request: Request) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def close(self) -> None:
        self.http.close()
        self.server.__exit__(None, None, None)


Rigged = Callable[..., Rig]


@pytest.fixture
def rigged() -> Iterator[Rigged]:
    made: list[Rig] = []

    def one(*replies: Reply, timeout: float = 30.0, rate: Rate | None = None) -> Rig:
        made.append(Rig(*replies, timeout=timeout, rate=rate))
        return made[-1]

    yield one
    for rig in made:
        rig.close()


def chunked(*parts: bytes, whole: bool = True) -> Reply:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return Reply(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if whole else b""), True
    )


def packed(body: bytes) -> Reply:
    return reply(200, gzip.compress(body), {"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "given", [reply(200, b"a\nb\n" * 9), chunked(b"a\nb", b"\n" + b"a\nb\n" * 9), packed(b"a\nb\n" * 90)]
)
def test_the_lines_of_a_body_come_one_after_another(rigged: Rigged, given: Reply) -> None:
    with rigged(given).http.download("/x") as download:
        assert (download.head.status, download.head.body) == (200, b"")
        lines = list(io.BufferedReader(download))
    assert set(lines) == {b"a\n", b"b\n"} and len(lines) >= 18


def test_a_body_that_is_larger_than_any_answer_is_never_whole_in_memory(rigged: Rigged) -> None:
    """The server goes on as fast as it is read, so that a client that gathered it would come to its end."""
    rig = rigged(reply(200))
    piece = b"x" * (1 << 20)

    def endless(request: Request) -> Reply:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT * 10_000)
        return Reply(head + piece, close=True)

    rig.server.handler = endless
    with rig.http.download("/x") as download:
        assert download.read(len(piece) // 2)


@pytest.mark.parametrize("failure", [reply(500), reply(503), reply(429), LOST])
def test_it_is_asked_for_again_until_it_begins(rigged: Rigged, failure: Reply) -> None:
    rig = rigged(failure, failure, reply(200, b"rows"))
    with rig.http.download("/x") as download:
        assert download.read() == b"rows"
    assert len(rig.server.requests) == 3


def test_what_the_server_asks_to_wait_is_said(rigged: Rigged) -> None:
    with pytest.raises(TransientError) as caught:
        rigged(reply(429, headers={"Retry-After": "7"})).http.download("/x")
    assert (caught.value.number, caught.value.after) == (RATE_LIMITED, 7.0)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_said_at_once(rigged: Rigged, status: int) -> None:
    rig = rigged(reply(status))
    with pytest.raises(AuthError):
        rig.http.download("/x")
    assert len(rig.server.requests) == 1


@pytest.mark.parametrize("status", [302, 404, 410])
def test_another_answer_is_the_callers_to_judge_and_has_nothing_to_read(rigged: Rigged, status: int) -> None:
    with rigged(reply(status, b"why")).http.download("/x") as download:
        assert (download.head.status, download.head.body, download.read()) == (status, b"why", b"")


@pytest.mark.parametrize("broken", [CUT, chunked(b"cut", whole=False)])
def test_a_body_that_breaks_off_is_a_passing_failure_after_what_came(rigged: Rigged, broken: Reply) -> None:
    rig = rigged(broken)
    with rig.http.download("/x?mail=a@b.example&key=" + SECRET) as download:
        assert download.read(3) == b"cut"
        with pytest.raises(TransientError) as caught:
            download.read(3)
    assert caught.value.number == UNREACHABLE
    assert SECRET not in str(caught.value) and "a@b" not in str(caught.value)
    assert len(rig.server.requests) == 1


def test_a_body_that_falls_silent_is_a_passing_failure(rigged: Rigged) -> None:
    rig = rigged(reply(200), timeout=0.05)

    def silent(request: Request) -> Reply:
        connection = next(iter(rig.server._open))
        connection.sendall(CUT.raw)
        rig.server.never.wait()
        return LOST

    rig.server.handler = silent
    with rig.http.download("/x") as download:
        assert download.read(3) == b"cut"
        with pytest.raises(TransientError):
            download.read(3)


def test_a_connection_whose_body_was_not_read_to_its_end_carries_nothing_else(rigged: Rigged) -> None:
    rig = rigged(reply(200, b"first" * 100_000), reply(200, b"second"))
    with rig.http.download("/x") as download:
        download.read(5)
    with rig.http.download("/x") as download:
        assert download.read() == b"second"
    assert rig.server.connections == 2


def test_it_goes_at_the_pace_of_all_calls(rigged: Rigged) -> None:
    rig = rigged(reply(200, b"rows"), rate=Rate(1, 10.0))
    for _ in range(3):
        rig.http.download("/x").close()
    assert rig.clock.at - 1000 >= 20


def test_the_date_of_a_download_is_the_servers_clock(rigged: Rigged) -> None:
    rig = rigged(reply(200, headers={"Date": "Tue, 04 Nov 2025 10:00:00 GMT"}))
    rig.http.download("/x").close()
    now = rig.http.server_now()
    assert now is not None and now.year == 2025


def test_a_body_that_is_no_json_goes_as_it_is_under_its_own_type(rigged: Rigged) -> None:
    rig = rigged(reply(503), reply(200))
    content = Content("text/csv", b"a;b\r\n\xff")
    assert rig.http.request("POST", "/x", content=content, repeatable=False).status == 200
    assert {(each.headers["content-type"], each.body) for each in rig.server.requests} == {("text/csv", content.data)}
