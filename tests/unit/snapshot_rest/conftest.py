"""Exports and imports that are scripted, and a caller who asks for them over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Request

from infra import snapshots
from infra.log import silent
from infra.snapshots.rest import SnapshotApi
from infra.wiring import Hub
from shared.errors import ConfigError

EXPORT = {"action": "EXPORT", "snapshotType": "ALL", "fileName": "MyBackup.zip", "overwriteFile": True}
IMPORT = {"action": "IMPORT", "fileName": "inbox/MyBackup.zip"}
PATH = "/aif/rest/V1/snapshots"


class Script:
    """Exports and imports that do as they are told, and wait where they are asked to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.types = {"inbox/MyBackup.zip": "ALL", "inbox/setup.zip": "SETUP"}

    def export(self, hub: Hub, name: str, kind: str, overwrite: bool, *, progress: snapshots.Progress) -> Any:
        self.work("EXPORT", progress, name, kind, overwrite)
        file = f"outbox/{name}"
        hub.home.snapshots.write(file, b"archive")
        return {"file": file, "counts": {"runs": 2, "cells": 1200, "failures": 0}, "notes": ["a launch waits"]}

    def restore(self, hub: Hub, source: str, progress: snapshots.Progress) -> Any:
        self.work("IMPORT", progress, source)
        return {"source": source, "counts": {"runs": 2}, "differences": ["another schedule"], "notes": []}

    def show(self, hub: Hub, name: str) -> Any:
        if name not in self.types:
            raise ConfigError(f"{name} is no archive")
        return {"type": self.types[name]}

    def work(self, action: str, progress: snapshots.Progress, *arguments: Any) -> None:
        self.calls.append((action, *arguments))
        progress("writing the first", 0, 2)
        self.begun.set()
        assert self.go_on.wait(60)
        progress("writing the second", 1, 2)
        if self.error is not None:
            raise self.error


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    for name in ("export", "restore", "show"):
        monkeypatch.setattr(snapshots, name, getattr(made, name))
    return made


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub({"WAYBILL_HOME": str(tmp_path / "home")})
    for name in ("inbox/MyBackup.zip", "inbox/setup.zip", "inbox/damaged.zip"):
        made.home.snapshots.write(name, b"archive")
    yield made
    made.close()


class Caller:
    """A client of `SnapshotApi`, whose jobs are worked off in threads."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.api = SnapshotApi(hub, silent, in_background=True)
        self.client = Client(Request.application(lambda request: self.api.respond(request, "ana")))

    def post(self, body: Any = EXPORT, path: str = PATH, **headers: str) -> TestResponse:
        return self.client.post(path, json=body, headers=headers)

    def poll(self, job_id: str) -> TestResponse:
        return self.client.get(f"/aif/rest/V1/jobs/{job_id}")

    def ended(self, job_id: str) -> Any:
        self.api.wait()
        return self.poll(job_id).json


@pytest.fixture
def caller(hub: Hub, script: Script) -> Iterator[Caller]:
    made = Caller(hub)
    yield made
    script.go_on.set()
    made.api.wait()
