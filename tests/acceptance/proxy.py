"""A proxy on loopback that misbehaves for chosen requests: what the sandbox's shares of chance cannot aim at."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import requests

Judge = Callable[[str, str, bytes], tuple[int, bytes] | None]
"""(method, path, body) -> the status and body to answer, or None to pass the request on."""


class Gate:
    """A judge that lets requests pass until it is closed, and then holds them until it is opened again."""

    def __init__(self, *, passes: int) -> None:
        self._left = passes
        self._lock = Lock()
        self._opened = Event()

    def __call__(self, method: str, path: str, body: bytes) -> None:
        with self._lock:
            self._left -= 1
            held = self._left < 0
        if held:
            self._opened.wait(60)

    @property
    def holds(self) -> bool:
        """Whether a request has come that has to wait."""
        return self._left < 0 and not self._opened.is_set()

    def open(self) -> None:
        self._opened.set()


class Proxy:
    """Stands before `target` (scheme, host and port) between `with` and its end."""

    def __init__(self, target: str, judge: Judge) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                given = judge(self.command, self.path, body)
                if given is None:
                    kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                    passed = requests.request(self.command, target + self.path, data=body, headers=kept, timeout=30)
                    given = passed.status_code, passed.content
                self.send_response(given[0])
                if given[0] != 204:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(given[1])))
                self.end_headers()
                self.wfile.write(given[1])

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A client that keeps its connection must not keep the test.
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
