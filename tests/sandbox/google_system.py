"""What the fakes of Google's APIs have in common: the bearer token, the form of errors, and quotas per minute and day.

All of them take one token, as one account of Google calls them all. Nobody works in them by hand.
"""

import random
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from tests.sandbox.system import Answer, Request, Row, Setup, System, Window, answer

DAY = 86_400.0
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


class Refused(Exception):
    """The answer is this error: status, message, details."""

    def __init__(self, status: int, message: str, *details: Row) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, details


class Quota:
    """So many requests in any sliding minute, and in a day that ends at midnight of UTC; None for no limit."""

    def __init__(self, per_minute: int | None, per_day: int | None) -> None:
        self.per_minute, self.per_day = per_minute, per_day
        self._window = Window()
        self.days: Counter[int] = Counter()

    def take(self, now: float) -> str:
        """Which of the two is used up ("minute", "day"), or nothing."""
        if self.per_day is not None and self.days[int(now // DAY)] >= self.per_day:
            return "day"
        if self.per_minute is not None and self._window.count(now) >= self.per_minute:
            return "minute"
        self._window.add(now)
        self.days[int(now // DAY)] += 1
        return ""

    def limit(self, **most: int | None) -> None:
        """Sets `per_minute` and `per_day` from here on, as far as they are given."""
        if unknown := most.keys() - {"per_minute", "per_day"}:
            raise ValueError(f"a quota has per_minute and per_day, and no {', '.join(unknown)}")
        self.per_minute = most.get("per_minute", self.per_minute)
        self.per_day = most.get("per_day", self.per_day)


class GoogleSystem(System):
    """One of Google's APIs."""

    domain = "googleapis.com"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        chance = random.Random(f"{setup.seed} google")
        self.token = "ya29." + "".join(chance.choices(string.ascii_letters, k=40))

    def authorised(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.token}"

    def error(self, status: int, message: str) -> Answer:
        return self.failure(Refused(status, message))

    def failure(self, refused: Refused) -> Answer:
        body = {"code": refused.status, "message": refused.message, "status": STATUSES[refused.status]}
        if refused.details:
            body["details"] = list(refused.details)
        return answer(refused.status, {"error": body})

    def respond(self, request: Request) -> Answer:
        try:
            body = msgspec.json.decode(request.body or b"{}", type=Row)
            return answer(200, self.carried_out(request, body))
        except msgspec.DecodeError:
            return self.error(400, "Invalid JSON payload received.")
        except Refused as refused:
            return self.failure(refused)

    def carried_out(self, request: Request, body: Row) -> Any:
        """The documented answer's body. Raises Refused."""
        raise NotImplementedError

    def identity(self, row: Row) -> tuple[int, str | None]:
        return 0, None

    def edit(self, count: int, seed: int) -> list[Row]:
        raise ValueError(f"nobody edits by hand what {self.name} holds")

    def delete(self, count: int, seed: int) -> list[Row]:
        raise ValueError(f"nobody deletes by hand what {self.name} holds")

    def add(self, count: int) -> list[Row]:
        raise ValueError(f"nobody adds by hand to what {self.name} holds")


class Target(GoogleSystem):
    """An API that takes records. Those that hold one of the values of `refused` are refused, each for its code.

    `received` are the records of all requests, whatever became of them.
    """

    usual_code: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.received = 0
        self.refused: dict[str, str] = {}

    @property
    def hands(self) -> Mapping[str, Callable[[Row], Row]]:
        return {"refuse": self._refuse, "mend": self._mend}

    def code_of(self, record: Any) -> str:
        """What the record is to be refused for, or nothing."""
        return next((self.refused[text] for text in _texts(record) if text in self.refused), "") if self.refused else ""

    def _refuse(self, body: Row) -> Row:
        values = _values(body["values"])
        self.refused |= dict.fromkeys(values, str(body.get("code") or self.usual_code))
        return {"refused": len(self.refused)}

    def _mend(self, body: Row) -> Row:
        for value in _values(body["values"]) if "values" in body else list(self.refused):
            self.refused.pop(value, None)
        return {"refused": len(self.refused)}


def more_than_once(times: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    """How often what came again came, by what it is known by."""
    return {" ".join(key): count for key, count in times.items() if count > 1}


def _values(given: Any) -> list[str]:
    if not isinstance(given, list):
        raise ValueError("values is a list of texts or numbers")
    return [str(each) for each in given]


def _texts(value: Any) -> Iterator[str]:
    """Every value in a record, however deep, as text."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
    else:
        yield str(value)


def info(reason: str, domain: str, **metadata: str) -> Row:
    """The standard detail with a machine-readable reason."""
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": domain,
        "metadata": metadata,
    }


def bad_request(violations: Sequence[Row]) -> Row:
    """The standard detail with the fields that were refused."""
    return {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": list(violations)}
