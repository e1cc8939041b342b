"""OKKI's companies, by pages over a window of their time of update.

Pages are counted from 1 and not anchored anywhere: where a company leaves the window while it is read (its time of
update is now), all that follow move up, and one of them crosses into a page that was read already. The total, which
comes with every page, shows that, and the pages before are read again, as many as may be concerned. Rows that are
given twice by this are duplicates, which do no harm.

The end is the total reached, or an empty page. `after` is the last page, the rows so far (pages may be smaller than
asked for: OKKI says nothing of the most it gives) and the total at that moment.

Facts: `start_index`, `count`, the windows and that `update_time` is their default are vendor documentation; the order
of the rows is not documented. Companies that were deleted are not in the list and are not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from infra.systems import Connection
from infra.systems.okki.api import Api, china_time, in_china, rows_of, whole
from shared.books import Window
from shared.ends import Page, Row
from shared.errors import BAD_VERSION, NO_SOURCE_ID, ConfigError, GuardTripped
from shared.record import version_at

LIST: Final = "/v1/company/list"
LARGEST_PAGE: Final = 100
"""What public clients ask for at most; the vendor names no limit."""

_NO_ID: Final = (NO_SOURCE_ID, "the company has no company_id")
_BAD_TIME: Final = (BAD_VERSION, "update_time cannot be read")


class _Answer(msgspec.Struct, frozen=True):
    rows: list[Any]
    total: int | None


class Companies:
    """The source of companies."""

    system = "okki"

    def __init__(self, connection: Connection) -> None:
        if not 1 <= connection.page_size <= LARGEST_PAGE:
            raise ConfigError(
                f"a page of {connection.page_size} rows: OKKI is asked for 1 to {LARGEST_PAGE}",
                cure=f"set source.page_size to {LARGEST_PAGE} or less",
            )
        self._size = connection.page_size
        self._api = Api(connection, "company")
        self.location = self._api.location(LIST)

    def now(self) -> datetime:
        return self._api.now(LIST, {"start_index": 1, "count": 1})

    def total(self, window: Window) -> int | None:
        return self._ask(window, 1, 1).total

    def close(self) -> None:
        self._api.close()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        number, so_far, total = _place(after)
        before: list[Any] = []
        while True:
            answer = self._ask(window, number + 1, self._size)
            if answer.rows and answer.rows == before:
                raise GuardTripped(f"OKKI gave page {number} of its companies again as page {number + 1}")
            gone = total - answer.total if total is not None and answer.total is not None else 0
            again = self._pages_again(window, number, so_far, gone)
            if not answer.rows and not again:
                if not after and not number and answer.total:
                    yield Page((), after, answer.total)
                return
            first = not number
            number, so_far, total, before = number + 1, so_far + len(answer.rows), answer.total, answer.rows
            rows = [_row(row, number, place) for place, row in enumerate([*again, *answer.rows])]
            yield Page(rows, f"{number}:{so_far}:{'' if total is None else total}", total if first else None)
            if not answer.rows or (total is not None and so_far >= total):
                return

    def _pages_again(self, window: Window, number: int, so_far: int, gone: int) -> list[Any]:
        """The rows of the pages up to `number` into which others may have moved, since `gone` rows left the window; one
        page more, since another row may leave meanwhile."""
        if gone <= 0 or not so_far:
            return []
        pages = 1 + math.ceil(gone * number / so_far)
        return [row for each in range(max(1, number + 1 - pages), number + 1) for row in self._ask(window, each).rows]

    def _ask(self, window: Window, number: int, size: int = 0) -> _Answer:
        params: dict[str, str | int] = {
            "start_index": number,
            "count": size or self._size,
            "start_time": in_china(window.since),
            "end_time": in_china(window.until),
            "time_type": 1,
            "removed": 0,
        }
        return _Answer(*rows_of(self._api.read(LIST, params), LIST))


def _place(after: str) -> tuple[int, int, int | None]:
    """The last page given, the rows up to its end, and the total as it was then."""
    if not after:
        return 0, 0, None
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{0,9})", after)
    if not found:
        raise GuardTripped(f"{after!r} is no place among OKKI's companies")
    return int(found[1]), int(found[2]), whole(found[3])


def _row(data: Any, number: int, place: int) -> Row:
    found = whole(data.get("company_id")) if isinstance(data, dict) else None
    if found is None:
        return Row(
            "", "", f"page:{number} row:{place}", data if isinstance(data, dict) else {"row": data}, problem=_NO_ID
        )
    origin = str(found)
    changed = china_time(data.get("update_time"))
    if changed is None:
        return Row(origin, "", f"companies({origin})", data, problem=_BAD_TIME)
    return Row(origin, version_at(changed, origin), f"companies({origin})", data)
