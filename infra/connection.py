"""One keep-alive HTTP/1.1 connection for `infra/burst.py`: never blocks, carries one request at a time."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httptools

from infra.http import BODY_LIMIT, Answer

RECEIVE: Final = 65_536

READ: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITE: Final = READ | select.EPOLLOUT
BROKEN: Final = (OSError, EOFError, httptools.HttpParserError, httptools.HttpParserUpgrade)
"""What reading and writing raise when a connection has failed."""
Address = tuple[int, Any]


class Connection:
    """One socket, the request that it carries (`place`, -1 for none) and the answer as far as it came."""

    __slots__ = (
        "_complete_head", "_context", "_fields", "_host", "_parser", "_parts", "_receive", "_send", "_size", "_socket",
        "_status", "address", "answered", "closed", "descriptor", "done", "interest", "keep", "latest", "others",
        "place", "ready", "touched", "unsent",
    )  # fmt: skip

    def __init__(self, data: bytes, place: int, latest: float) -> None:
        self.descriptor = -1
        self.closed = self.ready = self.answered = False
        self.address: Address | None = None
        self.others: list[Address] = []
        self.interest = 0
        self._socket: socket.socket | None = None
        self._host = ""
        self._context: ssl.SSLContext | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self.begin(data, place, latest)

    def connect(self, addresses: list[Address], host: str, context: ssl.SSLContext | None) -> None:
        """Begins to connect to the first of the addresses."""
        self.address, *self.others = addresses
        self._host, self._context = host, context
        family, target = self.address
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.descriptor = self._socket.fileno()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            self._socket.connect(target)

    def go_on_opening(self) -> int:
        """What to wait for, 0 once the connection is open."""
        assert self._socket is not None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "no connection")
        if self._context is not None:
            if not isinstance(self._socket, ssl.SSLSocket):
                self._socket = self._context.wrap_socket(
                    self._socket, server_hostname=self._host, do_handshake_on_connect=False, suppress_ragged_eofs=False
                )
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                return READ
            except ssl.SSLWantWriteError:
                return WRITE
        self._send: Callable[[bytes], int] = self._socket.send
        self._receive: Callable[[int], bytes] = self._socket.recv
        self.ready = True
        self.others = []
        return 0

    def begin(self, data: bytes, place: int, latest: float) -> None:
        self.unsent = data
        self.place = place
        self.latest = latest
        self.touched = self.done = self.keep = self._complete_head = False

    def write(self) -> None:
        """Writes as much as the socket takes."""
        try:
            sent = self._send(self.unsent)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self.touched = True
            return
        self.touched = True
        self.unsent = self.unsent[sent:]

    def read(self) -> None:
        """Reads and parses what is there. Raises one of BROKEN; what was complete before is `done` all the same."""
        while True:
            try:
                data = self._receive(RECEIVE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                if not self._ends_by_close():
                    raise EOFError
                self.done = True
                return
            self._parser.feed_data(data)
            if self.done or self._context is None:
                return

    def is_dead(self) -> bool:
        """Of an idle connection: whether it was closed, or says something that nobody asked."""
        try:
            self._receive(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    def answer(self) -> Answer:
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._fields}
        return Answer(self._status, b"".join(self._parts), fields)

    def close(self) -> None:
        self.closed = True
        # The parser holds this object, and this object the parser.
        self._parser = None
        if self._socket is not None:
            self._socket.close()

    def _ends_by_close(self) -> bool:
        """An answer that says nothing of its length ends with the connection."""
        if not self._complete_head or self.keep:
            return False
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields)

    def on_message_begin(self) -> None:
        if self.done:
            raise ValueError("an answer that nobody asked for")
        self._fields: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._complete_head = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._status: int = self._parser.get_status_code()
        self.keep = self._parser.should_keep_alive()
        self._complete_head = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)
        if self._size > BODY_LIMIT:
            raise ValueError("the answer does not end")

    def on_message_complete(self) -> None:
        # An interim answer (1xx) comes before the real one.
        self.done = self._status >= 200


def resolved(host: str, port: int) -> list[Address]:
    """Where a host is. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]
