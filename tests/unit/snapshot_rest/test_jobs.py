"""What becomes of a job: one at a time, failed, stopped, killed, asked for twice, or worked off by a function."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from functions_framework import create_app

from infra.wiring import ROOT, Hub
from shared.errors import ConfigError, Leased, StoreUnavailable
from shared.ports import Lease
from tests.acceptance.google.tokens import AUDIENCE, CALLER, Signer, certificates
from tests.contract.suite import eventually
from tests.unit.snapshot_rest.conftest import EXPORT, IMPORT, PATH, Caller, Script

SCHEDULED = {"X-CloudScheduler-ScheduleTime": "2026-11-22T03:00:00Z"}


def test_one_export_at_a_time_and_one_import_beside_it(caller: Caller, script: Script) -> None:
    script.go_on.clear()
    job = caller.post().json["jobId"]
    for _ in range(2):
        second = caller.post({**EXPORT, "fileName": "other"})
        assert (second.status_code, second.json["status"], second.json["jobId"]) == (409, 1, None)
        assert f"job {job} is in hand" in second.json["details"]
    beside = caller.post(IMPORT)
    assert (beside.status_code, beside.json["status"]) == (200, -1)
    assert caller.post(IMPORT).status_code == 409
    script.go_on.set()
    assert caller.ended(job)["status"] == caller.ended("0")["status"] == 0
    assert caller.post({**EXPORT, "fileName": "other"}).status_code == 200


def test_whoever_sees_the_end_of_a_job_may_ask_for_the_next_one(
    caller: Caller, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is given back last, so that nobody who polls takes it for dead."""
    leases = type(caller.hub.home.leases)
    take, release = leases.take, leases.release
    refused = threading.Event()

    def taking(self: Any, name: str) -> Lease:
        try:
            return take(self, name)
        except Leased:
            refused.set()
            raise

    def releasing(self: Any, lease: Lease) -> None:
        if lease.name == "snapshots.job.export":
            assert refused.wait(60)
        release(self, lease)

    monkeypatch.setattr(leases, "take", taking)
    monkeypatch.setattr(leases, "release", releasing)
    script.go_on.clear()
    first = caller.post().json["jobId"]
    assert script.begun.wait(60)
    assert caller.post().status_code == 409
    refused.clear()
    script.go_on.set()
    eventually(lambda: caller.poll(first).json["status"] == 0, "its end")
    assert caller.post({**EXPORT, "fileName": "next"}).status_code == 200


def test_an_import_is_job_0_where_it_brings_the_process_tables(caller: Caller) -> None:
    first = caller.post(IMPORT).json
    assert (first["action"], first["jobId"], first["status"]) == ("IMPORT", "0", -1)
    assert "snapshotType" not in first
    done = caller.ended("0")
    assert (done["status"], done["outputFileName"], done["processType"]) == (0, None, "IMPORT_SNAPSHOT")
    assert done["details"] == "2 runs; another schedule"
    caller.post(IMPORT)
    assert caller.ended("0")["logFileName"] != done["logFileName"], "each has a log of its own"

    number = caller.post({**IMPORT, "fileName": "inbox/setup.zip"}).json["jobId"]
    assert number != "0"
    assert caller.ended(number)["jobId"] == number


def test_a_file_that_is_there_is_overwritten_only_on_demand(caller: Caller, script: Script) -> None:
    for overwrite in (False, None, "false", True, "True"):
        answer = caller.post({**EXPORT, "fileName": "a", "overwriteFile": overwrite})
        assert (answer.status_code, caller.ended(answer.json["jobId"])["status"]) == (200, 0)
    assert [call[-1] for call in script.calls] == [False, False, False, True, True]


def test_a_file_that_is_there_lets_the_job_fail(hub: Hub) -> None:
    caller = Caller(hub)
    hub.home.snapshots.write("outbox/a.zip", b"older")
    failed = caller.ended(caller.post({**EXPORT, "fileName": "a", "overwriteFile": False}).json["jobId"])
    assert (failed["status"], failed["jobStatus"]) == (1, "FAILED")
    assert "outbox/a.zip is there already" in failed["details"] and "overwriteFile" in failed["details"]
    assert hub.home.snapshots.read("outbox/a.zip") == b"older"


def test_a_job_that_fails_says_why_and_what_to_do(caller: Caller, script: Script) -> None:
    script.error = ConfigError("the archive lacks its base, process 17", cure="import that one first")
    job = caller.post().json["jobId"]
    failed = caller.ended(job)
    assert (failed["status"], failed["jobStatus"], failed["outputFileName"]) == (1, "FAILED", None)
    assert failed["details"] == "the archive lacks its base, process 17; what to do: import that one first"
    assert "lacks its base" in caller.hub.home.snapshots.read(failed["logFileName"]).decode()

    script.error = ZeroDivisionError("of Ana Souza")
    failed = caller.ended(caller.post().json["jobId"])
    assert failed["status"] == 1
    assert "Ana" not in failed["details"] + caller.hub.home.snapshots.read(failed["logFileName"]).decode()

    script.error = None
    assert caller.ended(caller.post().json["jobId"])["status"] == 0


def test_a_job_whose_process_is_asked_to_stop_is_cancelled(caller: Caller, script: Script) -> None:
    script.go_on.clear()
    job = caller.post().json["jobId"]
    assert script.begun.wait(60)
    caller.hub.clock.stop()
    script.go_on.set()
    cancelled = caller.ended(job)
    assert (cancelled["status"], cancelled["jobStatus"]) == (3, "CANCELLED")


def test_a_job_keeps_its_lease_while_one_step_of_it_takes_long(
    caller: Caller, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[str] = []
    often = threading.Event()

    def renew(lease: Lease) -> None:
        renewed.append(lease.name)
        if len(renewed) == 3:
            often.set()
            raise StoreUnavailable("away for a moment")

    monkeypatch.setattr("infra.snapshots.jobs.RENEW_SECONDS", 0.001)
    monkeypatch.setattr(caller.hub.home.leases, "renew", renew)
    script.go_on.clear()
    job = caller.post().json["jobId"]
    assert often.wait(60)
    script.go_on.set()
    assert caller.ended(job)["status"] == 0
    assert set(renewed) == {"snapshots.job.export"}


BEGINS = """
import sys
from infra.log import silent
from infra.snapshots.asked import Asked
from infra.snapshots.jobs import Jobs
from infra.wiring import Hub

hub = Hub({"WAYBILL_HOME": sys.argv[1]})
begun = Jobs(hub, silent).begin(Asked("EXPORT", "outbox/a.zip", "ALL", True), "ana", sys.argv[2])
print(begun.job.id, flush=True)
sys.stdin.read()
"""


def killed(hub: Hub, scheduled: str = "", while_alive: Callable[[str], None] = lambda job: None) -> str:
    """A job whose process died at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINS, str(hub.state_folder), scheduled],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        while_alive(job)
        process.kill()
    return job


def test_a_job_whose_process_died_has_failed_and_keeps_none_from_following(caller: Caller) -> None:
    def alive(job: str) -> None:
        assert caller.poll(job).json["status"] == -1
        assert caller.post().status_code == 409

    job = killed(caller.hub, while_alive=alive)

    dead = caller.poll(job).json
    assert (dead["status"], dead["jobStatus"]) == (1, "FAILED")
    assert "is gone" in dead["details"]
    after = caller.post()
    assert after.status_code == 200
    assert caller.ended(after.json["jobId"])["status"] == 0
    assert caller.poll(job).json["status"] == 1


def test_a_dead_job_is_not_taken_for_the_one_that_follows_it(caller: Caller, script: Script) -> None:
    job = killed(caller.hub)
    script.go_on.clear()
    after = caller.post().json["jobId"]
    assert caller.poll(after).json["status"] == -1
    assert caller.poll(job).json["status"] == 1


def test_cloud_scheduler_may_call_twice_for_one_time(caller: Caller, script: Script) -> None:
    script.go_on.clear()
    first = caller.post(**SCHEDULED)
    assert script.begun.wait(60)
    during = caller.post(**SCHEDULED)
    assert (during.status_code, during.json["jobId"], during.json["status"]) == (200, first.json["jobId"], -1)
    script.go_on.set()
    caller.api.wait()
    after = caller.post(**SCHEDULED)
    assert (after.status_code, after.json["jobId"], after.json["status"]) == (200, first.json["jobId"], 0)
    assert len(script.calls) == 1

    assert caller.post(**(SCHEDULED | {"X-CloudScheduler-ScheduleTime": "2026-11-23T03:00:00Z"})).json["status"] == -1
    caller.api.wait()
    assert caller.post({**EXPORT, "fileName": "other"}, **SCHEDULED).json["jobId"] != first.json["jobId"]
    caller.api.wait()
    assert len(script.calls) == 3


def test_an_import_that_is_triggered_twice_is_made_once(caller: Caller, script: Script) -> None:
    assert caller.post(IMPORT, **SCHEDULED).json["status"] == -1
    caller.api.wait()
    assert caller.post(IMPORT, **SCHEDULED).json["status"] == 0
    assert len(script.calls) == 1
    assert caller.post(IMPORT).json["status"] == -1
    caller.api.wait()
    assert len(script.calls) == 2


def test_a_scheduled_job_that_failed_or_died_is_tried_again(caller: Caller, script: Script) -> None:
    script.error = StoreUnavailable("away")
    job = caller.post(**SCHEDULED).json["jobId"]
    assert caller.ended(job)["status"] == 1
    script.error = None
    again = caller.post(**SCHEDULED).json
    assert (again["jobId"], again["status"]) == (job, -1)
    assert caller.ended(job)["status"] == 0
    assert len(script.calls) == 2

    dead = killed(caller.hub, "2026-11-25T03:00:00Z")
    body = {"action": "EXPORT", "snapshotType": "ALL", "fileName": "a", "overwriteFile": True}
    answer = caller.post(body, **{"X-CloudScheduler-ScheduleTime": "2026-11-25T03:00:00Z"})
    assert (answer.json["jobId"], answer.json["status"]) == (dead, -1)
    assert caller.ended(dead)["status"] == 0


def test_a_time_that_is_none_makes_no_call_the_same(caller: Caller, script: Script) -> None:
    for time in ("soon", "2026-11-22T03:00:00"):
        caller.post(**{"X-CloudScheduler-ScheduleTime": time})
        caller.api.wait()
    assert len(script.calls) == 2


def test_a_store_that_does_not_answer_is_said_to_be_so(
    caller: Caller, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(caller.hub.home.leases, "take", away)
    answer = caller.post()
    assert (answer.status_code, answer.json["status"]) == (503, 1)
    assert script.calls == []


# The deployed function.


@pytest.fixture
def deployed(hub: Hub, script: Script, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("infra.snapshots.rest.hub_of", lambda functions: hub)
    app = create_app("snapshots", str(ROOT / "functions" / "snapshots" / "main.py"), "http")
    return app.test_client()


def test_the_function_answers_when_the_work_is_done(deployed: Any, script: Script) -> None:
    answer = deployed.post(PATH, json=EXPORT)
    assert (answer.status_code, answer.json["status"]) == (200, 0)
    assert deployed.get(f"/aif/rest/V1/jobs/{answer.json['jobId']}").json["outputFileName"] == "outbox/MyBackup.zip"
    assert deployed.post(PATH, json=EXPORT, headers=SCHEDULED).json["status"] == 0
    assert deployed.post(PATH, json=EXPORT, headers=SCHEDULED).json["status"] == 0
    assert len(script.calls) == 2
    script.error = ConfigError("it cannot be")
    failed = deployed.post(PATH, json=EXPORT)
    assert (failed.status_code, failed.json["status"]) == (500, 1), "the scheduler is to see that it failed"
    assert "it cannot be" in failed.json["details"]
    assert deployed.post(PATH, json={}).status_code == 400


def test_the_function_says_who_called(deployed: Any) -> None:
    def executed_by(authorization: str) -> str:
        job = deployed.post(PATH, json=EXPORT, headers={"Authorization": authorization}).json["jobId"]
        found: str = deployed.get(f"/aif/rest/V1/jobs/{job}").json["executedBy"]
        return found

    assert executed_by("Basic " + base64.b64encode(b"ana:secret").decode()) == "ana"
    for other in ("", "Basic ana", "Basic " + base64.b64encode(b":x").decode(), "Bearer abc", "Basic /w=="):
        assert executed_by(other) == "unknown"


def test_the_function_refuses_callers_that_are_not_configured(
    deployed: Any, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer("known")
    with certificates(signer) as server:
        monkeypatch.setenv("WAYBILL_CALLERS", CALLER)
        monkeypatch.setenv("WAYBILL_AUDIENCE", AUDIENCE)
        monkeypatch.setenv("WAYBILL_CALLER_CERTIFICATES", server.url)
        stranger = {"Authorization": f"Bearer {signer.token(email='stranger@other.iam.gserviceaccount.com')}"}
        for headers in ({}, stranger):
            assert deployed.post(PATH, json=EXPORT, headers=headers).status_code == 403
            assert deployed.get("/aif/rest/V1/jobs/1", headers=headers).status_code == 403
        assert script.calls == []
        known = {"Authorization": f"Bearer {signer.token()}"}
        job = deployed.post(PATH, json=EXPORT, headers=known).json["jobId"]
        assert deployed.get(f"/aif/rest/V1/jobs/{job}", headers=known).json["executedBy"] == CALLER
