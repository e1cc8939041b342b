"""Files of this machine: the one of a path, all below a folder, or those that match a pattern.

The version of a file is its size and the time of its last writing in nanoseconds, as the file system gives them. One
that was written a moment ago may still be being written: it has to rest first (`REST`). Names that begin with a dot or
an underscore are taken for marks of writers and left out of folders and patterns.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from infra.environment import path_of
from infra.systems.files.options import WILD, is_hidden, matcher
from infra.systems.files.reading import GZIP, Changed, File
from shared.books import Window
from shared.errors import AuthError, GuardTripped, ProtocolError, TransientError
from shared.ports import Clock

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
REST: Final = timedelta(seconds=1)
"""Whoever writes a file writes more often than this. One who does not is met when the file has changed at its end."""
UNFINISHED_REST: Final = timedelta(seconds=5)
"""Of a file whose last line has no end: it may be half a line."""


class Folder:
    """The files of a path. A relative one begins where the process does."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._clock = clock
        self._path = path_of(path).absolute()
        self.location = str(self._path)
        self.is_one_file = False
        self._look()

    def find(self, window: Window) -> Iterator[File]:
        """Raises ProtocolError where nothing is at the path, not even a folder."""
        self._look()
        with _translated(self.location):
            names = [self._path.name] if self.is_one_file else self._names()
        for name in names:
            if not _is_text(name):
                raise GuardTripped("the name of a file is not UTF-8", cure="rename it, then run again")
            with _translated(name):
                found = self._in_window(name, window)
                if found is not None and self._rests(found):
                    found = self._in_window(name, window)
                if found is not None:
                    yield found

    def _in_window(self, name: str, window: Window) -> File | None:
        """The file, if it came here in the window. One that is moved here keeps the time of its last writing."""
        try:
            status = (self._base / name).stat()
            came = _instant(max(arrival(status), arrival((self._base / name).lstat())))
        except FileNotFoundError:
            return None
        found = _file(name, status)
        return found if found is not None and came is not None and window.since <= came < window.until else None

    def _rests(self, file: File) -> bool:
        """Lets a file rest that was written a moment ago; whether it did."""
        age = self._clock.now() - file.instant
        if not timedelta() <= age < UNFINISHED_REST:
            return False
        try:
            rest = REST if _is_finished(self._base / file.name) else UNFINISHED_REST
        except FileNotFoundError:
            return True
        if age >= rest:
            return False
        self._clock.sleep((rest - age).total_seconds())
        return True

    def open(self, file: File, offset: int) -> io.RawIOBase:
        with _translated(file.name):
            try:
                opened = io.FileIO(self._base / file.name)
            except FileNotFoundError:
                raise Changed from None
            try:
                if _file(file.name, os.fstat(opened.fileno())) != file:
                    raise Changed
                opened.seek(offset)
            except BaseException:
                opened.close()
                raise
            return opened

    def is_unchanged(self, file: File) -> bool:
        with _translated(file.name):
            try:
                return _file(file.name, (self._base / file.name).stat()) == file
            except FileNotFoundError:
                return False

    def close(self) -> None:
        pass

    def _look(self) -> None:
        """What the path means: a file or a folder of exactly this name goes before a pattern."""
        self.is_one_file = self._path.is_file()
        self._base = self._path.parent if self.is_one_file else self._path
        self._matches = None
        if self.is_one_file or self._path.is_dir() or not WILD.search(self.location):
            return
        parts = self._path.parts
        fixed = next(place for place, part in enumerate(parts) if WILD.search(part))
        self._base, pattern = Path(*parts[:fixed]), "/".join(parts[fixed:])
        self._matches = matcher(pattern)

    def _names(self) -> list[str]:
        if not self._base.is_dir():
            raise ProtocolError(
                f"there is neither a file nor a folder at {self._base}",
                cure="check `path` (a relative one begins where the process does), then run again",
            )
        found = []
        for folder, folders, files in os.walk(self._base, onerror=_raise, followlinks=False):
            folders[:] = [name for name in folders if not is_hidden(name)]
            here = Path(folder).relative_to(self._base)
            names = [(here / name).as_posix() for name in files if not is_hidden(name)]
            found += [name for name in names if self._matches is None or self._matches(name)]
        return found


def _raise(error: OSError) -> None:
    raise error


def arrival(status: os.stat_result) -> int:
    """When a file came to be here as it is, in nanoseconds: written, moved or copied."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _file(name: str, status: os.stat_result) -> File | None:
    instant = _instant(status.st_mtime_ns)
    if instant is None:
        return None
    return File(name, instant, f"{status.st_size}-{status.st_mtime_ns}", status.st_size)


def _instant(nanoseconds: int) -> datetime | None:
    try:
        return EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


def _is_finished(path: Path) -> bool:
    """Whether a file ends with a line's end. What is compressed tells by itself that it is cut off."""
    with open(path, "rb") as file:
        if file.read(len(GZIP)) == GZIP or not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() in (b"\n", b"\r")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise AuthError(f"{name} may not be read", cure="give this process the right to read it") from error
    except OSError as error:
        raise TransientError(f"{name} cannot be read ({type(error).__name__})") from error
