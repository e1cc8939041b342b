"""What became of an accepted request, as `requestStatus:retrieve` tells: counts by reason, never a record.

An accepted record is delivered; what its destination does with it is known half an hour to a day later. So a request
id is asked for after the run, by whoever sweeps, until it is no longer pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from infra.google_api import whole

FIRST_LOOK: Final = 1_800.0
LAST_LOOK: Final = 86_400.0
"""Seconds after the request. The guide advises half an hour first, then ever longer waits, for a day at most."""

REPEATS: Final = frozenset(("DUPLICATE_GCLID", "DUPLICATE_TRANSACTION_ID"))
"""The destination has them already, which is what was wanted."""
MAY_PASS: Final = frozenset(("INTERNAL_ERROR", "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED"))
"""A replay may succeed, after the cause was mended; the API does not say which records they were."""

_ENDED: Final = frozenset(("SUCCESS", "PARTIAL_SUCCESS", "FAILED", "FAILURE"))

State = Literal["pending", "confirmed", "partial", "failed", "gone"]


class Confirmation(msgspec.Struct, frozen=True):
    """What became of one request, over all of its destinations.

    `refused` and `warnings` count records by reason, once per destination; `repeats` are those that a destination held
    already. `gone`: the API no longer knows the request.
    """

    request: str
    state: State
    records: int = 0
    refused: dict[str, int] = {}
    repeats: int = 0
    warnings: dict[str, int] = {}

    @property
    def may_pass(self) -> int:
        """How many were refused for a reason that is worth a replay."""
        return sum(count for reason, count in self.refused.items() if reason in MAY_PASS)


def look_again(looks: int) -> float | None:
    """Seconds after the request at which it is looked at once more, after so many looks; None: not again."""
    at = FIRST_LOOK * 2**looks
    return at if at <= LAST_LOOK else LAST_LOOK if at < 2 * LAST_LOOK else None


def confirmation(request: str, body: Any) -> Confirmation | None:
    """By the answer's body; None for one that the API does not document."""
    given = body.get("requestStatusPerDestination") if isinstance(body, dict) else None
    if not isinstance(given, list) or not given or not all(isinstance(each, dict) for each in given):
        return None
    refused: dict[str, int] = {}
    warnings: dict[str, int] = {}
    repeats = 0
    for each in given:
        for reason, count in _counts(each, "errorInfo", "errorCounts"):
            if reason in REPEATS:
                repeats += count
            else:
                refused[reason] = refused.get(reason, 0) + count
        for reason, count in _counts(each, "warningInfo", "warningCounts"):
            warnings[reason] = warnings.get(reason, 0) + count
    states = [str(each.get("requestStatus")) for each in given]
    records = max(_records(each) for each in given)
    return Confirmation(request, _state(states, refused, repeats), records, refused, repeats, warnings)


def _state(states: list[str], refused: dict[str, int], repeats: int) -> State:
    if not _ENDED.issuperset(states):
        return "pending"
    failed = [state in ("FAILED", "FAILURE") for state in states]
    # Counts may be left out, and then only the words tell.
    if all(state == "SUCCESS" for state in states) or (repeats and not refused):
        return "confirmed"
    return "failed" if all(failed) else "partial"


def _counts(status: dict[str, Any], info: str, counts: str) -> Iterator[tuple[str, int]]:
    found = status.get(info)
    for each in (found.get(counts) or []) if isinstance(found, dict) else []:
        reason = str(each.get("reason") or "UNSPECIFIED").upper()
        for prefix in ("PROCESSING_ERROR_REASON_", "PROCESSING_WARNING_REASON_", "PROCESSING_ERROR_"):
            reason = reason.removeprefix(prefix)
        yield reason, whole(each.get("recordCount"))


def _records(status: dict[str, Any]) -> int:
    """The count of records, which each kind of request has in another place."""
    found = 0
    for value in status.values():
        if isinstance(value, dict) and "reason" not in value:
            inner = [value, *(each for each in value.values() if isinstance(each, dict))]
            found = max(found, *(whole(each.get("recordCount")) for each in inner))
    return found
