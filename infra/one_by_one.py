"""What sinks share that send a call per record: how an outage ends a portion, and what a refusal may quote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from shared.ends import Change
from shared.errors import CREDENTIALS, GENERAL, NOT_ASKED, UNREACHABLE, AuthError, ProtocolError, TransientError
from shared.outcome import Passing

REASON_LENGTH: Final = 200
LEAST_PRIVATE: Final = 2
"""A shorter text is in every sentence."""
MASK: Final = "***"

_PRIVATE: Final = re.compile(r"\d(?:[./-]?\d){5,}|\S+@\S+")

T = TypeVar("T")


def one_by_one(changes: Sequence[Change], act: Callable[[Change], T]) -> list[T | Passing]:
    """One answer each. When the target answers nobody, the rest is not tried.

    Raises AuthError if nothing took effect before; otherwise the rest is left to the next call, which will raise it.
    """
    answers: list[T | Passing] = []
    failing = 0
    for change in changes:
        try:
            answers.append(act(change))
            failing = 0
            continue
        except ProtocolError as error:
            answers.append(Passing(str(error), NOT_ASKED))
            continue
        except AuthError as error:
            if all(isinstance(answer, Passing) for answer in answers):
                raise
            passing = Passing(str(error), CREDENTIALS)
        except TransientError as error:
            passing = Passing(str(error), error.number, error.after, error.http_status)
            failing += 1
            # One record may be what a target stumbles over; a second one right after it is an outage.
            if failing < 2 and error.number not in (UNREACHABLE, GENERAL):
                answers.append(passing)
                continue
        return answers + [passing] * (len(changes) - len(answers))
    return answers


def without_persons(message: object, private: Iterable[object] = ()) -> str:
    """A target's own words on one line, without numbers and addresses that may be somebody's, and without these texts;
    empty for no text."""
    if not isinstance(message, str):
        return ""
    texts = [text for text in private if isinstance(text, str) and len(text) >= LEAST_PRIVATE]
    for text in sorted(texts, key=len, reverse=True):
        message = message.replace(text, MASK)
    return _PRIVATE.sub(MASK, " ".join(message.split()))[:REASON_LENGTH]
