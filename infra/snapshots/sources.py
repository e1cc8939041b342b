"""Where an archive comes from, and what an import leaves of the files that belonged to the books before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from infra.snapshots.folders import STAGED, Folders, archive_name
from infra.snapshots.kept import Kept
from infra.snapshots.zipping import PIECE, open_blob
from shared.errors import ConfigError
from shared.ports import Home


def stage(folders: Folders, source: str | Path, progress: Any, kept: Kept) -> None:
    """Copies an archive to where nobody changes it."""

    def pieces() -> Iterator[bytes]:
        with source_of(folders, source) as file:
            size = 0
            while piece := file.read(PIECE):
                size += len(piece)
                kept.keep()
                progress("copy", size, None)
                yield piece

    folders.blobs.write_pieces(STAGED, pieces())


@contextmanager
def source_of(folders: Folders, source: str | Path) -> Iterator[BinaryIO]:
    """The file that is named: one of this machine, or one in the snapshot folders. Raises ConfigError."""
    cure = "name a file, or inbox/NAME.zip, or outbox/NAME.zip: `./waybill snapshot list` shows them"
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                yield file
        else:
            yield open_blob(folders.blobs, stored_name(source))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {source}", cure=cure) from None
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}", cure=cure) from error


def stored_name(source: str) -> str:
    """The name of an archive in the snapshot folders, or in one below inbox. Raises ConfigError."""
    folder, slash, name = source.rpartition("/")
    top, *below = folder.split("/")
    if top not in ("", "inbox", "outbox") or (below and top != "inbox") or ".." in below:
        raise ConfigError(f"{source!r} is in no snapshot folder", cure="name one in inbox or outbox")
    return f"{folder}{slash}{archive_name(name)}"


def drop_files_of_nobody(home: Home, before: datetime) -> None:
    """Deletes what the books that were replaced had archived, were sent or made: nobody would find it any more, not
    even whoever has to forget a person. What was written later is left alone."""
    runs: dict[str, bool] = {}
    for name, written_at in list(home.blobs.names("archive/")):
        run = name.split("/")[3]
        if run not in runs:
            runs[run] = home.runs.get(run) is not None
        if not runs[run] and written_at < before:
            home.blobs.delete(name)
    for name, written_at in list(home.blobs.names("uploads/")):
        # No launch that was imported has its file.
        if written_at < before:
            home.blobs.delete(name)
    for name, written_at in list(home.blobs.names("exports/")):
        _, integration, stream, launch, *_ = name.split("/")
        known = launch.isdecimal() and home.launches.get(integration, stream, int(launch)) is not None
        if not known and written_at < before:
            home.blobs.delete(name)
