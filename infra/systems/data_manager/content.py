"""What can be said of a record before the Data Manager API is asked: its form, its limits, and that it is hashed.

One bad record refuses a whole request, so what is known to be refused does not travel. What the API may allow tomorrow
is left to the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from infra.google_api import unhashed
from shared.errors import MALFORMED, NOT_HASHED, OVER_A_LIMIT, UNMAPPABLE
from shared.outcome import Outcome, Verdict

MOST_IDENTIFIERS: Final = 10
LISTS: Final = {
    "userData": "userIdentifiers",
    "pairData": "pairIds",
    "mobileData": "mobileIds",
    "userIdData": "userId",
    "ppidData": "ppids",
    "compositeData": "",
}
"""What an audience member is known by, and the list in it that has a limit."""

_NEEDED_IN_ADDRESS: Final = ("givenName", "familyName", "regionCode", "postalCode")


def check_event(event: Mapping[str, Any], encoding: str) -> Verdict | None:
    """Why the event is invalid, None if nothing speaks against it."""
    at = event.get("eventTimestamp")
    if not at:
        return _invalid(UNMAPPABLE, "eventTimestamp", "an event needs the time at which it happened")
    if not is_instant(at):
        return _invalid(MALFORMED, "eventTimestamp", "no instant such as 2026-01-31T12:00:00Z")
    return _check_user_data(event.get("userData"), encoding)


def check_member(member: Mapping[str, Any], encoding: str) -> Verdict | None:
    """Why the audience member is invalid, None if nothing speaks against it."""
    kinds = [kind for kind in LISTS if member.get(kind)]
    if len(kinds) != 1:
        return _invalid(UNMAPPABLE, "userData", f"a member needs one of {', '.join(LISTS)}")
    (kind,) = kinds
    if kind == "userData":
        return _check_user_data(member["userData"], encoding)
    listed = member[kind].get(LISTS[kind]) if isinstance(member[kind], dict) else None
    if isinstance(listed, list) and len(listed) > MOST_IDENTIFIERS:
        return _too_many(f"{kind}.{LISTS[kind]}", len(listed))
    composite = member[kind].get("userData") if kind == "compositeData" and isinstance(member[kind], dict) else None
    return _check_user_data(composite, encoding) if composite else None


def is_instant(value: Any) -> bool:
    """Whether a text is a time with its distance from UTC, as RFC 3339 has it."""
    try:
        return isinstance(value, str) and "T" in value and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _check_user_data(data: Any, encoding: str) -> Verdict | None:
    if data is None:
        return None
    identifiers = data.get("userIdentifiers") if isinstance(data, dict) else None
    if not isinstance(identifiers, list) or not identifiers or not all(isinstance(each, dict) for each in identifiers):
        return _invalid(MALFORMED, "userData.userIdentifiers", "user data needs a list of identifiers")
    if len(identifiers) > MOST_IDENTIFIERS:
        return _too_many("userData.userIdentifiers", len(identifiers))
    if path := unhashed(identifiers, encoding):
        return _invalid(NOT_HASHED, f"userData.userIdentifiers{path}", f"no SHA-256 in {encoding}")
    for place, identifier in enumerate(identifiers):
        address, field = identifier.get("address"), f"userData.userIdentifiers[{place}].address"
        if address is None:
            continue
        if not isinstance(address, dict):
            return _invalid(MALFORMED, field, "no address")
        for name in _NEEDED_IN_ADDRESS:
            if not address.get(name):
                return _invalid(UNMAPPABLE, f"{field}.{name}", "an address needs it")
    return None


def _too_many(field: str, count: int) -> Verdict:
    return _invalid(OVER_A_LIMIT, field, f"{count} identifiers, and {MOST_IDENTIFIERS} are allowed")


def _invalid(number: int, field: str, reason: str) -> Verdict:
    return Verdict(Outcome.INVALID, number, reason, field)
