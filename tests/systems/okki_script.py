"""An OKKI for tests: the sandbox, or a script that answers as a test wants, and sources of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from infra.systems import Connection
from infra.systems.okki import Companies, Users, open_source
from shared.books import Window
from shared.ends import Page, Source
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox import Sandbox

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON)
AGES = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
TOKEN = {"token_type": "Bearer", "access_token": "abc", "expires_in": 28_800}
Row = dict[str, Any]


def connection_to(
    url: str,
    environment: Mapping[str, str] | None = None,
    page_size: int = 100,
    options: Mapping[str, Any] | None = None,
    clock: FakeClock | None = None,
    attempts: int = 3,
) -> Connection:
    secrets = {name: (environment or {}).get(name, "s3cr3t") for name in ("OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET")}
    retry = RetryPolicy(attempts, 0.01)
    clock = clock or FakeClock()
    return Connection(url, secrets, None, page_size, retry, clock, None, lambda: False, options or {})


@contextmanager
def source_of(sandbox: Sandbox, read: str = "users", **named: Any) -> Iterator[Users | Companies]:
    source = open_source(connection_to(sandbox.urls["okki"], sandbox.environment, **named), read)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def okki(faults: str = "", **named: Any) -> Iterator[Sandbox]:
    with Sandbox(**{"customers": 1, "users": 60, "departments": 12, "faults": faults, **named}) as sandbox:
        yield sandbox


class Script:
    """An OKKI that gives a token and, for each path, what a test wants."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"departmentList": {"list": [], "count": 0}, "list": [], **answers}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.token: Callable[[Request], Reply] = lambda request: reply(200, msgspec.json.encode(TOKEN))

    def __call__(self, request: Request) -> Reply:
        parts = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, query))
        if "oauth2" in parts.path:
            return self.token(request)
        given = self.answers[parts.path.rpartition("/")[2]]
        given = given(query) if callable(given) else given
        if isinstance(given, Reply):
            return given
        body = {"code": 200, "message": "success", "now": "2026-01-01 20:00:00", "data": given}
        return reply(200, msgspec.json.encode(body))


@contextmanager
def scripted(script: Script, read: str = "users", **named: Any) -> Iterator[Users | Companies]:
    with Loopback(script) as server:
        source = open_source(connection_to(server.url, **named), read)
        try:
            yield source
        finally:
            source.close()


def rows(source: Source, window: Window = WINDOW, after: str = "") -> list[Row]:
    return [row.data for page in source.pages(window, after) for row in page.rows]


def shape(pages: list[Page]) -> list[tuple[int, str]]:
    return [(len(page.rows), page.after) for page in pages]
