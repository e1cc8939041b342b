"""A fake of the Campaign Manager 360 API v5: `conversions/batchinsert`.

Enforced as documented: 1,000 conversions per request, one request per second and 50,000 a day of a project, refused
with 403 and the reason; timestamps at most 28 days old; the fields that are required. Conversions collapse that agree
in Floodlight activity and configuration, user, timestamp and ordinal: the repeat is taken and counts once. Chosen where
the pages leave it open: a day ends at midnight of UTC; a click is known `settling` seconds after its conversion, as
long as `unknown_clicks` does not hold it; more than 1,000 conversions are refused with 400 and no field. `codes` holds
an error code per gclid that a test wants.
"""

import re
from collections import Counter
from typing import Any, ClassVar

from tests.sandbox.google_system import Quota, Refused, Target, more_than_once
from tests.sandbox.system import Answer, Request, Row, Setup, answer

MOST_CONVERSIONS = 1_000
PER_DAY = 50_000
OLDEST = 28 * 86_400.0
USERS = ("encryptedUserId", "encryptedUserIdCandidates", "mobileDeviceId", "gclid", "matchId", "dclid", "impressionId")
REQUIRED = ("floodlightConfigurationId", "floodlightActivityId", "timestampMicros", "value", "quantity", "ordinal")
MESSAGES = {
    "dailyLimitExceeded": "Daily Limit Exceeded",
    "userRateLimitExceeded": "User Rate Limit Exceeded",
    "rateLimitExceeded": "Rate Limit Exceeded",
    "quotaExceeded": "Quota Exceeded",
}


class Cm360(Target):
    """One user profile. `conversions` are those that count, `taken` how often each was."""

    name: ClassVar[str] = "cm360"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.profile = "4242"
        self.quota = Quota(None, PER_DAY)
        self.spacing = 1.0
        self.quota_reason = ""
        self.denied = ""
        self.settling = 0.0
        self.unknown_clicks: set[str] = set()
        self.codes: dict[str, str] = {}
        self.strict = False
        self.conversions: dict[tuple[str, ...], Row] = {}
        self.taken: Counter[tuple[str, ...]] = Counter()
        self._last = float("-inf")
        self.limit(**setup.quotas.get(self.name, {}))

    def environment(self, url: str) -> dict[str, str]:
        return {"CM360_URL": url, "CM360_PROFILE_ID": self.profile, "GOOGLE_OAUTH_ACCESS_TOKEN": self.token}

    def stats(self) -> dict[str, Any]:
        """As for every system, with the conversions that came and that count, and which were taken more than once."""
        with self.lock:
            return super().stats() | {
                "received": self.received,
                "conversions": len(self.conversions),
                "repeated": more_than_once(self.taken),
            }

    def limit(self, **most: int | None) -> None:
        """Requests per minute are spread: none comes sooner after another than its share of the minute."""
        if "per_minute" in most:
            per_minute = most.pop("per_minute")
            self.spacing = 60 / per_minute if per_minute else 0.0
        self.quota.limit(**most)

    def rows(self) -> list[Row]:
        return list(self.conversions.values())

    def failure(self, refused: Refused) -> Answer:
        """As the other APIs, with the list of errors that the older ones have."""
        reason = refused.details[0]["reason"] if refused.details else "badRequest"
        body = {
            "code": refused.status,
            "message": refused.message,
            "errors": [{"domain": "global", "reason": reason, "message": refused.message}],
        }
        return answer(refused.status, {"error": body})

    def carried_out(self, request: Request, body: Row) -> Any:
        now = self.clock()
        reason = self.quota_reason or ("rateLimitExceeded" if now - self._last < self.spacing else "")
        reason = reason or ("dailyLimitExceeded" if self.quota.take(now) else "")
        if reason:
            raise Refused(403, MESSAGES[reason], {"reason": reason})
        self._last = now
        if self.denied:
            raise Refused(403, "Forbidden", {"reason": self.denied})
        path = f"/dfareporting/v5/userprofiles/{self.profile}/conversions/batchinsert"
        if (request.method, request.path) != ("POST", path):
            raise Refused(404, "Not Found", {"reason": "notFound"})
        conversions = body.get("conversions") or []
        if not conversions or len(conversions) > MOST_CONVERSIONS:
            raise Refused(400, "The number of conversions is out of range.", {"reason": "invalidArgument"})
        if self.strict and any(not isinstance(each.get("value"), int | float) for each in conversions):
            raise Refused(400, "Invalid value.", {"reason": "parseError"})
        self.received += len(conversions)
        status = [self._insert(each, now) for each in conversions]
        return {
            "kind": "dfareporting#conversionsBatchInsertResponse",
            "hasFailures": any("errors" in each for each in status),
            "status": status,
        }

    def _insert(self, conversion: Row, now: float) -> Row:
        status: Row = {"kind": "dfareporting#conversionStatus", "conversion": conversion}
        if fault := self._fault(conversion, now):
            code, message = fault
            error = {"kind": "dfareporting#conversionError", "code": code, "message": message}
            return status | {"errors": [error]}
        key = tuple(str(conversion.get(name)) for name in (*REQUIRED[:3], "ordinal", *USERS))
        self.taken[key] += 1
        self.conversions.setdefault(key, conversion)
        return status

    def _fault(self, conversion: Row, now: float) -> tuple[str, str] | None:
        gclid = str(conversion.get("gclid"))
        if code := self.codes.get(gclid) or self.code_of(conversion):
            return code, f"{code} of {gclid}."
        for name in REQUIRED:
            if conversion.get(name) in (None, ""):
                return "INVALID_ARGUMENT", f"{name} is required."
        if not any(conversion.get(name) for name in (*USERS, "userIdentifiers")):
            return "INVALID_ARGUMENT", "A user identifier is required."
        for each in conversion.get("userIdentifiers") or []:
            if not all(
                re.fullmatch("[0-9a-f]{64}", str(value)) for name, value in each.items() if name[:6] == "hashed"
            ):
                return "INVALID_ARGUMENT", "User identifiers have to be hashed."
        age = now - int(conversion["timestampMicros"]) / 1_000_000
        if age > OLDEST:
            return "INVALID_ARGUMENT", "The timestamp is too old."
        if gclid in self.unknown_clicks or age < self.settling:
            return "NOT_FOUND", "The click was not found."
        return None
