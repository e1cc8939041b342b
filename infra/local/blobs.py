"""Blobs in a folder. A file appears under its name only when all of it is on disk."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from shared.errors import ConfigError, StoreUnavailable

_TRIES = 100
"""A folder that is empty may be removed between its making and the first file in it; then it is made again."""


class LocalBlobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        self.write_pieces(name, [data])

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> int:
        path = self._path(name)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        size = 0
        try:
            with _storing(name):
                file = _create(temporary)
            try:
                # What the pieces raise is theirs: only the writing is translated.
                for piece in pieces:
                    with _storing(name):
                        _write_all(file, piece)
                    size += len(piece)
                with _storing(name):
                    os.fdatasync(file)
            finally:
                os.close(file)
            with _storing(name):
                os.replace(temporary, path)
                _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        return size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._reaching(name), open(self._path(name), "rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def size(self, name: str) -> int:
        with self._reaching(name):
            path = self._path(name)
            if path.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            return path.stat().st_size

    def delete(self, name: str) -> None:
        path = self._path(name)
        with suppress(FileNotFoundError), self._reaching(name):
            path.unlink()
        for folder in path.parents:
            if folder == self._folder:
                return
            try:
                folder.rmdir()
            except OSError:
                return

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for folder, _, files in os.walk(self._folder, onerror=_complain):
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(self._folder).as_posix()
                if not name.startswith(prefix) or file.startswith("."):
                    continue
                try:
                    written_at = path.stat().st_mtime
                except FileNotFoundError:
                    continue
                yield name, datetime.fromtimestamp(written_at, UTC)

    def remove_abandoned(self) -> None:
        """Removes what processes left behind that died while they wrote."""
        for folder, _, files in os.walk(self._folder, onerror=_complain):
            for file in files:
                if file.startswith("."):
                    _remove_abandoned(Path(folder, file))

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(not part or part.startswith(".") for part in parts) or any(ord(letter) < 32 for letter in name):
            raise ConfigError(f"{name!r} is no name for a blob")
        return self._folder.joinpath(*parts)

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        """A folder, or something below a file, is no blob; that holds for the folder of all blobs only if it is one."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (IsADirectoryError, NotADirectoryError) as error:
            if self._folder.exists() and not self._folder.is_dir():
                raise StoreUnavailable(f"{self._folder} is no folder") from error
            raise FileNotFoundError(f"there is no blob called {name}") from error
        except OSError as error:
            raise StoreUnavailable(f"cannot reach {name}: {error.strerror}") from error


@contextmanager
def _storing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"cannot write {name}: {error.strerror}") from error


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _create(path: Path) -> int:
    """Opens a new file, in a folder that is made where it is missing."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            _make(path.parent)
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            return file
    raise FileNotFoundError(2, "its folder is removed again and again")


def _remove_abandoned(path: Path) -> None:
    """Whoever writes a file holds a lock on it, which ends with the process."""
    with _storing(path.name), suppress(FileNotFoundError, BlockingIOError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(file)


def _make(folder: Path) -> None:
    """Makes a folder and those above it, each of them safe on disk."""
    if folder.is_dir():
        return
    _make(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """One that is removed meanwhile needs no syncing."""
    with suppress(FileNotFoundError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _complain(error: OSError) -> None:
    """A folder that was removed while it was looked for is no trouble."""
    if not isinstance(error, FileNotFoundError):
        raise StoreUnavailable(f"cannot list {error.filename}: {error.strerror}") from error
