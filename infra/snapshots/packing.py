"""The archive of an export: with it the snapshot exists, and whoever comes after a crash lets it count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from infra.report import stamp
from infra.snapshots.archive import Unsound, opened
from infra.snapshots.folders import NEXT, OBJECTS, OUTPUT, PARAMS, REMOVED, Folders, Intended, output_path
from infra.snapshots.zipping import open_blob, zipped
from shared.errors import StoreUnavailable
from shared.snapshot.params import CarriedFile, SnapshotParams


def pack(folders: Folders, done: Intended, watch: Callable[[int], None]) -> None:
    """Writes the archive of files of the data folder, and lets it count (steps 4 to 6 of `exporting.py`). `watch` is
    told how many bytes were packed of the file in hand."""
    params = done.params
    folders.intend(done)
    files = [(file.path, _as_listed(folders, file, watch)) for file in params.files]
    document = [(PARAMS, iter([params.to_bytes()]))]
    folders.blobs.write_pieces(done.file, zipped([*files, *document], params.created_at))
    settle(folders, params)


def _as_listed(folders: Folders, file: CarriedFile, watch: Callable[[int], None]) -> Iterator[bytes]:
    """A file of the data folder. Raises StoreUnavailable where it is another one than was written."""
    found, size = hashlib.sha256(), 0
    try:
        for piece in folders.pieces(file.path):
            found.update(piece)
            size += len(piece)
            watch(size)
            yield piece
    except FileNotFoundError:
        size = -1
    if size < 0 or found.hexdigest() != file.sha256:
        raise StoreUnavailable(
            f"{file.path} in the data folder is not what was exported",
            cure="export a snapshot of type ALL, which writes all files anew",
        )


def settle(folders: Folders, params: SnapshotParams) -> None:
    """Lets an export count whose archive is written. The same however often it is done."""
    if params.type != "SETUP":
        folders.write_params(params)
        folders.keep_only(OUTPUT, (output_path(pov.name) for pov in params.povs))
        folders.keep_only(OBJECTS, (file.path for file in params.files))
    folders.blobs.delete(NEXT)


def settle_what_was_left(folders: Folders) -> Intended | None:
    """Brings an export to its end that was interrupted: the one whose archive was written by then, if there is one."""
    intended = folders.intended()
    if intended is None:
        return None
    if not folders.has(intended.file) or not is_of(folders, intended):
        folders.blobs.delete(NEXT)
        return None
    settle(folders, intended.params)
    return intended


def is_of(folders: Folders, intended: Intended) -> bool:
    """Whether the archive under this name is the one that was intended."""
    try:
        with opened(open_blob(folders.blobs, intended.file), intended.file) as archive:
            return archive.params == intended.params
    except Unsound:
        return False


def report(folders: Folders, done: Intended, notes: list[str]) -> dict[str, Any]:
    """What is said of an export."""
    file, params = done.file, done.params
    carried = sum(file.path.startswith(OUTPUT) for file in params.files)
    removed = sum(file.rows for file in params.files if file.path == REMOVED)
    return {
        "name": file.removeprefix("outbox/").removesuffix(".zip"),
        "file": file,
        "size": folders.blobs.size(file),
        "type": params.type,
        "createdAt": stamp(params.created_at),
        "lastProcessId": params.last_process_id,
        "baseProcessId": params.base_process_id,
        "withData": params.with_data,
        "files": len(params.files) + 1,
        "counts": params.counts,
        "povs": {"exported": done.exported, "carried": carried, "removed": removed},
        "notes": notes,
    }
