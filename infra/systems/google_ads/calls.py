"""Calls to Google Ads, and its failures: each error names by an index the row of the request that it means.

`{"errors": [{"errorCode": {"conversionUploadError": "EXPIRED_EVENT"}, "message", "location": {"fieldPathElements":
[{"fieldName": "conversions", "index": 3}, {"fieldName": "gclid"}]}}]}` stands in the details of a partial failure
(HTTP 200) as in those of an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from infra.google_api import Fault, GoogleApi, codes_of, fault_in, fault_of, whole, words_of
from infra.http import Answer
from infra.narrowing import Refusal, refused
from infra.systems import Connection
from shared.errors import (
    GENERAL,
    MALFORMED,
    NOT_MATCHED,
    OVER_A_LIMIT,
    RATE_LIMITED,
    REFUSED,
    TOO_EARLY,
    TOO_OLD,
    AuthError,
    ConfigError,
)
from shared.outcome import Passing, Verdict, delivered

SCOPE: Final = "https://www.googleapis.com/auth/adwords"
VERSION: Final = "v26"
"""The newest one that is known here. Each is closed about a year after it came, so a stream may name another."""
LATER: Final = 6 * 3_600.0
"""Seconds after which Google Ads takes what was too recent."""

THERE_ALREADY: Final = frozenset(
    ("CLICK_CONVERSION_ALREADY_EXISTS", "CALL_CONVERSION_ALREADY_EXISTS", "ORDER_ID_ALREADY_IN_USE")
)
TOO_RECENT: Final = frozenset(("TOO_RECENT_EVENT", "TOO_RECENT_CONVERSION_ACTION", "TOO_RECENT_CALL"))
MAY_PASS: Final = frozenset(("INTERNAL_ERROR", "TRANSIENT_ERROR", "CONCURRENT_MODIFICATION", "DEADLINE_EXCEEDED"))
NOT_ALLOWLISTED: Final = "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE"
CLOSED: Final = (
    "this API is closed to the developer token: send the rows to destination: data_manager_events or _audience"
)
_CURE: Final = "check customer, developer token, apiVersion and what the account allows"
OF_ACCOUNT: Final = frozenset(
    (
        NOT_ALLOWLISTED, "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS",
        "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS", "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS",
    )
)  # fmt: skip
"""Mended in the account. Where they meet every row, no row is to blame."""
OF_ACTION: Final = frozenset(("NO_CONVERSION_ACTION_FOUND", "INVALID_CONVERSION_ACTION_TYPE"))
"""The same of the conversion action, where it is the one of the settings."""
NUMBERS: Final = {
    "EXPIRED_EVENT": TOO_OLD,
    "EXPIRED_CALL": TOO_OLD,
    "EVENT_NOT_FOUND": NOT_MATCHED,
    "CLICK_NOT_FOUND": NOT_MATCHED,
    "CALL_NOT_FOUND": NOT_MATCHED,
    "TOO_MANY_USER_IDENTIFIERS": OVER_A_LIMIT,
}

_CALLER: Final = frozenset(("authenticationError", "authorizationError", "headerError"))


class RowError(msgspec.Struct, frozen=True):
    """One error of one row: its code, the field it names and the words for it."""

    code: str
    field: str
    message: str


class Ads:
    """The calls of one customer."""

    def __init__(self, connection: Connection, settings: dict[str, Any]) -> None:
        self.customer = _customer(connection.secret("GOOGLE_ADS_CUSTOMER_ID"), "GOOGLE_ADS_CUSTOMER_ID")
        headers = {"developer-token": connection.secret("GOOGLE_ADS_DEVELOPER_TOKEN")}
        manager = settings.get("loginCustomerId") or connection.secrets.get("GOOGLE_ADS_LOGIN_CUSTOMER_ID")
        if manager:
            headers["login-customer-id"] = _customer(str(manager), "settings.loginCustomerId")
        version = settings.get("apiVersion", VERSION)
        if not re.fullmatch("v[0-9]{1,3}", version):
            raise ConfigError("settings.apiVersion is no version", cure=f"write one such as {VERSION}")
        self._root = f"/{version}/"
        self._api = GoogleApi(connection, SCOPE, headers)

    def post(self, path: str, body: Any, *, repeatable: bool) -> Answer:
        """As `Http.request`; also AuthError for a refusal that concerns the caller, the customer or the version."""
        answer = self._api.request("POST", self._root + path, json=body, repeatable=repeatable)
        if 400 <= answer.status < 500:
            fault = fault_of(answer)
            by_caller = any(
                not _CALLER.isdisjoint(error.get("errorCode") or ())
                for detail in fault.details
                for error in detail.get("errors") or []
            )
            if answer.status != 400 or by_caller or OF_ACCOUNT.intersection(fault.reasons):
                raise AuthError(
                    f"Google Ads refuses {path.partition(':')[2] or path} with {answer.status}: {fault}",
                    cure=CLOSED if NOT_ALLOWLISTED in fault.reasons else _CURE,
                )
        return answer

    def close(self) -> None:
        self._api.close()


def errors_by_row(fault: Fault, field: str) -> dict[int, list[RowError]]:
    """The errors of a failure by the index of their row in the list `field`. Errors that name no row are left out."""
    found: dict[int, list[RowError]] = {}
    for detail in fault.details:
        for error in detail.get("errors") or []:
            path = (error.get("location") or {}).get("fieldPathElements") or []
            rows = [place for place, each in enumerate(path) if each.get("fieldName") == field and "index" in each]
            if rows:
                name = ".".join(str(each.get("fieldName")) for each in path[rows[0] + 1 :])
                code = next(iter(codes_of(error)), "")
                row = RowError(code, name, str(error.get("message") or ""))
                found.setdefault(whole(path[rows[0]]["index"]), []).append(row)
    for each in fault.violations:
        if place := re.search(rf"{field}\[([0-9]{{1,6}})\](?:\.(.*))?", each.field):
            found.setdefault(int(place[1]), []).append(RowError(each.reason, place[2] or "", each.description))
    return found


def answer_to(errors: Sequence[RowError], content: Any, status: int) -> Verdict | Passing:
    """What the errors of one row come to: refused for good if any of them says so, else later, else there already."""
    for error in errors:
        if error.code not in THERE_ALREADY | TOO_RECENT | MAY_PASS and error.code != "RESOURCE_EXHAUSTED":
            number = NUMBERS.get(error.code, MALFORMED if error.code.startswith("UNPARSEABLE_") else REFUSED)
            words = words_of(error.message, content)
            return refused(number, f"{error.code}: {words}".strip(": "), error.field, status)
    for error in errors:
        if error.code in TOO_RECENT:
            return Passing(f"Google Ads: {error.code}", TOO_EARLY, LATER, status)
        if error.code not in THERE_ALREADY:
            number = RATE_LIMITED if error.code == "RESOURCE_EXHAUSTED" else GENERAL
            return Passing(f"Google Ads: {error.code}", number, None, status)
    return delivered()


def partial_failure(body: dict[str, Any], field: str) -> dict[int, list[RowError]]:
    """The errors of the rows of a request that was carried out for the others."""
    return errors_by_row(fault_in(body.get("partialFailureError")), field)


def refusal_of(fault: Fault, field: str, contents: Sequence[Any]) -> Refusal:
    """A request that was refused as a whole."""
    named = {
        row: answer
        for row, errors in errors_by_row(fault, field).items()
        if row < len(contents) and isinstance(answer := answer_to(errors, contents[row], fault.status), Verdict)
    }
    # Only the verdict on a record alone is ever used, so nothing of another one can stand in it.
    words = words_of(fault.message, contents[0])
    return Refusal(refused(REFUSED, f"{fault}: {words}".strip(": "), http_status=fault.status), named)


def _customer(text: str, name: str) -> str:
    digits = text.replace("-", "").strip()
    if not re.fullmatch("[0-9]{1,20}", digits):
        raise ConfigError(f"{name} is no customer id", cure="write its digits, such as 1234567890")
    return digits
