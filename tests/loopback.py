"""A scripted HTTP server on loopback, and a clock that only sleeps on paper, for tests of what talks to the network."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from types import TracebackType
from typing import BinaryIO, NamedTuple


class Request(NamedTuple):
    """What arrived; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """Bytes to send, and whether to close the connection after them. Nothing and a close is a lost connection."""

    raw: bytes
    close: bool = False


LOST = Reply(b"", close=True)


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, close: bool = False) -> Reply:
    """A well-formed answer."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    if close:
        fields["Connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Reply(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body, close)


class Loopback:
    """Answers every request with what `handler` returns for it; a thread per connection."""

    def __init__(self, handler: Callable[[Request], Reply], context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.handler = handler
        self.connections = 0
        self.never = Event()
        """Handlers wait for it to keep a client waiting; it is set when the server ends."""
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._open: dict[socket.socket, Thread] = {}
        self._changed = Condition(Lock())
        self._ending = False
        self._acceptor = Thread(target=self._accept)

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://localhost:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Loopback:
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending = True
        self.never.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._acceptor.join()
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """Closes every open connection, and returns when that is done."""
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._ending:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = Thread(target=self._serve, args=(connection,), daemon=True)
            with self._changed:
                self._open[connection] = thread
                self.connections += 1
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(plain.dup(), server_side=True)
            with connection.makefile("rb") as stream:
                while (request := _read(stream)) is not None:
                    with self._changed:
                        self.requests.append(request)
                    given = self.handler(request)
                    connection.sendall(given.raw)
                    if given.close:
                        return
        except (OSError, ValueError):
            return
        finally:
            with self._changed:
                del self._open[plain]
                if connection is not plain:
                    connection.close()
                with suppress(OSError):
                    plain.shutdown(socket.SHUT_RDWR)
                plain.close()
                self._changed.notify_all()


def _read(stream: BinaryIO) -> Request | None:
    line = stream.readline().decode("latin-1")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = {}
    while (field := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


class FakeClock:
    """Sleeping moves the time and takes none. `late` is added to every sleep, `tick` to every look at the time."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at
        self.slept: list[float] = []
        self.late = 0.0
        self.tick = 0.0
        self.chance = 0.5
        self._lock = Lock()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at - 1000.0)

    def monotonic(self) -> float:
        with self._lock:
            self.at += self.tick
            return self.at

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.at += seconds + self.late

    def random(self) -> float:
        return self.chance


def certificate(folder: Path) -> Path | None:
    """A certificate for localhost with its key, in one file that is also its own authority; None without openssl."""
    if shutil.which("openssl") is None:
        return None
    key, both = folder / "key.pem", folder / "localhost.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*made, "-keyout", key, "-out", both], check=True, capture_output=True)
    both.write_text(both.read_text() + key.read_text())
    return both


def refused_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
