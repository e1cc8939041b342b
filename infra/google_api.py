"""Calls to Google's APIs: authorised, and with errors read from their bodies where a status is too coarse.

Facts: an error is `{"error": {code, status, message, details}}`, its details by `@type` (`ErrorInfo`, `BadRequest`,
`RetryInfo`, an API's own failure), or, in the older APIs, `{"error": {code, message, errors: [{domain, reason}]}}`.
Older APIs answer a used-up quota with 403 and the reason, not with 429 (Campaign Manager 360, "Quotas"). A quota of a
day comes back at midnight, so it is asked for again after an hour only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from infra.google_auth import VARIABLE, TokenRefused, Tokens
from infra.http import Answer, Content, Http
from infra.one_by_one import without_persons
from infra.pace import Pace
from infra.systems import Connection
from shared.errors import AuthError, ConfigError, ProtocolError

TIMEOUT: Final = (5.0, 60.0)
DAY_IS_OVER: Final = 3_600.0
"""Seconds after which a quota of a day is asked for again."""

QUOTAS: Final = frozenset(
    ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded", "RATE_LIMIT_EXCEEDED")
)
HASHED: Final = frozenset(
    (
        "emailAddress", "phoneNumber", "givenName", "familyName",
        "hashedEmail", "hashedPhoneNumber", "hashedFirstName", "hashedLastName", "hashedStreetAddress",
    )
)  # fmt: skip
"""The fields of user identifiers that are a SHA-256, by the names of the different APIs."""
_DAILY: Final = re.compile("dailyLimitExceeded|PerDay")
_REASON: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,99}")
_DELAY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)s")
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


class Violation(msgspec.Struct, frozen=True):
    """A field of a request that was refused, in the API's own words."""

    field: str
    reason: str
    description: str


class Fault(msgspec.Struct, frozen=True):
    """What an error says: gRPC's name of its kind, machine-readable reasons, and the fields it names."""

    status: int
    kind: str
    message: str
    reasons: tuple[str, ...]
    violations: tuple[Violation, ...]
    details: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        """Without the message, which may hold what was sent."""
        return ", ".join(dict.fromkeys((self.kind, *self.reasons))).strip(", ") or f"HTTP {self.status}"


class GoogleApi:
    """A client of one of Google's APIs. Whoever delivers tries again, so nothing is tried twice here."""

    def __init__(self, connection: Connection, scope: str, headers: Mapping[str, str] | None = None) -> None:
        self._tokens = Tokens(connection.secrets.get(VARIABLE, ""), scope)
        self._pace = Pace(connection.rate, connection.clock, connection.pace_file, connection.stopping)
        once = msgspec.structs.replace(connection.retry, attempts=1)
        self._http = _Authorised(connection.url, headers or {}, self._pace, once, connection.clock, TIMEOUT)
        self._http.authorise_by(self._tokens)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        repeatable: bool,
    ) -> Answer:
        """As `Http.request`. A call whose token was refused was not carried out, and goes once more with a new one."""
        try:
            return self._http.request(method, path, params=params, json=json, repeatable=repeatable)
        except TokenRefused:
            if not self._tokens.renew():
                raise
        return self._http.request(method, path, params=params, json=json, repeatable=repeatable)

    def close(self) -> None:
        self._http.close()
        self._pace.close()


class _Authorised(Http):
    def authorise_by(self, tokens: Tokens) -> None:
        def authorised(request: Any) -> Any:
            request.headers.update(tokens.headers())
            return request

        self._session.auth = authorised

    def _exchange(self, method: str, url: str, body: Content | None, what: str, repeatable: bool) -> Answer:
        answer = super()._exchange(method, url, body, what, repeatable)
        if answer.status not in (401, 403, 429):
            return answer
        fault = fault_of(answer)
        if answer.status == 401:
            raise TokenRefused(f"{what} answered 401: {fault}")
        if answer.status == 403 and QUOTAS.isdisjoint(fault.reasons):
            raise AuthError(
                f"{what} answered 403: {fault}",
                cure="grant the account access, or enable the API in its project, then run again",
            )
        after = _wanted_wait(fault)
        headers = answer.headers if after is None else {**answer.headers, "retry-after": f"{after:.3f}"}
        return Answer(429, answer.body, headers)


def fault_of(answer: Answer) -> Fault:
    """What the body of an answer says went wrong; nothing but the status where it is no error of Google's."""
    try:
        body = answer.json()
    except ProtocolError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    return fault_in(error, answer.status)


def fault_in(error: Any, status: int = 0) -> Fault:
    """The same of an error object, such as the one of a partial failure."""
    error = error if isinstance(error, dict) else {}
    details = tuple(_objects(error.get("details")))
    violations = tuple(
        Violation(str(each.get("field", "")), str(each.get("reason", "")), str(each.get("description", "")))
        for detail in details
        for each in _objects(detail.get("fieldViolations"))
    )
    reasons = [
        *(each.get("reason") for each in _objects(error.get("errors"))),
        *(detail.get("reason") for detail in details),
        *(violation.reason for violation in violations),
        *(code for detail in details for each in _objects(detail.get("errors")) for code in codes_of(each)),
    ]
    return Fault(
        status,
        _word(error.get("status")),
        str(error.get("message") or ""),
        tuple(dict.fromkeys(word for reason in reasons if (word := _word(reason)))),
        violations,
        details,
    )


def codes_of(error: Mapping[str, Any]) -> list[str]:
    """The codes of one error of an API's own failure: `{"errorCode": {"conversionUploadError": "EXPIRED_EVENT"}}`."""
    found = error.get("errorCode")
    return [word for value in found.values() if (word := _word(value))] if isinstance(found, dict) else []


def camel(value: Any) -> Any:
    """Names of fields as JSON has them (`userData`), where columns may have brought them as the protos do."""
    if isinstance(value, dict):
        return {_camel_name(name): camel(each) for name, each in value.items()}
    return [camel(each) for each in value] if isinstance(value, list) else value


def settings_of(connection: Connection, known: Mapping[str, type], required: tuple[str, ...]) -> dict[str, Any]:
    """The stream's own `settings:`, their names as JSON has them. Raises ConfigError, which names the wrong key."""
    given = connection.options.get("settings") or {}
    if not isinstance(given, Mapping):
        raise ConfigError("`settings:` is no mapping", cure=f"write {', '.join(required)} below settings")
    settings = {_camel_name(str(name)): _with_text_ids(camel(value)) for name, value in given.items()}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"settings.{name} is not known here", cure=f"use one of {', '.join(sorted(known))}")
        if not isinstance(value, known[name]):
            raise ConfigError(f"settings.{name} has another form", cure=f"write a {known[name].__name__}")
    for name in required:
        if not settings.get(name):
            raise ConfigError(f"settings.{name} is missing", cure=f"set {name} below settings")
    return settings


def is_hashed(value: Any, encoding: str = "HEX") -> bool:
    """Whether a text can be a SHA-256 in this encoding: what cannot does not leave for an ad platform."""
    form = _BASE64 if encoding == "BASE64" else _HEX
    return isinstance(value, str) and form.fullmatch(value) is not None


def unhashed(identifiers: Iterable[Any], encoding: str = "HEX") -> str:
    """Where in a list of user identifiers something stands that is not hashed and should be, such as
    `[1].addressInfo.hashedFirstName`; empty if nowhere."""
    for place, each in enumerate(identifiers):
        for path, value in _leaves(each, f"[{place}]"):
            name = path.rpartition(".")[2]
            plain = isinstance(value, str) and "@" in value
            if plain or (name in HASHED and value is not None and not is_hashed(value, encoding)):
                return path
    return ""


def words_of(message: str, content: Any) -> str:
    """An API's own words, without anything that was sent to it."""
    return without_persons(message, _texts(content))


def whole(value: Any) -> int:
    """A count of an answer, which JSON carries as a text; 0 where there is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else 0


def _wanted_wait(fault: Fault) -> float | None:
    for detail in fault.details:
        inner = [each.get("details") for each in _objects(detail.get("errors"))]
        quotas = [each.get("quotaErrorDetails") for each in inner if isinstance(each, dict)]
        for each in (detail, *quotas):
            delay = each.get("retryDelay") if isinstance(each, dict) else None
            if isinstance(delay, str) and (found := _DELAY.fullmatch(delay)):
                return float(found[1])
    limits = [str(metadata.get("quota_limit")) for metadata in (each.get("metadata") for each in fault.details)
              if isinstance(metadata, dict)]  # fmt: skip
    return DAY_IS_OVER if any(_DAILY.search(text) for text in (*fault.reasons, *limits)) else None


def _with_text_ids(value: Any) -> Any:
    """YAML takes an id for a number, and the APIs take it as a text only."""
    if isinstance(value, dict):
        return {name: _with_text_ids(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_text_ids(each) for each in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, path)
    else:
        yield path, value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
    elif not isinstance(value, bool | None):
        yield str(value)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else iter(())


def _word(value: Any) -> str:
    """A reason or a code, which a machine made; anything else could quote what was sent."""
    return value if isinstance(value, str) and _REASON.fullmatch(value) else ""


def _camel_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each[:1].upper() + each[1:] for each in others)
