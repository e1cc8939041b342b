"""What became of an accepted request, as `requestStatus:retrieve` tells: counts by reason, never a record.

An accepted record is delivered; what its destination does with it is known half an hour to a day later. So a request
id is asked for after the run, by whoever sweeps, until it is no longer pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from infra.google_api import whole
from shared.confirm import Confirmation, State

REPEATS: Final = frozenset(("DUPLICATE_GCLID", "DUPLICATE_TRANSACTION_ID"))
"""The destination has them already, which is what was wanted."""
MAY_PASS: Final = frozenset(("INTERNAL_ERROR", "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED"))
"""A replay may succeed, after the cause was mended; the API does not say which records they were."""

_FAILED: Final = frozenset(("FAILED", "FAILURE"))
_ENDED: Final = _FAILED | {"SUCCESS", "PARTIAL_SUCCESS"}


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
    records = max(_records(each) for each in given)
    passing = MAY_PASS.intersection(refused)
    return Confirmation(request, _state(given, refused, repeats), records, refused, repeats, warnings, passing)


def _state(given: list[dict[str, Any]], refused: dict[str, int], repeats: int) -> State:
    states = [str(each.get("requestStatus")) for each in given]
    if not _ENDED.issuperset(states):
        return "pending"
    # Counts may be left out, and then only the words tell.
    if all(state == "SUCCESS" for state in states) or (repeats and not refused):
        return "confirmed"
    return "failed" if not repeats and all(map(_failed_whole, given)) else "partial"


def _failed_whole(status: dict[str, Any]) -> bool:
    """Whether nothing arrived at a destination. One that counts fewer refusals than records has others, whatever it
    calls itself."""
    counted = sum(count for _, count in _counts(status, "errorInfo", "errorCounts"))
    return status.get("requestStatus") in _FAILED and (not counted or counted >= _records(status))


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
