"""Reading Ploomes: contacts, tasks and interaction records by keyset, some pages side by side.

How a window is read. Rows are those with `LastUpdateDate` in the window, ascending by `Id`, which never changes, and
each page starts after the last Id of the page before it. A row that is touched while its window is being read leaves
the window (its date is now, and the window ended before now) and belongs to the next one; a row that vanishes is simply
not there any more; a row that becomes visible late is met if its Id is still ahead, and otherwise by the overlap of the
next window. None of this moves another row across the place where the reader stands, so no order by date is needed.

Read-ahead. While a page is awaited, up to three more are fetched by offset from the last Id that was verified. Each of
them begins with the last row of the page before it: if just that row comes first, then what follows it was read in one
answer after it, as by keyset. If it does not, or if a page is short, the pages read ahead are thrown away and reading
goes on by keyset.

The end is an empty page. A short page is not (seen in a public client), and neither is the number of rows that the
source counted: one that cuts its results without a sign counts them after the cut.

Facts: `$top` up to 300, `$count`, `$orderby`, `$filter` with bare date-time literals and the `User-Key` header are
vendor documentation and the vendor's own clients; dates with an offset and 0 to 7 fraction digits are captured answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from infra.http import Http, redact
from infra.pace import Pace
from infra.systems import Connection
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import BAD_VERSION, NO_SOURCE_ID, GuardTripped, ProtocolError
from shared.record import version_at

_THE_CONTACT: Final = "Contact($select=Id,Name,LegalName,TypeId,Register,CNPJ,CPF,Email;$expand=Phones)"
EXPANDED: Final = {
    "Contacts": "Phones,Tags,City($expand=State)",
    "Tasks": f"Tags,{_THE_CONTACT}",
    "InteractionRecords": f"Tags,{_THE_CONTACT}",
}
"""What can be read, and what is asked for with it."""
LARGEST_PAGE: Final = 300
WIDEST: Final = 4
"""Pages that are fetched at the same time."""

_NO_ID: Final = (NO_SOURCE_ID, "the row has no Id")
_BAD_DATE: Final = (BAD_VERSION, "LastUpdateDate cannot be read")


class _Answer(msgspec.Struct, frozen=True):
    """A page as it came: its rows, and the `@odata.count` if it was asked for and given."""

    rows: list[Any]
    total: int | None


class Ploomes:
    """The source of one entity set. Pages are given by one thread; the fetching ahead is its own affair."""

    system = "ploomes"

    def __init__(self, connection: Connection, read: str) -> None:
        key = connection.secret("PLOOMES_USER_KEY")
        self._closed = False
        self._pace = Pace(
            connection.rate, connection.clock, connection.pace_file, lambda: self._closed or connection.stopping()
        )
        self._http = Http(
            connection.url, {"User-Key": key}, self._pace, connection.retry, connection.clock, secrets=(key,)
        )
        self._clock = connection.clock
        self._retry = connection.retry
        self._size = connection.page_size
        self._read = read
        self._workers = ThreadPoolExecutor(WIDEST, thread_name_prefix="ploomes")
        self.location = f"{redact(self._http.base_url, (key,))}/{read}"

    def now(self) -> datetime:
        if self._http.server_now() is None:
            self._ask({"$top": 0})
        return self._http.server_now() or self._clock.now()

    def total(self, window: Window) -> int | None:
        return self._ask({"$filter": _within(window), "$top": 0, "$count": "true"}).total

    def close(self) -> None:
        """Waits for requests under way, not for those that were still to go."""
        self._closed = True
        self._workers.shutdown(cancel_futures=True)
        self._http.close()
        self._pace.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        """`after` is the last Id given, as text. `Page.total` comes with the first page of a window only."""
        reading = _Reading(after, self._size)
        wanted: deque[tuple[Future[_Answer], bool]] = deque()
        try:
            while True:
                while not wanted or reading.goes_ahead(len(wanted)):
                    skip, overlaps = reading.next_request(first=not wanted)
                    params = self._page_params(window, reading.anchor, skip, count=reading.asks_total)
                    wanted.append((self._workers.submit(self._ask, params), overlaps))
                future, overlaps = wanted.popleft()
                try:
                    answer = future.result()
                    rows = reading.verified(answer.rows, overlaps)
                except (GuardTripped, ProtocolError):
                    if not overlaps:
                        raise
                    # Something moved. Nothing of this answer was given, and the keyset will tell.
                    rows = []
                if not rows and not overlaps:
                    if reading.asks_total and answer.total:
                        yield Page((), after, answer.total)
                    return
                if rows:
                    before = reading.anchor or ""
                    total = reading.advance(rows, answer.total)
                    page = [
                        _row(self._read, row, found, before, place)
                        for place, (row, found) in enumerate(zip(rows, reading.ids, strict=True))
                    ]
                    yield Page(page, str(reading.anchor), total)
                if rows and len(answer.rows) == self._size and not reading.tail:
                    reading.widen()
                else:
                    _give_up(wanted)
                    reading.narrow()
        finally:
            _give_up(wanted)

    def _page_params(self, window: Window, anchor: int, skip: int, count: bool) -> dict[str, str | int]:
        params: dict[str, str | int] = {
            "$filter": f"{_within(window)} and Id gt {anchor}",
            "$orderby": "Id asc",
            "$top": self._size,
            "$expand": EXPANDED[self._read],
        }
        if skip:
            params["$skip"] = skip
        if count:
            params["$count"] = "true"
        return params

    def _ask(self, params: dict[str, str | int]) -> _Answer:
        """Asks again, by the same policy, for an answer that is no page: a web page of some gateway may pass."""
        attempt = 0
        while True:
            attempt += 1
            answer = self._http.request("GET", f"/{self._read}", params=params, repeatable=True)
            if answer.status != 200:
                raise ProtocolError(f"Ploomes answered a read of {self._read} with {answer.status}")
            try:
                return _page_of(answer.json())
            except ProtocolError:
                wait = self._retry.next_wait(attempt, None, self._clock.random)
                if wait is None:
                    raise
                self._pace.pause(wait)


class _Reading:
    """Where a window's reading stands: the last verified Id, and what is asked for beyond it."""

    def __init__(self, after: str, size: int) -> None:
        if after and not (after.isascii() and after.isdigit()):
            raise GuardTripped(f"{after!r} is no place in Ploomes")
        self.anchor = int(after or 0)
        self.asks_total = not after
        self.tail: list[Any] = []
        """Rows without Id at the end of the last page: they come again, since the anchor is before them."""
        self.ids: list[int | None] = []
        """The Ids of the rows that were verified last, None where a row has none."""
        self._size = size
        self._width = 1
        self._reach = 0
        """Rows beyond the anchor that are asked for."""
        self._left: int | None = None
        """Rows beyond the anchor by the source's total, which may be wrong: it only decides how much is read ahead."""

    def goes_ahead(self, under_way: int) -> bool:
        return under_way < self._width and (self._left is None or self._left > self._reach)

    def next_request(self, first: bool) -> tuple[int, bool]:
        """How many rows beyond the anchor to skip, and whether the answer has to join the one before it."""
        if first:
            self._reach = self._size
            return 0, False
        self._reach += self._size - 1
        return self._reach - self._size, True

    def verified(self, rows: list[Any], overlaps: bool) -> list[Any]:
        """The rows that are new, in their order. Raises GuardTripped or ProtocolError for rows that cannot be."""
        if overlaps:
            if not rows or _id_of(rows[0]) != self.anchor:
                raise GuardTripped("the pages do not join")
            rows = rows[1:]
        elif self.tail and rows[: len(self.tail)] == self.tail:
            rows = rows[len(self.tail) :]
        last = self.anchor
        self.ids = [_id_of(row) for row in rows]
        for place in self.ids:
            if place is not None:
                if place <= last:
                    raise GuardTripped(f"Ploomes gave Id {place} after Id {last}: it does not keep the order asked for")
                last = place
        if rows and last == self.anchor:
            raise ProtocolError(f"no row of a page after Id {last} has an Id")
        return rows

    def advance(self, rows: list[Any], total: int | None) -> int | None:
        """Moves behind these rows; gives the total of the window if they are its first ones."""
        if self.asks_total:
            self._left = total
        else:
            total = None
        self.asks_total = False
        ends = next(k for k in range(len(rows), 0, -1) if self.ids[k - 1] is not None)
        self.tail = rows[ends:]
        self.anchor = self.ids[ends - 1] or self.anchor
        self._reach -= len(rows)
        if self._left is not None:
            self._left -= len(rows)
        return total

    def widen(self) -> None:
        # One row of each further page is the last one of the page before it, so a page needs two.
        widest = WIDEST if self._size > 1 else 1
        self._width = min(widest, self._width * 2) if self._left is None else widest

    def narrow(self) -> None:
        self._width = 1


def _give_up(wanted: deque[tuple[Future[_Answer], bool]]) -> None:
    for future, _ in wanted:
        future.cancel()
    wanted.clear()


def _page_of(answer: Any) -> _Answer:
    rows = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise ProtocolError("an answer of Ploomes holds no list `value`")
    total = answer.get("@odata.count")
    return _Answer(rows, total if type(total) is int else None)


def _id_of(row: Any) -> int | None:
    found = row.get("Id") if isinstance(row, dict) else None
    return found if type(found) is int else None


def _row(read: str, data: Any, found: int | None, before: int | str, place: int) -> Row:
    if found is None:
        position = f"page-after:{before} row:{place}"
        return Row("", "", position, data if isinstance(data, dict) else {"row": data}, problem=_NO_ID)
    version = version_of(data)
    problem = None if version else _BAD_DATE
    return Row(str(found), version, f"{read}({found})", data, problem=problem)


def version_of(row: dict[str, Any]) -> str:
    """The version of a row that has an Id, empty if its date cannot be read."""
    try:
        changed = datetime.fromisoformat(row["LastUpdateDate"])
        if changed.tzinfo is None:
            raise ValueError("without an offset it may be any hour")
        return version_at(changed, str(row["Id"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


def _within(window: Window) -> str:
    return f"LastUpdateDate ge {_literal(window.since)} and LastUpdateDate lt {_literal(window.until)}"


def _literal(instant: datetime) -> str:
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
