"""What every fake system has in common: key check, rate limit, fault switches and a count of what was asked.

A system knows requests and answers as values and nothing of sockets, so it can be tested without a server.
"""

import random
import re
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from threading import RLock
from typing import Any, ClassVar

import msgspec

from tests.sandbox.faults import Faults

Row = dict[str, Any]
MINUTE = 60.0
PASSING_ERRORS = ((503, "Service Unavailable"), (502, "Bad Gateway"), (500, "Internal Server Error"))


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    kind: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def answer(status: int, value: object) -> Answer:
    """An answer whose body is the value as JSON."""
    return Answer(status, msgspec.json.encode(value))


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970 that never jump, so that a corrected system clock cannot bend the rate limit."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a system is built from: what is there from the beginning (`customers`, of them `invalid`, `duplicates`
    and `undocumented`, `tasks` and `interactions` in Ploomes, `clients` in Milvus, `users` in OKKI, of whom
    `same_nicknames` have another's nickname, and its `departments` beside the root, `conversions` in BigQuery), and how
    it behaves.

    `limits` is requests per minute by system name, None for no limit, and `quotas` what else a system is told by
    `System.limit`; `documents` are those given to anybody, so that no two populations have one in common by chance.
    """

    seed: int = 1
    customers: int = 100
    invalid: int = 0
    duplicates: int = 0
    undocumented: int = 0
    tasks: int = 0
    interactions: int = 0
    clients: int = 0
    users: int = 0
    departments: int = 0
    same_nicknames: int = 0
    conversions: int = 0
    documents: set[str] = field(default_factory=set)
    limits: Mapping[str, int | None] = field(default_factory=dict)
    quotas: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    clock: Callable[[], float] = field(default_factory=steady_clock)
    sleep: Callable[[float], object] = time.sleep

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


class Window:
    """Counts events in the sliding minute (now - 60 s, now] and remembers the largest count ever."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.largest = 0

    def count(self, now: float) -> int:
        while self._times and self._times[0] <= now - MINUTE:
            self._times.popleft()
        return len(self._times)

    def add(self, now: float) -> None:
        self._times.append(now)
        self.largest = max(self.largest, self.count(now))


class Part(ABC):
    """Rows of one kind, and the hands of somebody who works on them in the system itself.

    The id of a row is what the system's API addresses it by.
    """

    @abstractmethod
    def rows(self) -> list[Row]:
        """Everything there is."""

    @abstractmethod
    def edit(self, count: int, seed: int) -> list[Row]:
        """Changes so many rows, as somebody working in the system would; returns them."""

    @abstractmethod
    def delete(self, count: int, seed: int) -> list[Row]:
        """Deletes so many rows; returns what they were."""

    @abstractmethod
    def add(self, count: int) -> list[Row]:
        """Adds so many rows, dated now; returns them."""

    @abstractmethod
    def identity(self, row: Row) -> tuple[int, str | None]:
        """The row's id and its document, None for a kind that has none."""

    def change(self, ids: Sequence[int], fields: Row) -> list[Row]:
        """Sets these fields of these rows; returns them. KeyError or ValueError before anything is changed."""
        raise ValueError("fields of these rows cannot be set from outside")

    def remove(self, ids: Sequence[int]) -> list[Row]:
        """Deletes these rows; returns what they were."""
        raise ValueError("these rows cannot be deleted by id")


class System(Part):
    """An outside system, itself the part that is meant when no kind is named. `lock` guards everything; who reads
    the state directly holds it."""

    name: ClassVar[str]

    def __init__(self, setup: Setup) -> None:
        self.lock = RLock()
        self.clock = setup.clock
        self.per_minute = setup.limits.get(self.name)
        self.faults = Faults()
        self.random = random.Random(f"{setup.seed} {self.name} faults")
        self.struck: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.windows = {"all": Window(), "accepted": Window(), "refused": Window()}
        self._sleep = setup.sleep
        self._asked_since_faults = 0

    @abstractmethod
    def environment(self, url: str) -> dict[str, str]:
        """The variables that point Waybill at this system, served at that URL."""

    @abstractmethod
    def authorised(self, request: Request) -> bool:
        """Whether the request carries this system's key in the way its vendor wants it."""

    @abstractmethod
    def respond(self, request: Request) -> Answer:
        """The documented answer; called under the lock."""

    @abstractmethod
    def error(self, status: int, message: str) -> Answer:
        """An error in this vendor's form."""

    def part(self, kind: str | None) -> Part:
        """The rows of that kind; ValueError if the system has none such."""
        if kind is not None:
            raise ValueError(f"{self.name} has no kinds of rows")
        return self

    @property
    def hands(self) -> Mapping[str, Callable[[Row], Row]]:
        """What else can be done in this system from outside, by the name of its endpoint."""
        return {}

    def limit(self, **most: int | None) -> None:
        """Allows so much from here on, None for any number: `per_minute`. ValueError for what has no limit here."""
        if most.keys() != {"per_minute"}:
            raise ValueError(f"the limit of {self.name} is per_minute")
        self.per_minute = most["per_minute"]

    def reads(self, request: Request) -> bool:
        """Whether the request changes nothing: those are never dropped, but may be answered with nonsense."""
        return request.method == "GET"

    def set_faults(self, faults: Faults) -> None:
        """Replaces all switches; `unauthorized` counts from here."""
        with self.lock:
            self.faults = faults
            self._asked_since_faults = 0

    def stats(self) -> dict[str, Any]:
        """What was asked so far. A request without an answer has the status `dropped`; `largest_minute` is
        the largest number of requests in any sliding 60 seconds."""
        with self.lock:
            return {
                "system": self.name,
                "requests": dict(self.requests),
                "statuses": dict(self.statuses),
                "largest_minute": {name: window.largest for name, window in self.windows.items()},
                "per_minute": self.per_minute,
                "faults": dict(self.faults),
                "struck": dict(self.struck),
            }

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request, or None if the connection is to be closed without one."""
        with self.lock:
            seconds = self.faults["slow"]
            slow = seconds > 0 and ("slow_share" not in self.faults or self.strikes("slow_share"))
        if slow:
            self._sleep(seconds)
        with self.lock:
            given = self._judged(request, self.clock())
            self.requests[f"{request.method} {pattern(request.path)}"] += 1
            self.statuses[str(given.status) if given else "dropped"] += 1
        return given

    def strikes(self, name: str) -> bool:
        """Draws whether a fault with a share happens this time; nothing is drawn for one that is off."""
        share = self.faults[name]
        if share > 0 and self.random.random() < share:
            self.struck[name] += 1
            return True
        return False

    def _judged(self, request: Request, now: float) -> Answer | None:
        self.windows["all"].add(now)
        self._asked_since_faults += 1
        if self.faults["down"]:
            return self.error(503, "Service Unavailable")
        if self.strikes("drop_before"):
            return None
        revoked = "unauthorized" in self.faults and self._asked_since_faults > self.faults["unauthorized"]
        if revoked or not self.authorised(request):
            return self.error(401, "Unauthorized")
        if self.per_minute is not None and self.windows["accepted"].count(now) >= self.per_minute:
            self.windows["refused"].add(now)
            return self._too_many(now)
        self.windows["accepted"].add(now)
        if self.strikes("429"):
            return self._too_many(now)
        for status, message in PASSING_ERRORS:
            if self.strikes(str(status)):
                return self.error(status, message)
        given = self.respond(request)
        if given.status >= 300:
            return given
        if not self.reads(request):
            return None if self.strikes("drop") else given
        if self.strikes("not_json"):
            return Answer(200, b"<!DOCTYPE html><html><body>Please wait</body></html>", "text/html")
        return Answer(200, b"{}") if self.strikes("no_value") else given

    def _too_many(self, now: float) -> Answer:
        refusal = self.error(429, "Too Many Requests")
        if "retry_after" in self.faults:
            value = f"{self.faults['retry_after']:g}"
        elif "retry_after_date" in self.faults:
            value = formatdate(now + self.faults["retry_after_date"], usegmt=True)
        else:
            return refusal
        return Answer(429, refusal.body, refusal.kind, (("Retry-After", value),))


class Divided(System):
    """A system of several kinds of rows, by name; the first is meant when none is named."""

    parts: Mapping[str, Part]

    def part(self, kind: str | None) -> Part:
        if kind is None:
            return next(iter(self.parts.values()))
        if kind not in self.parts:
            raise ValueError(f"{self.name} has no kind {kind!r}; there is {', '.join(self.parts)}")
        return self.parts[kind]

    def rows(self) -> list[Row]:
        return self.part(None).rows()

    def edit(self, count: int, seed: int) -> list[Row]:
        return self.part(None).edit(count, seed)

    def delete(self, count: int, seed: int) -> list[Row]:
        return self.part(None).delete(count, seed)

    def add(self, count: int) -> list[Row]:
        return self.part(None).add(count)

    def identity(self, row: Row) -> tuple[int, str | None]:
        return self.part(None).identity(row)


def pattern(path: str) -> str:
    """The path with its ids replaced, for counting: `/Contacts(id)`, `/api/cliente/alterar/:id`."""
    return re.sub(r"/\d+$", "/:id", re.sub(r"\(\d+\)", "(id)", path))
