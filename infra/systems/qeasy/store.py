"""Rows written into a scheme of Qeasy.

A call carries many rows and is answered with two counts, so the answer says what became of a row only where all came to
the same. Otherwise Qeasy is asked which rows it holds with this content; what it does not hold is sent again, in halves
where all were refused, until a row that is refused stands alone. A row of which neither counts nor query say anything
is unknown; counts that do not add up are never success. After `PATIENCE` the rest of a call is left to the next one.

Whether a row that is sent twice is stored twice is the scheme's affair: with `idCheck` false it is overwritten by its
id, and may be repeated; otherwise a row in doubt is asked for before it is sent again. Nothing deletes a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from infra.http import InDoubtError
from infra.one_by_one import MASK, without_persons
from infra.systems import Connection
from infra.systems.qeasy.api import MOST_ROWS, Api, Counts, NoQueryError
from shared.ends import Change
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    AuthError,
    ConfigError,
    ProtocolError,
    TransientError,
)
from shared.outcome import Absent, Answer, CannotAsk, Found, InDoubt, Passing, Probe, delivered, rejected, unknown

PATIENCE: Final = 30.0
"""Seconds. A write that has to look for refused rows gives what it found after this long."""


class Store:
    """The sink of one scheme. Options: `scheme`, `id_field` (the field that the scheme calls its id) and `id_check`."""

    system = "qeasy"
    rows_per_call = MOST_ROWS

    def __init__(self, connection: Connection) -> None:
        scheme = str(connection.options.get("scheme") or connection.secrets.get("QEASY_SCHEME") or "").strip()
        if not scheme:
            raise ConfigError("no scheme of Qeasy is named", cure="set `scheme:` on the stream, or export QEASY_SCHEME")
        self.bulk = max(1, min(MOST_ROWS, connection.page_size))
        self._id_field = str(connection.options.get("id_field") or "id")
        self._overwrites = connection.options.get("id_check") is False
        self._clock = connection.clock
        self._api = Api(connection, scheme)

    def repeatable(self, change: Change) -> bool:
        return self._overwrites

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        asked = {place: found for place, change in enumerate(changes) if (found := self._id_of(change)) is not None}
        held = self._held(list(asked.values()))
        return [
            self._found(change, held.get(str(asked[place]), [])) if place in asked else CannotAsk()
            for place, change in enumerate(changes)
        ]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        answers: list[Answer | None] = [
            rejected(REFUSED, "Qeasy has no call that deletes a row") if change.operation == "delete" else None
            for change in changes
        ]
        upserts = [place for place, answer in enumerate(answers) if answer is None]
        groups = deque([upserts])
        until = self._clock.monotonic() + PATIENCE
        sent = False
        while groups:
            group = groups.popleft()
            if not group:
                continue
            try:
                # Only once something is known: a call that comes to nothing would begin with the same search again.
                if self._clock.monotonic() > until and any(answers[place] is not None for place in upserts):
                    raise TransientError("Qeasy refused rows around it, and it was not come to yet", number=GENERAL)
                groups.extendleft(reversed(self._store(changes, group, answers)))
                sent = True
            except InDoubtError as error:
                _answer_all(answers, group, InDoubt(str(error)))
                break
            except AuthError as error:
                if not sent:
                    raise
                _answer_all(answers, group, Passing(str(error), CREDENTIALS))
                break
            except TransientError as error:
                _answer_all(answers, group, Passing(str(error), error.number, error.after, error.http_status))
                break
        for group in groups:
            _answer_all(answers, group, Passing("Qeasy stopped answering before it was come to", GENERAL))
        return answers

    def close(self) -> None:
        self._api.close()

    def _store(self, changes: Sequence[Change], group: list[int], answers: list[Answer | None]) -> list[list[int]]:
        """Sends these rows, answers for those whose fate is known, and gives what is to be sent again, in groups."""
        rows = [changes[place].content for place in group]
        counts = self._api.store(rows, repeatable=self._overwrites)
        if (counts.inserted, counts.failed) == (len(group), 0):
            for place in group:
                answers[place] = delivered(str(self._id_of(changes[place]) or ""))
            return []
        if (counts.inserted, counts.failed) == (0, len(group)):
            if len(group) == 1:
                answers[group[0]] = rejected(REFUSED, _reason(counts.message, rows[0]))
            return _halves(group)
        return self._looked_up(changes, group, answers, counts)

    def _looked_up(
        self, changes: Sequence[Change], group: list[int], answers: list[Answer | None], counts: Counts
    ) -> list[list[int]]:
        """As `_store`, after counts that say nothing of the single row: by what Qeasy holds."""
        try:
            probes = self.find([changes[place] for place in group])
        except NoQueryError as error:
            return self._undecided(group, answers, counts, error)
        except (AuthError, ProtocolError, TransientError) as error:
            _answer_all(answers, group, InDoubt(f"Qeasy's counts do not tell, and a query failed: {error}"))
            return []
        left: list[int] = []
        for place, probe in zip(group, probes, strict=True):
            if isinstance(probe, Found) and probe.same:
                answers[place] = delivered(probe.target_id)
            elif isinstance(probe, CannotAsk):
                answers[place] = unknown(UNDOCUMENTED_ANSWER, "Qeasy's counts do not tell, and the row has no id")
            elif len(group) > 1:
                left.append(place)
            elif isinstance(probe, Found) and counts.inserted == 0:
                answers[place] = rejected(REFUSED, "Qeasy keeps the row that it holds under this id")
            else:
                answers[place] = unknown(
                    UNDOCUMENTED_ANSWER, "Qeasy's counts do not add up, and it does not hold the row"
                )
        return _halves(left) if len(left) == len(group) else [left]

    def _undecided(
        self, group: list[int], answers: list[Answer | None], counts: Counts, error: NoQueryError
    ) -> list[list[int]]:
        """As `_looked_up`, where Qeasy has no query that can be understood: rows that may be stored again go in halves
        until the counts tell."""
        if self._overwrites and len(group) > 1:
            return _halves(group)
        if self._overwrites and counts.inserted == 0:
            answers[group[0]] = rejected(REFUSED, "Qeasy counts the row as failed")
            return []
        _answer_all(answers, group, unknown(UNDOCUMENTED_ANSWER, f"Qeasy's counts do not tell, and {error}"))
        return []

    def _found(self, change: Change, rows: list[dict[str, Any]]) -> Found | Absent:
        """Of several rows with one id, the one with this content is meant, else the last one."""
        if not rows:
            return Absent()
        same = [row for row in rows if all(row.get(name) == value for name, value in change.content.items())]
        told = None if change.operation == "delete" else bool(same)
        return Found(str(self._id_of(change)), told, (same or rows)[-1])

    def _held(self, ids: list[Any]) -> dict[str, list[dict[str, Any]]]:
        """The rows that Qeasy holds, by their id as text. Raises ProtocolError for an answer that says nothing."""
        held: dict[str, list[dict[str, Any]]] = {}
        for start in range(0, len(ids), MOST_ROWS):
            for row in self._api.query(self._id_field, ids[start : start + MOST_ROWS]):
                held.setdefault(str(row.get(self._id_field)), []).append(row)
        return held

    def _id_of(self, change: Change) -> Any:
        """What the row's id will be at Qeasy, None where it has none to be found by."""
        # Whoever asks about a key alone, as an audit does, has no content.
        if change.operation == "delete" or not change.content:
            return change.key
        found = change.content.get(self._id_field)
        return found if isinstance(found, str | int) and found != "" else None


def _answer_all(answers: list[Answer | None], places: list[int], answer: Answer) -> None:
    for place in places:
        answers[place] = answer


def _halves(group: list[int]) -> list[list[int]]:
    """Nothing of a group that cannot be divided."""
    middle = (len(group) + 1) // 2
    return [group[:middle], group[middle:]] if len(group) > 1 else []


def _reason(message: str, row: dict[str, Any]) -> str:
    """The target's own words, without what the row itself holds: a name has two characters as often as three."""
    for value in sorted(_texts(row), key=len, reverse=True):
        message = message.replace(value, MASK)
    words = "" if message.strip().lower() in ("success", "ok") else message
    return without_persons(words) or "Qeasy counted it as failed"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
    elif len(str(value)) > 1 and not isinstance(value, bool | None):
        yield str(value)
