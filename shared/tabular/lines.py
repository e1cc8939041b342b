"""Physical lines with their numbers and places, none of which is ever held whole if it is too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

LONGEST: Final = 1_000_000
"""Bytes of a record. A message has fewer, so that what is longer could not travel."""
EXCERPT: Final = 10_000
"""Characters that are kept of what could not be read."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_FOREIGN: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_PIECE: Final = 65_536


class Refused(Exception):
    """The file as a whole cannot be read. Says why, and nothing of what is in it."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the next row starts: bytes from the beginning of the text, and the number of its line, from 1.

    Up to `scanned` a quote was followed that nobody closed (`separated.py`).
    """

    offset: int = 0
    line: int = 1
    scanned: int = 0


START: Final = Place()


class Parsed(NamedTuple):
    """A row, the line that it starts in, and the place behind it. With a problem, `data` holds an excerpt of the text
    and `digest` is made of all of it."""

    line: int
    data: dict[str, Any]
    after: Place
    problem: tuple[int, str] | None = None
    digest: str = ""


class Line(NamedTuple):
    """One physical line with its ending. Of one that is too long, `data` is the beginning and `size` is of all."""

    number: int
    start: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def is_whole(self) -> bool:
        return self.size == len(self.data)


class Lines:
    """The lines of a text from a place on; some can be put back and come again."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = stream
        self._offset = place.offset
        self._number = place.line
        self._back: deque[Line] = deque()
        self.scanned = place.scanned

    @property
    def at_start(self) -> bool:
        return self._offset == 0

    def next(self) -> Line | None:
        """None at the end. Raises Refused if the first line is no text in UTF-8 or anything like it."""
        if self._back:
            return self._back.popleft()
        data = self._stream.readline(LONGEST + 1)
        if not data:
            return None
        size = len(data)
        if size > LONGEST and not data.endswith(b"\n"):
            while more := self._stream.readline(_PIECE):
                size += len(more)
                if more.endswith(b"\n"):
                    break
        line = Line(self._number, self._offset, data, size)
        if not self._offset:
            _check(line)
        self._offset += size
        self._number += 1
        return line

    def put_back(self, lines: Iterable[Line]) -> None:
        self._back.extendleft(reversed(list(lines)))

    def place_after(self, line: Line) -> Place:
        return Place(line.end, line.number + 1, self.scanned if self.scanned > line.end else 0)


def text_of(line: Line) -> bytes:
    """The line without the mark that may stand at the beginning of a file."""
    return line.data.removeprefix(BYTE_ORDER_MARK) if line.start == 0 else line.data


def _check(first: Line) -> None:
    if first.data.startswith(_FOREIGN):
        raise Refused("it is not UTF-8 (it begins like UTF-16 or UTF-32)")
    if b"\x00" in first.data:
        raise Refused("it is not UTF-8 text (its first line holds zero bytes)")
