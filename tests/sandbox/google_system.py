"""What the fakes of Google's APIs have in common: the bearer token, the form of errors, and quotas per minute and day.

All of them take one token, as one account of Google calls them all. Nobody works in them by hand.
"""

import random
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

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
