"""When streams run by themselves: as Cloud Scheduler has it, or as it would, where there is no Cloud Scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.gcp.calls import Lazy, Patience
from infra.gcp.counting import Meter
from infra.gcp.errors import is_missing, translated
from infra.gcp.names import document_id, job_path
from infra.gcp.store import Store, Write, instant
from shared.errors import ConfigError
from shared.ports import Clock

if TYPE_CHECKING:
    from google.cloud.scheduler_v1 import CloudSchedulerClient, Job


class GoogleSchedule:
    """The Cloud Scheduler jobs of an integration, one per stream with a schedule. Terraform makes them."""

    def __init__(
        self,
        project: str,
        location: str,
        client: Lazy[CloudSchedulerClient],
        patience: Patience,
        meter: Meter,
    ) -> None:
        self._project = project
        self._location = location
        self._patience = patience
        self._meter = meter
        self._client = client

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        """What Cloud Scheduler says, whatever the cron fields: it is the one that will run it."""
        if cron is None:
            return None
        try:
            job = self._call("get_job", self._path(integration, stream))
        except ConfigError as error:
            if is_missing(error):
                return None
            raise
        return None if _is_paused(job) else instant(job.schedule_time)

    def pause(self, integration: str) -> None:
        for job in self._jobs(integration):
            if not _is_paused(job):
                self._call("pause_job", job.name)

    def resume(self, integration: str) -> None:
        for job in self._jobs(integration):
            if _is_paused(job):
                self._call("resume_job", job.name)

    def paused(self, integration: str) -> bool:
        jobs = list(self._jobs(integration))
        return bool(jobs) and all(map(_is_paused, jobs))

    def trigger(self, integration: str, stream: str) -> None:
        """Lets the stream run now. Raises ConfigError if it has no job."""
        self._call("run_job", self._path(integration, stream))

    def _jobs(self, integration: str) -> Iterator[Job]:
        parent = f"projects/{self._project}/locations/{self._location}"
        prefix = self._path(integration, "")
        with translated("listing the schedule"):
            self._meter.add(calls=1)
            jobs = list(self._client().list_jobs(parent=parent, **self._patience.options()))
        return (job for job in jobs if job.name.startswith(prefix))

    def _call(self, method: str, name: str) -> Any:
        with translated(f"{method} of {name.rpartition('/')[2]}"):
            self._meter.add(calls=1)
            return getattr(self._client(), method)(name=name, **self._patience.options())

    def _path(self, integration: str, stream: str) -> str:
        return job_path(self._project, self._location, integration, stream)


class StoredSchedule:
    """The schedule of a hub on emulators, which has no Cloud Scheduler: whoever serves keeps the time, and what is
    paused is stored. Cron times are in UTC."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        if cron is None or self.paused(integration):
            return None
        return next_after(cron, self._clock.now())

    def pause(self, integration: str) -> None:
        self._set(integration, paused=True)

    def resume(self, integration: str) -> None:
        self._set(integration, paused=False)

    def paused(self, integration: str) -> bool:
        found = self._store.get(("schedules", document_id(integration)))
        return found is not None and bool(found.fields["paused"])

    def _set(self, integration: str, *, paused: bool) -> None:
        path = ("schedules", document_id(integration))
        self._store.commit([Write(path, {"integration": integration, "paused": paused})])


def next_after(cron: str, at: datetime) -> datetime:
    """The first time after `at` that the five cron fields name."""
    from croniter import croniter

    return croniter(cron, at.astimezone(UTC)).get_next(datetime)


def _is_paused(job: Job) -> bool:
    from google.cloud.scheduler_v1 import Job

    return bool(job.state == Job.State.PAUSED)
