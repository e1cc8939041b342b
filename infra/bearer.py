"""Calls that carry a token which ends: fetched before the first call and before its end, and once more when refused.

A token may end before its time (revoked, or given out by an earlier call and older than it looks), so a refusal is no
verdict on the credentials: the token is fetched anew and the call repeated once, which is safe, since what was refused
was not carried out. A second refusal is AuthError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from infra.http import Answer, Http
from infra.pace import Pace
from infra.systems import Connection
from shared.errors import AuthError, ProtocolError, TransientError
from shared.retry import RetryPolicy

MARGIN: Final = 60.0
"""Seconds. A token is not used this close to its end, or in the last tenth of a short life."""


class Token(msgspec.Struct, frozen=True):
    """A token as it was given, and for how many seconds it is good."""

    text: str
    seconds: float


class Bearer:
    """A client whose calls carry the token of one account. For one thread.

    `fetch` asks for a token and raises AuthError if there is none for these credentials. `refused` says why an answer
    means that the token was refused, and nothing for any other answer. `in_query` also puts the token into the query.
    """

    def __init__(
        self,
        connection: Connection,
        pace: Pace,
        retry: RetryPolicy,
        fetch: Callable[[Http], Token],
        refused: Callable[[Answer], str],
        *,
        secrets: Sequence[str] = (),
        in_query: str = "",
    ) -> None:
        self._url = connection.url
        self._clock = connection.clock
        self._pace = pace
        self._retry = retry
        self._fetch = fetch
        self._refused = refused
        self._secrets = tuple(secrets)
        self._in_query = in_query
        self._tokens = Http(self._url, {}, pace, retry, self._clock, secrets=self._secrets)
        self._calls: Http | None = None
        self._token = Token("", 0.0)
        self._ends = 0.0

    @property
    def base_url(self) -> str:
        return self._tokens.base_url

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        repeatable: bool,
    ) -> Answer:
        """As `Http.request`. Raises TransientError also where no token could be had: nothing took effect then."""
        try:
            return self._once(method, path, params, json, repeatable)
        except AuthError:
            if self._calls is None:
                raise
            self._drop()
        return self._once(method, path, params, json, repeatable)

    def server_now(self) -> datetime | None:
        """As `Http.server_now`, of whichever answer came last."""
        return (self._calls.server_now() if self._calls is not None else None) or self._tokens.server_now()

    def close(self) -> None:
        self._drop()
        self._tokens.close()

    def _once(
        self, method: str, path: str, params: Mapping[str, str | int] | None, json: Any, repeatable: bool
    ) -> Answer:
        calls = self._ready()
        if self._in_query:
            params = {**(params or {}), self._in_query: self._token.text}
        answer = calls.request(method, path, params=params, json=json, repeatable=repeatable)
        if reason := self._refused(answer):
            raise AuthError(f"{method} {path}: {reason}")
        return answer

    def _ready(self) -> Http:
        """A client with a token that lives."""
        if self._calls is None or self._clock.monotonic() >= self._ends:
            self._drop()
            asked_at = self._clock.monotonic()
            self._token = token = self._fetched()
            self._ends = asked_at + token.seconds - min(MARGIN, token.seconds / 10)
            headers = {"Authorization": f"Bearer {token.text}"}
            secrets = (token.text, *self._secrets)
            self._calls = Http(self._url, headers, self._pace, self._retry, self._clock, secrets=secrets)
        return self._calls

    def _fetched(self) -> Token:
        """Asks again, by the policy, for an answer that is none: a web page of some gateway may pass."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._fetch(self._tokens)
            except ProtocolError as error:
                wait = self._retry.next_wait(attempt, None, self._clock.random)
                if wait is None:
                    raise TransientError(str(error)) from error
            self._pace.pause(wait)

    def _drop(self) -> None:
        if self._calls is not None:
            self._calls.close()
            self._calls = None


def lifetime(value: Any, default: float) -> float:
    """The seconds of an `expires_in`, which may be missing, a text or nonsense."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return default
    return seconds if 0 < seconds < float("inf") else default
