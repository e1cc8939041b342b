"""A blob as a stream of bytes, of which a piece at a time is in memory."""

from __future__ import annotations

import io
from typing import Any, Final

from shared.ports import Blobs

PIECE: Final = 1 << 20


class Pieces(io.RawIOBase):
    """The bytes of a blob from an offset on. Reading raises as `Blobs.read` does."""

    def __init__(self, blobs: Blobs, name: str, offset: int = 0) -> None:
        self._blobs = blobs
        self._name = name
        self.offset = offset
        """Behind what was read."""
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            self._piece = memoryview(self.piece())
            self.offset += len(self._piece)
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def piece(self) -> bytes:
        """What comes next, nothing at the end."""
        return self._blobs.read(self._name, self.offset, PIECE)
