"""Sinks of Google's APIs for tests: at a fake of the sandbox, or at a server that answers as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import msgspec

from infra.systems import Connection
from shared.ends import Change
from shared.outcome import Answer, Outcome, Verdict
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply
from tests.sandbox.faults import parse
from tests.sandbox.google_system import GoogleSystem
from tests.sandbox.server import Server
from tests.sandbox.system import Setup

Row = dict[str, Any]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TOKEN = "ya29.t0k3n"

S = TypeVar("S", bound=GoogleSystem)
K = TypeVar("K", bound="Closes", covariant=True)


class Closes(Protocol):
    def close(self) -> None: ...


def connection_to(
    url: str,
    secrets: Mapping[str, str],
    settings: Any,
    page_size: int = 100_000,
    clock: FakeClock | None = None,
    **options: Any,
) -> Connection:
    return Connection(
        url,
        dict(secrets),
        None,
        page_size,
        RetryPolicy(3, 0.01),
        clock or FakeClock(),
        None,
        lambda: False,
        {"settings": settings, **options},
    )


class Time:
    """The clock of a fake."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@contextmanager
def served(kind: Callable[[Setup], S], faults: str = "") -> Iterator[tuple[S, str, Time]]:
    """A fake, its address, and its clock."""
    time = Time()
    system = kind(Setup(clock=time, sleep=lambda seconds: None))
    system.set_faults(parse(faults, [system.name])[system.name])
    with Server(system) as server:
        yield system, server.url, time


def break_it(system: GoogleSystem, faults: str) -> None:
    system.set_faults(parse(faults, [system.name])[system.name])


class Script:
    """Answers each request with the next of these, the last one for ever; keeps what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Request, Any]] = []

    def __call__(self, request: Request) -> Reply:
        body = msgspec.json.decode(request.body) if request.body else None
        self.asked.append((request, body))
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        given = given(body) if callable(given) and not isinstance(given, Reply) else given
        return given if isinstance(given, Reply) else reply(200, msgspec.json.encode(given))

    @property
    def bodies(self) -> list[Any]:
        return [body for _, body in self.asked]


@contextmanager
def scripted(script: Script, opened: Callable[[str], K]) -> Iterator[tuple[Loopback, K]]:
    with Loopback(script) as server:
        sink = opened(server.url)
        try:
            yield server, sink
        finally:
            sink.close()


def failure(status: int, *details: Row, kind: str = "INVALID_ARGUMENT", message: str = "No.") -> Reply:
    """An error in the form of Google's newer APIs."""
    body = {"error": {"code": status, "message": message, "status": kind, "details": list(details)}}
    return reply(status, msgspec.json.encode(body))


def hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def upsert(key: str, content: Row) -> Change:
    return Change(key, "upsert", content)


def outcomes(answers: Sequence[Answer | None]) -> list[Outcome]:
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer.outcome for answer in answers if isinstance(answer, Verdict)]


def verdicts(answers: Sequence[Answer | None]) -> list[Verdict]:
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Verdict)]


class Joined(FakeClock):
    """A sink's clock that a fake's clock goes along with."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self.time = time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time.now, UTC)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.time.now += seconds
