"""A Qeasy for tests: the sandbox, or a script that answers as a test wants, and sinks of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from infra.systems import Connection
from infra.systems.qeasy import Store, open_sink
from shared.ends import Change
from shared.outcome import Answer, Outcome, Verdict
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse

KEYS = {"QEASY_APP_KEY": "012345678911", "QEASY_APP_SECRET": "s3cr3t"}
Row = dict[str, Any]


def connection_to(
    url: str,
    environment: Mapping[str, str] = KEYS,
    options: Mapping[str, Any] | None = None,
    page_size: int = 100,
    clock: FakeClock | None = None,
) -> Connection:
    secrets = {name: environment[name] for name in KEYS}
    options = {"scheme": "0166a725", **(options or {})}
    return Connection(
        url, secrets, None, page_size, RetryPolicy(3, 0.01), clock or FakeClock(), None, lambda: False, options
    )


@contextmanager
def platform(faults: str = "", **options: Any) -> Iterator[tuple[Sandbox, Store]]:
    """A sandbox, and a sink of its scheme."""
    with Sandbox(customers=1, qeasy_per_minute=None) as sandbox:
        sandbox.qeasy.set_faults(parse(faults, ["qeasy"])["qeasy"])
        options = {"scheme": sandbox.environment["QEASY_SCHEME"], **options}
        connection = connection_to(sandbox.urls["qeasy"], sandbox.environment, options, clock=clock_of(sandbox))
        sink = open_sink(connection, "store")
        assert isinstance(sink, Store)
        try:
            yield sandbox, sink
        finally:
            sink.close()


def clock_of(sandbox: Sandbox) -> FakeClock:
    """A clock that agrees with the sandbox about the date."""
    clock = FakeClock()
    clock.at += sandbox.qeasy.clock() - clock.now().timestamp()
    return clock


class Script:
    """A Qeasy that gives a token, and answers `store` and `query` as a test wants."""

    def __init__(self, store: Any = None, query: Any = None) -> None:
        self.answers = {"store": store, "query": query or listed()}
        self.asked: list[tuple[str, Row]] = []

    def __call__(self, request: Request) -> Reply:
        path = urlsplit(request.target).path
        body = msgspec.json.decode(request.body)
        self.asked.append((path, body))
        if path == "/v2/oauth":
            return said(content={"access_token": "t0k3n", "expires_in": 7200})
        given = self.answers[path.rpartition("/")[2]]
        given = given(body) if callable(given) else given
        assert isinstance(given, Reply)
        return given

    def calls(self, kind: str) -> list[Row]:
        return [body for path, body in self.asked if path.endswith(kind)]


def said(code: int = 0, message: str = "success", content: Any = None, status: int = 200) -> Reply:
    body = {"success": code == 0, "code": code, "message": message, "content": content}
    return reply(status, msgspec.json.encode(body))


def counted(inserted: Any, failed: Any) -> Reply:
    return said(content={"inserted": inserted, "failed": failed})


def listed(*rows: Row) -> Reply:
    return said(content={"list": rows, "total": len(rows), "page": 1, "pageSize": 100})


def all_taken(body: Row) -> Reply:
    return counted(len(body["content"]), 0)


@contextmanager
def scripted(script: Callable[[Request], Reply], **named: Any) -> Iterator[tuple[Loopback, Store]]:
    with Loopback(script) as server:
        sink = open_sink(connection_to(server.url, **named), "store")
        assert isinstance(sink, Store)
        try:
            yield server, sink
        finally:
            sink.close()


def change(number: int | str, **fields: Any) -> Change:
    return Change(str(number), "upsert", {"id": str(number), "name": f"用户{number}", **fields})


def changes(count: int) -> list[Change]:
    return [change(each) for each in range(1000, 1000 + count)]


def outcomes(answers: Sequence[Answer | None]) -> list[Outcome]:
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer.outcome for answer in answers if isinstance(answer, Verdict)]


def answer_of(script: Script, one: Change | None = None, **named: Any) -> Answer | None:
    with scripted(script, **named) as (_, sink):
        (answer,) = sink.write([one or change(1)])
    return answer
