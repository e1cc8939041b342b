"""A Prisma for tests: one data sync with its launches, which answers as documented or, where wanted, otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from typing import Any

import msgspec

from infra.systems import Connection
from infra.systems.prisma import Export, Imports, open_sink, open_source
from shared.books import Window
from shared.ends import Change, Page
from shared.outcome import Answer
from shared.retry import RetryPolicy
from tests.loopback import FakeClock, Loopback, Reply, Request, reply

SYNC = "17592213056255"
TOKEN = "t0k3n-of-this-sync"
FIRST = 1642190400000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(days=1), NOON)
Row = dict[str, Any]


class Prisma:
    """`instead` gives the next replies of a call, by its last part (`latest-launches`, `launch`, `download`, `import`,
    `delete`, `export`), before those that it would give by itself."""

    def __init__(self, first: int = FIRST) -> None:
        self.next = first
        self.most: int | None = None
        """How many launches are among the latest."""
        self.tells_each = True
        """Whether a launch can be asked for by its number, of which the vendor says nothing."""
        self.launches: list[Row] = []
        self.files: dict[int, bytes] = {}
        self.instead: dict[str, list[Reply | Callable[[], Reply]]] = {}
        self.asked: list[str] = []
        self.uploads: list[tuple[str, bytes]] = []
        """The name of each file that was sent, and what was in it."""

    def __call__(self, request: Request) -> Reply:
        parts = request.target.split("/")[1:]
        assert parts[:2] == ["api", "data-sync"] and SYNC in parts
        what = next(part for part in reversed(parts) if part != SYNC and not part.isdigit())
        what = "launch" if what == "data-sync" else what
        self.asked.append(what)
        if what in ("import", "delete"):
            self.uploads.append(self._file(request))
        if given := self.instead.get(what):
            instead = given.pop(0)
            return instead() if callable(instead) else instead
        if what == "latest-launches":
            assert "json" in request.headers["content-type"] and request.headers["accept"] == "application/json"
            return listed(self.launches[: self.most])
        if what == "launch":
            found = [each for each in self.launches if each["id"] == int(parts[3])] if self.tells_each else []
            return reply(200, msgspec.json.encode(found[0])) if found else reply(404)
        if what in ("import", "delete"):
            self.launch(status="scheduled", file=self.uploads[-1][1])
            return reply(200, b"File queued", {"Content-Type": "text/plain"})
        number = int(parts[3]) if what == "download" else self.latest()
        if number not in self.files:
            return reply(404)
        return reply(200, self.files[number], {"Content-Type": "text/csv"})

    def _file(self, request: Request) -> tuple[str, bytes]:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        (part,) = message_from_bytes(head + request.body).get_payload()
        assert (request.method, part.get_param("name", header="Content-Disposition")) == ("POST", "file")
        return part.get_filename(), part.get_payload(decode=True)

    def launch(self, status: str = "finished", message: str = "", file: bytes = b"") -> int:
        """Adds a launch as its newest one."""
        number, self.next = self.next, self.next + 1000
        self.files[number] = file
        told = {"status-message": message} if message else {}
        self.launches.insert(0, {"id": number, "status": status, "scheduled-time": "2022-01-14T20:00:00", **told})
        return number

    def latest(self) -> int:
        return next((each["id"] for each in self.launches if each["status"] == "finished"), 0)


def listed(launches: Sequence[Row]) -> Reply:
    return reply(200, msgspec.json.encode(launches), {"Content-Type": "application/json"})


def connection_to(
    url: str,
    secrets: Mapping[str, str] | None = None,
    page_size: int = 100,
    clock: FakeClock | None = None,
    attempts: int = 3,
    **options: Any,
) -> Connection:
    secrets = {"PRISMA_TOKEN": TOKEN} if secrets is None else dict(secrets)
    options = {"data_sync": SYNC, **options}
    retry, clock = RetryPolicy(attempts, 0.01), clock or FakeClock()
    return Connection(url, secrets, None, page_size, retry, clock, None, lambda: False, options)


@contextmanager
def sink_of(
    prisma: Callable[[Request], Reply], write: str = "import", **named: Any
) -> Iterator[tuple[Loopback, Imports]]:
    with Loopback(prisma) as server:
        sink = open_sink(connection_to(server.url, **named), write)
        try:
            yield server, sink
        finally:
            sink.close()


@contextmanager
def source_of(prisma: Callable[[Request], Reply], **named: Any) -> Iterator[tuple[Loopback, Export]]:
    with Loopback(prisma) as server:
        source = open_source(connection_to(server.url, **named), "export")
        try:
            yield server, source
        finally:
            source.close()


def written(prisma: Prisma, changes: Sequence[Change], write: str = "import", **named: Any) -> list[Answer | None]:
    with sink_of(prisma, write, **named) as (_, sink):
        return list(sink.write(changes))


def pages_of(prisma: Prisma, after: str = "", **named: Any) -> list[Page]:
    with source_of(prisma, **named) as (_, source):
        return list(source.pages(WINDOW, after))


def rows_of(prisma: Prisma, after: str = "", **named: Any) -> list[Row]:
    return [row.data for page in pages_of(prisma, after, **named) for row in page.rows]


def change(number: int, **fields: Any) -> Change:
    return Change(str(number), "upsert", {"id": str(number), "name": f"name {number}", **fields})


def changes(count: int) -> list[Change]:
    return [change(number) for number in range(1, count + 1)]
