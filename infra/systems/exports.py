"""A CSV file of a launch's own, as a sink. The file is virtual: each batch leaves its rows as a part, and whoever asks
for the file is given the parts in the order in which their batches were committed (`file_of`).

A batch's part holds all of its rows once, however often the batch was delivered: what is written is put among what the
part holds already, by key. So a record is in the file exactly if it was delivered.

Cells that a spreadsheet would take for a formula get an apostrophe in front (unless `escape_formulas: false`): those
that begin with =, @, a tab or a carriage return, or with + or - and are neither a number nor a phone number (OWASP, CSV
injection).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from infra.systems import Connection
from shared.ends import Change
from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.launches import Launch
from shared.outcome import LETTERS, Absent, Answer, CannotAsk, Outcome, Probe, delivered
from shared.ports import Home

BULK: Final = 1000
"""As many as a batch can have."""
_FORMULA: Final = ("=", "@", "\t", "\r")
_SIGNED: Final = ("+", "-")
_NUMBER: Final = re.compile(r"[+-](?:[0-9]+(?:[.,' ][0-9]+)*[.,]?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?%?")
_PHONE: Final = re.compile(r"\+[0-9][0-9 ().\-/]*[0-9]")

_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode


def open_sink(connection: Connection, write: str) -> Exports:
    """What is written is said by the launch, and `write` says nothing."""
    options = connection.options
    style = Style(str(options.get("delimiter") or ","), options.get("escape_formulas", True) is not False)
    return Exports(connection.own_home, connection.stream, style)


class Style(msgspec.Struct, frozen=True):
    """How a file is written."""

    delimiter: str = ","
    escape_formulas: bool = True

    def line(self, cells: Sequence[str]) -> str:
        """One row, with its ending."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator="\r\n")
        writer.writerow([neutral(cell) for cell in cells] if self.escape_formulas else cells)
        return text.getvalue()


def neutral(cell: str) -> str:
    """The cell, such that no spreadsheet takes it for a formula."""
    signed = cell.startswith(_SIGNED) and not _NUMBER.fullmatch(cell) and not _PHONE.fullmatch(cell)
    return f"'{cell}" if signed or cell.startswith(_FORMULA) else cell


def part_of(launch: Launch, batch: str) -> str:
    """The name of the blob that holds what a batch adds to the file of a launch."""
    return f"exports/{launch.integration}/{launch.stream}/{launch.id}/{batch}"


def file_of(home: Home, launch: Launch, style: Style) -> Iterator[bytes]:
    """The file of a launch, piece by piece. Raises FileNotFoundError, before its first piece, where a part of it is not
    kept any more."""
    rows = _rows_of(home, launch)
    first = next(rows, b"")
    yield style.line(launch.columns).encode() + first
    yield from rows


def _rows_of(home: Home, launch: Launch) -> Iterator[bytes]:
    """Batches that were committed together are one piece, by key: so the file has the order in which it was read."""
    for _, together in groupby(home.batches.of_run(launch.run), lambda batch: batch.id.rsplit(".", 1)[0]):
        rows: list[tuple[str, str]] = []
        for batch in together:
            if LETTERS[Outcome.DELIVERED] in batch.outcomes:
                rows += _decode(home.blobs.read(part_of(launch, batch.id)))
        yield "".join(row for _, row in sorted(rows)).encode()


class Exports:
    """The files of the launches of one stream. Not for two threads at once."""

    system = "exports"
    bulk = BULK

    def __init__(self, home: Callable[[], Home], stream: tuple[str, str], style: Style) -> None:
        self._home = home
        self._stream = stream
        self._style = style
        self._launch: Launch | None = None
        self._batch = ""

    def enter(self, run: str, batch: str) -> None:
        """Raises ConfigError for a run that is no launch."""
        if self._launch is None or self._launch.run != run:
            number = run.rpartition("-")[2]
            self._launch = self._home().launches.get(*self._stream, int(number)) if number.isdecimal() else None
            if self._launch is None:
                raise ConfigError(f"{run} is no launch, so that there is no file for it")
        self._batch = batch

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        """A row is in the part of its batch, and nobody asks for it by its key alone."""
        return [Absent() if self._launch is not None else CannotAsk()] * len(changes)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        assert self._launch is not None, "a batch is entered before it is written"
        columns = self._launch.columns
        name = part_of(self._launch, self._batch)
        try:
            rows = dict(self._held(name))
            for change in changes:
                rows[change.key] = self._style.line([text(change.content.get(column)) for column in columns])
            self._home().blobs.write(name, msgspec.json.encode(list(rows.items())))
        except StoreUnavailable as error:
            raise TransientError(f"the part was not stored: {error}") from error
        return [delivered()] * len(changes)

    def _held(self, name: str) -> list[tuple[str, str]]:
        try:
            return _decode(self._home().blobs.read(name))
        except FileNotFoundError:
            return []

    def close(self) -> None:
        pass


def text(value: Any) -> str:
    """A value as a cell."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return msgspec.json.encode(value).decode()
