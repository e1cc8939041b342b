"""Many small requests at once, for targets that take one record per request.

One thread keeps one request under way on each of its keep-alive connections, through epoll, with answers parsed by
httptools: some ten microseconds of processor time a request, where an ordinary client takes several hundred. What a
failure means is decided in `infra/http.py`, the same for both.

A request is in doubt as soon as one of its bytes was handed to a connection that then failed to answer. Connections
that the other side closed while they were idle are noticed before they are used; one that is closed at the very moment
in which a request is written leaves that request in doubt, unless it is repeatable.
"""

from __future__ import annotations

import select
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from infra.connection import BROKEN, READ, WRITE, Address, Connection, resolved
from infra.http import Answer, InDoubtError, checked_headers, checked_url, failure_of, redact
from infra.pace import Pace
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    RATE_LIMITED,
    UNREACHABLE,
    AuthError,
    ConfigError,
    TransientError,
    WaybillError,
)
from shared.ports import Clock
from shared.retry import RetryPolicy

Request = tuple[str, str, bytes]
"""Method, path with its query, and body."""
Result = Answer | TransientError | InDoubtError | AuthError

LOOK_ROUND: Final = 0.25
"""Seconds between two looks at time-outs and at whether to stop."""
KNOWN_HEADS: Final = 256

_GONE: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Burst:
    """Requests to one system over at most `connections` connections. Used from one thread at a time.

    `timeout` is (to connect, for a request from its first byte to the last of its answer) in seconds. `context` takes
    the place of the machine's trusted certificates.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        connections: int,
        pace: Pace,
        retry: RetryPolicy,
        clock: Clock,
        timeout: tuple[float, float] = (5.0, 30.0),
        secrets: Sequence[str] = (),
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Raises ConfigError for an address or a header that no request can carry."""
        self.base_url = checked_url(base_url)
        parts = urlsplit(self.base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._most = max(1, connections)
        self._pace = pace
        self._retry = retry
        self._clock = clock
        self._timeout = timeout
        self._secrets = tuple(secrets)
        fields = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": "waybill", "Content-Type": "application/json"}
        fields |= checked_headers(headers)
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._path = parts.path
        self._heads: dict[tuple[str, str], bytes] = {}
        self._addresses: list[Address] = []
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def send(self, requests: Sequence[Request], repeatable: bool = False) -> list[Result]:
        """One result each, at the same place. What was certainly not taken is tried again by policy.

        When credentials are refused, or the process is to stop while the pace makes it wait, no further request goes
        out, and those that did not are TransientErrors. `repeatable` holds for all of them.
        """
        work = _Work(requests, repeatable)
        todo: list[int] = list(range(len(requests)))
        attempt = 0
        while todo:
            attempt += 1
            work.queue = deque(todo)
            self._carry_out(work)
            todo = work.to_repeat(todo)
            wait = self._retry.next_wait(attempt, work.wish(todo), self._clock.random) if todo else None
            if wait is None:
                break
            try:
                self._pace.pause(wait)
            except TransientError:
                break
        return [result or TransientError("it was not sent", number=GENERAL) for result in work.results]

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.close()

    def _carry_out(self, work: _Work) -> None:
        """Sends what is queued, each once, until everything has a result or nothing more can be sent."""
        work.slots = self._most
        for connection in [each for each in self._connections.values() if each.place >= 0]:
            # Left by a `send` that an exception ended: its answer must not be taken for another's.
            self._drop(connection)
        idle = list(self._connections.values())
        queue, connections, poll, monotonic = work.queue, self._connections, self._epoll.poll, self._clock.monotonic
        look = monotonic() + LOOK_ROUND
        timeout = waited_for = 0.0
        while True:
            for descriptor, mask in poll(timeout, self._most):
                ready = connections.get(descriptor)
                if ready is not None and self._went_on(ready, mask, work):
                    idle.append(ready)
            now = monotonic()
            if now >= look:
                look = now + LOOK_ROUND
                self._lose_late(work, now)
            timeout = LOOK_ROUND
            while queue and work.halted is None:
                while idle and idle[-1].closed:
                    idle.pop()
                if not idle and len(connections) >= work.slots:
                    break
                wait = self._pace.claim(waited_for)
                if wait > 0:
                    timeout, waited_for = min(wait, LOOK_ROUND), now + wait
                    if self._pace.stopping():
                        work.halted = TransientError("stopped while waiting for the next request", number=GENERAL)
                    break
                self._start(idle.pop() if idle else None, queue.popleft(), work, now)
            if not work.under_way and (not queue or work.halted is not None or not (connections or work.slots)):
                break
        if queue:
            work.leave_queue(redact(self.base_url, self._secrets))

    def _start(self, connection: Connection | None, place: int, work: _Work, now: float) -> None:
        """Gives a request to an idle connection, or to a new one that writes it once it is open."""
        method, path, body = work.requests[place]
        head = self._heads.get((method, path)) or self._head(method, path)
        data = b"%b%d\r\n\r\n%b" % (head, len(body), body)
        work.under_way += 1
        if connection is None:
            self._connect(data, place, None, work, now)
            return
        connection.begin(data, place, now + self._timeout[1])
        try:
            connection.write()
        except OSError as error:
            self._lose(connection, work, error)
            return
        if connection.unsent:
            self._watch(connection, WRITE)

    def _connect(self, data: bytes, place: int, addresses: list[Address] | None, work: _Work, now: float) -> None:
        connection = Connection(data, place, now + self._timeout[0])
        try:
            if addresses is None:
                self._addresses = self._addresses or resolved(self._host, self._port)
                addresses = self._addresses
            connection.connect(addresses, self._host, self._context)
        except OSError as error:
            self._lose(connection, work, error)
            return
        self._connections[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, WRITE)
        connection.interest = WRITE

    def _went_on(self, connection: Connection, mask: int, work: _Work) -> bool:
        """Does what an event allows. True if the connection has just become free for the next request."""
        if connection.place < 0:
            if connection.is_dead():
                self._drop(connection)
            return False
        try:
            if not connection.ready or connection.unsent:
                self._open_or_write(connection)
            if connection.ready:
                connection.read()
        except BROKEN as error:
            if not connection.done:
                self._lose(connection, work, error)
                return False
            connection.keep = False
        if not connection.done:
            return False
        self._settle(connection, work)
        if connection.keep and not mask & _GONE and not connection.unsent:
            return True
        self._drop(connection)
        return False

    def _open_or_write(self, connection: Connection) -> None:
        if not connection.ready:
            interest = connection.go_on_opening()
            if interest:
                self._watch(connection, interest)
                return
            connection.latest = self._clock.monotonic() + self._timeout[1]
            if self._addresses and connection.address is not self._addresses[0]:
                self._addresses.sort(key=lambda address: address is not connection.address)
        connection.write()
        self._watch(connection, WRITE if connection.unsent else READ)

    def _settle(self, connection: Connection, work: _Work) -> None:
        place = connection.place
        connection.place = -1
        connection.answered = True
        work.under_way -= 1
        answer = connection.answer()
        if answer.status < 400:
            work.results[place] = answer
            return
        error = failure_of(answer, work.repeatable, self._what(work, place), self._clock.now())
        if isinstance(error, TransientError) and error.number == RATE_LIMITED:
            self._pace.hold(error.after or self._retry.wait)
        work.note(place, error or answer)

    def _lose(self, connection: Connection, work: _Work, error: BaseException) -> None:
        """The connection failed with a request: in doubt if any of it was written, otherwise for another connection."""
        place = connection.place
        kind = type(error).__name__
        work.under_way -= 1
        if connection.touched:
            what = f"{self._what(work, place)}: no answer ({kind})"
            work.note(place, TransientError(what, number=UNREACHABLE) if work.repeatable else InDoubtError(what))
        elif connection.others:
            work.under_way += 1
            self._connect(connection.unsent, place, connection.others, work, self._clock.monotonic())
        else:
            work.queue.appendleft(place)
            if not connection.answered:
                work.slots -= 1
                work.why = kind
                self._addresses = []
        self._drop(connection)

    def _lose_late(self, work: _Work, now: float) -> None:
        for connection in list(self._connections.values()):
            if connection.place >= 0 and now > connection.latest:
                self._lose(connection, work, TimeoutError())

    def _drop(self, connection: Connection) -> None:
        if self._connections.get(connection.descriptor) is connection:
            del self._connections[connection.descriptor]
        connection.close()

    def _watch(self, connection: Connection, interest: int) -> None:
        if connection.interest != interest:
            connection.interest = interest
            self._epoll.modify(connection.descriptor, interest)

    def _head(self, method: str, path: str) -> bytes:
        """Everything before the length of the body. Raises ConfigError for what would not be one request."""
        target = self._path + path
        sendable = target.isascii() and target.isprintable() and " " not in target and path.startswith("/")
        if not sendable or not (method.isascii() and method.isalpha()):
            raise ConfigError(f"{method!r} {redact(self.base_url + path, self._secrets)} cannot be sent")
        if len(self._heads) >= KNOWN_HEADS:
            self._heads.clear()
        head = f"{method} {target} HTTP/1.1\r\n{self._fields}Content-Length: ".encode("latin-1")
        self._heads[method, path] = head
        return head

    def _what(self, work: _Work, place: int) -> str:
        method, path, _ = work.requests[place]
        return f"{method} {redact(self.base_url + path, self._secrets)}"


class _Work:
    """The requests of one `send`, what became of each, and what is still to go."""

    def __init__(self, requests: Sequence[Request], repeatable: bool) -> None:
        self.requests = requests
        self.repeatable = repeatable
        self.results: list[Result | None] = [None] * len(requests)
        self.queue: deque[int] = deque()
        self.under_way = 0
        self.slots = 0
        """How many connections may be open: fewer for each one that could not be made."""
        self.why = ""
        self.halted: AuthError | TransientError | None = None
        self._failed = False

    def note(self, place: int, result: Answer | WaybillError) -> None:
        if isinstance(result, AuthError):
            self.halted = result
        elif isinstance(result, TransientError):
            self._failed = True
        assert isinstance(result, Result)
        self.results[place] = result

    def leave_queue(self, where: str) -> None:
        """Nothing more can be sent; says so for what is still queued."""
        error = TransientError(f"{where}: no connection ({self.why})", number=UNREACHABLE)
        if isinstance(self.halted, AuthError):
            error = TransientError("not sent: credentials were refused", number=CREDENTIALS)
        elif self.halted is not None:
            error = self.halted
        for place in self.queue:
            self.note(place, error)
        self.queue.clear()

    def to_repeat(self, todo: list[int]) -> list[int]:
        if self.halted is not None or not self._failed:
            return []
        self._failed = False
        return [place for place in todo if isinstance(self.results[place], TransientError)]

    def wish(self, todo: list[int]) -> float | None:
        """The longest wait that the other side asked for."""
        errors = (self.results[place] for place in todo)
        wishes = (error.after for error in errors if isinstance(error, TransientError))
        return max((wish for wish in wishes if wish is not None), default=None)
