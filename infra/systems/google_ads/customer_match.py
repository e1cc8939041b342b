"""Customer Match: members of a user list, by offline user data jobs: create, add operations, run.

`settings:` of the stream: `user_list` ("customers/1/userLists/2", or its id alone); optional `consent`,
`login_customer_id`, `api_version`.

A record's content is the UserData of one member, `{user_identifiers: [{hashed_email}, {hashed_phone_number},
{address_info: {hashed_first_name, hashed_last_name, country_code, postal_code}}]}`; a delete needs it as well. Limits:
20 identifiers per operation, 100,000 per request, 10,000 operations per call as advised; a job never mixes members
that come with members that go. Facts on these limits are of the vendor's forum, not of its reference.

The job's name is kept as the target's id: it ends hours later, and `confirm` asks how. A job that was not run does
nothing, and a member is in the list or not, so every change may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from infra.google_api import camel, fault_of, settings_of, unhashed
from infra.http import InDoubtError
from infra.narrowing import Refusal, narrowed
from infra.systems import Connection
from infra.systems.google_ads.calls import Ads, answer_to, partial_failure, refusal_of
from shared.confirm import Confirmation
from shared.ends import Change
from shared.errors import MALFORMED, NOT_HASHED, OVER_A_LIMIT, UNMAPPABLE, AuthError, ConfigError, ProtocolError
from shared.outcome import Answer, CannotAsk, Outcome, Probe, Verdict, delivered

MOST_OPERATIONS: Final = 10_000
MOST_IDENTIFIERS: Final = 20
MOST_IN_REQUEST: Final = 100_000
KNOWN: Final[dict[str, type]] = {"userList": str, "consent": dict, "loginCustomerId": str, "apiVersion": str}

_STATUS_OF: Final = (
    "SELECT offline_user_data_job.status, offline_user_data_job.failure_reason FROM offline_user_data_job"
    " WHERE offline_user_data_job.resource_name = '{}'"
)
_JOB: Final = re.compile(r"customers/[0-9]+/offlineUserDataJobs/[0-9]+")


class CustomerMatch:
    """The sink of a user list."""

    system = "google_ads"

    def __init__(self, connection: Connection) -> None:
        self._settings = settings_of(connection, KNOWN, ("userList",))
        self._ads = Ads(connection, self._settings)
        self._list = _user_list(self._settings["userList"], self._ads.customer)
        self.bulk = self.rows_per_call = max(1, min(MOST_OPERATIONS, connection.page_size))
        self._clock = connection.clock

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        contents = [camel(change.content) for change in changes]
        answers: list[Answer | None] = [_check(content) for content in contents]
        groups: list[list[int]] = []
        for kind in ("upsert", "delete"):
            places = [
                place for place, change in enumerate(changes) if change.operation == kind and answers[place] is None
            ]
            groups += _cut(places, contents)
        narrowed(answers, groups, partial(self._send, changes, contents), self._clock)
        return answers

    def confirm(self, request: str) -> Confirmation:
        """How a job ended, if it did, with Google's reason where it failed. Raises as `Http.request`, and ProtocolError
        for an odd answer."""
        if not _JOB.fullmatch(request):
            return Confirmation(request, "gone")
        query = _STATUS_OF.format(request)
        path = f"customers/{self._ads.customer}/googleAds:search"
        answer = self._ads.post(path, {"query": query}, repeatable=True)
        found = answer.json()
        rows = found.get("results", []) if isinstance(found, dict) and answer.status == 200 else None
        if not isinstance(rows, list):
            raise ProtocolError("a search for a job was answered without results")
        if not rows:
            return Confirmation(request, "gone")
        job = rows[0].get("offlineUserDataJob") if isinstance(rows[0], dict) else None
        status = job.get("status") if isinstance(job, dict) else None
        if status in ("PENDING", "RUNNING"):
            return Confirmation(request, "pending")
        if status == "SUCCESS":
            return Confirmation(request, "confirmed")
        if status == "FAILED" and isinstance(job, dict):
            return Confirmation(request, "failed", refused={str(job.get("failureReason") or "UNSPECIFIED"): 0})
        raise ProtocolError("a job has a status that is not documented")

    def close(self) -> None:
        self._ads.close()

    def _send(
        self, changes: Sequence[Change], contents: list[dict[str, Any]], group: list[int]
    ) -> Sequence[Answer | None] | Refusal:
        verb = "remove" if changes[group[0]].operation == "delete" else "create"
        sent = [contents[place] for place in group]
        job = self._created()
        operations = {"operations": [{verb: content} for content in sent], "enablePartialFailure": True}
        answer = self._ads.post(f"{job}:addOperations", operations, repeatable=True)
        if answer.status >= 400:
            return refusal_of(fault_of(answer), "operations", sent)
        given = answer.json() if answer.body else {}
        errors = partial_failure(given if isinstance(given, dict) else {}, "operations")
        answers: list[Answer | None] = [
            answer_to(errors[row], content, answer.status) if row in errors else None
            for row, content in enumerate(sent)
        ]
        if any(each is None for each in answers):
            ran = self._ads.post(f"{job}:run", {}, repeatable=True)
            if ran.status >= 300:
                raise InDoubtError(f"a job was not run, and answered {ran.status}: {fault_of(ran)}")
        return [each or delivered(job) for each in answers]

    def _created(self) -> str:
        metadata = {"userList": self._list}
        if self._settings.get("consent"):
            metadata["consent"] = self._settings["consent"]
        job = {"type": "CUSTOMER_MATCH_USER_LIST", "customerMatchUserListMetadata": metadata}
        path = f"customers/{self._ads.customer}/offlineUserDataJobs:create"
        answer = self._ads.post(path, {"job": job}, repeatable=True)
        if answer.status == 400:
            raise AuthError(f"Google Ads creates no job: {fault_of(answer)}", cure="check settings.userList")
        given = answer.json()
        name = given.get("resourceName") if isinstance(given, dict) else None
        if not isinstance(name, str) or not _JOB.fullmatch(name):
            raise InDoubtError("a job was created without a name")
        return name


def _check(content: dict[str, Any]) -> Verdict | None:
    """Why a member is invalid, None if nothing speaks against it."""
    identifiers = content.get("userIdentifiers")
    if not identifiers:
        return _invalid(UNMAPPABLE, "userIdentifiers", "a member needs an identifier")
    if not isinstance(identifiers, list) or not all(isinstance(each, dict) for each in identifiers):
        return _invalid(MALFORMED, "userIdentifiers", "no list of identifiers")
    if len(identifiers) > MOST_IDENTIFIERS:
        return _invalid(
            OVER_A_LIMIT, "userIdentifiers", f"{len(identifiers)} identifiers, and {MOST_IDENTIFIERS} are allowed"
        )
    if path := unhashed(identifiers):
        return _invalid(NOT_HASHED, f"userIdentifiers{path}", "no SHA-256 in HEX")
    return None


def _cut(places: list[int], contents: list[dict[str, Any]]) -> list[list[int]]:
    """Requests that are below both limits."""
    groups: list[list[int]] = []
    room = 0
    for place in places:
        size = len(contents[place]["userIdentifiers"])
        if not groups or size > room or len(groups[-1]) == MOST_OPERATIONS:
            groups.append([])
            room = MOST_IN_REQUEST
        groups[-1].append(place)
        room -= size
    return groups


def _user_list(text: str, customer: str) -> str:
    if re.fullmatch("customers/[0-9]+/userLists/[0-9]+", text):
        return text
    if re.fullmatch("[0-9]+", text):
        return f"customers/{customer}/userLists/{text}"
    raise ConfigError("settings.userList is no user list", cure="write customers/1/userLists/2, or its id")


def _invalid(number: int, field: str, reason: str) -> Verdict:
    return Verdict(Outcome.INVALID, number, reason, field)
