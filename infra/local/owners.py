"""Who is alive: a process holds a lock on a file of its own, and the operating system lets go when it dies."""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import StoreUnavailable


class Owners:
    """Ids of live processes. Made once per process and home; the id is taken at the first need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._mine: tuple[int, str, int] | None = None

    def mine(self) -> str:
        """The id of this process, locked for as long as it lives. A forked child gets one of its own."""
        with self._lock, _translated():
            if self._mine is None or self._mine[0] != os.getpid():
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
                file = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(file, fcntl.LOCK_EX)
                self._mine = (os.getpid(), name, file)
            return self._mine[1]

    def alive(self, owner: str) -> bool:
        """Whether that process still lives. The file of a dead one is removed."""
        if not owner:
            return False
        if self._mine is not None and self._mine[1] == owner and self._mine[0] == os.getpid():
            return True
        path = self._folder / owner
        with _translated():
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                # Shared, so that two who ask at once do not take each other for the owner.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            else:
                path.unlink(missing_ok=True)
                return False
            finally:
                os.close(file)

    def close(self) -> None:
        with self._lock:
            if self._mine is not None and self._mine[0] == os.getpid():
                (self._folder / self._mine[1]).unlink(missing_ok=True)
                os.close(self._mine[2])
            self._mine = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"cannot tell who is alive: {error}") from error
