"""OKKI's token, its envelope and its three list shapes.

Errors arrive with HTTP 200 and a code in the envelope; 200 and 0 both mean success. A code may stand for a lock or a
hiccup as well as for a mistake, so a read is tried again by the policy before it fails, but for 400, which says that
the query itself is wrong.

Facts: token, envelope, codes and shapes are vendor documentation; `expires_in` missing or not, HTTP 401 or an
`access_denied` in the body for a token that ended early, 404 for a locked or missing object, and numbers that come as
texts were observed by public clients. That times without a zone are China's is how public clients read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from infra.bearer import Bearer, Token, lifetime
from infra.http import Answer, Http, redact
from infra.pace import Pace
from infra.systems import Connection
from shared.errors import AuthError, ProtocolError, TransientError

TOKEN_PATH: Final = "/v1/oauth2/access_token"  # noqa: S105
LIFE: Final = 28_800.0
"""Seconds that a token lives if the answer does not say."""
CHINA: Final = timezone(timedelta(hours=8))
TIME: Final = "%Y-%m-%d %H:%M:%S"
SUCCESS: Final = (200, 0)
BAD_QUERY: Final = 400
DOCUMENTED: Final = (BAD_QUERY, 404, -1)
"""The codes of failures that the vendor documents."""
CREDENTIAL_ERRORS: Final = frozenset(("invalid_client", "invalid_credentials", "invalid_grant", "invalid_scope"))

_SMALL: Final = 4096


class Api:
    """Reads of one account. `scope` is the one module that they need."""

    def __init__(self, connection: Connection, scope: str) -> None:
        self._client = connection.secret("OKKI_CLIENT_ID"), connection.secret("OKKI_CLIENT_SECRET")
        self._scope = scope
        self._clock = connection.clock
        self._retry = connection.retry
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        self._calls = Bearer(
            connection, self._pace, connection.retry, self._fetch, _refusal, secrets=(self._client[1],)
        )
        self._now: tuple[datetime, float] | None = None

    def read(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        """The `data` of an answer. Raises ProtocolError for a documented failure, TransientError for another one."""
        attempt = 0
        while True:
            attempt += 1
            answer = self._calls.request("GET", path, params=params, repeatable=True)
            if answer.status != 200:
                raise ProtocolError(f"OKKI answered a read of {path} with {answer.status}")
            try:
                envelope = _envelope(answer, path)
                code = whole(envelope.get("code"))
                if code in SUCCESS:
                    self._remember(envelope.get("now"))
                    return envelope.get("data")
                failure = f"OKKI answered a read of {path} with the code {code}"
                error = ProtocolError(failure) if code in DOCUMENTED else TransientError(failure)
            except ProtocolError as no_envelope:
                code, error = None, no_envelope
            wait = None if code == BAD_QUERY else self._retry.next_wait(attempt, None, self._clock.random)
            if wait is None:
                raise error
            self._pace.pause(wait)

    def now(self, path: str, params: Mapping[str, str | int] | None = None) -> datetime:
        """OKKI's clock: by the Date of its answers, else by what the envelope says, else ours. Asks if need be."""
        if self._calls.server_now() is None and self._now is None:
            self.read(path, params)
        if (dated := self._calls.server_now()) is not None:
            return dated
        if self._now is None:
            return self._clock.now()
        return self._now[0] + timedelta(seconds=self._clock.monotonic() - self._now[1])

    def location(self, path: str) -> str:
        return redact(self._calls.base_url + path, self._client)

    def close(self) -> None:
        self._calls.close()
        self._pace.close()

    def _fetch(self, http: Http) -> Token:
        body = {
            "grant_type": "client_credentials",
            "client_id": self._client[0],
            "client_secret": self._client[1],
            "scope": self._scope,
        }
        answer = http.request("POST", TOKEN_PATH, json=body, repeatable=True)
        given = answer.json()
        if not isinstance(given, dict):
            raise ProtocolError(f"OKKI answered {answer.status} without a token")
        if isinstance(text := given.get("access_token"), str) and text:
            return Token(text, lifetime(given.get("expires_in"), LIFE))
        error = given.get("error")
        if error in CREDENTIAL_ERRORS or "authentication" in str(given.get("message")).lower():
            raise AuthError(
                f"OKKI gives no token: {error if error in CREDENTIAL_ERRORS else 'authentication failed'}",
                cure=f"check OKKI_CLIENT_ID, OKKI_CLIENT_SECRET and that the client has the scope {self._scope}",
            )
        raise ProtocolError(f"OKKI answered {answer.status} without a token")

    def _remember(self, now: Any) -> None:
        if (instant := china_time(now)) is not None:
            self._now = (instant, self._clock.monotonic())


def rows_of(data: Any, path: str) -> tuple[list[Any], int | None]:
    """The rows of a list and how many there are in all, in whichever of the three shapes: a bare list, `list` with
    `totalItem`, or `list` with `count`, which is the total too. Raises ProtocolError for anything else."""
    if isinstance(data, list):
        return data, None
    rows = data.get("list") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ProtocolError(f"an answer of {path} holds no list")
    total = whole(data.get("totalItem"))
    return rows, whole(data.get("count")) if total is None else total


def whole(value: Any) -> int | None:
    """A whole number, which may be given as a text."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19 else None


def text_of(value: Any) -> str:
    """An id as text, whichever way it is given; empty only where there is none, since 0 is one."""
    return "" if value is None or isinstance(value, bool | list | dict) else str(value).strip()


def china_time(text: Any) -> datetime | None:
    """The instant of a time as OKKI writes it, None for anything else."""
    try:
        instant = datetime.strptime(text, TIME)
    except (TypeError, ValueError):
        return None
    return instant.replace(tzinfo=CHINA).astimezone(UTC)


def in_china(instant: datetime) -> str:
    """An instant as OKKI wants it."""
    return instant.astimezone(CHINA).strftime(TIME)


def _envelope(answer: Answer, path: str) -> dict[str, Any]:
    envelope = answer.json()
    if not isinstance(envelope, dict) or whole(envelope.get("code")) is None:
        raise ProtocolError(f"an answer of {path} has no code")
    return envelope


def _refusal(answer: Answer) -> str:
    """Why an answer refuses the token, if it does."""
    if len(answer.body) > _SMALL or b"access_denied" not in answer.body:
        return ""
    try:
        body = answer.json()
    except ProtocolError:
        return ""
    return "access_denied" if isinstance(body, dict) and body.get("error") == "access_denied" else ""
