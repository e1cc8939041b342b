"""Tables in files, wherever the files are: which of them a window holds, and their rows, page by page.

A file belongs to the window in which it came to be there, and is read from one version of it (`generation`)
from its first row to its last. That it is still this version at its end is verified before its last page is given.

The token of a page names the file, its version, and the place behind the last row; so reading goes on there. Only where
rows are known by their content alone is the head of that one file read once more, to know what came in it before.

Every record of a file has the time of the file in its version, and the number of its line behind it: of two rows with
one key the later one is the newer, however often both are read.

A file that cannot be read (no header, not UTF-8, cut off, changed meanwhile) does not keep its neighbours waiting. The
guard trips when all others are read: the cursor stays, and the next run reads the window anew, with the mended file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from typing import BinaryIO, Final, Protocol, cast

import msgspec

from shared.books import Window
from shared.ends import Page, Row
from shared.errors import GuardTripped, RecordError, TransientError
from shared.launches import launch_id
from shared.ports import Clock
from shared.record import content_hash, version_at
from shared.tabular import IDENTITY, START, Format, Identities, Parsed, Refused, open_table, read
from shared.tabular import Place as InFile

PAGE_BYTES: Final = 4_000_000
"""A page ends when its rows have so many bytes, however few they are."""
GZIP: Final = b"\x1f\x8b"
"""No text in UTF-8 begins with these bytes."""

BUFFER: Final = 1 << 18

_encode = msgspec.json.Encoder().encode
_CHANGED: Final = "it was changed or removed while it was read"
_CURE: Final = "mend the file, move it away, or leave it out by a pattern in `path`; then run again"


class File(msgspec.Struct, frozen=True):
    """One version of one file. `generation` is another one for each version."""

    name: str
    instant: datetime
    generation: str
    size: int


class Changed(Exception):
    """The file is not that version any more."""


class Store(Protocol):
    """Where files are. Calls raise AuthError, TransientError or ProtocolError."""

    location: str
    is_one_file: bool
    """Whether all there can be is one file: then its name need not be said with each row."""

    def find(self, window: Window) -> Iterator[File]:
        """The files that came to be there in the window, in no particular order."""

    def open(self, file: File, offset: int) -> io.RawIOBase:
        """The bytes from an offset on. It or its reads raise Changed."""

    def is_unchanged(self, file: File) -> bool: ...

    def close(self) -> None: ...


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: the file that was read last, where in it the next row starts and whether there is one, and how
    many files were refused before, with the reason for the first one."""

    instant: datetime
    name: str
    generation: str
    inside: InFile = START
    is_done: bool = False
    refused: int = 0
    reason: str = ""


class Tables:
    """The source of all rows of all files of a store."""

    def __init__(
        self,
        system: str,
        store: Store,
        format_of: Callable[[str], Format],
        page_size: int,
        clock: Clock,
        cure: str = _CURE,
    ) -> None:
        self.system = system
        self.location = store.location
        self._store = store
        self._format_of = format_of
        self._size = page_size
        self._clock = clock
        self._cure = cure

    def now(self) -> datetime:
        return self._clock.now()

    def total(self, window: Window) -> int | None:
        """Files do not say how many rows they have."""
        return None

    def close(self) -> None:
        self._store.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """Raises GuardTripped at the end if there was a file that could not be read as a whole."""
        place = _place_of(after)
        refusals = Refusals(place, is_alone=self._store.is_one_file)
        for file in self._files(window, place, refusals):
            half = place is not None and (place.name, place.generation) == (file.name, file.generation)
            inside = place.inside if place is not None and half else START
            try:
                yield from self._pages_of(file, inside, refusals)
            except (Changed, Refused) as error:
                refusals.add(file.name, str(error) or _CHANGED)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                refusals.add(file.name, "it is compressed, and damaged or cut off")
            except OSError as error:
                raise TransientError(f"{file.name} cannot be read ({type(error).__name__})") from error
        refusals.trip_if_any(self._cure)

    def _files(self, window: Window, place: Place | None, refusals: Refusals) -> Iterator[File]:
        """What is left to read, oldest first, the one that is read half first of all."""
        files = sorted(self._store.find(window), key=lambda file: (file.instant, file.name))
        if place is not None:
            here = (place.instant, place.name)
            if not place.is_done:
                half = [file for file in files if (file.name, file.generation) == (place.name, place.generation)]
                if not half:
                    refusals.add(place.name, _CHANGED)
                yield from half
            files = [file for file in files if (file.instant, file.name) > here]
        yield from files

    def _pages_of(self, file: File, inside: InFile, refusals: Refusals) -> Iterator[Page]:
        """A page is given when there is a row behind it, or when the file turned out to be the same at its end."""
        page: list[Row] = []
        size, come_to = 0, inside
        with closing(self._rows(file, inside)) as rows:
            for row, parsed in rows:
                if len(page) >= self._size or size >= PAGE_BYTES:
                    yield Page(page, _token(Place(file.instant, file.name, file.generation, come_to), refusals))
                    page, size = [], 0
                page.append(row)
                size += parsed.after.offset - come_to.offset
                come_to = parsed.after
        if not self._store.is_unchanged(file):
            raise Changed
        if page:
            done = Place(file.instant, file.name, file.generation, come_to, is_done=True)
            yield Page(page, _token(done, refusals))

    def _rows(self, file: File, inside: InFile) -> Generator[tuple[Row, Parsed]]:
        """The rows behind a place, with what they were read from."""
        format = self._format_of(file.name)
        identities = Identities(format.key)
        salt = hashlib.blake2b(file.name.encode(), digest_size=4).hexdigest()
        with ExitStack() as opened:
            text = opened.enter_context(self._text(file))
            table = open_table(text, format)
            place = table.start
            if (format.key or format.by_line) and inside.offset > place.offset:
                place = inside
                if isinstance(text, io.BufferedReader):
                    text = opened.enter_context(io.BufferedReader(self._store.open(file, place.offset), BUFFER))
                else:
                    _skip(text, place.offset)
            for parsed in read(text, table, place):
                row = self._row(file, parsed, None if format.by_line else identities, salt)
                if parsed.after.offset > inside.offset:
                    yield row, parsed

    def _row(self, file: File, parsed: Parsed, identities: Identities | None, salt: str) -> Row:
        data, problem, digest = parsed.data, parsed.problem, parsed.digest
        version = version_at(file.instant, f"{parsed.line:012d}.{salt}")
        position = str(parsed.line) if self._store.is_one_file else f"{file.name}:{parsed.line}"
        if identities is None:
            # The same line of another file is another object.
            return Row(f"{launch_id(file.instant)}:{parsed.line}", version, position, data, problem=problem)
        if problem is None:
            try:
                identity = data[IDENTITY] = identities.of(data)
                return Row(identity, version, position, data)
            except RecordError as error:
                problem, digest = (error.number, error.reason), content_hash(data)
        return Row(f"{digest}@{parsed.line}", version, position, data, problem=problem)

    @contextmanager
    def _text(self, file: File) -> Iterator[BinaryIO]:
        """The text of a file from its beginning, unpacked if it is packed."""
        with io.BufferedReader(self._store.open(file, 0), BUFFER) as stored:
            if stored.peek(len(GZIP))[: len(GZIP)] == GZIP:
                with gzip.GzipFile(fileobj=stored) as unpacked:
                    yield cast(BinaryIO, unpacked)
            elif file.name.endswith(".gz"):
                raise Refused("by its name it is compressed, and it is not")
            else:
                yield stored


class Refusals:
    """The files that could not be read, over all slices of a run."""

    def __init__(self, place: Place | None, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self.count = place.refused if place is not None else 0
        self.reason = place.reason if place is not None else ""

    def add(self, name: str, reason: str) -> None:
        self.count += 1
        self.reason = self.reason or f"{name}: {reason}"

    def trip_if_any(self, cure: str) -> None:
        if self.count:
            more = f" (and {self.count - 1} more like it)" if self.count > 1 else ""
            others = "" if self.is_alone else "; all other files were read"
            raise GuardTripped(f"{self.reason}{more}{others}", cure=cure)


def _skip(text: BinaryIO, offset: int) -> None:
    """What is packed has to be unpacked to be passed over."""
    while (left := offset - text.tell()) > 0 and text.read(min(left, BUFFER)):
        pass


def _token(place: Place, refusals: Refusals) -> str:
    return _encode(msgspec.structs.replace(place, refused=refusals.count, reason=refusals.reason)).decode()


def _place_of(after: str) -> Place | None:
    if not after:
        return None
    try:
        return msgspec.json.decode(after, type=Place)
    except msgspec.DecodeError as error:
        raise GuardTripped(f"{after!r} is no place in a file") from error
