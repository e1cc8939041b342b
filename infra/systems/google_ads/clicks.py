"""Offline click conversions: `customers/{id}:uploadClickConversions` with partial failure, 2,000 per request.

`settings:` of the stream: `conversion_action` ("customers/1/conversionActions/2", or its id alone), for records that
name none; optional `consent` ({ad_user_data, ad_personalization}), `login_customer_id`, `api_version`.

A record's content is the ClickConversion, already hashed. What a repeat does: Google Ads knows a conversion by its
order id and action, and by its click and time, and refuses the repeat as already there, which counts as delivered. One
that has neither cannot be asked for and must not be sent twice. Two that collapse never share a request: the API would
process neither of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from infra.google_api import camel, fault_of, settings_of, unhashed
from infra.http import InDoubtError
from infra.narrowing import Refusal, narrowed, refused
from infra.systems import Connection
from infra.systems.google_ads.calls import (
    CLOSED,
    NOT_ALLOWLISTED,
    OF_ACCOUNT,
    OF_ACTION,
    Ads,
    answer_to,
    partial_failure,
    refusal_of,
)
from shared.ends import Change
from shared.errors import (
    MALFORMED,
    NOT_HASHED,
    OVER_A_LIMIT,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    ProtocolError,
)
from shared.outcome import Answer, CannotAsk, Outcome, Probe, Verdict, delivered, unknown

MOST_CONVERSIONS: Final = 2_000
MOST_IDENTIFIERS: Final = 5
KNOWN: Final[dict[str, type]] = {
    "conversionAction": str,
    "consent": dict,
    "loginCustomerId": str,
    "apiVersion": str,
}
CLICKS: Final = ("gclid", "gbraid", "wbraid")

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d")


class Clicks:
    """The sink of click conversions."""

    system = "google_ads"

    def __init__(self, connection: Connection) -> None:
        self._settings = settings_of(connection, KNOWN, ())
        self._ads = Ads(connection, self._settings)
        self._action = _action(self._settings.get("conversionAction", ""), self._ads.customer)
        self.bulk = self.rows_per_call = max(1, min(MOST_CONVERSIONS, connection.page_size))
        self._clock = connection.clock

    def repeatable(self, change: Change) -> bool:
        return bool(_identities(self._content(change)))

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        contents = [self._content(change) for change in changes]
        answers: list[Answer | None] = [
            refused(REFUSED, "a conversion cannot be taken back by an upload")
            if change.operation == "delete"
            else _check(content)
            for change, content in zip(changes, contents, strict=True)
        ]
        ready = [place for place, answer in enumerate(answers) if answer is None]
        narrowed(answers, _apart(ready, contents), partial(self._send, changes, contents), self._clock)
        return answers

    def close(self) -> None:
        self._ads.close()

    def _content(self, change: Change) -> dict[str, Any]:
        defaults = {"conversionAction": self._action, "consent": self._settings.get("consent")}
        content: dict[str, Any] = {name: value for name, value in defaults.items() if value} | camel(change.content)
        action = str(content.get("conversionAction", ""))
        if action.isdigit():
            content["conversionAction"] = f"customers/{self._ads.customer}/conversionActions/{action}"
        return content

    def _send(
        self, changes: Sequence[Change], contents: list[dict[str, Any]], group: list[int]
    ) -> Sequence[Answer | None] | Refusal:
        sent = [contents[place] for place in group]
        harmless = all(self.repeatable(changes[place]) for place in group)
        body = {"conversions": sent, "partialFailure": True}
        answer = self._ads.post(f"customers/{self._ads.customer}:uploadClickConversions", body, repeatable=harmless)
        if answer.status >= 400:
            return refusal_of(fault_of(answer), "conversions", sent)
        try:
            given = answer.json()
        except ProtocolError:
            given = None
        if not isinstance(given, dict) or not ("results" in given or "partialFailureError" in given):
            if harmless:
                raise InDoubtError(f"an upload was answered {answer.status} without results")
            return [unknown(UNDOCUMENTED_ANSWER, "an upload was answered without results", answer.status)] * len(group)
        errors = partial_failure(given, "conversions")
        codes = [{error.code for error in errors.get(row, ())} for row in range(len(group))]
        if all(
            each & (OF_ACCOUNT | OF_ACTION if content["conversionAction"] == self._action else OF_ACCOUNT)
            for content, each in zip(sent, codes, strict=True)
        ):
            every = set().union(*codes)
            raise AuthError(
                f"Google Ads refuses every conversion: {', '.join(sorted(every))}",
                cure=CLOSED if NOT_ALLOWLISTED in every else "mend the conversion action or the account's settings",
            )
        results = given.get("results") or []
        answers: list[Answer | None] = []
        for row, content in enumerate(sent):
            if row in errors:
                answers.append(answer_to(errors[row], content, answer.status))
            elif row < len(results) and results[row]:
                answers.append(delivered(str(content.get("orderId") or "")))
            else:
                answers.append(unknown(UNDOCUMENTED_ANSWER, "an upload says nothing of the conversion"))
        return answers


def _check(content: dict[str, Any]) -> Verdict | None:
    """Why a conversion is invalid, None if nothing speaks against it."""
    for name in ("conversionAction", "conversionDateTime"):
        if not content.get(name):
            return _invalid(UNMAPPABLE, name, "a conversion needs it")
    if not _TIME.fullmatch(str(content["conversionDateTime"])):
        return _invalid(MALFORMED, "conversionDateTime", "no time such as 2026-01-31 12:00:00-03:00")
    identifiers = content.get("userIdentifiers") or []
    if not isinstance(identifiers, list) or not all(isinstance(each, dict) for each in identifiers):
        return _invalid(MALFORMED, "userIdentifiers", "no list of identifiers")
    if len(identifiers) > MOST_IDENTIFIERS:
        return _invalid(
            OVER_A_LIMIT, "userIdentifiers", f"{len(identifiers)} identifiers, and {MOST_IDENTIFIERS} are allowed"
        )
    if not identifiers and not any(content.get(name) for name in CLICKS):
        return _invalid(UNMAPPABLE, "gclid", "a conversion needs a click or a user identifier")
    if path := unhashed(identifiers):
        return _invalid(NOT_HASHED, f"userIdentifiers{path}", "no SHA-256 in HEX")
    return None


def _identities(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """By what Google Ads knows a repeat of the conversion."""
    action = str(content.get("conversionAction", ""))
    found: list[tuple[str, ...]] = []
    if content.get("orderId"):
        found.append((action, "order", str(content["orderId"])))
    at = content.get("conversionDateTime")
    found += [(action, name, str(content[name]), str(at)) for name in CLICKS if content.get(name) and at]
    return found


def _apart(places: list[int], contents: list[dict[str, Any]]) -> list[list[int]]:
    """The requests to make: none too long, and in none of them two conversions that collapse."""
    groups: list[tuple[list[int], set[tuple[str, ...]]]] = []
    for place in places:
        known = _identities(contents[place])
        for group, taken in groups:
            if len(group) < MOST_CONVERSIONS and taken.isdisjoint(known):
                break
        else:
            group, taken = [], set()
            groups.append((group, taken))
        group.append(place)
        taken.update(known)
    return [group for group, _ in groups]


def _action(text: str, customer: str) -> str:
    if not text or re.fullmatch(r"customers/[0-9]+/conversionActions/[0-9]+", text):
        return text
    if re.fullmatch("[0-9]+", text):
        return f"customers/{customer}/conversionActions/{text}"
    raise ConfigError(
        "settings.conversionAction is no conversion action", cure="write customers/1/conversionActions/2, or its id"
    )


def _invalid(number: int, field: str, reason: str) -> Verdict:
    return Verdict(Outcome.INVALID, number, reason, field)
