"""The two ends of the bench, each a process: `python -m tests.bench.servers source ROWS` and `... target`.

Fast enough to stay out of the way: an asyncio protocol without a framework (on uvloop where it is installed), pages cut
out of rows that were serialised beforehand, counts instead of storage. The first line on stdout is the port.

Source: `GET /Contacts` with `$filter` (Id and LastUpdateDate; ge gt le lt), `$top`, `$skip`. Target: `POST /Contacts`
with a record (201), `POST /Contacts/batch` with up to 100 (200). Both: `POST /_control`, `GET /_stats`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from contextlib import suppress
from datetime import datetime
from email.utils import formatdate
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import parse_qs

import msgspec

from tests.bench.contact import POST
from tests.bench.rows import FIRST_ID, Expected, place_at, row

LARGEST_PAGE: Final = 1000
FIELDS: Final = frozenset({"external_id", "name", "document", "document_type", "email", "phone", "city", "updated_at"})
WINDOWS: Final = (60.0, 6.0)
"""Sliding seconds in which arrivals are counted when a rate is looked at."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_REASON: Final = {200: b"OK", 201: b"Created", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found"}


def answer(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, _REASON[status], len(body)) + body


NOT_FOUND: Final = answer(404, b"{}")
DONE: Final = answer(200, b"{}")


class Protocol(asyncio.Protocol):
    """One keep-alive connection: requests one after another, each answered after `Server.latency` seconds."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.waiting = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        self.go_on()

    def go_on(self) -> None:
        while self.buffer and not self.waiting:
            end = self.buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = self.buffer[:end]
            length = 0
            at = head.lower().find(b"\r\ncontent-length:")
            if at >= 0:
                length = int(head[at + 17 : head.find(b"\r\n", at + 17)])
            if len(self.buffer) < end + length:
                return
            body = self.buffer[end : end + length]
            self.buffer = self.buffer[end + length :]
            target = head[: head.find(b"\r\n")].split(b" ")[1]
            path, _, query = target.partition(b"?")
            out, late = self.server.handle(path, query, body)
            if out is None:
                self.waiting = True
            elif late and self.server.latency:
                self.waiting = True
                self.server.loop.call_later(self.server.latency, self.send_late, out)
            elif self.transport is not None:
                self.transport.write(out)

    def send_late(self, out: bytes) -> None:
        self.waiting = False
        if self.transport is not None:
            self.transport.write(out)
            self.go_on()


class Server:
    """What both ends share: latency, control and statistics."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.latency = 0.0

    def handle(self, path: bytes, query: bytes, body: bytes) -> tuple[bytes | None, bool]:
        """The answer (None: there will be none) and whether the latency applies to it."""
        if path == b"/_control":
            control = _decode(body)
            self.latency = control.get("latency_ms", 0) / 1000
            self.reset(control)
            return DONE, False
        if path == b"/_stats":
            return answer(200, _encode(self.stats())), False
        return self.serve(path, query, body), True

    def reset(self, control: dict[str, Any]) -> None:
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        raise NotImplementedError

    def serve(self, path: bytes, query: bytes, body: bytes) -> bytes | None:
        raise NotImplementedError


class Source(Server):
    """Rows in one piece of memory, so that a page is one slice of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        super().__init__(loop)
        rows = [row(index) for index in range(most)]
        self.text = memoryview(b",".join(rows))
        self.starts = [0]
        for each in rows:
            self.starts.append(self.starts[-1] + len(each) + 1)
        self.count = most
        self.pages = 0
        self.date = (0.0, b"")

    def reset(self, control: dict[str, Any]) -> None:
        self.count = min(control["rows"], len(self.starts) - 1)
        self.pages = 0

    def stats(self) -> dict[str, Any]:
        expected = Expected(self.count)
        return {"pages": self.pages, "distinct": expected.distinct, "sum": str(expected.sum)}

    def serve(self, path: bytes, query: bytes, body: bytes) -> bytes:
        if path != b"/Contacts":
            return NOT_FOUND
        asked = {name: values[0] for name, values in parse_qs(query.decode()).items()}
        first, last = self.between(asked.get("$filter", ""))
        first += int(asked.get("$skip", 0))
        last = max(first, min(last, first + min(int(asked.get("$top", 300)), LARGEST_PAGE)))
        self.pages += 1
        rows = self.text[self.starts[first] : self.starts[last] - 1] if last > first else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: %s\r\nContent-Length: %d\r\n\r\n"
        return b"".join((head % (self.today(), len(rows) + 12), b'{"value":[', rows, b"]}"))

    def between(self, condition: str) -> tuple[int, int]:
        first, last = 0, self.count
        for term in condition.split(" and ") if condition else ():
            field, operator, value = term.split(" ", 2)
            after = operator in ("gt", "le")
            if field == "Id":
                place = max(0, int(value) - FIRST_ID + after)
            else:
                place = place_at(datetime.fromisoformat(value), after=after)
            if operator in ("ge", "gt"):
                first = max(first, place)
            else:
                last = min(last, place)
        return min(first, self.count), last

    def today(self) -> bytes:
        now = monotonic()
        if now - self.date[0] >= 0.2:
            self.date = (now, formatdate(usegmt=True).encode())
        return self.date[1]


class Target(Server):
    """Counts what arrives and remembers the documents. From `silent_from` records on it takes them without a word."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.reset({})

    def reset(self, control: dict[str, Any]) -> None:
        self.silent_from = control.get("silent_from", 0)
        if "keep" in control:
            return
        self.seen: set[str] = set()
        self.received = self.posts = self.malformed = 0
        self.rated = bool(control.get("rated"))
        self.arrivals: tuple[deque[float], ...] = tuple(deque() for _ in WINDOWS)
        self.largest = [0] * len(WINDOWS)
        self.span = [0.0, 0.0]

    def stats(self) -> dict[str, Any]:
        return {
            "received": self.received,
            "distinct": len(self.seen),
            "sum": str(sum(map(int, self.seen))),
            "posts": self.posts,
            "malformed": self.malformed,
            "largest": dict(zip(map(str, WINDOWS), self.largest, strict=True)),
        }

    def serve(self, path: bytes, query: bytes, body: bytes) -> bytes | None:
        out = self.take_all(path, body)
        return None if self.silent_from and self.received >= self.silent_from else out

    def take_all(self, path: bytes, body: bytes) -> bytes:
        self.posts += 1
        if self.rated:
            self.note_arrival(monotonic())
        try:
            data = _decode(body)
            if path == b"/Contacts":
                self.take(data)
                return answer(201, b'{"ok":true}')
            if path == b"/Contacts/batch" and len(data) <= POST:
                for record in data:
                    self.take(record)
                return answer(200, b'{"accepted":%d,"rejected":[]}' % len(data))
        except (msgspec.DecodeError, TypeError, KeyError, AttributeError, ValueError):
            self.malformed += 1
            return answer(400, b"{}")
        return NOT_FOUND

    def take(self, record: dict[str, Any]) -> None:
        if record.keys() != FIELDS or not record["document"].isdigit():
            raise ValueError
        self.received += 1
        self.seen.add(record["document"])

    def note_arrival(self, now: float) -> None:
        for place, (seconds, times) in enumerate(zip(WINDOWS, self.arrivals, strict=True)):
            times.append(now)
            while times[0] <= now - seconds:
                times.popleft()
            self.largest[place] = max(self.largest[place], len(times))


async def serve(arguments: list[str]) -> None:
    loop = asyncio.get_running_loop()
    end: Server = Source(loop, int(arguments[1])) if arguments[0] == "source" else Target(loop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Protocol(end), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    run = asyncio.run
    with suppress(ModuleNotFoundError):
        from uvloop import run as faster

        run = faster
    run(serve(sys.argv[1:]))


if __name__ == "__main__":
    main()
