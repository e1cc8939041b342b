"""A scripted Ploomes for tests of what writes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from infra.systems import Connection
from infra.systems.ploomes import Contacts, open_sink
from shared.ends import Change
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply

KEY = "F00D"
CNPJ = "16727230000197"
CPF = "52998224725"
CONTENT: dict[str, Any] = {
    "Name": "Alfa",
    "LegalName": "Alfa Ltda",
    "Register": CNPJ,
    "TypeId": 1,
    "Website": "https://alfa.example",
    "ZipCode": "01310100",
}
UPDATED = {name: value for name, value in CONTENT.items() if name not in ("Register", "TypeId")}
ROW: dict[str, Any] = {
    "Id": 5,
    "TypeId": 1,
    "Name": "Alfa",
    "LegalName": "Alfa Ltda",
    "Register": CNPJ,
    "Website": "https://alfa.example",
    "ZipCode": 1310100,
    "LastUpdateDate": "2026-01-01T08:00:00.5-03:00",
}
CREATE = Change(CNPJ, "upsert", CONTENT)
SURELY_NEW = Change(CNPJ, "upsert", CONTENT, absent=True)
UPDATE = Change(CNPJ, "upsert", CONTENT, target_id="5")
DELETE = Change(CNPJ, "delete", {}, target_id="5")
Given = Reply | Callable[[Request], Reply]


def found(*rows: Any) -> Reply:
    return reply(200, msgspec.json.encode({"@odata.context": "x", "value": rows}))


@contextmanager
def sink_at(url: str, key: str = KEY, **options: Any) -> Iterator[Contacts]:
    connection = Connection(
        url, {"PLOOMES_USER_KEY": key}, None, 100, RetryPolicy(3, 0.01), FakeClock(), None, lambda: False, options
    )
    sink = open_sink(connection, "contacts")
    try:
        yield sink
    finally:
        sink.close()


class Account:
    """A Ploomes that answers by method; searches in anything but contacts find nothing."""

    def __init__(self, **replies: Given) -> None:
        created = found({"Id": 77, "Name": "Alfa"})
        self.replies = {"GET": found(), "POST": created, "PATCH": found(ROW), "DELETE": reply(200), **replies}

    def __call__(self, request: Request) -> Reply:
        given = self.replies[request.method]
        return given if isinstance(given, Reply) else given(request)


@contextmanager
def account(existing: str = "keep", **replies: Given) -> Iterator[tuple[Loopback, Contacts]]:
    with Loopback(Account(**replies)) as server, sink_at(server.url, existing=existing) as sink:
        yield server, sink


def methods(server: Loopback) -> list[str]:
    return [request.method for request in server.requests]


def query_of(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}


def once(first: Reply, then: Reply) -> Callable[[Request], Reply]:
    """The first answer once, the other one ever after."""
    left = [first]
    return lambda request: left.pop() if left else then
