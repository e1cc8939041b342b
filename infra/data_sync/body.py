"""The body of a request, piece by piece, within bounds of time, whichever server hands it over.

Servers wait for a client as long as it takes, and offer no way to wait for less: a watch looks after each reading, and
ends the connection's reading half when it takes too long or the process is asked to stop.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final

import msgspec

from infra.clock import SystemClock
from infra.data_sync.answers import Refused

PIECE: Final = 65_536
_LAST_SECONDS: Final = 1.0
"""How long a process that is asked to stop reads what it does not want."""


class Patience(msgspec.Struct, frozen=True):
    """How long a client may take, in seconds, and how much is read of what is not wanted any more."""

    piece: float = 30.0
    """For each 64 KiB."""
    whole: float = 3600.0
    tick: float = 0.5
    rest: float = 10.0
    rest_bytes: int = 64 << 20


class Body:
    """One request's body. Not for two threads."""

    def __init__(self, environ: dict[str, Any], clock: SystemClock, patience: Patience) -> None:
        from werkzeug.wsgi import get_content_length

        self.length: int | None = get_content_length(environ)
        """As the client said it, None for one that comes in chunks."""
        self.taken = 0
        """Bytes that were read so far."""
        self._left = 0 if self.length is None and "wsgi.input_terminated" not in environ else self.length
        self.ended = self._left == 0
        self._input = environ["wsgi.input"]
        self._socket: socket.socket | None = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
        self._clock = clock
        self._patience = patience
        self._latest = clock.monotonic() + patience.whole
        self._piece_latest = inf
        self._is_rest = False
        self._broken = False

    def read(self) -> bytes:
        """The next piece, b"" at the end. Raises Refused: 408 for a client that is too slow, 503 when the process is
        stopping, 400 for a body that ends early or is wrongly cut into chunks."""
        if self.ended:
            return b""
        size = PIECE if self._left is None else min(PIECE, self._left)
        self._piece_latest = self._clock.monotonic() + self._patience.piece
        self.check()
        try:
            piece: bytes = self._input.read(size)
        except TimeoutError as error:
            self._broken = True
            raise Refused(408, "the file came too slowly") from error
        except Exception as error:
            # Each server has exceptions of its own for what is no body.
            self._broken = True
            self.check()
            raise Refused(400, "the body broke off, or its chunks are malformed") from error
        if self._left is None:
            self.ended = not piece
        elif len(piece) < size:
            self._broken = True
            self.check()
            raise Refused(400, "the body broke off")
        else:
            self._left -= len(piece)
            self.ended = not self._left
        self.taken += len(piece)
        # What is done with it takes its own time.
        self._piece_latest = inf
        return piece

    def check(self) -> None:
        """Raises Refused where time is up, or the process is stopping."""
        if self._clock.stopping and not self._is_rest:
            raise Refused(503, "the service is stopping, send it again")
        if self._clock.monotonic() >= min(self._latest, self._piece_latest):
            raise Refused(408, "the file came too slowly")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Nothing that is read in here waits longer than it may."""
        if self._socket is None:
            yield
            return
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over, self._socket), name="upload-watch", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def _watch(self, over: threading.Event, connection: socket.socket) -> None:
        while not over.wait(self._patience.tick):
            try:
                self.check()
            except Refused:
                self.stop_reading(connection)
                return

    @staticmethod
    def stop_reading(connection: socket.socket) -> None:
        """Whoever waits for more of it gets the end at once. What is answered still goes out."""
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)

    def read_the_rest(self) -> None:
        """Reads and forgets what was not read, up to a bound: a client that does not look for the answer before it has
        sent everything would meet a connection that was reset."""
        if self.ended or self._broken:
            return
        self._is_rest = True
        seconds = min(self._patience.rest, _LAST_SECONDS) if self._clock.stopping else self._patience.rest
        self._latest = self._clock.monotonic() + seconds
        left = self._patience.rest_bytes
        with suppress(Refused), self.watched():
            while left > 0 and (piece := self.read()):
                left -= len(piece)
        if not self.ended and self._socket is not None:
            self.stop_reading(self._socket)

    def outlasting(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The answer first, and the rest of the body behind it: a server asks for more only when it has sent what it
        was given."""
        yield from pieces
        self.read_the_rest()
