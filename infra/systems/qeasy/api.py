"""Qeasy's token, its codes, and the two calls that this hub makes of a scheme: `store` and `query`.

Facts: paths, bodies, counts and codes are vendor documentation, which contradicts itself: a token goes as Bearer or in
the query (so it goes as both), the rows of a query are `content`, `content.list` or `content.rows`, with the fields in
the row or in its `content` (all are read), a code may mean a token, a scheme or a parameter (its message decides). A
bare text in a filter matches by part of it, an `$in` of MongoDB exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from infra.bearer import Bearer, Token, lifetime
from infra.http import Answer, Http, InDoubtError
from infra.pace import Pace
from infra.systems import Connection
from shared.errors import RATE_LIMITED, AuthError, ProtocolError, TransientError

MOST_ROWS: Final = 100
"""Rows of one call, and of one page of a query."""
MOST_PAGES: Final = 20
LIFE: Final = 7_200.0

_CREDENTIALS: Final = frozenset((40004, 40101, 40301, 40302))
_TOKEN: Final = frozenset((40002, 40102))
_SCHEME: Final = frozenset((40003, 40102, 40401))
_TOO_MANY: Final = frozenset((40029, 42901))
_SERVER: Final = frozenset((50000, 50001, 50002, 50301))
_SMALL: Final = 4096


class NoQueryError(ProtocolError):
    """This Qeasy has no query that could be asked."""


class Counts(msgspec.Struct, frozen=True):
    """What an answer to `store` says: None where it says nothing, and the message that came with it."""

    inserted: int | None = None
    failed: int | None = None
    message: str = ""


class Api:
    """The calls of one scheme."""

    def __init__(self, connection: Connection, scheme: str) -> None:
        key, secret = connection.secret("QEASY_APP_KEY"), connection.secret("QEASY_APP_SECRET")
        self._account = {"app_key": key, "app_secret": secret}
        self._path = f"/v2/open-api/business/{quote(scheme, safe='')}"
        self._clock = connection.clock
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        # Whoever delivers tries again, a whole portion at a time; trying here as well would multiply the tries.
        once = msgspec.structs.replace(connection.retry, attempts=1)
        self._calls = Bearer(
            connection, self._pace, once, self._fetch, _refusal, secrets=(key, secret), in_query="access_token"
        )

    def store(self, rows: Sequence[dict[str, Any]], *, repeatable: bool) -> Counts:
        """Sends rows, in one call. Raises as `Http.request`, also for a refusal that says nothing of the rows."""
        wanted = {"content": list(rows)}
        answer = self._calls.request("POST", f"{self._path}/store", json=wanted, repeatable=repeatable)
        body = _body(answer)
        code, message = _code(body), str(body.get("message") or "")
        if answer.status == 404 or (code in _SCHEME and "token" not in message.lower() and "参数" not in message):
            raise AuthError(
                f"Qeasy refuses the scheme ({code or answer.status})", cure="check the scheme and who may write into it"
            )
        if code in _CREDENTIALS:
            raise AuthError(f"Qeasy refuses the application ({code})", cure="grant the application this scheme")
        if code in _TOO_MANY:
            raise TransientError("Qeasy answered that calls are too many", number=RATE_LIMITED)
        if code in _SERVER:
            if repeatable:
                raise TransientError(f"Qeasy answered with the code {code}")
            raise InDoubtError(f"Qeasy answered with the code {code}")
        if body.get("success") is True and answer.status < 300:
            content = body.get("content")
            given = content if isinstance(content, dict) else {}
            return Counts(_count(given.get("inserted")), _count(given.get("failed")), message)
        if code or 400 <= answer.status < 500:
            return Counts(0, len(rows), message)
        return Counts()

    def query(self, field: str, values: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """The fields of the rows that have one of these values. Raises ProtocolError where that is not all of them."""
        given = 0
        for page in range(1, MOST_PAGES + 1):
            wanted = {
                "page": page,
                "pageSize": MOST_ROWS,
                "begin_at": 0,
                "end_at": int(self._clock.now().timestamp()) + 86_400,
                f"CONTENT_{field}": {"$in": list(values)},
            }
            answer = self._calls.request("POST", f"{self._path}/query", json=wanted, repeatable=True)
            rows, total = _found(answer)
            for row in rows:
                yield row["content"] if isinstance(row.get("content"), dict) else row
            given += len(rows)
            if total is not None and given >= total:
                return
            if not rows:
                if total is None:
                    return
                raise ProtocolError(f"a query of Qeasy found {total} rows and gave {given}")
        raise ProtocolError(f"a query by {len(values)} ids gave {given} rows and no end: it was not understood")

    def close(self) -> None:
        self._calls.close()
        self._pace.close()

    def _fetch(self, http: Http) -> Token:
        answer = http.request("POST", "/v2/oauth", json=self._account, repeatable=True)
        body = _body(answer)
        content = body.get("content")
        token = content.get("access_token") if isinstance(content, dict) else None
        if isinstance(content, dict) and isinstance(token, str) and token:
            return Token(token, lifetime(content.get("expires_in"), LIFE))
        code = _code(body)
        if code in _TOO_MANY:
            raise TransientError("Qeasy answered that calls are too many", number=RATE_LIMITED)
        if code and code not in _SERVER:
            raise AuthError(f"Qeasy gives no token ({code})", cure="check QEASY_APP_KEY and QEASY_APP_SECRET")
        raise ProtocolError(f"Qeasy answered {answer.status} without a token")


def _found(answer: Answer) -> tuple[list[dict[str, Any]], int | None]:
    """The rows of an answer to `query`, and how many there are in all if it says so."""
    if answer.status in (404, 405, 501):
        raise NoQueryError(f"a query of Qeasy was answered {answer.status}")
    body = _body(answer)
    content = body.get("content")
    rows, total = content, None
    if isinstance(content, dict):
        rows, total = content.get("list", content.get("rows")), _count(content.get("total"))
    if body.get("success") is not True or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError(f"a query of Qeasy was answered {answer.status} with the code {_code(body)} and no rows")
    return rows, total


def _body(answer: Answer) -> dict[str, Any]:
    """The answer's object, empty if it is none."""
    try:
        body = answer.json()
    except ProtocolError:
        return {}
    return body if isinstance(body, dict) else {}


def _code(body: dict[str, Any]) -> int:
    """The code of an answer, 0 for success and for an answer without one."""
    text = str(body.get("code", 0))
    return int(text) if text.isascii() and text.isdigit() else 0


def _count(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else None


def _refusal(answer: Answer) -> str:
    """Why an answer refuses the token, if it does."""
    if len(answer.body) > _SMALL:
        return ""
    body = _body(answer)
    refused = _code(body) in _TOKEN and "token" in str(body.get("message")).lower()
    return f"Qeasy refuses the token ({_code(body)})" if refused else ""
