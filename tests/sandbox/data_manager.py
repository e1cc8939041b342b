"""A fake of Google's Data Manager API: events and audience members ingested, members removed, the status of requests.

Enforced as documented: 2,000 events or 10,000 members, 10 destinations and 10 identifiers; 300 requests a minute and
100,000 a day, ingestion and status apart; one bad record refuses the whole request, and nothing of it is taken. Chosen
where the pages leave it open: every bad record is named, in the paths of the guide (`events.events[0]....`), unless
`names_records` is off; times are RFC 3339; a request is PROCESSING for `processing` seconds. Repeats of an event (its
transaction id, else its GCLID and time, per destination) and events older than 90 days are taken with 200 and counted
as errors by the status, as are those for which a test's `later` gives a reason; an event that has neither id nor GCLID
counts each time. `validateOnly` takes nothing.
"""

import re
from base64 import b64decode
from binascii import Error
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from tests.sandbox.google_system import Quota, Refused, Target, bad_request, info, more_than_once
from tests.sandbox.system import Request, Row, Setup

MOST_EVENTS = 2_000
MOST_MEMBERS = 10_000
MOST_DESTINATIONS = 10
MOST_IDENTIFIERS = 10
PER_MINUTE = 300
PER_DAY = 100_000
OLDEST = 90 * 86_400.0
DOMAIN = "datamanager.googleapis.com"
KINDS = ("userData", "pairData", "mobileData", "userIdData", "ppidData", "compositeData")


class DataManager(Target):
    """`events` are those that count (`counting` holds what they are known by), `taken` how often each event was, or
    each member since it left; `members` who is in each audience, `refused_destination` a reason that every destination
    is refused for, `bad` a test's own judgement of a record: field and reason, or None."""

    name: ClassVar[str] = "data_manager"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.quotas = {"ingest": Quota(PER_MINUTE, PER_DAY), "read": Quota(PER_MINUTE, PER_DAY)}
        self.events: list[Row] = []
        self.taken: Counter[tuple[str, ...]] = Counter()
        self.counting: set[tuple[str, ...]] = set()
        self.members: dict[str, set[str]] = {}
        self.statuses_of: dict[str, Row] = {}
        self.processing = 1_800.0
        self.names_records = True
        self.refused_destination = ""
        self.bad: Callable[[Row], tuple[str, str] | None] = lambda record: None
        self.later: Callable[[Row], str] = lambda record: ""
        self.limit(**setup.quotas.get(self.name, {}))

    def environment(self, url: str) -> dict[str, str]:
        return {"DATA_MANAGER_URL": url, "GOOGLE_OAUTH_ACCESS_TOKEN": self.token}

    def stats(self) -> dict[str, Any]:
        """As for every system, with the records that came, how much there is, and what was taken more than once."""
        with self.lock:
            return super().stats() | {
                "received": self.received,
                "events": len(self.events),
                "members": {name: len(members) for name, members in self.members.items()},
                "repeated": more_than_once(self.taken),
            }

    @property
    def hands(self) -> Mapping[str, Callable[[Row], Row]]:
        return {**super().hands, "finish": self._finish}

    def limit(self, **most: int | None) -> None:
        """Ingestion and status apart, each as much."""
        for quota in self.quotas.values():
            quota.limit(**most)

    def rows(self) -> list[Row]:
        return list(self.events)

    def carried_out(self, request: Request, body: Row) -> Any:
        reads = request.method == "GET"
        used_up = self.quotas["read" if reads else "ingest"].take(self.clock())
        if used_up:
            limit = f"Ingestion{'Read' if reads else 'Mutate'}RequestsPer{used_up.title()}PerProject"
            raise Refused(429, "Too many requests.", info("RATE_LIMIT_EXCEEDED", DOMAIN, quota_limit=limit))
        match request.method, request.path:
            case "GET", "/v1/requestStatus:retrieve":
                return self._status(request.query.get("requestId", ""))
            case "POST", "/v1/events:ingest":
                return self._ingest(body, "events", MOST_EVENTS, self._take_event)
            case "POST", "/v1/audienceMembers:ingest":
                return self._ingest(body, "audienceMembers", MOST_MEMBERS, self._take_member)
            case "POST", "/v1/audienceMembers:remove":
                if {"consent", "termsOfService"} & body.keys():
                    raise _invalid([_violation("consent", "INVALID_ARGUMENT")])
                return self._ingest(body, "audienceMembers", MOST_MEMBERS, self._drop_member)
        raise Refused(404, "Method not found.")

    def _ingest(self, body: Row, name: str, most: int, take: Callable[[Row, Row], str]) -> Row:
        destinations, records = body.get("destinations") or [], body.get(name) or []
        self._check_destinations(destinations)
        snake = "events" if name == "events" else "audience_members"
        if not records:
            raise _invalid([_violation(snake, "REQUIRED_FIELD_MISSING")])
        if len(records) > most:
            raise _invalid([_violation(snake, f"TOO_MANY_{snake.upper()}")])
        self.received += len(records)
        check = self._fault_of_event if name == "events" else self._fault_of_member
        found = [
            (place, check(record, body) or self.bad(record) or self._refusal(record))
            for place, record in enumerate(records)
        ]
        faults = [(place, *fault) for place, fault in found if fault]
        if faults and not self.names_records:
            raise Refused(400, "There was a problem with the request.", info("INVALID_ARGUMENT", DOMAIN))
        if faults:
            raise _invalid(
                [_violation(f"{snake}.{snake}[{place}].{field}".rstrip("."), reason) for place, field, reason in faults]
            )
        request = f"t-{len(self.statuses_of):08x}"
        if body.get("validateOnly"):
            return {"requestId": request.replace("t", "v", 1)}
        self.statuses_of[request] = {
            "at": self.clock(),
            "kind": name,
            "records": len(records),
            "destinations": destinations,
            "is_finished": False,
            "reasons": [Counter(filter(None, (take(record, each) for record in records))) for each in destinations],
        }
        return {"requestId": request}

    def _check_destinations(self, destinations: list[Row]) -> None:
        if not destinations:
            raise _invalid([_violation("destinations", "REQUIRED_FIELD_MISSING")])
        if len(destinations) > MOST_DESTINATIONS:
            raise _invalid([_violation("destinations", "TOO_MANY_DESTINATIONS")])
        for place, each in enumerate(destinations):
            if not each.get("productDestinationId") or not each.get("operatingAccount", {}).get("accountId"):
                raise _invalid([_violation(f"destinations.destinations[{place}]", "INVALID_DESTINATION")])
        if self.refused_destination:
            raise _invalid([_violation("events.events[0].destination_references[0]", self.refused_destination)])

    def _fault_of_event(self, event: Row, body: Row) -> tuple[str, str] | None:
        if not event.get("eventTimestamp"):
            return "event_timestamp", "REQUIRED_FIELD_MISSING"
        if not (event.get("userData") or event.get("adIdentifiers") or event.get("clientId") or event.get("userId")):
            return "", "NO_IDENTIFIERS_PROVIDED"
        return _fault_of_user(event.get("userData"), str(body.get("encoding")))

    def _fault_of_member(self, member: Row, body: Row) -> tuple[str, str] | None:
        if sum(kind in member for kind in KINDS) != 1:
            return "", "INVALID_AUDIENCE_MEMBER"
        if len(member.get("mobileData", {}).get("mobileIds", [])) > MOST_IDENTIFIERS:
            return "mobile_data.mobile_ids", "TOO_MANY_USER_IDENTIFIERS"
        return _fault_of_user(member.get("userData"), str(body.get("encoding")))

    def _refusal(self, record: Row) -> tuple[str, str] | None:
        code = self.code_of(record)
        return ("", code) if code else None

    def _take_event(self, event: Row, destination: Row) -> str:
        where = str(destination["productDestinationId"])
        gclid, at = (event.get("adIdentifiers") or {}).get("gclid"), str(event["eventTimestamp"])
        key, reason = (where, "event", _name_of(event)), ""
        if event.get("transactionId"):
            key, reason = (where, "transaction", str(event["transactionId"])), "DUPLICATE_TRANSACTION_ID"
        elif gclid:
            key, reason = (where, "click", f"{gclid} {at}"), "DUPLICATE_GCLID"
        self.taken[key] += 1
        if reason and key in self.counting:
            return reason
        if self.clock() - datetime.fromisoformat(at).timestamp() > OLDEST:
            return "EVENT_TOO_OLD"
        if later := self.later(event):
            return later
        self.counting.add(key)
        self.events.append(event | {"destination": where})
        return ""

    def _take_member(self, member: Row, destination: Row) -> str:
        if later := self.later(member):
            return later
        self._note_member("joined", "left", member, destination).add(_name_of(member))
        return ""

    def _drop_member(self, member: Row, destination: Row) -> str:
        self._note_member("left", "joined", member, destination).discard(_name_of(member))
        return ""

    def _note_member(self, verb: str, other: str, member: Row, destination: Row) -> set[str]:
        where, name = str(destination["productDestinationId"]), _name_of(member)
        self.taken[where, verb, name] += 1
        self.taken.pop((where, other, name), None)
        return self.members.setdefault(where, set())

    def _status(self, request: str) -> Row:
        known = self.statuses_of.get(request)
        if known is None:
            raise _invalid([_violation("request_id", "INVALID_REQUEST_ID")])
        done = self._is_done(known)
        given = []
        for destination, reasons in zip(known["destinations"], known["reasons"], strict=True):
            status: Row = {"destination": destination, "requestStatus": "PROCESSING"}
            if done:
                failed = sum(reasons.values())
                words = "SUCCESS" if not failed else "FAILED" if failed == known["records"] else "PARTIAL_SUCCESS"
                counted = {"recordCount": str(known["records"])}
                events = known["kind"] == "events"
                status |= {"requestStatus": words} | (
                    {"eventsIngestionStatus": counted}
                    if events
                    else {"audienceMembersIngestionStatus": {"userDataIngestionStatus": counted}}
                )
                if failed:
                    counts = [
                        {"recordCount": str(count), "reason": f"PROCESSING_ERROR_REASON_{reason}"}
                        for reason, count in sorted(reasons.items())
                    ]
                    status["errorInfo"] = {"errorCounts": counts}
            given.append(status)
        return {"requestStatusPerDestination": given}

    def _is_done(self, known: Row) -> bool:
        return bool(known["is_finished"]) or self.clock() - known["at"] >= self.processing

    def _finish(self, body: Row) -> Row:
        """Ends the requests under way: with what they come to, or so that their status is this one, of which a part is
        one record. What counts stays."""
        status, reason = body.get("status"), str(body.get("reason") or "INTERNAL_ERROR")
        if status not in (None, "SUCCESS", "PARTIAL_SUCCESS", "FAILED"):
            raise ValueError("a request ends with SUCCESS, PARTIAL_SUCCESS or FAILED")
        under_way = [known for known in self.statuses_of.values() if not self._is_done(known)]
        for known in under_way:
            known["is_finished"] = True
            if status:
                failed = {"SUCCESS": 0, "PARTIAL_SUCCESS": 1, "FAILED": known["records"]}[status]
                known["reasons"] = [Counter({reason: failed} if failed else {}) for _ in known["destinations"]]
        return {"finished": len(under_way)}


def _fault_of_user(data: Row | None, encoding: str) -> tuple[str, str] | None:
    if data is None:
        return None
    identifiers = data.get("userIdentifiers") or []
    if not identifiers:
        return "user_data.user_identifiers", "REQUIRED_FIELD_MISSING"
    if len(identifiers) > MOST_IDENTIFIERS:
        return "user_data.user_identifiers", "TOO_MANY_USER_IDENTIFIERS"
    if encoding not in ("HEX", "BASE64"):
        return "encoding", "REQUIRED_FIELD_MISSING"
    for place, each in enumerate(identifiers):
        address = each.get("address") or {}
        hashed = [
            each.get("emailAddress"),
            each.get("phoneNumber"),
            address.get("givenName"),
            address.get("familyName"),
        ]
        for value in hashed:
            if value is not None and (reason := _fault_of_hash(str(value), encoding)):
                return f"user_data.user_identifiers[{place}]", reason
    return None


def _fault_of_hash(value: str, encoding: str) -> str:
    if encoding == "HEX":
        return "" if re.fullmatch("[0-9a-fA-F]{64}", value) else "INVALID_HEX_ENCODING"
    try:
        return "" if len(b64decode(value, altchars=b"-_", validate=True)) == 32 else "INVALID_SHA256_FORMAT"
    except (Error, ValueError):
        return "INVALID_BASE64_ENCODING"


def _name_of(member: Row) -> str:
    return str({name: value for name, value in member.items() if name != "consent"})


def _violation(field: str, reason: str) -> Row:
    return {"field": field, "description": f"{reason.replace('_', ' ').capitalize()}.", "reason": reason}


def _invalid(violations: list[Row]) -> Refused:
    return Refused(
        400,
        "There was a problem with the request.",
        info("INVALID_ARGUMENT", DOMAIN),
        bad_request(violations),
    )
