"""The connections that `waybill serve` answers."""

from __future__ import annotations

from typing import IO, Any, Final, cast

from werkzeug.serving import DechunkedInput, WSGIRequestHandler

SOCKET_SECONDS: Final = 60.0
"""A connection that brings nothing, or takes nothing, for so long is closed."""


class Chunks(DechunkedInput):
    """The body of a request that comes in chunks. Of a chunk that breaks off werkzeug says that it was read whole, and
    Python then gives what happens to lie behind it in memory (seen with werkzeug 3.1.9)."""

    def readinto(self, buffer: Any) -> int:
        taken = bytearray(len(buffer))
        size: int = super().readinto(taken)
        if len(taken) < size:
            raise OSError("the connection ended within a chunk")
        buffer[:size] = taken[:size]
        return size


class Handler(WSGIRequestHandler):
    """One connection, and its one request."""

    timeout = SOCKET_SECONDS

    def make_environ(self) -> dict[str, Any]:
        environ = super().make_environ()
        if "wsgi.input_terminated" in environ:
            environ["wsgi.input"] = Chunks(cast(IO[bytes], self.rfile))
        return environ
