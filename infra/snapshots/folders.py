"""Where snapshots are: the folders `data`, `outbox` and `inbox`, and what is in them.

    data/snapshots/setup/<table>.csv                              what the last export or import said of the set-up
    data/snapshots/data/SnapshotParams.json  removed.csv          what it was, and what it was the first to lack
    data/snapshots/data/output/<location>/<category>/<period>.csv the POVs as they stand since then
    data/snapshots/data/objects/<kind>.csv                        the hub's own objects, where data was asked for
    data/snapshots/next.json                                      an export that has not come to its end
    data/snapshots/imports/<id>.zip                               an import that has not come to its end
    data/snapshots/overlay.yaml                                   what makes this installation that of the last import
    outbox/<name>.zip  inbox/<name>.zip                           archives

An archive holds `setup` and `data` as they stand in `data/snapshots`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from shared.errors import ConfigError
from shared.ports import Blobs
from shared.snapshot import SnapshotType
from shared.snapshot.params import PovName, SnapshotParams, read_params

ROOT: Final = "data/snapshots/"
SETUP: Final = "setup/"
PARAMS: Final = "data/SnapshotParams.json"
REMOVED: Final = "data/removed.csv"
OUTPUT: Final = "data/output/"
OBJECTS: Final = "data/objects/"
NEXT: Final = f"{ROOT}next.json"
COPIES: Final = f"{ROOT}imports/"
OVERLAY: Final = f"{ROOT}overlay.yaml"
PIECE: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +@()-]{0,199}")


class Intended(msgspec.Struct, frozen=True):
    """An export whose archive is written, or about to be: what it is called, and what `SnapshotParams.json` will be."""

    file: str
    exported: int
    """How many POVs were written for it."""
    params: SnapshotParams

    def is_of(self, type: SnapshotType, with_data: bool) -> bool:
        """Whether it is what somebody asks for. One of the set-up holds no data, whether or not it was asked for."""
        return self.params.type == type and (type == "SETUP" or self.params.with_data == with_data)


class Folders:
    """The files of `data/snapshots` by the names that they have in an archive, and the archives."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def params(self) -> SnapshotParams | None:
        """What the data folder holds, None if nothing was exported or imported yet."""
        try:
            return read_params(self.blobs.read(f"{ROOT}{PARAMS}"))
        except FileNotFoundError:
            return None

    def write_params(self, params: SnapshotParams) -> None:
        self.blobs.write(f"{ROOT}{PARAMS}", params.to_bytes())

    def intend(self, intended: Intended) -> None:
        self.blobs.write(NEXT, msgspec.json.encode(intended))

    def intended(self) -> Intended | None:
        try:
            return msgspec.json.decode(self.blobs.read(NEXT), type=Intended)
        except FileNotFoundError:
            return None

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        self.blobs.write_pieces(f"{ROOT}{path}", pieces)

    def pieces(self, path: str) -> Iterator[bytes]:
        """Raises FileNotFoundError."""
        return pieces_of(self.blobs, f"{ROOT}{path}")

    def names(self, prefix: str) -> list[str]:
        """The files whose names in an archive begin so."""
        return [name.removeprefix(ROOT) for name, _ in self.blobs.names(f"{ROOT}{prefix}")]

    def keep_only(self, prefix: str, wanted: Iterable[str]) -> None:
        """Deletes the other files whose names begin so."""
        kept = set(wanted)
        for name in self.names(prefix):
            if name not in kept:
                self.blobs.delete(f"{ROOT}{name}")

    def drop_copies(self, but: str = "") -> None:
        """Deletes the copies of archives that imports have left, but for one of them."""
        for name, _ in list(self.blobs.names(COPIES)):
            if name != but:
                self.blobs.delete(name)

    def has(self, name: str) -> bool:
        """Whether there is an archive of this name."""
        try:
            self.blobs.size(name)
        except FileNotFoundError:
            return False
        return True


def pieces_of(blobs: Blobs, name: str) -> Iterator[bytes]:
    """A blob, piece by piece. Raises FileNotFoundError."""
    offset = 0
    while piece := blobs.read(name, offset, PIECE):
        yield piece
        offset += len(piece)
        if len(piece) < PIECE:
            return


def output_path(pov: PovName) -> str:
    return f"{OUTPUT}{'/'.join(pov)}.csv"


def objects_path(kind: str) -> str:
    return f"{OBJECTS}{quote(kind, safe='')}.csv"


def archive_name(name: str) -> str:
    """The name of an archive in a folder, with its ending. Raises ConfigError."""
    bare = name.removesuffix(".zip")
    if _NAME.fullmatch(bare) is None:
        raise ConfigError(
            f"{name!r} is no name for a snapshot", cure="use letters, digits, blanks and any of _ . + @ ( ) -"
        )
    return f"{bare}.zip"
