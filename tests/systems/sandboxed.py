"""A running sandbox with a clock of its own, for the tests of the sandbox."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import requests

from tests.sandbox import Sandbox

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


class World:
    """A running sandbox, its clock, and one session per system."""

    def __init__(self, sandbox: Sandbox, clock: Clock, slept: list[float]) -> None:
        self.sandbox, self.clock, self.slept = sandbox, clock, slept
        self.session = requests.Session()
        self.session.headers["User-Key"] = sandbox.environment["PLOOMES_USER_KEY"]
        self.session.headers["Authorization"] = sandbox.environment["MILVUS_TOKEN"]

    def ploomes(self, path: str, method: str = "GET", body: object = None, **options: Any) -> requests.Response:
        query = {f"${name}": value for name, value in options.items()}
        url = self.sandbox.environment["PLOOMES_URL"] + path
        return self.session.request(method, url, params=query, json=body, timeout=10)

    def contacts(self, **options: Any) -> list[Row]:
        return self.rows("/Contacts", **options)

    def rows(self, path: str, **options: Any) -> list[Row]:
        answer = self.ploomes(path, **options)
        assert answer.status_code == 200, answer.text
        rows: list[Row] = answer.json()["value"]
        return rows

    def milvus(self, path: str, method: str = "GET", body: object = None, **query: str) -> requests.Response:
        url = self.sandbox.environment["MILVUS_URL"] + path
        return self.session.request(method, url, params=query, json=body, timeout=10)

    def control(self, action: str, system: str = "ploomes", **body: object) -> Any:
        url = f"{self.sandbox.urls[system]}/_sandbox/{action}"
        method = "GET" if action in ("stats", "state") else "POST"
        return requests.request(method, url, json=body, timeout=10).json()


Start = Callable[..., World]


@contextmanager
def worlds() -> Iterator[Start]:
    """Starts sandboxes, without a rate limit if not told otherwise, and stops them all at the end."""
    with ExitStack() as stack:

        def started(**options: Any) -> World:
            clock = Clock()
            slept: list[float] = []
            defaults: dict[str, Any] = {"clock": clock, "sleep": slept.append, "ploomes_per_minute": None}
            world = World(stack.enter_context(Sandbox(**defaults | options)), clock, slept)
            stack.enter_context(world.session)
            return world

        yield started
