"""Which requests are taken, and how each is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.wiring import Hub
from tests.unit.snapshot_rest.conftest import EXPORT, IMPORT, PATH, Caller, Script


def test_an_export_is_answered_at_once_and_polled_until_it_is_done(
    caller: Caller, script: Script, tmp_path: Path
) -> None:
    script.go_on.clear()
    answer = caller.post()
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    job = answer.json["jobId"]
    links = [{"rel": "self", "href": f"http://localhost/aif/rest/V1/jobs/{job}", "action": "GET"}]
    assert answer.json == {
        "action": "EXPORT", "snapshotType": "ALL", "jobId": job, "links": links, "status": -1, "details": None,
    }  # fmt: skip
    assert job.isdigit()
    assert job != "0"
    running = {
        "links": links, "status": -1, "details": None, "jobId": job, "jobStatus": "RUNNING", "outputFileName": None,
        "logFileName": f"outbox/logs/export_{job}.log", "processType": "EXPORT_SNAPSHOT", "executedBy": "ana",
    }  # fmt: skip
    assert script.begun.wait(60)
    assert caller.poll(job).json == running

    script.go_on.set()

    done = {"status": 0, "jobStatus": "SUCCESS", "outputFileName": "outbox/MyBackup.zip"}
    assert caller.ended(job) == running | done | {"details": "2 runs, 1,200 cells; a launch waits"}
    assert script.calls == [("EXPORT", "MyBackup.zip", "ALL", True)]
    log = caller.hub.home.snapshots.read(running["logFileName"]).decode()
    for text in ("ALL outbox/MyBackup.zip, asked for by ana", "writing the first", "writing the second", "status 0"):
        assert text in log
    other = Hub({"WAYBILL_HOME": str(tmp_path / "home")})
    assert Caller(other).poll(job).json["status"] == 0, "another process knows of it too"
    other.close()


@pytest.mark.parametrize("path", [PATH, "/aif/rest/v1/snapshots", f"{PATH}/", f"/snapshots{PATH}"])
def test_the_spellings_of_the_documentation_are_taken(caller: Caller, script: Script, path: str) -> None:
    lower = {"action": "EXPORT", "snapshottype": "SETUP", "filename": "a", "overwriteFile": "true"}
    answer = caller.post(lower, path, **{"X-Forwarded-Proto": "https"})
    assert answer.status_code == 200, answer.text
    caller.api.wait()
    assert script.calls == [("EXPORT", "a.zip", "SETUP", True)]
    (link,) = answer.json["links"]
    assert link["href"] == f"https://localhost{path.rstrip('/').removesuffix('snapshots')}jobs/{answer.json['jobId']}"
    assert caller.client.get(link["href"]).json["status"] == 0
    assert caller.post({"action": "IMPORT", "filename": "inbox/MyBackup.zip"}, path).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "action is missing"),
        ([], "no JSON object"),
        ({"action": "EXPROT"}, "write EXPORT"),
        ({"action": 5}, "action is `5`"),
        ({"action": "EXPORT", "fileName": "a"}, "snapshotType is missing"),
        ({"action": "EXPORT", "fileName": "a", "snapshotType": "FULL"}, "ALL, ALL_INCREMENTAL, INCREMENTAL, SETUP"),
        ({"action": "EXPORT", "fileName": "a", "snapshotType": "INCREMENTEL"}, "write INCREMENTAL"),
        ({"action": "EXPORT", "snapshotType": "ALL"}, "fileName is missing"),
        ({"action": "EXPORT", "snapshotType": "ALL", "fileName": "../a"}, "no name"),
        ({"action": "EXPORT", "snapshotType": "ALL", "fileName": "  "}, "fileName is"),
        ({"action": "EXPORT", "snapshotType": "ALL", "fileName": "a", "filename": "b"}, "given twice"),
        ({**EXPORT, "overwriteFile": "yes"}, "true or false"),
        ({**EXPORT, "overwriteFile": 1}, "true or false"),
        ({**EXPORT, "overwritefile": True}, "write overwriteFile"),
        ({**EXPORT, "withData": True}, "takes no withData"),
        ({"action": "IMPORT"}, "fileName is missing"),
        ({**IMPORT, "snapshotType": "ALL"}, "IMPORT takes no snapshotType"),
        ({**IMPORT, "fileName": "inbox/Backup"}, "there is no inbox/Backup.zip"),
        ({**IMPORT, "fileName": "inbox/damaged.zip"}, "no archive"),
        ({**IMPORT, "fileName": "/etc/passwd"}, "in no snapshot folder"),
        ({**IMPORT, "fileName": "../state.db"}, "in no snapshot folder"),
        ({**IMPORT, "fileName": f"inbox/{'x' * 300}/a.zip"}, "in no snapshot folder"),
        ({**IMPORT, "fileName": f"inbox/{'x/' * 3000}a.zip"}, "in no snapshot folder"),
        ({**IMPORT, "fileName": "jobs"}, "there is no jobs.zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_parameter_is_answered_with_400_and_status_4(
    caller: Caller, script: Script, body: Any, told: str
) -> None:
    answer = caller.post(body)
    assert (answer.status_code, answer.json["status"]) == (400, 4), answer.text
    assert told in answer.json["details"]
    assert "what to do:" in answer.json["details"]
    assert script.calls == []


def test_what_is_no_json_object_is_answered_with_400_and_status_4(caller: Caller) -> None:
    nested = b'{"action":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    for data in (b"", b"{", b"\xff", b"null", b'{"action":"EXP\xff"}', nested):
        answer = caller.client.post(PATH, data=data, content_type="application/json; charset=utf-8")
        assert (answer.status_code, answer.json["status"]) == (400, 4), answer.text


def test_other_paths_methods_and_kinds_of_body_are_refused(caller: Caller, script: Script) -> None:
    for path in ("/aif/rest/V2/snapshots", "/aif/rest/V1/snapshot", "/aif/rest/V1/jobs", "/aif"):
        assert caller.post(path=path).status_code == 404
    for method, path, allowed in (
        ("GET", PATH, "POST"),
        ("DELETE", PATH, "POST"),
        ("POST", "/aif/rest/V1/jobs/1", "GET"),
    ):
        answer = caller.client.open(path, method=method, json={})
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    # Without asking first, a page in a browser can only send other types.
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert caller.client.post(PATH, data=b"{}", content_type=kind).status_code == 415
    assert caller.post({**EXPORT, "fileName": "a" * 70_000}).status_code == 413
    assert script.calls == []


def test_an_unknown_job_is_said_to_be_so(caller: Caller) -> None:
    for job in ("0", "17", "current-export", "9" * 40, "٣"):
        answer = caller.poll(job)
        assert answer.status_code == 404
        assert answer.json["status"] == 2**31 - 1
        assert answer.json["jobStatus"] == "UNKNOWN"
