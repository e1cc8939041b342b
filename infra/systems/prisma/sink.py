"""Rows written into a data sync of import or deletion type: a batch is a CSV file.

Options besides those of every stream: `columns`, which come first, in this order, and stand in every file; `endpoint`
(import or delete) of a deletion, whose address the vendor calls that of an import.

A file is queued as a whole or not at all, and read later as one launch. Which launch is ours is seen by looking before
and after: it is the one that came between. Where there are several, since others send files at the same time, nobody
can say: the rows are delivered, and nobody asks what became of them. `lanes: 1` keeps a stream's own files apart.

A file may be sent twice: its rows are known by their id, or whatever the data sync matches them by.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from infra.http import InDoubtError
from infra.narrowing import Refusal, narrowed, refused
from infra.systems import Connection
from infra.systems.prisma.api import Api, Launch
from infra.systems.prisma.status import confirmation, has_ended
from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import (
    GENERAL,
    REFUSED,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
    WaybillError,
)
from shared.outcome import Answer, CannotAsk, Outcome, Probe, Verdict, delivered
from shared.record import Operation

ENDPOINTS: Final = ("import", "delete")
QUEUED: Final = b"file queued"

_WRONG: Final[Mapping[Operation, str]] = {
    "upsert": "a data sync of import type deletes nothing",
    "delete": "a data sync of deletion type imports nothing",
}


class Imports:
    """The sink of one data sync, which carries out one kind of change."""

    system = "prisma"

    def __init__(self, connection: Connection, operation: Operation) -> None:
        options = connection.options
        self._operation: Operation = operation
        self._columns = [str(name) for name in options.get("columns") or ()]
        self._endpoint = str(options.get("endpoint") or "import")
        if self._endpoint not in (ENDPOINTS if operation == "delete" else ENDPOINTS[:1]):
            raise ConfigError(f"`endpoint` is {self._endpoint}", cure="leave it out, or write delete for a deletion")
        self.bulk = self.rows_per_call = max(1, connection.page_size)
        self._clock = connection.clock
        self._ended: dict[int, Launch] = {}
        self._oldest = 0
        # Whoever delivers tries again.
        self._api = Api(connection, msgspec.structs.replace(connection.retry, attempts=1))

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        answers: list[Answer | None] = []
        rows: list[dict[str, str]] = []
        for change in changes:
            row = self._row(change)
            answers.append(row if isinstance(row, Verdict) else None)
            rows.append({} if isinstance(row, Verdict) else row)
        ready = [place for place, answer in enumerate(answers) if answer is None]
        narrowed(answers, [ready], partial(self._send, rows), self._clock)
        return answers

    def confirm(self, request: str) -> Confirmation:
        """What became of a launch. Raises as `Http.request`, and ProtocolError for an odd answer."""
        if not request.isdecimal():
            # Of a target that the stream had before.
            return confirmation(request, None)
        number = int(request)
        launch = self._ended.get(number)
        if launch is None and number >= self._oldest:
            told = {launch.id: launch for launch in self._api.launches()}
            self._oldest = min(told, default=0)
            self._ended |= {each: launch for each, launch in told.items() if has_ended(launch)}
            launch = told.get(number)
        return confirmation(request, launch or self._api.launch(number))

    def close(self) -> None:
        self._api.close()

    def _row(self, change: Change) -> dict[str, str] | Verdict:
        """The cells of a change, or why it cannot be a row."""
        if change.operation != self._operation:
            return refused(REFUSED, _WRONG[self._operation])
        if not change.content:
            return Verdict(Outcome.INVALID, UNMAPPABLE, "it has no column")
        for name, value in change.content.items():
            if isinstance(value, dict | list):
                return Verdict(Outcome.INVALID, UNMAPPABLE, "a cell holds one value", name)
        return {name: _cell(value) for name, value in change.content.items()}

    def _send(self, rows: Sequence[dict[str, str]], group: list[int]) -> Sequence[Answer | None] | Refusal:
        before = self._newest()
        answer = self._api.upload(csv_of([rows[place] for place in group], self._columns), self._endpoint)
        self._api.check_there(answer)
        if answer.status == 413:
            return Refusal(refused(REFUSED, "Prisma takes no file as large as this row", http_status=413))
        if answer.status == 409:
            raise TransientError("the data sync is disabled", number=GENERAL, http_status=409)
        if not 200 <= answer.status < 300:
            raise AuthError(
                f"Prisma answered a file with {answer.status}", cure="check `data_sync`, its type and PRISMA_URL"
            )
        if QUEUED not in answer.body.lower():
            raise InDoubtError(f"Prisma answered a file with {answer.status}, and not that it is queued")
        return [delivered(self._request(before))] * len(group)

    def _newest(self) -> int | None:
        """The number of the newest launch, None if Prisma does not say."""
        try:
            return max((launch.id for launch in self._api.launches()), default=0)
        except ProtocolError:
            return None

    def _request(self, before: int | None) -> str:
        """The launch of the file that was queued a moment ago, empty where that cannot be told."""
        if before is None:
            return ""
        try:
            newer = [launch.id for launch in self._api.launches() if launch.id > before]
        except WaybillError:
            return ""
        return str(newer[0]) if len(newer) == 1 else ""


def csv_of(rows: Sequence[Mapping[str, str]], columns: Sequence[str] = ()) -> bytes:
    """A file with a column for each name (RFC 4180)."""
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
