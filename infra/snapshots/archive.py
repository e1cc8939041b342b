"""Reading archives that may be anything: nothing of one is believed before the whole of it was looked through.

Refused are names that lead elsewhere or come twice, files that nobody lists, links, files that are much larger than
their archive (a bomb), sums that do not agree, versions that nobody knows, and rows that are not what they should be.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

from infra.snapshots.folders import OBJECTS, OUTPUT, PARAMS, REMOVED, SETUP, output_path
from shared.errors import ConfigError
from shared.snapshot.history import KindOfObject, Stored
from shared.snapshot.params import CarriedFile, Pov, PovName, SnapshotParams, read_params
from shared.snapshot.periods import NAME as PERIOD
from shared.snapshot.rows import (
    COLUMNS,
    COUNTED,
    OBJECT_COLUMNS,
    Row,
    Thing,
    objects_in,
    pov_row,
    read,
    thing_of,
)

Watch = Callable[[str, int], None]
"""Told which file is read, and how many of its rows were."""
REMOVED_COLUMNS: Final = ("location", "category", "period")
MOST_FILES: Final = 1_000_000
DIRECTORY_BYTES: Final = 200 * MOST_FILES
RATIO: Final = 200
"""A file of a snapshot is packed to a fiftieth at best; a bomb, to a thousandth."""
ALLOWANCE: Final = 10_000_000
"""Bytes that an archive may hold whatever its own size."""
PARAMS_BYTES: Final = 100_000_000
WATCHED_ROWS: Final = 5_000
_STREAM: Final = re.compile(r"[a-z][a-z0-9_]*")
_TABLE: Final = re.compile(rf"{SETUP}[a-z][a-z0-9_]*\.csv")
_OBJECTS: Final = re.compile(rf"{OBJECTS}[A-Za-z0-9_%~-][A-Za-z0-9_.%~-]*\.csv")
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_CURE: Final = "export it again, or bring the file over once more"


class Unsound(ConfigError):
    """An archive that is not what it says, or nothing at all."""

    cure = _CURE


class Archive:
    """An archive whose directory and `SnapshotParams.json` are sound. Use `opened`."""

    def __init__(self, name: str, archive: zipfile.ZipFile, params: SnapshotParams) -> None:
        self.name = name
        self.params = params
        self._zip = archive
        self.files = {file.path: file for file in params.files}
        self.povs = [pov for pov in params.povs if output_path(pov.name) in self.files]
        """Those whose files it carries."""

    def rows(self, path: str, columns: tuple[str, ...] | None = None) -> Iterator[list[str]]:
        """The rows of a file. At its end raises Unsound where sum and number are not those that are listed."""
        listed = self.files[path]
        with _sound(f"{self.name}, {path}"), self._zip.open(path) as member:
            summed = Summed(cast(BinaryIO, member))
            count = 0
            for row in read(cast(BinaryIO, io.BufferedReader(summed, 1 << 20)), columns):
                count += 1
                yield row
            if summed.sha256 != listed.sha256:
                raise Unsound(f"{self.name}: the sum of {path} is not the one that is listed")
            if count != listed.rows:
                raise Unsound(f"{self.name}: {path} has {count} rows, and {listed.rows} are listed")

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file as it is."""
        with _sound(f"{self.name}, {path}"), self._zip.open(path) as member:
            while piece := member.read(1 << 20):
                yield piece

    def things(self, pov: Pov) -> Iterator[tuple[Row, Thing]]:
        """The rows of the file of a POV. Raises Unsound."""
        path = output_path(pov.name)
        with _sound(f"{self.name}, {path}"):
            for row in self.rows(path, COLUMNS):
                yield thing_in(row, pov.name)

    def objects(self, path: str) -> Iterator[KindOfObject | Stored]:
        """What the rows of a kind's file are. Raises Unsound."""
        with _sound(f"{self.name}, {path}"):
            yield from objects_in(self.rows(path, OBJECT_COLUMNS))

    @property
    def removed(self) -> list[PovName]:
        """What the snapshot was the first to lack."""
        if REMOVED not in self.files:
            return []
        return [(location, category, period) for location, category, period in self.rows(REMOVED, REMOVED_COLUMNS)]

    def check(self, watch: Watch) -> None:
        """Looks through the whole of it. Raises Unsound."""
        counts = dict.fromkeys((*COUNTED.values(), "objects"), 0)
        carried = {output_path(pov.name): pov for pov in self.povs}
        for path in sorted(self.files):
            if path in carried:
                for what, count in self._counted(carried[path], watch).items():
                    counts[what] += count
            elif path.startswith(OBJECTS):
                counts["objects"] += sum(isinstance(each, Stored) for each in self.objects(path))
            else:
                for _ in self.rows(path, REMOVED_COLUMNS if path == REMOVED else None):
                    pass
            watch(path, self.files[path].rows)
        if self.params.type != "SETUP" and counts != self.params.counts:
            raise Unsound(f"{self.name}: what it holds is not what it counts")

    def _counted(self, pov: Pov, watch: Watch) -> dict[str, int]:
        """Looks through the file of a POV. What it counts is what later exports count, which carry the file as it is.
        Raises Unsound."""
        path = output_path(pov.name)
        counts: dict[str, int] = {}
        for done, (row, _) in enumerate(self.things(pov), 1):
            counts[COUNTED[row.row]] = counts.get(COUNTED[row.row], 0) + 1
            if done % WATCHED_ROWS == 0:
                watch(path, done)
        if counts != {what: count for what, count in pov.counts.items() if count}:
            raise Unsound(f"{self.name}: what {path} holds is not what its POV counts")
        return counts


def thing_in(row: list[str], pov: PovName) -> tuple[Row, Thing]:
    """A row of the file of a POV. Raises ConfigError."""
    found = pov_row(row)
    return found, thing_of(found, pov[0], pov[1])


@contextmanager
def opened(file: BinaryIO, name: str) -> Iterator[Archive]:
    """Raises Unsound for a file that is no archive of a snapshot."""
    with _sound(name):
        _check_directory(file, name)
        archive = zipfile.ZipFile(file)
    with archive:
        with _sound(name):
            names = _check_members(archive, name, file.seek(0, io.SEEK_END))
            if PARAMS not in names:
                raise Unsound(f"{name} has no {PARAMS}: it is no snapshot")
            if archive.getinfo(PARAMS).file_size > PARAMS_BYTES:
                raise Unsound(f"{name}: {PARAMS} has more than {PARAMS_BYTES} bytes")
            params = read_params(archive.read(PARAMS))
            _check_listed(params, names - {PARAMS}, name)
        yield Archive(name, archive, params)


def _check_directory(file: BinaryIO, name: str) -> None:
    """How much the directory of an archive takes, before anybody reads it."""
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - 65_557)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise Unsound(f"{name} is no archive")
    entries, length = _END.unpack_from(tail, place)[4:6]
    before = place - _LOCATOR.size
    if before >= 0 and tail[before : before + 4] == b"PK\x06\x07":
        file.seek(_LOCATOR.unpack_from(tail, before)[2])
        end = file.read(_END_64.size)
        if len(end) == _END_64.size:
            entries, length = _END_64.unpack(end)[7:9]
    if entries > MOST_FILES or length > DIRECTORY_BYTES:
        raise Unsound(f"{name} has {entries} files: more than a snapshot")


def _check_members(archive: zipfile.ZipFile, name: str, size: int) -> set[str]:
    names: set[str] = set()
    total = 0
    for info in archive.infolist():
        path = info.orig_filename
        parts = path.split("/")
        if path != info.filename or "\\" in path or any(part in ("", ".", "..") for part in parts) or ":" in path:
            raise Unsound(f"{name} holds {path!r}: that is no name of a file in a snapshot")
        if path in names:
            raise Unsound(f"{name} holds {path} twice")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Unsound(f"{name} holds {path}, which is no plain file")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unsound(f"{name} holds {path}, which is encrypted, or packed in a way of its own")
        total += info.file_size
        if info.file_size > ALLOWANCE + RATIO * info.compress_size or total > ALLOWANCE + RATIO * size:
            raise Unsound(f"{name} would have {total} bytes or more unpacked, and has {size}: it looks like a bomb")
        names.add(path)
    return names


def _check_listed(params: SnapshotParams, names: set[str], name: str) -> None:
    listed = [file.path for file in params.files]
    if len(set(listed)) < len(listed):
        raise Unsound(f"{name} lists a file twice")
    if stray := sorted(names - set(listed)):
        raise Unsound(f"{name} holds {stray[0]}, which it does not list")
    if missing := sorted(set(listed) - names):
        raise Unsound(f"{name} lists {missing[0]}, and does not hold it")
    povs = params.by_name
    if len(povs) < len(params.povs):
        raise Unsound(f"{name} lists a POV twice")
    for pov in params.povs:
        if not (_STREAM.fullmatch(pov.location) and _STREAM.fullmatch(pov.category) and PERIOD.fullmatch(pov.period)):
            raise Unsound(f"{name} lists a POV {'/'.join(pov.name)!r}: that is no name of one")
    for mark in params.streams:
        if not (_STREAM.fullmatch(mark.integration) and _STREAM.fullmatch(mark.stream)):
            raise Unsound(f"{name} lists a stream {mark.stream!r} of {mark.integration!r}: that is no name of one")
    of_povs = {output_path(pov.name): pov for pov in params.povs}
    for file in params.files:
        _check_path(params, file, of_povs.get(file.path), name)
    if params.type in ("ALL", "ALL_INCREMENTAL") and of_povs.keys() - set(listed):
        raise Unsound(f"{name} lists POVs whose files it does not hold")
    if params.type != "SETUP" and (params.last_process_id is None or REMOVED not in names):
        raise Unsound(f"{name} does not say which process was the last, or what was removed")


def _check_path(params: SnapshotParams, file: CarriedFile, pov: Pov | None, name: str) -> None:
    """Whether the file belongs into a snapshot of this type."""
    if _TABLE.fullmatch(file.path):
        return
    if params.type != "SETUP":
        if file.path == REMOVED or (params.with_data and _OBJECTS.fullmatch(file.path)):
            return
        if file.path.startswith(OUTPUT) and pov is not None and (pov.sha256, pov.rows) == (file.sha256, file.rows):
            return
    raise Unsound(f"{name} holds {file.path}: that is no file of a snapshot of type {params.type}")


class Summed(io.RawIOBase):
    """A file that is summed while it is read to its end."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner
        self._sum = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        room = memoryview(cast(bytearray, buffer))
        data = self._inner.read(len(room))
        self._sum.update(data)
        room[: len(data)] = data
        return len(data)

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


@contextmanager
def _sound(what: str) -> Iterator[None]:
    """What reading an archive that is broken raises, in the project's words."""
    try:
        yield
    except Unsound:
        raise
    except ConfigError as error:
        raise Unsound(f"{what}: {error}", cure=error.cure if error.cure != ConfigError.cure else _CURE) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
        raise Unsound(f"{what} is broken: {error}") from error
    except (ValueError, OverflowError) as error:
        raise Unsound(f"{what} is no archive: {error}") from error
