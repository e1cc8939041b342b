"""Forgetting a person in what snapshots left: the data folder and the archives.

Whatever holds the person goes as a whole. A POV whose file went counts as changed, so that the next export writes it
anew, without the person; an archive is exported again by whoever needs it. Copies that were taken elsewhere are beyond
reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from infra.snapshots.archive import opened
from infra.snapshots.exporting import distrusted
from infra.snapshots.folders import OBJECTS, OUTPUT, ROOT, Folders, output_path
from infra.snapshots.importing import finish_what_was_left
from infra.snapshots.kept import held
from infra.snapshots.zipping import open_blob
from infra.wiring import Hub
from shared.books import Batch, Failure, Run
from shared.errors import ConfigError
from shared.snapshot.history import EXPORT, IMPORT, Stored
from shared.snapshot.rows import COLUMNS, OBJECT_COLUMNS, Row, objects_in, pov_row, read, thing_of

FILES: Final = "snapshot files"
ARCHIVES: Final = "snapshot archives"
Rows = Iterator[list[str]]


class Wanted(msgspec.Struct, frozen=True):
    """Who is meant, as rows have it."""

    keys: Callable[[str, str], set[str]]
    """Under which they stand in an integration's stream."""
    tells: Callable[[str, str, Failure], bool]
    """Whether a failure under another key tells of them."""
    owns: Callable[[str, str, Any], bool]
    """Whether an object of a kind, by its id and fields, is theirs."""
    at: Callable[[str, str, Run], bool]
    """Whether a run's place in what it reads is called as they are."""


class Found(msgspec.Struct):
    """Files and archives that hold the person."""

    files: list[str] = []
    archives: list[str] = []
    notes: list[str] = []

    @property
    def counts(self) -> dict[str, int]:
        return {FILES: len(self.files), ARCHIVES: len(self.archives)}


@contextmanager
def undisturbed(hub: Hub) -> Iterator[None]:
    """Nobody exports or imports meanwhile, and nothing of that is left half done. Raises Leased."""
    with held(hub.home, IMPORT, EXPORT) as kept:
        finish_what_was_left(hub, lambda step, done, total: None, kept)
        yield


def look_into_snapshots(hub: Hub, wanted: Wanted) -> Found:
    """Which files and archives hold the person; those that cannot be read are noted."""
    folders, found = Folders(hub.home.snapshots), Found()
    for path in [*folders.names(OUTPUT), *folders.names(OBJECTS)]:
        with open_blob(folders.blobs, f"{ROOT}{path}") as file:
            try:
                holds = _holds(path, read(file, _columns(path)), wanted)
            except (ConfigError, RecursionError):
                # Nobody relies on it: the next export writes it anew.
                holds = True
        if holds:
            found.files.append(path)
    for name in [name for name, _ in folders.blobs.names("") if name.endswith(".zip")]:
        try:
            with open_blob(folders.blobs, name) as file, opened(file, name) as archive:
                if any(_holds(path, archive.rows(path, _columns(path)), wanted) for path in archive.files):
                    found.archives.append(name)
        except (ConfigError, FileNotFoundError, RecursionError):
            found.notes.append(f"{name} in the snapshot folders cannot be read: delete it if it may hold this person")
    return found


def erase_in_snapshots(hub: Hub, wanted: Wanted) -> Found:
    """Deletes them. Whoever does it again finds what is left."""
    folders, found = Folders(hub.home.snapshots), look_into_snapshots(hub, wanted)
    stored = folders.params()
    if stored is not None:
        gone = {pov.name for pov in stored.povs if output_path(pov.name) in found.files}
        if gone:
            folders.write_params(distrusted(stored, gone))
    for path in found.files:
        folders.blobs.delete(f"{ROOT}{path}")
    for name in found.archives:
        folders.blobs.delete(name)
    return found


def _holds(path: str, rows: Rows, wanted: Wanted) -> bool:
    """Raises ConfigError for a file that is not what it should be."""
    if path.startswith(OBJECTS):
        owned = (each for each in objects_in(rows) if isinstance(each, Stored))
        return any(wanted.owns(each.kind, each.object.id, each.object.fields) for each in owned)
    if not path.startswith(OUTPUT):
        return False
    location, category, _ = path.removeprefix(OUTPUT).split("/")
    keys = wanted.keys(location, category)
    quoted = [msgspec.json.encode(key).decode()[1:-1] for key in keys]
    return any(_is_theirs(pov_row(row), location, category, keys, quoted, wanted) for row in rows)


def _columns(path: str) -> tuple[str, ...] | None:
    return OBJECT_COLUMNS if path.startswith(OBJECTS) else COLUMNS if path.startswith(OUTPUT) else None


def _is_theirs(row: Row, location: str, category: str, keys: set[str], quoted: list[str], wanted: Wanted) -> bool:
    if row.row == "cell":
        return row.id in keys
    if row.row == "batch" and any(key in row.document for key in quoted):
        batch = thing_of(row, location, category)
        return isinstance(batch, Batch) and not keys.isdisjoint(batch.keys)
    if row.row == "failure":
        failure = thing_of(row, location, category)
        return isinstance(failure, Failure) and (failure.key in keys or wanted.tells(location, category, failure))
    if row.row == "run":
        run = thing_of(row, location, category)
        return isinstance(run, Run) and wanted.at(location, category, run)
    return False
