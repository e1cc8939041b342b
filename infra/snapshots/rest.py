"""Snapshots over HTTP, as Oracle's clients call them: `POST /aif/rest/V1/snapshots`, `GET /aif/rest/V1/jobs/{id}`.

Paths, fields and numbers are those of "Export Data Integration", "Import Data Integration" and "Retrieve Job Status" in
https://docs.oracle.com/en/cloud/saas/enterprise-performance-management-common/prest. A sample there has `v1` in its
path: it is taken as well.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from infra.entrypoints import hub_of, refused_caller
from infra.log import notice_to
from infra.snapshots.asked import asked_of
from infra.snapshots.jobs import CANCELLED, ERROR, INVALID, RUNNING, SUCCESS, UNKNOWN, Begun, Job, Jobs
from infra.wiring import Hub
from shared.errors import ConfigError, Leased, WaybillError
from shared.ports import Notice

if TYPE_CHECKING:
    from werkzeug.wrappers import Request, Response

PATH: Final = re.compile(r"(?P<base>.*/aif/rest/[Vv]1)/(?:snapshots|jobs/(?P<job>[^/]+))/?")
JOB_ID: Final = re.compile(r"[0-9]{1,20}")
BODY_BYTES: Final = 65_536
SCHEDULE_TIME: Final = "X-CloudScheduler-ScheduleTime"
NAMES: Final = {RUNNING: "RUNNING", SUCCESS: "SUCCESS", ERROR: "FAILED", CANCELLED: "CANCELLED", UNKNOWN: "UNKNOWN"}
"""`jobStatus`. The first three are documented."""
HTTP: Final = {ERROR: 500, CANCELLED: 503}
"""Of an answer to a job that was worked off within the request: who schedules it learns of a failure."""
NOBODY: Final = "unknown"
_CALLER_LENGTH: Final = 200


class SnapshotApi:
    """`in_background`: a job is answered at once and worked off in a thread, else within the request."""

    def __init__(self, hub: Hub, notice: Notice, *, in_background: bool) -> None:
        self._jobs = Jobs(hub, notice)
        self._hub = hub
        self._notice = notice
        self._in_background = in_background
        self._threads: list[threading.Thread] = []

    def respond(self, request: Request, executed_by: str) -> Response:
        """The answer to a request, whose caller may call."""
        found = PATH.fullmatch(request.path)
        if found is None:
            return _refused(404, INVALID, "there are POST /aif/rest/V1/snapshots and GET /aif/rest/V1/jobs/ID")
        method = "POST" if found["job"] is None else "GET"
        if request.method != method:
            answer = _refused(405, INVALID, f"this takes {method}")
            answer.headers["Allow"] = method
            return answer
        forwarded = request.headers.get("X-Forwarded-Proto", "")
        scheme = forwarded if forwarded in ("http", "https") else request.scheme
        jobs = f"{scheme}://{request.host}{quote(request.root_path + found['base'])}/jobs/"
        try:
            return self._begin(request, executed_by, jobs) if method == "POST" else self._poll(found["job"], jobs)
        except WaybillError as error:
            self._notice("snapshot_request_failed", error=type(error).__name__)
            return _refused(503, ERROR, _with_cure(error))

    def wait(self) -> None:
        """Returns when no job is in hand."""
        for thread in self._threads:
            thread.join()

    def _begin(self, request: Request, executed_by: str, jobs: str) -> Response:
        from werkzeug.exceptions import RequestEntityTooLarge

        if request.mimetype != "application/json":
            # A page in somebody's browser can send any other kind to this machine without being asked.
            return _refused(415, INVALID, "expected Content-Type: application/json")
        request.max_content_length = BODY_BYTES
        try:
            asked = asked_of(self._hub, request.get_data())
            begun = self._jobs.begin(asked, executed_by, request.headers.get(SCHEDULE_TIME, ""))
        except RequestEntityTooLarge:
            return _refused(413, INVALID, f"at most {BODY_BYTES} bytes")
        except ConfigError as error:
            return _refused(400, INVALID, _with_cure(error))
        except Leased as error:
            return _refused(409, ERROR, _with_cure(error))
        job = self._worked_off(begun)
        document: dict[str, Any] = {"action": asked.action}
        if asked.action == "EXPORT":
            document["snapshotType"] = asked.type
        document |= {"jobId": job.id, "links": _links(jobs + job.id), "status": job.status, "details": job.details}
        return _answer(HTTP.get(job.status, 200), document)

    def _worked_off(self, begun: Begun) -> Job:
        """The job as it is to be answered."""
        work = begun.work
        if work is None:
            return begun.job
        if not self._in_background:
            return work()

        def run() -> None:
            try:
                work()
            except WaybillError as error:
                self._notice("snapshot_job_lost", job=begun.job.id, error=type(error).__name__)

        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=run, name="snapshot-job"))
        self._threads[-1].start()
        return begun.job

    def _poll(self, job_id: str, jobs: str) -> Response:
        job = self._jobs.get(job_id) if JOB_ID.fullmatch(job_id) else None
        if job is None:
            return _refused(404, UNKNOWN, "there is no such job", jobStatus=NAMES[UNKNOWN])
        document = {
            "links": _links(jobs + job.id),
            "status": job.status,
            "details": job.details,
            "jobId": job.id,
            "jobStatus": NAMES[job.status],
            "logFileName": job.log,
            "outputFileName": job.output,
            "processType": f"{job.asked.action}_SNAPSHOT",
            "executedBy": job.executed_by,
        }
        return _answer(200, document)


def snapshots_function(functions: Path) -> Callable[[Request], Any]:
    """What Oracle's clients and Cloud Scheduler call."""

    def snapshots(request: Request) -> Any:
        authorization = request.headers.get("Authorization", "")
        refused = refused_caller(os.environ, authorization)
        if refused is not None:
            return _refused(refused.status, ERROR, refused.body["detail"])
        api = SnapshotApi(hub_of(functions), notice_to(), in_background=False)
        return api.respond(request, caller(authorization, is_checked=bool(os.environ.get("WAYBILL_CALLERS"))))

    return snapshots


def caller(authorization: str, *, is_checked: bool) -> str:
    """Who calls: the account of a token that was checked, else whom the caller says to be."""
    if is_checked:
        from infra.gcp.callers import email_of

        return email_of(authorization)
    scheme, _, encoded = authorization.partition(" ")
    try:
        name = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return NOBODY
    return name[:_CALLER_LENGTH] if scheme.lower() == "basic" and name.isprintable() and name else NOBODY


def _links(address: str) -> list[dict[str, str]]:
    return [{"rel": "self", "href": address, "action": "GET"}]


def _refused(http: int, status: int, details: str, **more: Any) -> Response:
    return _answer(http, {"status": status, "details": details, "jobId": None, "links": [], **more})


def _answer(http: int, document: dict[str, Any]) -> Response:
    from werkzeug.wrappers import Response

    return Response(msgspec.json.encode(document), status=http, content_type="application/json")


def _with_cure(error: WaybillError) -> str:
    return f"{error}; what to do: {error.cure}" if error.cure else str(error)
