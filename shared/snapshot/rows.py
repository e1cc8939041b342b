"""The files of a snapshot: CSV, a header and one row per thing.

In the file of a POV each row has the columns `row` (what it is), `id`, `process_id` (microseconds since 1970 of the
start of the run that left it), `at` and `document`: as JSON, all that is needed to restore it. Objects of the hub's own
store have a file per kind, with the same columns but the process.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import BinaryIO, Final, NamedTuple

import msgspec

from shared.books import Batch, Failure, Run, Window
from shared.confirm import Awaited
from shared.errors import NUMBERS, ConfigError
from shared.launches import AWAITS, EPOCH, Launch
from shared.ledger import Cell
from shared.objects import Object
from shared.outcome import FAILED, LETTERS, Outcome
from shared.snapshot.history import KindOfObject, Stored

COLUMNS: Final = ("row", "id", "process_id", "at", "document")
OBJECT_COLUMNS: Final = ("row", "id", "at", "document")
LONGEST: Final = 32_000_000
"""Bytes of a row: more than twice what a message can hold, whose quotes are doubled here."""
PIECE: Final = 65_536
LARGE: Final = 900_000
"""Bytes of a document. Firestore takes 1 MiB."""
MOST: Final = 1 << 62
"""Of a number: SQLite and Firestore keep 64 bits."""
_PART: Final = r"[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*"
MICROSECOND: Final = timedelta(microseconds=1)

Thing = Run | Batch | Cell | Failure | Awaited | Launch
KINDS: Final[dict[str, type[Thing]]] = {
    "run": Run,
    "batch": Batch,
    "cell": Cell,
    "failure": Failure,
    "request": Awaited,
    "launch": Launch,
}
COUNTED: Final = {"run": "runs", "batch": "batches", "cell": "cells", "failure": "failures", "request": "requests",
                  "launch": "launches"}  # fmt: skip
"""What the rows are called where they are counted."""
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()}
_ENDED: Final = frozenset(LETTERS[outcome] for outcome in Outcome if outcome is not Outcome.PENDING)
_encode = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(list[str]).decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode


class Row(NamedTuple):
    """One row of a POV's file. `at` is empty where nothing is known."""

    row: str
    id: str
    process_id: int
    at: str
    document: str


def process_id(instant: datetime) -> int:
    """Of what began, or was changed, at this instant."""
    return (instant - EPOCH) // MICROSECOND


def row_of(kind: str, id: str, process: int, at: datetime | None, thing: Thing) -> Row:
    return Row(kind, id, process, "" if at is None else at.isoformat(), _encode(thing).decode())


def place_of_batch(batch: str, process: int) -> str:
    """Of a batch among those that were committed at the same time. Batches of a run are numbered in the order in which
    they were committed, group by group (`shared/group.py`)."""
    numbers = [f"{int(part):012d}" for part in batch.rsplit(".", 2)[1:] if part.isascii() and part.isdecimal()]
    return ".".join([f"{process:020d}", *numbers, batch])


def place_of(thing: Thing, process: int) -> str:
    """Of a thing among those of its kind and time: the same in whichever home, so that equal books make equal files."""
    match thing:
        case Batch():
            return place_of_batch(thing.id, process)
        case Failure():
            return f"{place_of_batch(thing.batch, process)}.{thing.place:06d}"
        case Cell():
            return thing.key
    return str(thing.id)


def without_data(failure: Failure) -> Failure:
    """What stays of a failure in a snapshot without data. The target's own words may quote the record."""
    known = NUMBERS.get(failure.number)
    return msgspec.structs.replace(failure, data={}, reason="" if known is None else known.meaning)


def thing_of(row: Row, location: str, category: str) -> Thing:
    """Raises ConfigError for what is none, or belongs elsewhere."""
    decoder = _DECODERS.get(row.row)
    if decoder is None:
        raise ConfigError(f"no row is called {row.row!r}")
    try:
        thing = decoder.decode(row.document)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"the document of a row `{row.row}` is not what it should be: {error}") from error
    for value in msgspec.structs.astuple(thing):
        if isinstance(value, datetime):
            _check_instant(row, value)
            if not _is_kept(value):
                raise ConfigError(f"a row `{row.row}` has an instant that nobody can keep")
        elif isinstance(value, Window):
            _check_instant(row, value.since)
            _check_instant(row, value.until)
        elif isinstance(value, int) and not -MOST <= value <= MOST:
            raise ConfigError(f"a row `{row.row}` has a number that nobody can keep")
    if isinstance(thing, Cell):
        if thing.key != row.id:
            raise ConfigError("a row `cell` has another id than its document")
        return thing
    if str(thing.id) != row.id or (thing.integration, thing.stream) != (location, category):
        raise ConfigError(f"a row `{row.row}` has another id, location or category than its document")
    fault = _fault(thing) or ("is more than a home can keep" if _is_too_large(thing, row.document) else "")
    if fault:
        raise ConfigError(f"a row `{row.row}` {fault}")
    return thing


def _is_too_large(thing: Thing, document: str) -> bool:
    """Whether Firestore could not hold it as one document, in which there is no data of failures."""
    if len(document) < LARGE // 4:
        return False
    if isinstance(thing, Batch):
        idents = zlib.compress(_encode((thing.keys, thing.versions)), 1)
        return len(idents) + len(_encode((thing.outcomes, thing.rules, thing.amended))) > LARGE
    return len(_encode(msgspec.structs.replace(thing, data={}) if isinstance(thing, Failure) else thing)) > LARGE


def _check_instant(row: Row, instant: datetime) -> None:
    if instant.tzinfo is None:
        raise ConfigError(f"a row `{row.row}` has an instant without a time zone")


def _is_kept(instant: datetime) -> bool:
    """Whether a process may be named by it, and a month end behind it."""
    try:
        return instant.astimezone(UTC).year < MAXYEAR
    except OverflowError:
        return False


def _fault(thing: Run | Batch | Failure | Awaited | Launch) -> str:
    """What no snapshot says of a thing, empty if there is nothing."""
    if isinstance(thing, Run) and not thing.over:
        return "has not come to its end"
    if isinstance(thing, Failure) and (thing.outcome not in FAILED or thing.place < 0):
        return "is no failure"
    if isinstance(thing, Launch) and thing.state in AWAITS:
        return "has not begun"
    if not isinstance(thing, Batch):
        return ""
    if not len(thing.keys) == len(thing.versions) == len(thing.outcomes) or thing.state != "settled":
        return "does not say what became of each of its records"
    if thing.blob and not re.fullmatch(rf"archive/{thing.integration}/{thing.stream}/{_PART}/{_PART}", thing.blob):
        return "names an archive that is not its stream's"
    if thing.offset < 0 or thing.length < 0:
        return "lies outside of its archive"
    places = {str(place) for place in range(len(thing.keys))}
    if not _ENDED.issuperset(thing.outcomes) or not _ENDED.issuperset(thing.amended.values()):
        return "holds an outcome that nobody knows"
    return "" if places.issuperset(thing.amended) else "amends a record that it does not have"


def object_rows(kind: KindOfObject, objects: Iterable[Object]) -> Iterator[Sequence[object]]:
    """The rows of the objects of a kind, the first of which names their fields."""
    yield "fields", kind.name, "", _encode(kind.fields).decode()
    for each in objects:
        yield "object", each.id, each.changed_at.isoformat(), _encode(each.fields).decode()


def objects_in(rows: Iterable[Sequence[str]]) -> Iterator[KindOfObject | Stored]:
    """What the rows of a kind's file are. Raises ConfigError."""
    kind = ""
    for what, id, at, document in rows:
        try:
            if what == "fields":
                kind = id
                yield KindOfObject(kind, _decode_names(document))
                continue
            changed_at = datetime.fromisoformat(at)
            if what != "object" or not kind or changed_at.tzinfo is None:
                raise ConfigError("a row is neither `fields` nor an object of a kind")
            yield Stored(kind, Object(id, _decode_object(document), changed_at))
        except (ValueError, msgspec.DecodeError) as error:
            raise ConfigError(f"an object is not what it should be: {error}") from error


def written(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """A file, piece by piece."""
    text = io.StringIO()
    # A character of the terminator is quoted; a lone \r that is not ends the line for whoever reads it.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(row)
        if text.tell() >= PIECE:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def read(file: BinaryIO, columns: Sequence[str] | None = None) -> Iterator[list[str]]:
    """The rows of a file below its header, which has to be this one. Raises ConfigError for what is none."""
    # The limit is one for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = next(reader, [])
        if not header or (columns is not None and header != list(columns)):
            raise ConfigError(f"its header is {','.join(header)[:200]!r}, and not {','.join(columns or ())!r}")
        for row in reader:
            if len(row) != len(header):
                raise ConfigError(f"line {reader.line_num} has {len(row)} fields, and the header {len(header)}")
            yield row
    except csv.Error as error:
        raise ConfigError(f"line {reader.line_num} is no CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the line after line {reader.line_num} is not UTF-8") from error


def pov_row(row: Sequence[str]) -> Row:
    """Raises ConfigError."""
    what, id, process, at, document = row
    if not process.isdecimal() or not process.isascii() or len(process) > 18:
        raise ConfigError("a process is no number")
    return Row(what, id, int(process), at, document)


def _lines(file: BinaryIO) -> Iterator[str]:
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise ConfigError(f"a line has more than {LONGEST} bytes")
        yield line.decode()
