"""CSV: records of fields in quotes, which may hold delimiters, quotes and line breaks.

The fields are cut by Python's `csv` module, which is given line after line and so says by itself where a record ends.
Quotes are taken strictly: text after a closing quote is a mistake, not part of the field.

Where the quotes of a record are broken, its first line alone is set aside, and reading goes on with the line after it:
a quote that somebody forgot to close must not swallow the good rows below. A file could be made so that every line
begins such a search anew; so a long one is made once, up to `Place.scanned`, and a further one that begins before that
place sets aside all that it ran over, as one row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any, Final

from shared.errors import TOO_LARGE, UNMAPPABLE
from shared.tabular.identity import IDENTITY
from shared.tabular.json_lines import unread
from shared.tabular.lines import LONGEST, Line, Lines, Parsed, Place, Refused, text_of

DELIMITERS: Final = (",", ";", "\t")
"""What is looked for in a header, the first one in doubt."""
LONG_SEARCH: Final = 4096
"""Bytes that may be read again for the sake of one broken record, as often as it takes."""

_UNCLOSED: Final = "a quote is opened and not closed"
_REASONS: Final = {
    "unexpected end": _UNCLOSED,
    "' expected after": "text follows a closing quote",
    "new-line character": "it holds a carriage return outside quotes",
}


class _Broken(Exception):
    """A record that cannot be cut: number and reason."""


class _Feed:
    """Gives the `csv` module its lines, and remembers those of the record under way.

    A line that is not UTF-8 is given all the same, with marks in it, so that the record ends where it should.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.taken: list[Line] = []
        self.size = 0
        self.foreign = 0
        """The number of the first line that is not UTF-8."""

    def begin(self) -> None:
        self.taken = []
        self.size = self.foreign = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._lines.next()
        if line is None:
            raise StopIteration
        self.taken.append(line)
        self.size += line.size
        if not line.is_whole:
            if len(self.taken) > 1:
                raise _Broken(UNMAPPABLE, f"{_UNCLOSED} before line {line.number}, which is too long")
            raise _Broken(TOO_LARGE, f"the line has {line.size} bytes")
        if self.size > LONGEST and len(self.taken) > 1:
            raise _Broken(UNMAPPABLE, f"{_UNCLOSED} within {LONGEST} bytes")
        data = text_of(line)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.foreign = self.foreign or line.number
            return data.decode(errors="replace")

    def text(self) -> bytes:
        return b"".join(text_of(line) for line in self.taken)


def header_of(lines: Lines, delimiter: str, key: Sequence[str]) -> tuple[Place, tuple[str, ...], str]:
    """Where the first row starts, the names of the columns, and the delimiter, which the header tells if nobody else
    does. Raises Refused for a header that does not name each column once, or lacks a column of the key."""
    first = lines.next()
    if first is None:
        raise Refused("it is empty: not even a header is there")
    if not first.is_whole:
        raise Refused(f"its header has more than {LONGEST} bytes")
    lines.put_back([first])
    feed = _Feed(lines)
    try:
        delimiter = delimiter or _delimiter_of(text_of(first).decode(errors="replace"))
        columns = tuple(name.strip() for name in next(_reader(feed, delimiter)))
    except csv.Error as error:
        raise Refused(f"its header cannot be read: {_reason(error)}") from None
    except _Broken:
        raise Refused("a quote in its header is not closed") from None
    if feed.foreign:
        raise Refused("it is not UTF-8 (its header is not)")
    if not any(columns):
        raise Refused("its first line is empty: there is no header")
    unnamed = [str(place) for place, name in enumerate(columns, 1) if not name]
    if unnamed:
        raise Refused(f"its header has no name for column {', '.join(unnamed)}")
    if len(set(columns)) < len(columns):
        raise Refused("its header names a column twice")
    if IDENTITY in columns:
        raise Refused(f"its header names a column {IDENTITY}, which is not for a source to give")
    missing = [name for name in key if name not in columns]
    if missing:
        raise Refused(f"its header has no column {', '.join(missing)} (by which rows are known)")
    return lines.place_after(feed.taken[-1]), columns, delimiter


def read_separated(lines: Lines, columns: Sequence[str], delimiter: str) -> Iterator[Parsed]:
    """The rows, one after another; empty lines are none."""
    feed = _Feed(lines)
    reader = _reader(feed, delimiter)
    width = len(columns)
    while True:
        feed.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _set_aside(lines, feed, (UNMAPPABLE, _reason(error)))
            continue
        except _Broken as error:
            yield _set_aside(lines, feed, error.args)
            continue
        if not fields:
            continue
        first, last = feed.taken[0], feed.taken[-1]
        if feed.foreign:
            problem = (UNMAPPABLE, f"line {feed.foreign} is not UTF-8")
        elif len(fields) != width:
            over = f", over {len(feed.taken)} lines" if len(feed.taken) > 1 else ""
            problem = (UNMAPPABLE, f"it has {len(fields)} fields{over}, and the header has {width}")
        else:
            yield Parsed(first.number, dict(zip(columns, fields, strict=True)), lines.place_after(last))
            continue
        yield unread(lines, last, feed.text(), problem, first)


def _set_aside(lines: Lines, feed: _Feed, problem: tuple[Any, ...]) -> Parsed:
    """A row whose quotes are broken: its first line, or all of it where that was searched before."""
    number, reason = problem
    first, last = feed.taken[0], feed.taken[-1]
    is_long = feed.size > LONG_SEARCH
    if is_long and first.start < lines.scanned:
        reason = f"{reason}; lines {first.number} to {last.number} are set aside"
        return unread(lines, last, feed.text(), (number, reason), first)
    if is_long:
        lines.scanned = last.end
    lines.put_back(feed.taken[1:])
    return unread(lines, first, text_of(first), (number, reason))


def _reader(feed: _Feed, delimiter: str) -> Any:
    # The limit is one for the whole process, and lower than a record may be.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * LONGEST))
    return csv.reader(feed, delimiter=delimiter, strict=True)


def _delimiter_of(header: str) -> str:
    return max(DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def _reason(error: csv.Error) -> str:
    text = str(error)
    return next((reason for part, reason in _REASONS.items() if part in text), "its quotes are broken")
