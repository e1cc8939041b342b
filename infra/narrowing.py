"""Sending to a target that refuses a whole request for one bad record.

A refused request took nothing. Records that the refusal itself names have their verdict, and the others go again; a
refusal that names nobody is narrowed down in halves, until a record that is refused stands alone. After `PATIENCE` the
rest is left to the next call, which begins with what was not come to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from infra.http import InDoubtError
from shared.errors import CREDENTIALS, GENERAL, AuthError, TransientError
from shared.outcome import Answer, InDoubt, Outcome, Passing, Verdict
from shared.ports import Clock

PATIENCE: Final = 30.0
"""Seconds. What has to look for refused records gives what it found after this long."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a whole request was refused: `verdict` is that of a record alone in it, `named` of those that it names by
    their place in the request."""

    verdict: Verdict
    named: Mapping[int, Verdict] = {}


Send = Callable[[list[int]], Sequence[Answer | None] | Refusal]
"""Sends the records at these places in one request; one answer each, or why all of them were refused. Raises as
`Http.request`."""


def refused(number: int, reason: str, field: str = "", http_status: int | None = None) -> Verdict:
    """The target refused it for good, for this field."""
    return Verdict(Outcome.REJECTED, number, reason, field, http_status)


def narrowed(answers: list[Answer | None], groups: Iterable[list[int]], send: Send, clock: Clock) -> None:
    """Sends each group and fills in the answers. Raises AuthError or TransientError if nothing is known of anybody."""
    todo = deque(group for group in groups if group)
    ours = [place for group in todo for place in group]
    until = clock.monotonic() + PATIENCE
    while todo:
        group = todo.popleft()
        known = any(answers[place] is not None for place in ours)
        try:
            if known and clock.monotonic() > until:
                raise TransientError("records around it were refused, and it was not come to yet", number=GENERAL)
            given = send(group)
        except InDoubtError as error:
            _answer_all(answers, group, InDoubt(str(error)))
            break
        except AuthError as error:
            if not known:
                raise
            _answer_all(answers, group, Passing(str(error), CREDENTIALS))
            break
        except TransientError as error:
            if not known:
                raise
            _answer_all(answers, group, Passing(str(error), error.number, error.after, error.http_status))
            break
        if isinstance(given, Refusal):
            todo.extendleft(reversed(_after(given, group, answers)))
        else:
            for place, answer in zip(group, given, strict=False):
                answers[place] = answer
    for group in todo:
        _answer_all(answers, group, Passing("the target stopped answering before it was come to", GENERAL))


def _after(refusal: Refusal, group: list[int], answers: list[Answer | None]) -> list[list[int]]:
    """Gives their verdict to whom it is clear, and the groups that go again."""
    named = {group[index]: verdict for index, verdict in refusal.named.items() if 0 <= index < len(group)}
    if len(group) == 1 and not named:
        named = {group[0]: refusal.verdict}
    if not named:
        middle = (len(group) + 1) // 2
        return [group[:middle], group[middle:]]
    for place, verdict in named.items():
        answers[place] = verdict
    left = [place for place in group if place not in named]
    return [left] if left else []


def _answer_all(answers: list[Answer | None], places: list[int], answer: Answer) -> None:
    for place in places:
        answers[place] = answer
