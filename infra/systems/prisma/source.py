"""The rows of an export, read as they come.

Options besides those of every stream: `launch`, the number of a past one; `key`, the columns that a row is known by, or
none; `delimiter`, if the header does not tell it. Each row carries its identity in the column `_identity`, which
`shared.tabular.identify` reads.

The latest launch that went well is read from its first row to its last, whatever is launched meanwhile. A token names
it, and the place behind the last row with a fingerprint of all rows before it. Whoever resumes reads the file again and
goes on behind that place; where the file is another one by now, or is gone, the guard trips. Where no launch can be
named, the latest file is read under the same guard.

A row has no time of change: every run reads all of them, and a change is found by its content.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, Final

import msgspec

from infra.http import Download
from infra.systems import Connection
from infra.systems.files.options import formats_of
from infra.systems.prisma.api import Api
from infra.systems.prisma.status import has_file
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import ConfigError, GuardTripped, ProtocolError, RecordError, TransientError
from shared.record import content_hash, version_at
from shared.tabular import IDENTITY, Identities, Parsed, Refused, open_table, read

PAGE_BYTES: Final = 4_000_000
"""A page ends when its rows have so many bytes, however few they are."""
BUFFER: Final = 1 << 18
NO_CSV: Final = ("text/html", "application/json", "application/edn")

_encode = msgspec.json.Encoder().encode


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: a launch (0 for whichever is the latest), the offset behind the last row, and the fingerprint
    of the rows before it."""

    launch: int
    offset: int = 0
    fingerprint: str = ""


class Export:
    """The source of one data sync."""

    system = "prisma"

    def __init__(self, connection: Connection) -> None:
        if connection.page_size < 1:
            raise ConfigError("a page without rows", cure="set source.page_size to 1 or more")
        launch = str(connection.options.get("launch") or 0)
        if not (launch.isascii() and launch.isdigit()):
            raise ConfigError(f"`launch` is {launch}", cure="write its number")
        self._launch = int(launch)
        self._format = formats_of({**connection.options, "format": "csv"})("")
        self._size = connection.page_size
        self._clock = connection.clock
        self._retry = connection.retry
        self._api = Api(connection, connection.retry)
        self.location = self._api.location

    def now(self) -> datetime:
        return self._clock.now()

    def total(self, window: Window) -> int | None:
        """An export does not say how many rows it has."""
        return None

    def close(self) -> None:
        self._api.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """A file that breaks off is read again, by the policy, and gone on with."""
        place = _place_of(after) or Place(self._launch or self._latest())
        attempt = 0
        while True:
            with self._opened(place) as download:
                try:
                    for rows, behind in self._pages_of(io.BufferedReader(download, BUFFER), place, window):
                        yield Page(rows, _encode(behind).decode())
                        place, attempt = behind, 0
                    return
                except Refused as error:
                    raise GuardTripped(f"the export cannot be read: {error}", cure="look at it in Prisma") from error
                except TransientError as error:
                    attempt += 1
                    wait = self._retry.next_wait(attempt, error.after, self._clock.random)
                    if wait is None:
                        raise
            self._api.pause(wait)

    def _latest(self) -> int:
        try:
            return max((launch.id for launch in self._api.launches() if has_file(launch)), default=0)
        except ProtocolError:
            return 0

    def _opened(self, place: Place) -> Download:
        download = self._api.download(place.launch)
        head = download.head
        if not place.launch:
            self._api.check_there(head)
        if head.status == 404:
            raise GuardTripped(
                f"Prisma does not hold launch {place.launch} of data sync {self._api.data_sync}",
                cure="check `launch` and `data_sync`, or run again to read the latest one",
            )
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if head.status != 200 or kind in NO_CSV:
            download.close()
            raise ProtocolError(f"an export was answered {head.status} with {kind or 'nothing'}, and no CSV")
        return download

    def _pages_of(self, text: BinaryIO, place: Place, window: Window) -> Iterator[tuple[list[Row], Place]]:
        """The pages behind a place, each with the place behind it."""
        rows: list[Row] = []
        begun, last = place.offset, place
        for row, behind in self._rows(text, place, window):
            if len(rows) >= self._size or last.offset - begun >= PAGE_BYTES:
                yield rows, last
                rows, begun = [], last.offset
            rows.append(row)
            last = behind
        if rows:
            yield rows, last

    def _rows(self, text: BinaryIO, place: Place, window: Window) -> Iterator[tuple[Row, Place]]:
        """The rows behind a place. All before it are read too, for what came before in the file is part of what they
        are known by. Raises GuardTripped where they are others than they were."""
        table = open_table(text, self._format)
        identities = Identities(self._format.key)
        fingerprint = hashlib.blake2b(digest_size=12)
        is_known = not place.offset
        for parsed in read(text, table, table.start):
            fingerprint.update(_encode((parsed.data, parsed.digest)))
            row = _row(parsed, identities, window)
            behind = Place(place.launch, parsed.after.offset, fingerprint.hexdigest())
            is_known = is_known or behind == place
            if behind.offset > place.offset:
                if not is_known:
                    break
                yield row, behind
        if not is_known:
            raise GuardTripped("the export was changed while it was read", cure="run again: it is read anew")


def _row(parsed: Parsed, identities: Identities, window: Window) -> Row:
    data, problem, digest = parsed.data, parsed.problem, parsed.digest
    position, version = str(parsed.line), version_at(window.until, parsed.line)
    if problem is None:
        try:
            identity = data[IDENTITY] = identities.of(data)
            return Row(identity, version, position, data)
        except RecordError as error:
            problem, digest = (error.number, error.reason), content_hash(data)
    return Row(f"{digest}@{parsed.line}", version, position, data, problem=problem)


def _place_of(after: str) -> Place | None:
    if not after:
        return None
    try:
        return msgspec.json.decode(after, type=Place)
    except msgspec.DecodeError as error:
        raise GuardTripped(f"{after!r} is no place in an export") from error
