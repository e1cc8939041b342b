"""Events and audience members, sent to the Data Manager API.

`settings:` of the stream, named as the API or its protos name them:

    destinations:            # 1 to 10
      - operating_account: {account_type: GOOGLE_ADS, account_id: "1234567890"}
        login_account: {account_type: GOOGLE_ADS, account_id: "9876543210"}       # optional, so is linked_account
        product_destination_id: "123"   # a conversion action, a Floodlight activity, an audience
        reference: shop                 # optional, for destination_references of an event
    encoding: HEX            # or BASE64, of the hashed identifiers
    consent: {ad_user_data: CONSENT_GRANTED, ad_personalization: CONSENT_GRANTED}   # optional, for all records
    terms_of_service: {customer_match_terms_of_service_status: ACCEPTED}            # optional, audiences only

A record's content is the Event or AudienceMember, already hashed. One bad record refuses its whole request; the
refusal names the fields of records, which end the named ones, and is narrowed down where it names none. A refusal of a
destination or of the request itself blames no record and stops the stream.

The id of the request is kept as the target's id; `confirm` asks what became of it. What a repeat does: an audience
member is in the audience or not. Ads knows an event by its transaction id and action, or by its GCLID and time,
Floodlight by its transaction id and activity, and each reports the repeat as a duplicate. Anything else cannot be asked
for and must not be sent twice.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import msgspec

from infra.google_api import Fault, GoogleApi, camel, fault_of, settings_of, words_of
from infra.http import InDoubtError
from infra.narrowing import Refusal, narrowed, refused
from infra.systems import Connection
from infra.systems.data_manager.content import check_event, check_member
from infra.systems.data_manager.status import confirmation
from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import REFUSED, UNDOCUMENTED_ANSWER, AuthError, ConfigError, ProtocolError
from shared.outcome import Answer, CannotAsk, Probe, Verdict, delivered, unknown

SCOPE: Final = "https://www.googleapis.com/auth/datamanager"
MOST_DESTINATIONS: Final = 10
ENCODINGS: Final = ("HEX", "BASE64")
KNOWN: Final[dict[str, type]] = {"destinations": list, "encoding": str, "consent": dict}
COLLAPSING: Final = frozenset(("GOOGLE_ADS", "FLOODLIGHT_CONFIG"))
"""Accounts that know a repeat of an event by its transaction id."""

_REFUSALS: Final = (400, 413)
_OF_ACCOUNT: Final = re.compile(
    "DESTINATION_ACCOUNT_.*|DATA_PARTNER_.*|TERMS_AND_CONDITIONS_NOT_SIGNED|INVALID_USER_LIST_.*|TOO_MANY_DESTINATIONS"
    "|INVALID_CONVERSION_ACTION_.*|DUPLICATE_DESTINATION_REFERENCE|DIFFERENT_LOGIN_ACCOUNTS_.*"
)
_OF_REQUEST: Final = re.compile(r"destinations|encoding|encryption|consent|terms_?of_?service", re.I)
_PLACE: Final = re.compile(r"(?:events|audience_members|audienceMembers)\[([0-9]{1,6})\](?:\.(.*))?")


class _Ingest(ABC):
    """What events and audience members have in common."""

    system = "data_manager"
    most: ClassVar[int]
    records: ClassVar[str]
    known: ClassVar[Mapping[str, type]] = KNOWN

    def __init__(self, connection: Connection) -> None:
        settings = settings_of(connection, self.known, ("destinations",))
        self._destinations = _checked_destinations(settings["destinations"])
        self._encoding = settings.setdefault("encoding", "HEX")
        if self._encoding not in ENCODINGS:
            raise ConfigError("settings.encoding is another one", cure=f"use one of {', '.join(ENCODINGS)}")
        self._settings = settings
        self.bulk = self.rows_per_call = max(1, min(self.most, connection.page_size))
        self._clock = connection.clock
        self._api = GoogleApi(connection, SCOPE)

    @abstractmethod
    def repeatable(self, change: Change) -> bool: ...

    @abstractmethod
    def _check(self, content: dict[str, Any]) -> Verdict | None: ...

    @abstractmethod
    def _path(self, change: Change) -> str: ...

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        contents = [camel(change.content) for change in changes]
        answers: list[Answer | None] = [self._check(content) for content in contents]
        by_path: dict[str, list[int]] = {}
        for place, change in enumerate(changes):
            if answers[place] is None:
                by_path.setdefault(self._path(change), []).append(place)
        groups = [
            places[start : start + self.most]
            for places in by_path.values()
            for start in range(0, len(places), self.most)
        ]
        narrowed(answers, groups, partial(self._send, changes, contents), self._clock)
        return answers

    def confirm(self, request: str) -> Confirmation:
        """What became of an accepted request. Raises as `Http.request`, and ProtocolError for an odd answer."""
        answer = self._api.request("GET", "/v1/requestStatus:retrieve", params={"requestId": request}, repeatable=True)
        if answer.status in (400, 404):
            return Confirmation(request, "gone")
        found = confirmation(request, answer.json()) if answer.status == 200 else None
        if found is None:
            raise ProtocolError(f"the status of a request was answered {answer.status} without one")
        return found

    def close(self) -> None:
        self._api.close()

    def _send(
        self, changes: Sequence[Change], contents: list[dict[str, Any]], group: list[int]
    ) -> Sequence[Answer | None] | Refusal:
        path = self._path(changes[group[0]])
        body = {**self._settings, self.records: [contents[place] for place in group]}
        if path.endswith(":remove"):
            body = {name: value for name, value in body.items() if name not in ("consent", "termsOfService")}
        harmless = all(self.repeatable(changes[place]) for place in group)
        answer = self._api.request("POST", path, json=body, repeatable=harmless)
        if answer.status in _REFUSALS:
            return _refusal(fault_of(answer), [contents[place] for place in group])
        if 400 <= answer.status < 500:
            raise AuthError(f"{path} was answered {answer.status}: {fault_of(answer)}", cure="check `settings:`")
        request = _request_id(answer.body, answer.status)
        if request:
            return [delivered(request)] * len(group)
        what = f"{path} was answered {answer.status} without the id of a request"
        if harmless:
            raise InDoubtError(what)
        return [unknown(UNDOCUMENTED_ANSWER, what, answer.status)] * len(group)


class Events(_Ingest):
    """The sink of conversion events."""

    most = 2_000
    records = "events"

    def repeatable(self, change: Change) -> bool:
        event = camel(change.content)
        if any(_kind(each) not in COLLAPSING for each in self._destinations):
            return False
        clicks = event.get("adIdentifiers")
        by_click = isinstance(clicks, dict) and bool(clicks.get("gclid"))
        return bool(event.get("transactionId")) or (
            by_click and all(_kind(each) == "GOOGLE_ADS" for each in self._destinations)
        )

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        upserts = [place for place, change in enumerate(changes) if change.operation != "delete"]
        answers: list[Answer | None] = [refused(REFUSED, "an event cannot be taken back")] * len(changes)
        for place, answer in zip(upserts, super().write([changes[place] for place in upserts]), strict=True):
            answers[place] = answer
        return answers

    def _check(self, content: dict[str, Any]) -> Verdict | None:
        return check_event(content, self._encoding)

    def _path(self, change: Change) -> str:
        return "/v1/events:ingest"


class Audience(_Ingest):
    """The sink of an audience: upserts are its members, deletes leave it. A delete needs the member's data as well."""

    most = 10_000
    records = "audienceMembers"
    known = {**KNOWN, "termsOfService": dict}

    def repeatable(self, change: Change) -> bool:
        return True

    def _check(self, content: dict[str, Any]) -> Verdict | None:
        return check_member(content, self._encoding)

    def _path(self, change: Change) -> str:
        return f"/v1/audienceMembers:{'remove' if change.operation == 'delete' else 'ingest'}"


def _refusal(fault: Fault, contents: list[dict[str, Any]]) -> Refusal:
    """Raises AuthError for what no record can be blamed for."""
    named: dict[int, Verdict] = {}
    for each in fault.violations:
        place = _PLACE.search(each.field)
        if _OF_ACCOUNT.fullmatch(each.reason) or (place is None and _OF_REQUEST.match(each.field)):
            raise AuthError(
                f"Data Manager refuses {each.field or 'the destination'}: {each.reason or fault}",
                cure="mend `settings:` of the stream, or what the account allows",
            )
        if place is not None and int(place[1]) < len(contents):
            words = words_of(each.description, contents[int(place[1])])
            reason = f"{each.reason}: {words}".strip(": ")
            named.setdefault(int(place[1]), refused(REFUSED, reason, place[2] or "", fault.status))
    # Only the verdict on a record alone is ever used, so nothing of another one can stand in it.
    words = words_of(fault.message, contents[0])
    return Refusal(refused(REFUSED, f"{fault}: {words}".strip(": "), http_status=fault.status), named)


def _checked_destinations(given: list[Any]) -> list[dict[str, Any]]:
    if len(given) > MOST_DESTINATIONS:
        raise ConfigError(
            f"settings.destinations holds {len(given)}, and {MOST_DESTINATIONS} are allowed", cure="leave out the rest"
        )
    for place, each in enumerate(given):
        account = each.get("operatingAccount") if isinstance(each, dict) else None
        if not isinstance(account, dict) or not account.get("accountId") or not each.get("productDestinationId"):
            raise ConfigError(
                f"settings.destinations[{place}] names no account or no destination in it",
                cure="set operating_account: {account_type, account_id} and product_destination_id",
            )
    return given


def _kind(destination: dict[str, Any]) -> str:
    """The type of the account, which was called product before."""
    account = destination["operatingAccount"]
    return str(account.get("accountType") or account.get("product") or "")


def _request_id(body: bytes, status: int) -> str:
    if status != 200:
        return ""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    found = given.get("requestId") if isinstance(given, dict) else None
    return found if isinstance(found, str) else ""
