"""A small Cloud Scheduler over real gRPC: the calls that the hub makes, on jobs kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
from croniter import croniter
from google.cloud.scheduler_v1 import (
    CloudSchedulerClient,
    GetJobRequest,
    Job,
    ListJobsRequest,
    ListJobsResponse,
    PauseJobRequest,
    ResumeJobRequest,
    RunJobRequest,
)
from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport

LOCATION = "southamerica-east1"


class FakeScheduler:
    """Jobs by name. A job's next time is worked out with the clock that it was made with, as it is asked for."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.triggered: list[str] = []
        self._clocks: dict[str, Callable[[], datetime]] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def add(self, project: str, name: str, cron: str, now: Callable[[], datetime]) -> None:
        path = f"projects/{project}/locations/{LOCATION}/jobs/{name}"
        with self._lock:
            self.jobs[path] = Job(name=path, schedule=cron, state=Job.State.ENABLED)
            self._clocks[path] = now

    def client(self, host: str | None = None) -> CloudSchedulerClient:
        channel = grpc.insecure_channel(host or self.host)
        return CloudSchedulerClient(transport=CloudSchedulerGrpcTransport(channel=channel))

    def close(self) -> None:
        self._server.stop(None).wait()

    def _handlers(self) -> grpc.GenericRpcHandler:
        calls = {
            "ListJobs": (self._list, ListJobsRequest, ListJobsResponse),
            "GetJob": (self._get, GetJobRequest, Job),
            "PauseJob": (self._pause, PauseJobRequest, Job),
            "ResumeJob": (self._resume, ResumeJobRequest, Job),
            "RunJob": (self._run, RunJobRequest, Job),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(call, asked.deserialize, answer.serialize)
            for name, (call, asked, answer) in calls.items()
        }
        return grpc.method_handlers_generic_handler("google.cloud.scheduler.v1.CloudScheduler", methods)

    def _list(self, request: Any, context: grpc.ServicerContext) -> ListJobsResponse:
        """Two on a page, so that nobody forgets the others."""
        with self._lock:
            names = sorted(name for name in self.jobs if name.startswith(f"{request.parent}/jobs/"))
        start = int(request.page_token or 0)
        more = str(start + 2) if len(names) > start + 2 else ""
        return ListJobsResponse(jobs=[self._shown(name) for name in names[start : start + 2]], next_page_token=more)

    def _get(self, request: Any, context: grpc.ServicerContext) -> Job:
        if request.name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "Job not found.")
        return self._shown(request.name)

    def _pause(self, request: Any, context: grpc.ServicerContext) -> Job:
        self.jobs[request.name].state = Job.State.PAUSED
        return self._shown(request.name)

    def _resume(self, request: Any, context: grpc.ServicerContext) -> Job:
        self.jobs[request.name].state = Job.State.ENABLED
        return self._shown(request.name)

    def _run(self, request: Any, context: grpc.ServicerContext) -> Job:
        if request.name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "Job not found.")
        self.triggered.append(request.name)
        return self._shown(request.name)

    def _shown(self, name: str) -> Job:
        job = Job(self.jobs[name])
        job.schedule_time = croniter(job.schedule, self._clocks[name]().astimezone(UTC)).get_next(datetime)
        return job
