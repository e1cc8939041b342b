"""What became of a record: ten names, one letter each, and the verdicts that connectors give."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec


class Outcome(StrEnum):
    """Exactly one per fetched record and target."""

    FILTERED = "filtered"
    DUPLICATE = "duplicate"
    INVALID = "invalid"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    UNKNOWN = "unknown"
    PENDING = "pending"


FAILED: Final = frozenset({Outcome.INVALID, Outcome.REJECTED, Outcome.EXHAUSTED, Outcome.UNKNOWN})
"""Outcomes that need a human or a replay."""

LETTERS: Final[dict[Outcome, str]] = {
    Outcome.FILTERED: "f",
    Outcome.DUPLICATE: "p",
    Outcome.INVALID: "i",
    Outcome.UNCHANGED: "u",
    Outcome.SUPERSEDED: "s",
    Outcome.DELIVERED: "d",
    Outcome.REJECTED: "r",
    Outcome.EXHAUSTED: "x",
    Outcome.UNKNOWN: "k",
    Outcome.PENDING: ".",
}
"""A batch keeps the outcomes of its records as one text, a letter each."""

DOUBTFUL: Final = "?"
"""The letter of a pending record that an unfinished attempt may have sent: it is probed before anything is sent."""

OUTCOMES: Final[dict[str, Outcome]] = {letter: outcome for outcome, letter in LETTERS.items()} | {
    DOUBTFUL: Outcome.PENDING
}


class Verdict(msgspec.Struct, frozen=True):
    """What one record came to: an outcome and, for a failure, why."""

    outcome: Outcome
    number: int = 0
    reason: str = ""
    field: str = ""
    http_status: int | None = None
    target_id: str = ""


class Passing(msgspec.Struct, frozen=True):
    """Did not take effect, for a reason that may pass; `after` is the target's own wish in seconds."""

    reason: str
    number: int
    after: float | None = None
    http_status: int | None = None
    awaits: str = ""
    """The key of another stream's record that has to arrive first (`Rules.awaits`)."""

    @property
    def is_verdict(self) -> bool:
        """Whether the target was well, and said so of this one record."""
        return self.http_status is not None and 200 <= self.http_status < 300


class InDoubt(msgspec.Struct, frozen=True):
    """The request was written and no answer came: it may or may not have taken effect."""

    reason: str


Answer = Verdict | Passing | InDoubt
"""What a connector says of one record that it was asked to write."""


class Found(msgspec.Struct, frozen=True):
    """The target holds the object. `same` says whether it holds just this content, None where it cannot be compared.

    `stays`: it was not the hub that brought it there, and by configuration it is left as it is.
    """

    target_id: str
    same: bool | None
    current: dict[str, Any] = {}
    stays: bool = False
    version: str = ""
    """Under which a source of this system would give the object, where it has versions."""


class Absent(msgspec.Struct, frozen=True):
    """The target was asked and does not hold the object."""


class CannotAsk(msgspec.Struct, frozen=True):
    """The target offers no way to ask for this object."""


Probe = Found | Absent | CannotAsk | Passing
"""What a connector says of one record that it was asked to find."""


def delivered(target_id: str = "") -> Verdict:
    """The target confirmed it."""
    return Verdict(Outcome.DELIVERED, target_id=target_id)


def rejected(number: int, reason: str, http_status: int | None = None) -> Verdict:
    """The target refused it for good."""
    return Verdict(Outcome.REJECTED, number, reason, http_status=http_status)


def unknown(number: int, reason: str, http_status: int | None = None) -> Verdict:
    """It may or may not have arrived; nobody sends it again without a human."""
    return Verdict(Outcome.UNKNOWN, number, reason, http_status=http_status)
