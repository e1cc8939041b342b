"""Every ordinary call to an outside system: one pooled client with time-outs, bounded retries and translated errors.

What a failure means is decided here once, for this client and for the concurrent one in `infra/burst.py`:

- certainly not taken (no connection, 429, 503): TransientError, tried again by policy;
- may have been taken (connection lost or silent after the request was written, 500, 502, 504): the same if the request
  is repeatable, otherwise InDoubtError, and never tried again here;
- credentials refused (401, 403): AuthError;
- anything else is an Answer, whatever its status, and the caller's to judge. Redirects are not followed.

Addresses in messages are redacted; bodies and headers never stand in one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from json import loads
from ssl import SSLCertVerificationError
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
import requests
import requests.exceptions as of_requests
import urllib3.exceptions as of_urllib3
from requests.adapters import HTTPAdapter

from infra.pace import Pace
from shared.errors import (
    RATE_LIMITED,
    UNREACHABLE,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
    WaybillError,
)
from shared.ports import Clock
from shared.retry import RetryPolicy

BODY_LIMIT: Final = 64 * 1024 * 1024
PIECE: Final = 1 << 16
LONGEST_RETRY_AFTER: Final = 86_400.0
POOL_SIZE: Final = 16

_SAFE_IN_QUERY: Final = "$,()'/:@="
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class InDoubtError(WaybillError):
    """The request was, or may have been, written and no usable answer came: it may or may not have taken effect."""

    cure = "look at the target before anything is sent again"


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came back. Header names are in lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = {}

    def json(self) -> Any:
        """Raises ProtocolError if the body is not JSON."""
        try:
            return _decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._lenient_json()

    def _lenient_json(self) -> Any:
        """As `json`, but takes a text with half a character in it, so that one such record does not lose its page."""
        try:
            return loads(self.body, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"an answer {self.status} of {len(self.body)} bytes is not JSON") from error


class Content(msgspec.Struct, frozen=True):
    """A body that is no JSON, and its media type."""

    kind: str
    data: bytes


class Download(io.RawIOBase):
    """The body of an answer as it comes, never whole in memory. `head` is the answer without it; of an answer that is
    no success it is the whole one, and nothing is left to read. Reads raise TransientError where it breaks off."""

    def __init__(self, head: Answer, response: requests.Response | None = None, what: str = "") -> None:
        self.head = head
        self._response = response
        self._what = what
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and self._response is not None:
            try:
                self._piece = memoryview(self._response.raw.read1(PIECE, decode_content=True))
            except (requests.RequestException, of_urllib3.HTTPError) as error:
                raise translated(error, True, self._what) from error
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        super().close()


A = TypeVar("A", Answer, Download)


class Http:
    """A client of one system. `timeout` is (to connect, between two bytes) in seconds. Threads may share it."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        pace: Pace,
        retry: RetryPolicy,
        clock: Clock,
        timeout: tuple[float, float] = (5.0, 30.0),
        secrets: Sequence[str] = (),
    ) -> None:
        """Raises ConfigError for an address or a header that no request can carry."""
        self.base_url = checked_url(base_url)
        self.pace = pace
        self._retry = retry
        self._clock = clock
        self._timeout = timeout
        self._secrets = tuple(secrets)
        self._date: tuple[datetime, float] | None = None
        self._session = requests.Session()
        # Neither proxies nor .netrc nor certificates from the environment, and no state between calls.
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"User-Agent": "waybill", **checked_headers(headers)})
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(POOL_SIZE, POOL_SIZE, max_retries=0))

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        content: Content | None = None,
        repeatable: bool,
    ) -> Answer:
        """The answer, after as many tries as the policy allows and harmlessness permits.

        `repeatable` says that sending it twice does no more than sending it once. Raises TransientError (nothing took
        effect that a repeat would do again), InDoubtError, AuthError, ProtocolError or ConfigError.
        """
        url = self.base_url + path
        if params:
            url += "?" + urlencode(params, quote_via=quote, safe=_SAFE_IN_QUERY)
        what = f"{method} {redact(url, self._secrets)}"
        body = content if json is None else Content("application/json", _encode(json))

        def judged() -> tuple[Answer, WaybillError | None]:
            answer = self._exchange(method, url, body, what, repeatable)
            return answer, failure_of(answer, repeatable, what, self._clock.now())

        return self._tried(judged)

    def download(self, path: str) -> Download:
        """As a repeatable GET, but the body of a success is left to be read. To be closed by the caller."""
        url = self.base_url + path
        what = f"GET {redact(url, self._secrets)}"

        def judged() -> tuple[Download, WaybillError | None]:
            download = self._begun(url, what)
            return download, failure_of(download.head, True, what, self._clock.now())

        return self._tried(judged)

    def _tried(self, judged: Callable[[], tuple[A, WaybillError | None]]) -> A:
        """What is given without an error, by as many tries as the policy allows."""
        attempt = 0
        while True:
            attempt += 1
            self.pace.acquire()
            error: WaybillError | None
            try:
                given, error = judged()
            except TransientError as lost:
                error = lost
            if error is None:
                return given
            if not isinstance(error, TransientError):
                raise error
            wait = self._retry.next_wait(attempt, error.after, self._clock.random)
            if error.number == RATE_LIMITED:
                self.pace.hold(error.after or wait or self._retry.wait)
            if wait is None:
                raise error
            self.pace.pause(wait)

    def server_now(self) -> datetime | None:
        """The other side's clock, from the Date of its last answer; None before the first one that carried a Date."""
        if self._date is None:
            return None
        date, at = self._date
        return date + timedelta(seconds=self._clock.monotonic() - at)

    def close(self) -> None:
        self._session.close()

    def _exchange(self, method: str, url: str, body: Content | None, what: str, repeatable: bool) -> Answer:
        try:
            with self._sent(method, url, body) as response:
                answer = Answer(response.status_code, self._body_of(response), _fields(response))
        except (requests.RequestException, of_urllib3.HTTPError) as error:
            raise translated(error, repeatable, what) from error
        self._note_date(answer)
        return answer

    def _begun(self, url: str, what: str) -> Download:
        try:
            response = self._sent("GET", url, None)
            if 200 <= response.status_code < 300:
                found = Download(Answer(response.status_code, b"", _fields(response)), response, what)
            else:
                with response:
                    found = Download(Answer(response.status_code, self._body_of(response), _fields(response)))
        except (requests.RequestException, of_urllib3.HTTPError) as error:
            raise translated(error, True, what) from error
        self._note_date(found.head)
        return found

    def _sent(self, method: str, url: str, body: Content | None) -> requests.Response:
        headers, data = (None, None) if body is None else ({"Content-Type": body.kind}, body.data)
        return self._session.request(
            method, url, data=data, headers=headers, timeout=self._timeout, allow_redirects=False, stream=True
        )

    def _note_date(self, answer: Answer) -> None:
        date = http_date(answer.headers.get("date", ""))
        if date is not None:
            self._date = (date, self._clock.monotonic())

    def _body_of(self, response: requests.Response) -> bytes:
        latest = self._clock.monotonic() + 10 * self._timeout[1]
        parts: list[bytes] = []
        size = 0
        for part in response.iter_content(PIECE):
            parts.append(part)
            size += len(part)
            if size > BODY_LIMIT:
                raise of_requests.ContentDecodingError(f"more than {BODY_LIMIT} bytes")
            # The time-out is for the silence between two bytes; a trickle would never meet it.
            if self._clock.monotonic() > latest:
                raise of_requests.ReadTimeout("the answer does not end")
        return b"".join(parts)


def _fields(response: requests.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def failure_of(answer: Answer, repeatable: bool, what: str, now: datetime) -> WaybillError | None:
    """What the status of an answer means if it is a failure of the call itself, None if the caller is to judge it."""
    status = answer.status
    if status < 400:
        return None
    if status in (401, 403):
        return AuthError(f"{what} answered {status}: credentials refused")
    after = retry_after(answer.headers, now)
    if status == 429:
        return TransientError(f"{what} answered 429", after=after, number=RATE_LIMITED, http_status=status)
    if status == 503 or (status >= 500 and repeatable):
        return TransientError(f"{what} answered {status}", after=after, http_status=status)
    if status >= 500:
        return InDoubtError(f"{what} answered {status}")
    return None


Effect = Literal["none", "doubt", "misuse"]

# fmt: off
EFFECTS: Final[dict[type[BaseException], Effect]] = {
    **dict.fromkeys(
        (
            SSLCertVerificationError, of_requests.ConnectTimeout, of_requests.ProxyError,
            of_urllib3.NewConnectionError, of_urllib3.NameResolutionError, of_urllib3.ConnectTimeoutError,
            of_urllib3.ProxyError, of_urllib3.EmptyPoolError, of_urllib3.FullPoolError, of_urllib3.ClosedPoolError,
        ),
        "none",
    ),
    **dict.fromkeys(
        (
            of_requests.URLRequired, of_requests.MissingSchema, of_requests.InvalidSchema, of_requests.InvalidURL,
            of_requests.InvalidHeader, of_requests.InvalidProxyURL, of_urllib3.LocationValueError,
            of_urllib3.LocationParseError, of_urllib3.URLSchemeUnknown, of_urllib3.ProxySchemeUnknown,
            of_urllib3.ProxySchemeUnsupported,
        ),
        "misuse",
    ),
    **dict.fromkeys(
        (
            of_requests.RequestException, of_requests.InvalidJSONError, of_requests.JSONDecodeError,
            of_requests.HTTPError, of_requests.ConnectionError, of_requests.SSLError, of_requests.Timeout,
            of_requests.ReadTimeout, of_requests.TooManyRedirects, of_requests.ChunkedEncodingError,
            of_requests.ContentDecodingError, of_requests.StreamConsumedError, of_requests.RetryError,
            of_requests.UnrewindableBodyError, of_urllib3.HTTPError, of_urllib3.PoolError, of_urllib3.RequestError,
            of_urllib3.SSLError, of_urllib3.DecodeError, of_urllib3.ProtocolError, of_urllib3.MaxRetryError,
            of_urllib3.HostChangedError, of_urllib3.TimeoutStateError, of_urllib3.TimeoutError,
            of_urllib3.ReadTimeoutError, of_urllib3.ResponseError, of_urllib3.ResponseNotChunked,
            of_urllib3.BodyNotHttplibCompatible, of_urllib3.IncompleteRead, of_urllib3.InvalidChunkLength,
            of_urllib3.InvalidHeader, of_urllib3.HeaderParsingError, of_urllib3.UnrewindableBodyError,
        ),
        "doubt",
    ),
}
# fmt: on
"""Whether a request that ended so may have taken effect. Wrappers are in doubt; what they wrap may know better."""


def effect_of(error: BaseException) -> Effect:
    """The effect by the innermost error that is certain of it."""
    seen: BaseException | None = error
    while seen is not None:
        effect = EFFECTS.get(type(seen), "doubt")
        if effect != "doubt":
            return effect
        inner = seen.reason if isinstance(seen, of_urllib3.MaxRetryError) else next(iter(seen.args), None)
        seen = inner if isinstance(inner, BaseException) else None
    return "doubt"


def translated(error: Exception, repeatable: bool, what: str) -> WaybillError:
    """A failure without an answer in our words. Says the kind of error only: its text may hold the whole address."""
    effect = effect_of(error)
    kind = type(error).__name__
    if effect == "misuse":
        return ConfigError(f"{what} cannot be sent ({kind})")
    if effect == "none":
        return TransientError(f"{what}: no connection ({kind})", number=UNREACHABLE)
    if repeatable:
        return TransientError(f"{what}: no answer ({kind})", number=UNREACHABLE)
    return InDoubtError(f"{what}: no answer ({kind})")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the answer asks to wait, given as such or as a date by the answer's own clock; a day at most."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        seconds = float(text)
    else:
        date = http_date(text)
        if date is None:
            return None
        seconds = (date - (http_date(headers.get("date", "")) or now)).total_seconds()
    return max(0.0, min(seconds, LONGEST_RETRY_AFTER))


def http_date(text: str) -> datetime | None:
    """A date of HTTP in UTC, None for anything else."""
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


_PRIVATE_NAME: Final = re.compile(
    r"key|token|secret|pass|senha|auth|sign|credential|doc|cpf|cnpj|register|mail|phone|fone|celular|name|nome", re.I
)
_PRIVATE_VALUE: Final = re.compile(r"'[^']*'|\d[\d./-]{9,}\d|[^\s/]+@[^\s/]+")
_MASK: Final = "***"


def redact(url: str, secrets: Sequence[str] = ()) -> str:
    """An address for people and logs: without password, secrets, documents, mail addresses and quoted texts."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return _MASK
    query = "&".join(
        f"{name}={_MASK if _PRIVATE_NAME.search(name) else quote(_mask(value), safe=_SAFE_IN_QUERY + '* ')}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    text = f"{parts.scheme}://{host}{_mask(parts.path)}" + (f"?{query}" if query else "")
    for secret in secrets:
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, _MASK) if form else text
    return text


def _mask(text: str) -> str:
    return _PRIVATE_VALUE.sub(_MASK, text)


def checked_url(base_url: str) -> str:
    """The address without its last slash. Raises ConfigError unless it is http or https with a host."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        usable = usable and parts.port != 0 and base_url.isascii() and base_url.isprintable() and " " not in base_url
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{redact(base_url)!r} is not an address such as https://host")
    return base_url.rstrip("/")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, if they can be sent. Raises ConfigError, which names the header and never its value."""
    for name, value in headers.items():
        if not value or value != value.strip() or not value.isascii() or not value.isprintable():
            raise ConfigError(f"the value for the header {name} is empty or holds a character that cannot be sent")
    return dict(headers)
