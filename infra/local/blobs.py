"""Blobs in a folder. A file appears under its name only when all of it is on disk."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from shared.errors import ConfigError, StoreUnavailable


class LocalBlobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(file, view) :]
                os.fdatasync(file)
            finally:
                os.close(file)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreUnavailable(f"cannot write {name}: {error.strerror}") from error

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with open(self._path(name), "rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def delete(self, name: str) -> None:
        path = self._path(name)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._folder:
                return
            try:
                folder.rmdir()
            except OSError:
                return

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for folder, _, files in os.walk(self._folder):
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(self._folder).as_posix()
                if name.startswith(prefix) and not file.startswith("."):
                    yield name, datetime.fromtimestamp(path.stat().st_mtime, UTC)

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if any(part in ("", ".", "..") or part.startswith(".") for part in parts):
            raise ConfigError(f"{name!r} is no name for a blob")
        return self._folder.joinpath(*parts)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
