"""Campaign Manager 360: offline conversions, by `conversions/batchinsert` of its API v5, 1,000 per request.

`settings:` of the stream: `floodlight_configuration_id`, `floodlight_activity_id`, for records that name none; optional
`encryption_info` (for encrypted user ids) and `api_version`. A record's content is the Conversion, already hashed.

Facts: reference v5, "Quotas", "Conversions FAQ", "Enhanced conversions". Conversions collapse that agree in Floodlight
activity and configuration, user, timestamp and ordinal. The ordinal is made of the record's identity where it brings
none, so every conversion may be repeated. One second must lie between two requests, unless `rate_limit` says that the
account was granted more. A timestamp is at most 28 days old. NOT_FOUND means an id that nobody knows, or a click or
Floodlight call that is too recent: within six hours of the conversion it is worth another try.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec

from infra.google_api import Fault, GoogleApi, camel, fault_of, settings_of, unhashed, words_of
from infra.http import InDoubtError
from infra.narrowing import Refusal, narrowed, refused
from infra.quantities import Rate
from infra.systems import Connection, one_of
from shared.ends import Change
from shared.errors import (
    GENERAL,
    MALFORMED,
    NOT_HASHED,
    NOT_MATCHED,
    REFUSED,
    TOO_EARLY,
    TOO_OLD,
    UNMAPPABLE,
    AuthError,
    ConfigError,
    ProtocolError,
)
from shared.outcome import Answer, CannotAsk, InDoubt, Outcome, Passing, Probe, Verdict, delivered

SCOPE: Final = "https://www.googleapis.com/auth/ddmconversions"
VERSION: Final = "v5"
MOST_CONVERSIONS: Final = 1_000
OLDEST: Final = timedelta(days=28)
SETTLING: Final = timedelta(hours=6)
"""For so long a click may not be known yet."""
ONE_PER_SECOND: Final = Rate(1, 1.0)
KNOWN: Final[dict[str, type]] = {
    "floodlightConfigurationId": str,
    "floodlightActivityId": str,
    "encryptionInfo": dict,
    "apiVersion": str,
}
USERS: Final = (
    "gclid", "dclid", "matchId", "mobileDeviceId", "impressionId", "encryptedUserId", "encryptedUserIdCandidates",
    "userIdentifiers",
)  # fmt: skip

_FLOODLIGHT: Final = ("floodlightConfigurationId", "floodlightActivityId")
_NUMBERS: Final = (*_FLOODLIGHT, "timestampMicros", "ordinal", "quantity")
_EARLIEST: Final = 10**15
"""A smaller number of microseconds is one of milliseconds or seconds."""
_REFUSALS: Final = (400, 413)
_PLACE: Final = re.compile(r"conversions\[([0-9]{1,6})\](?:\.(.*))?")


def open_sink(connection: Connection, write: str) -> Conversions:
    """Raises ConfigError for anything but `conversions`, and for settings or variables that are missing."""
    return one_of({"conversions": Conversions}, write, "Campaign Manager 360")(connection)


class Conversions:
    """The sink of offline conversions."""

    system = "cm360"

    def __init__(self, connection: Connection) -> None:
        self._settings = settings_of(connection, KNOWN, ())
        profile = connection.secret("CM360_PROFILE_ID").strip()
        version = self._settings.get("apiVersion", VERSION)
        if not re.fullmatch("[0-9]{1,20}", profile):
            raise ConfigError("CM360_PROFILE_ID is no user profile", cure="write its digits")
        if not re.fullmatch("v[0-9]{1,3}", version):
            raise ConfigError("settings.apiVersion is no version", cure=f"write one such as {VERSION}")
        self._path = f"/dfareporting/{version}/userprofiles/{profile}/conversions/batchinsert"
        self.bulk = self.rows_per_call = max(1, min(MOST_CONVERSIONS, connection.page_size))
        self._clock = connection.clock
        paced = connection if connection.rate else msgspec.structs.replace(connection, rate=ONE_PER_SECOND)
        self._api = GoogleApi(paced, SCOPE)

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        contents = [self._content(change) for change in changes]
        answers: list[Answer | None] = [
            refused(REFUSED, "a conversion cannot be taken back")
            if change.operation == "delete"
            else self._check(content)
            for change, content in zip(changes, contents, strict=True)
        ]
        ready = [place for place, answer in enumerate(answers) if answer is None]
        groups = [ready[start : start + MOST_CONVERSIONS] for start in range(0, len(ready), MOST_CONVERSIONS)]
        narrowed(answers, groups, partial(self._send, contents), self._clock)
        return answers

    def close(self) -> None:
        self._api.close()

    def _content(self, change: Change) -> dict[str, Any]:
        defaults = {name: self._settings[name] for name in _FLOODLIGHT if self._settings.get(name)}
        content: dict[str, Any] = {
            **defaults,
            "ordinal": ordinal_of(change.key),
            "quantity": "1",
            **{name: value for name, value in camel(change.content).items() if value not in (None, "")},
        }
        return {name: str(value) if name in _NUMBERS else value for name, value in content.items()}

    def _check(self, content: dict[str, Any]) -> Verdict | None:
        """Why a conversion is invalid, None if nothing speaks against it."""
        for name in (*_NUMBERS, "value"):
            if name not in content:
                return _invalid(UNMAPPABLE, name, "a conversion needs it")
        for name in _NUMBERS:
            if not re.fullmatch("[0-9]{1,19}", content[name]):
                return _invalid(MALFORMED, name, "no whole number")
        micros = int(content["timestampMicros"])
        if micros < _EARLIEST:
            return _invalid(MALFORMED, "timestampMicros", "no number of microseconds since 1970")
        if self._age(micros) > OLDEST:
            return _invalid(TOO_OLD, "timestampMicros", f"older than {OLDEST.days} days")
        if not any(content.get(name) for name in USERS):
            return _invalid(UNMAPPABLE, "gclid", f"a conversion needs one of {', '.join(USERS)}")
        return _check_identifiers(content.get("userIdentifiers") or [])

    def _age(self, micros: int) -> timedelta:
        return timedelta(seconds=self._clock.now().timestamp() - micros / 1_000_000)

    def _send(self, contents: list[dict[str, Any]], group: list[int]) -> Sequence[Answer | None] | Refusal:
        sent = [contents[place] for place in group]
        body: dict[str, Any] = {"conversions": sent}
        if self._settings.get("encryptionInfo"):
            body["encryptionInfo"] = self._settings["encryptionInfo"]
        answer = self._api.request("POST", self._path, json=body, repeatable=True)
        if answer.status in _REFUSALS:
            return _refusal(fault_of(answer), sent)
        if 400 <= answer.status < 500:
            raise AuthError(
                f"batchinsert was answered {answer.status}: {fault_of(answer)}",
                cure="check CM360_PROFILE_ID and settings.apiVersion",
            )
        try:
            given = answer.json()
        except ProtocolError as error:
            raise InDoubtError(str(error)) from error
        rows = given.get("status") if isinstance(given, dict) else None
        if not isinstance(rows, list):
            raise InDoubtError(f"batchinsert was answered {answer.status} without the status of a conversion")
        errors = [_errors(row) for row in rows[: len(sent)]] + [None] * (len(sent) - len(rows))
        if all(
            each is not None and "PERMISSION_DENIED" in each and self._is_of_settings(content)
            for content, each in zip(sent, errors, strict=True)
        ):
            raise AuthError(
                "Campaign Manager 360 denies every conversion", cure="grant the user profile this Floodlight"
            )
        return [
            InDoubt("batchinsert says nothing of it") if each is None else self._answer(content, each)
            for content, each in zip(sent, errors, strict=True)
        ]

    def _is_of_settings(self, content: dict[str, Any]) -> bool:
        """Whether the conversion is for the Floodlight of the settings, so that its refusal concerns all of them."""
        return all(content[name] == self._settings.get(name) for name in _FLOODLIGHT)

    def _answer(self, content: dict[str, Any], errors: dict[str, str]) -> Answer:
        """What the errors of one conversion come to: refused for good if any of them says so."""
        early = self._age(int(content["timestampMicros"]))
        for code, message in errors.items():
            recent = code == "NOT_FOUND" and early < SETTLING
            if code != "INTERNAL" and not recent:
                number = NOT_MATCHED if code == "NOT_FOUND" else REFUSED
                return refused(number, f"{code}: {words_of(message, content)}".strip(": "), http_status=200)
        if "NOT_FOUND" in errors:
            after = max(60.0, (SETTLING - early).total_seconds())
            return Passing("Campaign Manager 360 does not know the click yet", TOO_EARLY, after, 200)
        if errors:
            return Passing("Campaign Manager 360: INTERNAL", GENERAL, None, 200)
        return delivered(content["ordinal"])


def ordinal_of(key: str) -> str:
    """A number of 63 bits that is the same for a record each time it is sent."""
    return str(int.from_bytes(sha256(key.encode()).digest()[:8]) >> 1)


def _errors(row: Any) -> dict[str, str] | None:
    """The codes of a conversion's errors, each with its words; None for a status that is none."""
    found = row.get("errors", []) if isinstance(row, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return None
    return {str(each.get("code") or "UNDOCUMENTED"): str(each.get("message") or "") for each in found}


def _refusal(fault: Fault, contents: list[dict[str, Any]]) -> Refusal:
    """A request that was refused as a whole."""
    named: dict[int, Verdict] = {}
    for each in fault.violations:
        place = _PLACE.search(each.field)
        if place is not None and int(place[1]) < len(contents):
            words = words_of(each.description, contents[int(place[1])])
            reason = f"{each.reason or fault}: {words}".strip(": ")
            named.setdefault(int(place[1]), refused(REFUSED, reason, place[2] or "", fault.status))
    # Only the verdict on a record alone is ever used, so nothing of another one can stand in it.
    words = words_of(fault.message, contents[0])
    return Refusal(refused(REFUSED, f"{fault}: {words}".strip(": "), http_status=fault.status), named)


def _check_identifiers(identifiers: Any) -> Verdict | None:
    if not isinstance(identifiers, list) or not all(isinstance(each, dict) for each in identifiers):
        return _invalid(MALFORMED, "userIdentifiers", "no list of identifiers")
    if path := unhashed(identifiers):
        return _invalid(NOT_HASHED, f"userIdentifiers{path}", "no SHA-256 in HEX")
    return None


def _invalid(number: int, field: str, reason: str) -> Verdict:
    return Verdict(Outcome.INVALID, number, reason, field)
