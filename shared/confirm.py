"""What a target says later of what it accepted: when it is asked, and what its answers come to.

Some targets only accept a request, and tell hours later what became of it. Its records are delivered; that the target
has not yet confirmed them is remembered per request, beside the books, until it says how the request ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from shared.errors import FAILED_LATER, REFUSED_LATER
from shared.outcome import Outcome, Verdict

FIRST_LOOK: Final = 1_800.0
LAST_LOOK: Final = 86_400.0
"""Seconds after the request. The Data Manager API's guide "Diagnostics" advises half an hour first, then ever longer
waits, for a day at most."""
NOT_TOLD: Final = frozenset(("UNSPECIFIED", "UNKNOWN"))
"""What Google's APIs say where they give no reason."""

NEVER_CONFIRMED: Final = "NEVER_CONFIRMED"
"""Stands where the target never said what became of a request."""

State = Literal["pending", "confirmed", "partial", "failed", "gone"]


class Confirmation(msgspec.Struct, frozen=True):
    """What became of one request, over all of its destinations.

    `refused` and `warnings` count records by reason, once per destination, and 0 where the target does not say how
    many; `repeats` are those that a destination held already. `failed`: nothing of it took effect. `gone`: the target
    no longer knows the request.
    """

    request: str
    state: State
    records: int = 0
    refused: dict[str, int] = {}
    repeats: int = 0
    warnings: dict[str, int] = {}
    passing: frozenset[str] = frozenset()
    """The reasons among `refused` that are worth a replay."""

    @property
    def verdict(self) -> Verdict:
        """What each record of a request that failed comes to. A reason that was not told may pass."""
        reasons = ", ".join(sorted(self.refused)) or "no reason was told"
        text = f"refused after it was accepted: {reasons}"
        if self.refused and self.refused.keys().isdisjoint(self.passing | NOT_TOLD):
            return Verdict(Outcome.REJECTED, REFUSED_LATER, text)
        return Verdict(Outcome.EXHAUSTED, FAILED_LATER, text)


class Awaited(msgspec.Struct, frozen=True):
    """A request that a target accepted: what was delivered by it, and what the target said of it so far.

    `id` is the target's own name of the request, `batch` the one whose records it carried, `looks` how often the target
    was asked. `refused`, `repeats` and `warnings` are as in Confirmation.
    """

    id: str
    integration: str
    stream: str
    batch: str
    records: int
    sent_at: datetime
    look_at: datetime
    looks: int = 0
    state: State = "pending"
    refused: dict[str, int] = {}
    repeats: int = 0
    warnings: dict[str, int] = {}
    ended_at: datetime | None = None


def accepted(request: str, integration: str, stream: str, batch: str, at: datetime) -> Awaited:
    """A request that was accepted a moment ago, with its first record."""
    return Awaited(request, integration, stream, batch, 1, at, at + timedelta(seconds=FIRST_LOOK))


def together(known: Awaited, more: Awaited) -> Awaited:
    """What is known of a request, with further records of it. It is asked about again, even if it had ended."""
    records = known.records + more.records
    return msgspec.structs.replace(
        known, records=records, look_at=more.look_at, looks=0, state="pending", ended_at=None
    )


def look_again(looks: int) -> float | None:
    """Seconds after the request at which it is looked at once more, after so many looks; None: not again."""
    at = FIRST_LOOK * 2**looks
    return at if at <= LAST_LOOK else LAST_LOOK if at < 2 * LAST_LOOK else None


def looked_at(awaited: Awaited, found: Confirmation, now: datetime) -> Awaited:
    """The request after the target was asked. One that has not ended at the last look is gone: nobody said."""
    looks = awaited.looks + 1
    wait = look_again(looks)
    if found.state == "pending" and wait is not None:
        # Whoever comes late to a look leaves the target as much time until the next one.
        look_at = max(awaited.sent_at + timedelta(seconds=wait), now + timedelta(seconds=FIRST_LOOK))
        return msgspec.structs.replace(awaited, looks=looks, look_at=look_at)
    refused = found.refused
    gone = found.state in ("pending", "gone")
    if gone:
        refused = {NEVER_CONFIRMED: awaited.records}
    elif found.state == "failed":
        refused = counted(refused or {"UNSPECIFIED": 0}, awaited.records)
    return msgspec.structs.replace(
        awaited,
        looks=looks,
        state="gone" if gone else found.state,
        refused=refused,
        repeats=found.repeats,
        warnings=found.warnings,
        ended_at=now,
    )


def counted(refused: dict[str, int], records: int) -> dict[str, int]:
    """The records of a request that failed, by reason. Reasons of which no count was told share what is left."""
    told = {reason: count for reason, count in refused.items() if count}
    untold = " or ".join(sorted(refused.keys() - told.keys()))
    left = records - sum(told.values())
    return told | ({untold: left} if untold and left > 0 else {})


def postponed(awaited: Awaited, now: datetime) -> Awaited:
    """The request after the target could not be asked: that is no look, and others have their turn first."""
    return msgspec.structs.replace(awaited, look_at=now + timedelta(seconds=FIRST_LOOK))
