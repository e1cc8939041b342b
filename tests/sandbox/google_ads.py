"""A fake of the Google Ads API over REST: click conversions uploaded, and Customer Match jobs.

Enforced as documented: 2,000 conversions per request, partial failure required, 5 identifiers per conversion; 20 per
operation and 100,000 per request of a job, which never mixes create and remove and runs once; the operations of a day
by access level (15,000 for Basic, counted per row; no limit is the default here); the developer token and the
customer. Chosen where the pages leave it open: a conversion collapses with one of the same action and order id, or of
the same action, click and time; two such in one request are both refused; a job is RUNNING for `processing` seconds.
`codes` holds an error code per order id or gclid that a test wants; `sensitive` puts what was sent into messages, as
the API does.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tests.sandbox.google_system import Quota, Refused, Target, more_than_once
from tests.sandbox.system import Request, Row, Setup

MOST_CONVERSIONS = 2_000
MOST_IDENTIFIERS = 5
MOST_PER_OPERATION = 20
MOST_IN_REQUEST = 100_000
BASIC_PER_DAY = 15_000
FAILURE = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"
VERSIONS = ("v22", "v23", "v24", "v25", "v26")
KINDS = {
    "REQUIRED": "fieldError",
    "RESOURCE_EXHAUSTED": "quotaError",
    "INTERNAL_ERROR": "internalError",
    "TRANSIENT_ERROR": "internalError",
    "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE": "notAllowlistedError",
    "DEVELOPER_TOKEN_NOT_APPROVED": "authorizationError",
}


class GoogleAds(Target):
    """One customer. `conversions` are those that count, `taken` how often each came since it does, and how often each
    operation was added to a job; `members` who is on a list."""

    name: ClassVar[str] = "google_ads"
    usual_code: ClassVar[str] = "INVALID_CONVERSION_ACTION"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.customer = "1234567890"
        self.developer_token = "d3v-t0k3n"
        self.quota = Quota(None, None)
        self.conversions: list[Row] = []
        self.taken: Counter[tuple[str, ...]] = Counter()
        self.codes: dict[str, str] = {}
        self.sensitive = False
        self.allowlisted = True
        self.members: dict[str, set[str]] = {}
        self.jobs: dict[str, Row] = {}
        self.processing = 6 * 3_600.0
        self.failure_of_jobs = ""
        self.limit(**setup.quotas.get(self.name, {}))

    def environment(self, url: str) -> dict[str, str]:
        return {
            "GOOGLE_ADS_URL": url,
            "GOOGLE_ADS_DEVELOPER_TOKEN": self.developer_token,
            "GOOGLE_ADS_CUSTOMER_ID": self.customer,
            "GOOGLE_OAUTH_ACCESS_TOKEN": self.token,
        }

    def stats(self) -> dict[str, Any]:
        """As for every system, with the conversions and operations that came, what counts of them, and which came again
        after they had been taken."""
        with self.lock:
            return super().stats() | {
                "received": self.received,
                "conversions": len(self.conversions),
                "members": {name: len(members) for name, members in self.members.items()},
                "jobs": len(self.jobs),
                "repeated": more_than_once(self.taken),
            }

    @property
    def hands(self) -> Mapping[str, Callable[[Row], Row]]:
        return {**super().hands, "finish": self._finish}

    def limit(self, **most: int | None) -> None:
        """Operations, whatever the number of requests."""
        self.quota.limit(**most)

    def rows(self) -> list[Row]:
        return list(self.conversions)

    def carried_out(self, request: Request, body: Row) -> Any:
        version, _, path = request.path.removeprefix("/").partition("/")
        if version not in VERSIONS or request.method != "POST":
            raise Refused(404, "The version is not there.")
        if request.headers.get("developer-token") != self.developer_token:
            raise Refused(
                403, "The developer token is not approved.", failure_of([error_of("DEVELOPER_TOKEN_NOT_APPROVED")])
            )
        customer, _, action = path.removeprefix("customers/").partition("/")
        customer, _, verb = customer.partition(":")
        if customer != self.customer:
            raise Refused(403, "The caller does not have permission.", failure_of([error_of("USER_PERMISSION_DENIED")]))
        if not self.allowlisted:
            code = "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE"
            raise Refused(400, "Request contains an invalid argument.", failure_of([error_of(code)]))
        if verb == "uploadClickConversions":
            return self._upload(body)
        if action == "offlineUserDataJobs:create":
            return self._create(body)
        if action == "googleAds:search":
            return self._search(str(body.get("query")))
        name, _, verb = path.partition(":")
        if name in self.jobs and verb in ("addOperations", "run"):
            return self._add(self.jobs[name], body) if verb == "addOperations" else self._run(self.jobs[name])
        raise Refused(404, "Requested entity was not found.")

    def _take_quota(self, count: int) -> None:
        for _ in range(count):
            if self.quota.take(self.clock()):
                detail = error_of("RESOURCE_EXHAUSTED") | {
                    "details": {"quotaErrorDetails": {"rateScope": "DEVELOPER", "retryDelay": "900s"}}
                }
                raise Refused(429, "Too many requests.", failure_of([detail]))

    def _upload(self, body: Row) -> Row:
        conversions = body.get("conversions") or []
        if body.get("partialFailure") is not True:
            raise Refused(400, "Partial failure is required.", failure_of([error_of("PARTIAL_FAILURE_MODE_REQUIRED")]))
        if len(conversions) > MOST_CONVERSIONS:
            raise Refused(400, "Too many.", failure_of([error_of("TOO_MANY_CONVERSIONS_IN_REQUEST")]))
        self._take_quota(len(conversions))
        self.received += len(conversions)
        seen = Counter(key for each in conversions for key in _keys(each))
        errors: list[Row] = []
        results: list[Row] = []
        for index, each in enumerate(conversions):
            keys = _keys(each)
            known = self.taken.keys() & keys
            self.taken.update(known)
            code, field = self._fault(each), ""
            if not code and any(seen[key] > 1 for key in keys):
                code = "DUPLICATE_ORDER_ID" if each.get("orderId") else "DUPLICATE_CLICK_CONVERSION_IN_REQUEST"
            if not code and known:
                code = "ORDER_ID_ALREADY_IN_USE" if each.get("orderId") else "CLICK_CONVERSION_ALREADY_EXISTS"
            if code:
                field = {"UNPARSEABLE_GCLID": "gclid", "REQUIRED": "conversion_date_time"}.get(code, "")
                message = f"{code} of {each.get('orderId')} {each.get('gclid')}" if self.sensitive else code.lower()
                errors.append(error_of(code, "conversions", index, field, message))
                results.append({})
                continue
            self.taken.update(keys)
            self.conversions.append(each)
            results.append(
                {name: each[name] for name in ("gclid", "conversionAction", "conversionDateTime") if name in each}
            )
        answer: Row = {"results": results, "jobId": str(len(self.taken))}
        if errors:
            answer["partialFailureError"] = {"code": 3, "message": "Multiple errors.", "details": [failure_of(errors)]}
        return answer

    def _fault(self, conversion: Row) -> str:
        for name in ("orderId", "gclid"):
            if code := self.codes.get(str(conversion.get(name))):
                return code
        if code := self.code_of(conversion):
            return code
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", str(conversion.get("conversionDateTime"))):
            return "REQUIRED"
        identifiers = conversion.get("userIdentifiers") or []
        if len(identifiers) > MOST_IDENTIFIERS:
            return "TOO_MANY_USER_IDENTIFIERS"
        if not all(_is_hashed(each) for each in identifiers):
            return "INVALID_USER_IDENTIFIER"
        return ""

    def _create(self, body: Row) -> Row:
        metadata = (body.get("job") or {}).get("customerMatchUserListMetadata") or {}
        if not metadata.get("userList"):
            raise Refused(400, "No list.", failure_of([error_of("INVALID_USER_LIST_ID_JOB")]))
        name = f"customers/{self.customer}/offlineUserDataJobs/{len(self.jobs) + 1}"
        self.jobs[name] = {"list": metadata["userList"], "operations": [], "ran": None, "ended": None}
        return {"resourceName": name}

    def _add(self, job: Row, body: Row) -> Row:
        operations = body.get("operations") or []
        counts = [len(next(iter(each.values())).get("userIdentifiers") or []) for each in operations]
        if max(counts, default=0) > MOST_PER_OPERATION or sum(counts) > MOST_IN_REQUEST:
            raise Refused(400, "Too many identifiers.", failure_of([error_of("TOO_MANY_USER_IDENTIFIERS")]))
        if len({verb for each in (*job["operations"], *operations) for verb in each}) > 1:
            raise Refused(400, "Mixed.", failure_of([error_of("CANNOT_MIX_CREATE_AND_REMOVE")]))
        self._take_quota(len(operations))
        self.received += len(operations)
        errors = []
        for index, each in enumerate(operations):
            identifiers = next(iter(each.values())).get("userIdentifiers") or []
            code = next(
                (self.codes[one] for one in map(str, (i.get("hashedEmail") for i in identifiers)) if one in self.codes),
                "",
            )
            code = code or self.code_of(each)
            code = code or ("" if all(_is_hashed(one) for one in identifiers) else "INVALID_SHA256_FORMAT")
            if code:
                errors.append(error_of(code, "operations", index, "create.user_identifiers"))
            else:
                job["operations"].append(each)
                self.taken[str(job["list"]), *map(str, *each.items())] += 1
        return {"partialFailureError": {"code": 3, "details": [failure_of(errors)]}} if errors else {}

    def _run(self, job: Row) -> Row:
        if job["ran"] is not None:
            raise Refused(400, "The job ran.", failure_of([error_of("JOB_ALREADY_RUNNING")]))
        job["ran"] = self.clock()
        members = self.members.setdefault(job["list"], set())
        for each in job["operations"] if not self.failure_of_jobs else []:
            for verb, member in each.items():
                (members.add if verb == "create" else members.discard)(str(member))
        return {"name": "operations/1"}

    def _search(self, query: str) -> Row:
        found = re.search(r"resource_name = '([^']+)'", query)
        job = self.jobs.get(found[1]) if found else None
        if job is None or found is None:
            return {"results": []}
        given = {"resourceName": found[1]} | self._status_of(job)
        return {"results": [{"offlineUserDataJob": given}]}

    def _status_of(self, job: Row) -> Row:
        if job["ended"] is not None:
            return dict(job["ended"])
        if job["ran"] is None or self.clock() - job["ran"] < self.processing:
            return {"status": "PENDING" if job["ran"] is None else "RUNNING"}
        if self.failure_of_jobs:
            return {"status": "FAILED", "failureReason": self.failure_of_jobs}
        return {"status": "SUCCESS"}

    def _finish(self, body: Row) -> Row:
        """Ends the jobs that run: with what they come to, or a status. Who is on the list stays."""
        status = body.get("status") or ("FAILED" if self.failure_of_jobs else "SUCCESS")
        if status not in ("SUCCESS", "FAILED"):
            raise ValueError("a job ends with SUCCESS or FAILED")
        ended = {"status": status}
        if status == "FAILED":
            ended["failureReason"] = str(body.get("reason") or self.failure_of_jobs or "UNKNOWN")
        running = [job for job in self.jobs.values() if self._status_of(job)["status"] == "RUNNING"]
        for job in running:
            job["ended"] = ended
        return {"finished": len(running)}


def _keys(conversion: Row) -> list[tuple[str, ...]]:
    action = str(conversion.get("conversionAction"))
    keys: list[tuple[str, ...]] = []
    if conversion.get("orderId"):
        keys.append((action, "order", str(conversion["orderId"])))
    at = str(conversion.get("conversionDateTime"))
    keys += [
        (action, name, str(conversion[name]), at) for name in ("gclid", "gbraid", "wbraid") if conversion.get(name)
    ]
    return keys


def _is_hashed(identifier: Row) -> bool:
    values = [value for name, value in identifier.items() if name.startswith("hashed")]
    return all(re.fullmatch("[0-9a-f]{64}", str(value)) for value in values)


def error_of(code: str, field: str = "", index: int = 0, inner: str = "", message: str = "") -> Row:
    error: Row = {"errorCode": {KINDS.get(code, "conversionUploadError"): code}, "message": message or code}
    if field:
        path: list[Row] = [{"fieldName": field, "index": index}]
        error["location"] = {"fieldPathElements": path + ([{"fieldName": inner}] if inner else [])}
    return error


def failure_of(errors: list[Row]) -> Row:
    return {"@type": FAILURE, "errors": errors, "requestId": "r"}
