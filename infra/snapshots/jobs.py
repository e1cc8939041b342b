"""Jobs: an export or an import that was asked for over HTTP, and how it stands.

A job is a blob, so that any process can be asked about it, whatever became of the one that works at it. Of each action
one is in hand at a time. The order of effects, and what a crash between two of them leaves:

1. the lease of the action
2. `jobs/current-<action>.json`: which job the lease is held for
3. `jobs/<id>.json` with status -1. Before it nobody was told of the job; from here on a poll meets it, and says that it
   failed once nobody holds the lease for it
4. the work, which is all or nothing by itself, and its log
5. `jobs/<id>.json` with its end
6. the lease is free
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from infra import snapshots
from infra.report import stamp
from infra.snapshots.asked import Action, Asked
from infra.wiring import Hub
from shared.errors import Leased, WaybillError
from shared.ports import Lease, Leases, Notice

RUNNING: Final = -1
SUCCESS: Final = 0
ERROR: Final = 1
CANCELLED: Final = 3
INVALID: Final = 4
UNKNOWN: Final = 2**31 - 1
"""The numbers of https://docs.oracle.com/en/cloud/saas/enterprise-performance-management-common/prest (Retrieve Job
Status). 2, cancel pending, is never met: a process that is asked to stop answers nobody any more."""

OF_AN_IMPORT: Final = "0"
"""The id of every import that brings the process tables along (vendor documentation, Import Data Integration)."""
AGAIN: Final = "what to do: ask for it again, which finishes what was begun"
OUTBOX: Final = "outbox/"
RENEW_SECONDS: Final = 15.0
LOG_LINES: Final = 5_000
ENDED_SECONDS: Final = 0.05
ENDED_TRIES: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Job(msgspec.Struct, frozen=True):
    """As it is stored. `id` is what callers poll; `number` is its own, and grows. `scheduled` is Cloud Scheduler's time
    of the call, empty for others."""

    id: str
    number: int
    asked: Asked
    executed_by: str
    begun_at: datetime
    scheduled: str = ""
    status: int = RUNNING
    details: str | None = None
    output: str | None = None
    ended_at: datetime | None = None

    @property
    def log(self) -> str:
        return f"outbox/logs/{self.asked.action.lower()}_{self.number}.log"

    def is_of_the_call(self, other: Job) -> bool:
        """Whether both are one call of Cloud Scheduler, which makes it again where it is not sure of the answer."""
        return bool(self.scheduled) and (self.scheduled, self.asked) == (other.scheduled, other.asked)


class Begun(msgspec.Struct, frozen=True):
    """A job and what is left to do for it, None where it is in hand or done already."""

    job: Job
    work: Callable[[], Job] | None


class Stopped(Exception):
    """The process is asked to stop."""


class Jobs:
    def __init__(self, hub: Hub, notice: Notice) -> None:
        self._hub = hub
        self._notice = notice

    def begin(self, asked: Asked, executed_by: str, scheduled: str = "") -> Begun:
        """Takes a job on. A call that Cloud Scheduler makes a second time for one time gives the job of the first,
        unless that failed. Raises Leased while another job of the action is in hand."""
        now = self._hub.clock.now()
        number = _scheduled_number(asked, scheduled) or (now - _EPOCH) // timedelta(microseconds=1)
        carries_processes = asked.action == "IMPORT" and asked.type != "SETUP"
        job = Job(OF_AN_IMPORT if carries_processes else str(number), number, asked, executed_by, now, scheduled)
        try:
            lease = self._take(asked)
        except Leased as error:
            earlier = self.get(job.id)
            if earlier is not None and earlier.is_of_the_call(job) and earlier.status in (RUNNING, SUCCESS):
                return Begun(earlier, None)
            current = self._current(asked.action)
            raise Leased(f"job {current} is in hand: one {asked.action.lower()} at a time") from error
        work: Callable[[], Job] | None = None
        try:
            # Under the lease: whatever an earlier call began is over.
            earlier = self._read(job.id)
            if earlier is not None and earlier.is_of_the_call(job) and earlier.status == SUCCESS:
                return Begun(earlier, None)
            self._hub.home.snapshots.write(_current_name(asked.action), msgspec.json.encode(job.id))
            self._write(job)
            work = partial(self._work, job, lease)
            return Begun(job, work)
        finally:
            if work is None:
                self._hub.home.leases.release(lease)

    def _take(self, asked: Asked) -> Lease:
        """The lease of the action. Where its job has ended it is about to be free: whoever saw that may ask for the
        next one at once. Raises Leased."""
        for _ in range(ENDED_TRIES):
            try:
                return self._hub.home.leases.take(asked.lease)
            except Leased:
                current = self._read(self._current(asked.action))
                if current is None or current.status == RUNNING:
                    raise
                self._hub.clock.sleep(ENDED_SECONDS)
        return self._hub.home.leases.take(asked.lease)

    def get(self, job_id: str) -> Job | None:
        """How a job stands. One whose process died has failed."""
        job = self._read(job_id)
        if job is None or job.status != RUNNING:
            return job
        held = self._hub.home.leases.holder(job.asked.lease) is not None
        if held and self._current(job.asked.action) == job.id:
            return job
        # It may have ended while the lease was looked at.
        job = self._read(job_id)
        if job is None or job.status != RUNNING:
            return job
        return msgspec.structs.replace(job, status=ERROR, details=f"the process that worked at it is gone; {AGAIN}")

    def _work(self, job: Job, lease: Lease) -> Job:
        leases = self._hub.home.leases
        try:
            with _renewed(leases, lease):
                return self._carried_out(job)
        finally:
            leases.release(lease)

    def _carried_out(self, job: Job) -> Job:
        action, log = job.asked.action, _Log(self._hub)
        log.add(f"{action} {job.asked.type} {job.asked.file}, asked for by {job.executed_by}")
        self._hub.home.snapshots.write(job.log, log.text())
        status, output, details = ERROR, None, "it failed unexpectedly; the service's own log says of what kind it was"
        try:
            done = self._done(job.asked, log.progress)
            status, details = SUCCESS, _told(done)
            output = str(done["file"]) if action == "EXPORT" else None
        except Stopped:
            status, details = CANCELLED, f"the service was asked to stop; {AGAIN}"
        except WaybillError as error:
            details = f"{error}; what to do: {error.cure}" if error.cure else str(error)
        except Exception as error:
            # Its text may quote a record.
            self._notice("snapshot_job_failed", job=job.id, number=job.number, error=type(error).__name__)
        log.add(f"ended with status {status}: {details}")
        self._hub.home.snapshots.write(job.log, log.text())
        now = self._hub.clock.now()
        job = msgspec.structs.replace(job, status=status, details=details, output=output, ended_at=now)
        self._write(job)
        self._notice("snapshot_job_ended", job=job.id, number=job.number, kind=action, status=status)
        return job

    def _done(self, asked: Asked, progress: snapshots.Progress) -> dict[str, Any]:
        if asked.action == "IMPORT":
            return snapshots.restore(self._hub, asked.file, progress)
        name = asked.file.removeprefix(OUTBOX)
        return snapshots.export(self._hub, name, asked.type, asked.overwrite, progress=progress)

    def _write(self, job: Job) -> None:
        self._hub.home.snapshots.write(f"jobs/{job.id}.json", msgspec.json.encode(job))

    def _read(self, job_id: str) -> Job | None:
        try:
            return msgspec.json.decode(self._hub.home.snapshots.read(f"jobs/{job_id}.json"), type=Job)
        except FileNotFoundError:
            return None

    def _current(self, action: Action) -> str:
        try:
            return msgspec.json.decode(self._hub.home.snapshots.read(_current_name(action)), type=str)
        except FileNotFoundError:
            return ""


class _Log:
    """What a job did, for people; a line per step."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lines: list[str] = []
        self._step = ""

    def progress(self, step: str, done: int, total: int | None) -> None:
        """Raises Stopped."""
        if self._hub.clock.stopping:
            raise Stopped
        if step != self._step:
            self._step = step
            if len(self._lines) < LOG_LINES:
                self.add(step)

    def add(self, text: str) -> None:
        self._lines.append(f"{stamp(self._hub.clock.now())} {text}\n")

    def text(self) -> bytes:
        return "".join(self._lines).encode()


def _told(done: dict[str, Any]) -> str:
    """What was done, in a line."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in done["counts"].items() if count)
    return "; ".join([counts or "no rows", *done.get("differences", []), *done["notes"]])


def _scheduled_number(asked: Asked, scheduled: str) -> int:
    """The same number for the same request of the same time, 0 for what was not scheduled. Times are whole seconds."""
    try:
        at = datetime.fromisoformat(scheduled)
    except ValueError:
        return 0
    if at.tzinfo is None:
        return 0
    return (at - _EPOCH) // timedelta(seconds=1) * 1_000_000 + zlib.crc32(msgspec.json.encode(asked)) % 1_000_000


def _current_name(action: Action) -> str:
    return f"jobs/current-{action.lower()}.json"


@contextmanager
def _renewed(leases: Leases, lease: Lease) -> Iterator[None]:
    """Keeps a lease for as long as the block lasts, however long one step of it takes."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(RENEW_SECONDS):
            # Whoever lost it only seems to be gone; the work has leases of its own.
            with suppress(WaybillError):
                leases.renew(lease)

    thread = threading.Thread(target=keep, name="snapshot-job-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
