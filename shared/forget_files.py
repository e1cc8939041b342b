"""Forgetting a customer in the files of launches: rows are cut out of what was sent and out of what was produced.

Of a file that was sent, what is cut out leaves the line breaks that it had, so that every other row stays in its line.
The launch is told the new size after the file has it, so whoever forgets again after a crash makes that good. A file
that cannot be read as rows may hold anything, and goes as a whole.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from shared.cleanup import UNNAMED
from shared.forget_customer import EXPORTS, UPLOADS, Person, Theirs
from shared.launches import Launch, newest_first
from shared.launching import is_read
from shared.objects import ID
from shared.pieces import PIECE, Pieces
from shared.ports import Blobs, Home
from shared.tabular import Format, Refused, open_table, read

BUFFER: Final = 1 << 18
Rows = list[tuple[str, str]]
_decode = msgspec.json.Decoder(Rows).decode


class Cut(NamedTuple):
    """Bytes that go, and how many line breaks stay of them."""

    start: int
    end: int
    breaks: int


class Found(NamedTuple):
    """What of a file that was sent is theirs. `cuts` is None where the file cannot be read. `stays` says that a run may
    read it yet, or somebody is about to say what it is."""

    name: str
    launch: Launch | None
    size: int
    cuts: Sequence[Cut] | None
    stays: bool


def find_uploads(home: Home, theirs: Theirs) -> Iterator[Found]:
    """The files that were sent for a stream in which something is theirs, or may be, or that say a wrong size."""
    where = theirs.keeping.integration, theirs.keeping.stream
    written = dict(home.blobs.names(f"{UPLOADS}/{where[0]}/{where[1]}/"))
    named: dict[str, Launch] = {}
    for launch in newest_first(home.launches, *where):
        if len(named) == len(written):
            break
        if launch.file in written:
            named[launch.file] = launch
    for name, written_at in written.items():
        its = named.get(name)
        is_late = written_at <= home.clock.now() - UNNAMED
        stays = not (is_late if its is None else is_read(home, its))
        try:
            size, cuts = _look_through(home.blobs, name, theirs)
        except FileNotFoundError:
            continue
        if cuts is None or cuts or (its is not None and its.size != size):
            yield Found(name, its, size, cuts, stays)


def look_into_files(home: Home, person: Person) -> tuple[dict[str, int], bool]:
    """How many rows are theirs where, and whether one may be read yet."""
    uploads = [found for theirs in person.theirs.values() for found in find_uploads(home, theirs)]
    exports = [part for theirs in person.theirs.values() for part in _find_exports(home, theirs)]
    counts = {
        "uploaded rows": sum(len(found.cuts or ()) for found in uploads),
        "unreadable uploads": sum(found.cuts is None for found in uploads),
        "exported rows": sum(len(rows) - len(kept) for _, rows, kept in exports),
    }
    return counts, any(found.stays and found.cuts != [] for found in uploads)


def erase_files(home: Home, person: Person) -> dict[str, int]:
    """Cuts out what is theirs, and says what it was."""
    erased = {"uploaded rows": 0, "unreadable uploads": 0, "exported rows": 0}
    for theirs in person.theirs.values():
        rows, files = erase_uploads(home, theirs)
        erased["uploaded rows"] += rows
        erased["unreadable uploads"] += files
        erased["exported rows"] += erase_exports(home, theirs)
    return erased


def erase_uploads(home: Home, theirs: Theirs) -> tuple[int, int]:
    """Cuts out what is theirs. Says how many rows it was, and how many files went as a whole."""
    rows = files = 0
    for found in list(find_uploads(home, theirs)):
        if found.stays:
            continue
        if found.cuts is None or found.launch is None:
            if found.launch is not None:
                home.launches.note(msgspec.structs.replace(found.launch, file=""))
            home.blobs.delete(found.name)
            files += 1
            continue
        size = found.size
        if found.cuts:
            size = home.blobs.write_pieces(found.name, _without(home.blobs, found.name, found.cuts))
            rows += len(found.cuts)
        home.launches.note(msgspec.structs.replace(found.launch, size=size))
    return rows, files


def _look_through(blobs: Blobs, name: str, theirs: Theirs) -> tuple[int, list[Cut] | None]:
    """The size of a file, and what to cut out of it: None where it is no table."""
    cuts: list[Cut] = []
    pieces = Pieces(blobs, name)
    try:
        with io.BufferedReader(pieces, BUFFER) as stream:
            table = open_table(stream, Format("csv", theirs.keeping.delimiter, by_line=True))
            place = table.start
            for row in read(stream, table, place):
                if theirs.is_row(row):
                    cuts.append(Cut(place.offset, row.after.offset, row.after.line - place.line))
                place = row.after
            return pieces.offset, cuts
    except Refused:
        return 0, None


def _without(blobs: Blobs, name: str, cuts: Iterable[Cut]) -> Iterator[bytes]:
    """The file piece by piece, less what is cut out."""
    place = 0
    for cut in cuts:
        yield from _between(blobs, name, place, cut.start)
        yield b"\n" * cut.breaks
        place = cut.end
    yield from _between(blobs, name, place, None)


def _between(blobs: Blobs, name: str, start: int, end: int | None) -> Iterator[bytes]:
    while end is None or start < end:
        piece = blobs.read(name, start, PIECE if end is None else min(PIECE, end - start))
        if not piece:
            return
        yield piece
        start += len(piece)


def erase_exports(home: Home, theirs: Theirs) -> int:
    """Cuts out what is theirs, and says how many rows it was."""
    erased = 0
    for name, rows, kept in _find_exports(home, theirs):
        home.blobs.write(name, msgspec.json.encode(kept))
        erased += len(rows) - len(kept)
    return erased


def _find_exports(home: Home, theirs: Theirs) -> Iterator[tuple[str, Rows, Rows]]:
    """The parts in which something is theirs: their rows, and those of others."""
    where = theirs.keeping.integration, theirs.keeping.stream
    columns: dict[int, tuple[str, ...]] = {}
    for name, _ in list(home.blobs.names(f"{EXPORTS}/{where[0]}/{where[1]}/")):
        number = int(name.split("/")[3])
        if number not in columns:
            launch = home.launches.get(*where, number)
            columns[number] = () if launch is None else launch.columns
        rows = _decode(home.blobs.read(name))
        kept = [
            (key, text) for key, text in rows if not theirs.is_key(key) and not _names(text, columns[number], theirs)
        ]
        if len(kept) < len(rows):
            yield name, rows, kept


def _names(text: str, columns: Sequence[str], theirs: Theirs) -> bool:
    """Whether the column of the customer's id names them: what they have of a kind may be called anything."""
    if ID not in columns or theirs.customer not in text:
        return False
    cells = next(csv.reader(io.StringIO(text), delimiter=theirs.keeping.delimiter or ","), [])
    place = columns.index(ID)
    return place < len(cells) and cells[place].removeprefix("'") == theirs.customer
