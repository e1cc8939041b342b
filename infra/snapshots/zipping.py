"""Archives: written piece by piece, and read by ranges, so that none is ever in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Final, cast

from shared.ports import Blobs

READ_AHEAD: Final = 1 << 20
PIECE: Final = 1 << 20


class _Outlet(io.RawIOBase):
    """Takes what is written, until somebody takes it away. It cannot be sought, so that a file's sums come after it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(cast(bytes, data))
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def zipped(files: Iterable[tuple[str, Iterable[bytes]]], at: datetime) -> Iterator[bytes]:
    """An archive of these files, piece by piece. It may be of any size (ZIP64)."""
    outlet = _Outlet()
    with zipfile.ZipFile(cast(BinaryIO, outlet), "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, pieces in files:
            info = zipfile.ZipInfo(name, at.astimezone(UTC).timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            with archive.open(info, "w", force_zip64=True) as file:
                for piece in pieces:
                    file.write(piece)
                    if taken := outlet.taken():
                        yield taken
            yield outlet.taken()
    yield outlet.taken()


class _Ranges(io.RawIOBase):
    """A blob as a file."""

    def __init__(self, blobs: Blobs, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self._size = blobs.size(name)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: object) -> int:
        room = memoryview(cast(bytearray, buffer))
        wanted = min(len(room), self._size - self._place)
        if wanted <= 0:
            return 0
        data = self._blobs.read(self._name, self._place, wanted)
        room[: len(data)] = data
        self._place += len(data)
        return len(data)


def open_blob(blobs: Blobs, name: str) -> BinaryIO:
    """A blob as a file that can be sought. Raises FileNotFoundError."""
    return cast(BinaryIO, io.BufferedReader(_Ranges(blobs, name), READ_AHEAD))
