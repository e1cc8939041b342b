"""A GA4 for tests: the fake property, or a script that answers as a test wants, and sinks of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from infra.quantities import Rate
from infra.systems import Connection
from infra.systems.ga4 import open_sink
from infra.systems.ga4.events import Events
from shared.ends import Change
from shared.outcome import Answer, Outcome, Verdict
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox.faults import parse
from tests.sandbox.ga4 import Ga4
from tests.sandbox.server import Server
from tests.sandbox.system import Setup

KEYS = {"GA4_MEASUREMENT_ID": "G-ABC123", "GA4_API_SECRET": "s3cr3t/+ x"}
TAKEN = reply(204)
Row = dict[str, Any]


def connection_to(
    url: str,
    keys: Mapping[str, str] = KEYS,
    clock: FakeClock | None = None,
    rate: Rate | None = None,
    **options: Any,
) -> Connection:
    clock = clock or FakeClock()
    return Connection(url, dict(keys), rate, 100, RetryPolicy(3, 0.01), clock, None, lambda: False, options)


@contextmanager
def opened(connection: Connection) -> Iterator[Events]:
    sink = open_sink(connection, "events")
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def scripted(handler: Callable[[Request], Reply], **named: Any) -> Iterator[tuple[Loopback, Events]]:
    with Loopback(handler) as server, opened(connection_to(server.url, **named)) as sink:
        yield server, sink


@contextmanager
def property_of(faults: str = "", **options: Any) -> Iterator[tuple[Ga4, Events]]:
    """A fake property, and a sink of it whose clock agrees about the date."""
    system = Ga4(Setup())
    system.set_faults(parse(faults, ["ga4"])["ga4"])
    clock = FakeClock()
    # What waits for its turn looks at the time without sleeping.
    clock.tick = 0.001
    clock.at += system.clock() - clock.now().timestamp()
    with Server(system) as server, opened(connection_to(server.url, system.environment(""), clock, **options)) as sink:
        yield system, sink


def change(number: int, client: str = "1.1", name: str = "lead", **fields: Any) -> Change:
    return Change(str(number), "upsert", {"client_id": client, "name": name, "params": {"row": number}, **fields})


def changes(count: int, clients: int = 1) -> list[Change]:
    return [change(each, f"1.{each % clients + 1}") for each in range(count)]


def bodies(server: Loopback) -> list[Row]:
    return [msgspec.json.decode(request.body) for request in server.requests]


def outcomes(answers: Sequence[Answer | None]) -> list[Outcome]:
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer.outcome for answer in answers if isinstance(answer, Verdict)]


def answer_of(given: Reply, **named: Any) -> Answer | None:
    with scripted(lambda _: given, **named) as (_, sink):
        (answer,) = sink.write([change(1)])
    return answer
