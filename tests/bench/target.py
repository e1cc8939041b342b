"""The bench's target as a system: one record per POST, or up to 100, over the lean concurrent client.

It cannot be asked what it holds, so what is in doubt stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from infra.burst import Burst, Request, Result
from infra.environment import SystemSettings
from infra.http import Answer as HttpAnswer
from infra.http import InDoubtError
from infra.pace import Pace
from infra.systems import Connection, one_of
from shared.ends import Change
from shared.errors import CREDENTIALS, REFUSED, UNDOCUMENTED_ANSWER, AuthError, ProtocolError, TransientError
from shared.outcome import Answer, CannotAsk, InDoubt, Passing, Probe, delivered, rejected, unknown
from tests.bench.contact import POST

CONNECTIONS: Final = {"single": 128, "batch": 16}
"""Requests under way at once, for each lane."""
PATHS: Final = {"single": "/Contacts", "batch": "/Contacts/batch"}

_encode = msgspec.json.Encoder().encode
_DELIVERED: Final = delivered()


def settings(environ: Mapping[str, str]) -> SystemSettings:
    """Where the target is; it has no secrets."""
    return SystemSettings(environ["TARGET_URL"].rstrip("/"), {})


def open_sink(connection: Connection, write: str) -> Contacts:
    return one_of({"single": OneByOne, "batch": Hundreds}, write, "the bench's target")(connection, write)


class Contacts:
    """What both ways of writing share: `bulk` changes are many requests under way at once."""

    system = "target"

    def __init__(self, connection: Connection, write: str) -> None:
        self.bulk = connection.page_size
        self._path = PATHS[write]
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        self._burst = Burst(connection.url, {}, CONNECTIONS[write], self._pace, connection.retry, connection.clock)

    def repeatable(self, change: Change) -> bool:
        return False

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk()] * len(changes)

    def close(self) -> None:
        self._burst.close()
        self._pace.close()


class OneByOne(Contacts):
    """A record per POST: 201 is delivered, any other answer is no."""

    def write(self, changes: Sequence[Change]) -> Sequence[Answer]:
        path = self._path
        requests: list[Request] = [("POST", path, _encode(change.content)) for change in changes]
        return [_of_one(result) for result in self._burst.send(requests)]


class Hundreds(Contacts):
    """Up to 100 records per POST: the answer names those that it refused."""

    def write(self, changes: Sequence[Change]) -> Sequence[Answer]:
        parts = [changes[start : start + POST] for start in range(0, len(changes), POST)]
        requests: list[Request] = [("POST", self._path, _encode([c.content for c in part])) for part in parts]
        answers: list[Answer] = []
        for part, result in zip(parts, self._burst.send(requests), strict=True):
            answers += _of_many(result, part)
        return answers


def _of_one(result: Result) -> Answer:
    if isinstance(result, HttpAnswer):
        if result.status == 201:
            return _DELIVERED
        return _refused(result)
    return _without_answer(result)


def _of_many(result: Result, part: Sequence[Change]) -> list[Answer]:
    if not isinstance(result, HttpAnswer):
        return [_without_answer(result)] * len(part)
    if result.status != 200:
        return [_refused(result)] * len(part)
    try:
        refused: list[Any] = result.json()["rejected"]
    except (ProtocolError, TypeError, KeyError):
        return [unknown(UNDOCUMENTED_ANSWER, "the answer does not say what was refused", 200)] * len(part)
    if not refused:
        return [_DELIVERED] * len(part)
    no = rejected(REFUSED, "the target refused it", 200)
    return [no if change.content["external_id"] in refused else _DELIVERED for change in part]


def _refused(result: HttpAnswer) -> Answer:
    if 400 <= result.status < 500:
        return rejected(REFUSED, f"the target answered {result.status}", result.status)
    return unknown(UNDOCUMENTED_ANSWER, f"the target answered {result.status}", result.status)


def _without_answer(error: TransientError | InDoubtError | AuthError) -> Answer:
    if isinstance(error, TransientError):
        return Passing(str(error), error.number, error.after, error.http_status)
    if isinstance(error, InDoubtError):
        return InDoubt(str(error))
    return Passing(str(error), CREDENTIALS)
