"""Rows of CSV and JSON lines, read from a stream of bytes as it goes by: never more of it in memory than one record.

A row that cannot be used has a `problem` and does not stop its neighbours; what is no such file at all is Refused. A
reading can be taken up again at any `Place` that it came by, and goes on there as if it had never stopped.

Facts: CSV as Python's `csv` module reads and writes it (RFC 4180 and its usual dialects); JSON by RFC 8259, which has
neither NaN nor half characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, Literal, get_args

import msgspec

from shared.tabular.identity import IDENTITY, Identities, identify, key_of
from shared.tabular.json_lines import read_json_lines
from shared.tabular.lines import START, Lines, Parsed, Place, Refused
from shared.tabular.separated import header_of, read_separated

__all__ = [
    "FORMATS", "IDENTITY", "START", "Format", "Identities", "Kind", "Parsed", "Place", "Refused", "Table", "identify",
    "key_of", "open_table", "read",
]  # fmt: skip

Kind = Literal["csv", "jsonl"]
FORMATS: Final[tuple[str, ...]] = get_args(Kind)


class Format(msgspec.Struct, frozen=True):
    """How a file is to be read. Without a delimiter, the header says which one it is: comma, semicolon or tab.
    `key` names the columns that a row is known by; one of a file that is read once is known by its line, and carries no
    identity in its data (`by_line`). `needs` are columns that have to be there, `exactly` the only ones that may."""

    kind: Kind
    delimiter: str = ""
    key: tuple[str, ...] = ()
    by_line: bool = False
    needs: tuple[str, ...] = ()
    exactly: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """What the head of a file says of all of it: how it is cut, and where its first row is. JSON lines have no columns
    of their own."""

    start: Place
    columns: tuple[str, ...] = ()
    delimiter: str = ""


def open_table(stream: BinaryIO, format: Format) -> Table:
    """Reads the head of a file. Raises Refused for one that is no table, or lacks a column of the key."""
    if format.kind == "jsonl":
        return Table(START)
    table = Table(*header_of(Lines(stream, START), format.delimiter, format.key))
    if missing := [name for name in (*format.needs, *format.exactly) if name not in table.columns]:
        raise Refused(f"its header has no column {', '.join(dict.fromkeys(missing))}")
    if format.exactly and (foreign := [name for name in table.columns if name not in format.exactly]):
        raise Refused(f"its header has a column {', '.join(foreign)}; there may be {', '.join(format.exactly)} alone")
    return table


def read(stream: BinaryIO, table: Table, place: Place) -> Iterator[Parsed]:
    """The rows from a place on; the stream stands there already. Raises Refused for what is no text."""
    lines = Lines(stream, place)
    if table.columns:
        return read_separated(lines, table.columns, table.delimiter)
    return read_json_lines(lines)
