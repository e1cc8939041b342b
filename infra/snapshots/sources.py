"""Where an archive comes from, and what an import leaves of the files that belonged to the books before."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from infra.snapshots.folders import COPIES, Folders, archive_name
from infra.snapshots.kept import Kept
from infra.snapshots.zipping import PIECE, open_blob
from shared.errors import ConfigError
from shared.ports import Home

LONGEST: Final = 800
"""Bytes of a name, and of a folder in it, that a file system takes below a folder of its own."""
LONGEST_PART: Final = 200


def stage(folders: Folders, source: str | Path, progress: Any, kept: Kept) -> str:
    """Copies an archive to where nobody changes it, and gives the name of the copy."""
    copy = f"{COPIES}{uuid.uuid4().hex}.zip"

    def pieces() -> Iterator[bytes]:
        with source_of(folders, source) as file:
            size = 0
            while piece := file.read(PIECE):
                size += len(piece)
                kept.keep()
                progress("copy", size, None)
                yield piece

    folders.blobs.write_pieces(copy, pieces())
    return copy


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
    too_long = any(len(part) > LONGEST_PART for part in below) or len(source) > LONGEST
    if top not in ("", "inbox", "outbox") or (below and top != "inbox") or ".." in below or too_long:
        raise ConfigError(f"{source!r} is in no snapshot folder", cure="name one in inbox or outbox")
    return f"{folder}{slash}{archive_name(name)}"


def drop_files_of_nobody(home: Home, before: datetime, keep: Callable[[], None]) -> None:
    """Deletes what the books that were replaced had archived, were sent or made: nobody would find it any more, not
    even whoever has to forget a person. What was written later is left alone, and what somebody waits for. `keep` is
    called for each file."""
    runs: dict[str, bool] = {}
    for name in _older(home, "archive/", before, keep):
        run = name.split("/")[3]
        if run not in runs:
            runs[run] = home.runs.get(run) is not None
        if not runs[run]:
            home.blobs.delete(name)
    wanted: dict[tuple[str, str], set[str]] = {}
    for name in _older(home, "uploads/", before, keep):
        _, integration, stream, _ = name.split("/")
        if (integration, stream) not in wanted:
            # No launch that was imported has its file: these were asked for since.
            wanted[integration, stream] = {launch.file for launch in home.launches.waiting(integration, stream)}
        if name not in wanted[integration, stream]:
            home.blobs.delete(name)
    for name in _older(home, "exports/", before, keep):
        _, integration, stream, launch, *_ = name.split("/")
        if not launch.isdecimal() or home.launches.get(integration, stream, int(launch)) is None:
            home.blobs.delete(name)


def _older(home: Home, prefix: str, before: datetime, keep: Callable[[], None]) -> Iterator[str]:
    for name, written_at in list(home.blobs.names(prefix)):
        keep()
        if written_at < before:
            yield name
