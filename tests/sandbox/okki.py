"""A fake of the OKKI (Xiaoman) open API: tokens, users, departments, companies and orders, in its three list shapes.

Not known of the real one and chosen here: a token that is asked for again while it lives is the same one, with what is
left of its life (documented is only that asking again does not prolong it); a missing scope is refused like an expired
token, with the documented message; query parameters that no page documents are ignored, since a public integration
sends two of them (`code`, `now`) to the list of users; a window takes its first instant in and leaves its last one out;
more than 100 rows a page are never given; lists are ordered by id; companies and orders are as many as the sandbox has
customers, and one in forty of them is deleted.
"""

import hashlib
import random
import string
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import msgspec

from tests.sandbox.okki_staff import DELETED, FROZEN, NORMAL, Departments, Users
from tests.sandbox.system import Answer, Divided, Request, Row, Setup, answer

CHINA = timezone(timedelta(hours=8))
LIFE = 28_800
LARGEST_PAGE = 100
SCOPES = frozenset(
    ("product", "company", "lead", "opportunity", "invoices", "user", "costInvoice", "paymentInvoice",
     "purchaseOrder", "warehouse", "capitalAccount", "webhook")
)  # fmt: skip
FAILURES = ((404, "Not Found Resource"), (-1, "validation failed"))
"""What `envelope_errors` answers: the documented codes that do not say that the query is wrong."""
TIMES = {"1": "update_time", "2": "create_time", "3": "order_time"}


class OAuthError(ValueError):
    """A token is not given; the arguments are the documented error and its description."""


class Refused(ValueError):
    """A business error: the arguments are the code in the envelope and its message."""


class Token(msgspec.Struct):
    """A token that was given: for whom, for what, until when, and how often it was used."""

    text: str
    scopes: frozenset[str]
    ends: float
    refresh: str = ""
    used: int = 0


class Okki(Divided):
    """A CRM with users in departments. `tokens` holds every token that was given, the newest last."""

    name: ClassVar[str] = "okki"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._chance = random.Random(f"{setup.seed} okki")
        self.client_id = self._word(12)
        self.client_secret = self._word(32)
        self.username, self.password = "admin@example.com", self._word(16)
        self.tokens: dict[str, Token] = {}
        self.departments = Departments(setup.seed, setup.departments)
        self.users = Users(setup.seed, self.departments, setup.users, setup.same_nicknames)
        self.parts = {"users": self.users, "departments": self.departments}
        self._setup = setup

    @cached_property
    def companies(self) -> list[Row]:
        return [self._dated({"company_id": 31_000_000 + n, "serial_id": str(n)}, n) for n in self._numbers]

    @cached_property
    def orders(self) -> list[Row]:
        return [self._dated({"order_id": 52_000_000 + n, "order_no": f"SO{n:06d}"}, n) for n in self._numbers]

    def environment(self, url: str) -> dict[str, str]:
        return {"OKKI_URL": url, "OKKI_CLIENT_ID": self.client_id, "OKKI_CLIENT_SECRET": self.client_secret}

    def authorised(self, request: Request) -> bool:
        if request.path.startswith("/v1/oauth2/"):
            return True
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        token = self.tokens.get(text)
        if scheme != "Bearer" or token is None:
            return False
        token.used += 1
        return self._lives(token)

    def error(self, status: int, message: str) -> Answer:
        if status == 401:
            body = {"error": "access_denied", "error_description": "The resource owner or authorization server denied"}
            return answer(200 if self.faults["denied_body"] else 401, body | {"message": message})
        return answer(status, {"code": status, "message": message, "now": self._now(), "data": None})

    def stats(self) -> dict[str, Any]:
        """As for every system, with the users per state, the nicknames that several have (frozen and deleted ones
        aside), the departments, and the tokens that were given."""
        with self.lock:
            nicknames = Counter(user["nickname"] for user in self.users.of_state(NORMAL))
            return super().stats() | {
                "repeated_nicknames": {name: count for name, count in nicknames.items() if count > 1},
                "users": {flag: len(self.users.of_state(flag)) for flag in (NORMAL, FROZEN, DELETED)},
                "departments": len(self.departments.ids()),
                "tokens": len(self.tokens),
            }

    def respond(self, request: Request) -> Answer:
        path = request.path
        if path in ("/v1/oauth2/access_token", "/v1/oauth2/refresh_token") and request.method == "POST":
            try:
                fields = _fields(request)
                given = self._grant(fields) if path.endswith("access_token") else self._renewed(fields)
                return answer(200, given)
            except OAuthError as refusal:
                error, description = refusal.args
                return answer(400, {"error": error, "error_description": description, "message": description})
        module = path.removeprefix("/v1/").partition("/")[0]
        if module not in self.tokens[request.headers["authorization"].partition(" ")[2]].scopes:
            return self.error(401, f"no permission {module} scopes")
        if self.strikes("envelope_errors"):
            code, message = self.random.choice(FAILURES)
            return self._envelope(code, message, None)
        try:
            return self._envelope(0 if self.faults["code_zero"] else 200, "success", self._data(request))
        except Refused as refusal:
            return self._envelope(refusal.args[0], refusal.args[1], None)

    def _data(self, request: Request) -> Any:
        query = request.query
        match request.method, request.path:
            case "GET", "/v1/user/list":
                flag = query.get("enable_flag", NORMAL)
                if flag not in (FROZEN, NORMAL, DELETED):
                    raise Refused(400, "invalid query: enable_flag")
                return self.users.of_state(flag)
            case "GET", "/v1/user/info":
                names = ("user_id", "email", "nickname", "full_name")
                user = _first(self.users.rows(), {name: query[name] for name in names if name in query})
                return user | {"is_admin": 0, "wx_nickname": ""}
            case "GET", "/v1/user/departmentList":
                rows = self.departments.rows()
                return {"list": rows, "count": len(rows)}
            case "GET", "/v1/user/departmentInfo":
                called = {"department_id": "id", "department_name": "name"}
                wanted = {name: query[given] for given, name in called.items() if given in query}
                return _first(self.departments.rows(), wanted)
            case "GET", "/v1/company/list":
                rows, total = self._page(self.companies, query)
                return {"list": rows, "totalItem": total, "count": total}
            case "GET", "/v1/invoices/order/list":
                rows, total = self._page(self.orders, query)
                return {"list": rows, "count": total}
        raise Refused(404, "Not Found Resource")

    def _page(self, rows: list[Row], query: Any) -> tuple[list[Row], int]:
        """`start_index` counts pages from 1, whatever its name says; a page past the end is empty."""
        removed, kind = query.get("removed", "0"), TIMES.get(query.get("time_type", "1"))
        try:
            number, size = int(query.get("start_index", 1)), int(query.get("count", 10))
            since, until = (_text_of(query.get(name)) for name in ("start_time", "end_time"))
        except ValueError:
            raise Refused(400, "invalid query") from None
        if number < 1 or size < 1 or removed not in ("0", "1") or kind is None:
            raise Refused(400, "invalid query")
        size = min(size, LARGEST_PAGE)
        found = [
            row["shown"]
            for row in rows
            if row["removed"] == removed
            and (not since or row["shown"][kind] >= since)
            and (not until or row["shown"][kind] < until)
        ]
        return found[(number - 1) * size : number * size], len(found)

    @property
    def _numbers(self) -> range:
        return range(1, self._setup.customers + 1)

    def _dated(self, fields: Row, number: int) -> Row:
        """One of the year before the day of the sandbox; every eighth shares its instants with the one before it."""
        chance = random.Random(f"{self._setup.seed} okki {number - (number % 8 == 1)}")
        midnight = self._setup.now.astimezone(CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
        created = midnight - timedelta(seconds=chance.randrange(86_400, 365 * 86_400))
        updated = created + timedelta(seconds=chance.randrange(int((midnight - created).total_seconds())))
        shown = fields | {
            "name": f"公司{number}",
            "create_time": _china(created),
            "update_time": _china(updated),
            "order_time": _china(updated),
        }
        return {"shown": shown, "removed": "1" if number % 40 == 0 else "0"}

    def _grant(self, fields: dict[str, str]) -> Row:
        match fields.get("grant_type"):
            case "client_credentials":
                self._check_client(fields)
            case "password":
                self._check_client(fields)
                hashed = hashlib.sha256(self.password.encode()).hexdigest()
                if (fields.get("username"), fields.get("password")) != (self.username, hashed):
                    raise OAuthError("invalid_credentials", "The user credentials were incorrect.")
            case None:
                raise OAuthError("invalid_request", "The request is missing a required parameter: grant_type")
            case _:
                raise OAuthError("unsupported_grant_type", "The authorization grant type is not supported.")
        scopes = frozenset(fields.get("scope", "").split())
        if not scopes or scopes - SCOPES:
            raise OAuthError("invalid_scope", "The requested scope is invalid, unknown, or malformed.")
        return self._given(scopes, refreshable=fields["grant_type"] == "password")

    def _renewed(self, fields: dict[str, str]) -> Row:
        self._check_client(fields)
        old = next((each for each in self.tokens.values() if each.refresh == fields.get("refresh_token", "-")), None)
        if old is None or fields.get("grant_type") != "refresh_token":
            raise OAuthError("invalid_grant", "The refresh token is invalid.")
        old.ends = self.clock()
        return self._given(old.scopes, refreshable=True)

    def _check_client(self, fields: dict[str, str]) -> None:
        if (fields.get("client_id"), fields.get("client_secret")) != (self.client_id, self.client_secret):
            raise OAuthError("invalid_client", "Client authentication failed")

    def _given(self, scopes: frozenset[str], *, refreshable: bool) -> Row:
        scopes = scopes - {"user"} if self.faults["no_user_scope"] else scopes
        token = next((each for each in self.tokens.values() if each.scopes == scopes and self._lives(each)), None)
        if token is None or bool(token.refresh) != refreshable:
            life = self.faults["token_life"] or LIFE
            token = Token(self._word(64), scopes, self.clock() + life, self._word(64) if refreshable else "")
            self.tokens[token.text] = token
        given: Row = {"token_type": "Bearer", "access_token": token.text}
        if not self.faults["no_expires_in"]:
            # What the answer says stays true to the documents; an early end is what a client has to find out.
            given["expires_in"] = LIFE if self.faults["token_life"] else round(token.ends - self.clock())
        return given | ({"refresh_token": token.refresh} if refreshable else {})

    def _lives(self, token: Token) -> bool:
        uses = self.faults["token_uses"]
        return self.clock() < token.ends and (not uses or token.used <= uses)

    def _envelope(self, code: int, message: str, data: Any) -> Answer:
        return answer(200, {"code": code, "message": message, "now": self._now(), "data": data})

    def _now(self) -> str:
        return _china(datetime.fromtimestamp(self.clock(), UTC))

    def _word(self, length: int) -> str:
        return "".join(self._chance.choices(string.ascii_letters + string.digits, k=length))


def _fields(request: Request) -> dict[str, str]:
    """The fields of a JSON or a form body, whichever it is."""
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            return msgspec.json.decode(request.body, type=dict[str, str])
        except msgspec.DecodeError:
            raise OAuthError("invalid_request", "The request is malformed.") from None
    return dict(parse_qsl(request.body.decode(errors="replace")))


def _first(rows: list[Row], wanted: Row) -> Row:
    for row in rows:
        if wanted and all(str(row[name]) == value for name, value in wanted.items()):
            return row
    raise Refused(404, "Not Found Resource")


def _china(instant: datetime) -> str:
    return instant.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")


def _text_of(text: str | None) -> str:
    """A date, or a date and a time, as it compares with the time of a row."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S") if text else ""
