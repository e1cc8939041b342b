"""Snapshots as Oracle's clients call them: on one machine, as a deployed function, and across a crash."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import requests

from tests import archives
from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import PATIENCE, ROOT, Document, Hub, wait_until
from tests.acceptance.servers import Archived, Serve, Server
from tests.acceptance.snapshots import Archive

PATH = "/aif/rest/V1/snapshots"
EXPORT = {"action": "EXPORT", "snapshotType": "ALL", "fileName": "MyBackup", "overwriteFile": False}
UNSCHEDULED = {"streams": {"customers": {"schedule": None}}}
KILLS = 5


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    """Forty customers, brought across."""
    made = make_hub(overlay=UNSCHEDULED)
    assert made.run().code == 0
    return made


def ended(address: str) -> Document:
    """Polls a job as clients do, by the link that they were given, until it is over."""
    found: list[Document] = []

    def is_over() -> bool:
        answer = requests.get(address, timeout=PATIENCE)
        answer.raise_for_status()
        found.append(answer.json())
        return bool(found[-1]["status"] != -1)

    wait_until(is_over, f"the end of {address}")
    return found[-1]


def begun(server: Server, body: Document, **headers: str) -> Document:
    answer = server.post(PATH, body, **headers)
    assert answer.status_code == 200, answer.text
    found: Document = answer.json()
    return found


def worked_off(server: Server, body: Document) -> Document:
    (link,) = begun(server, body)["links"]
    return ended(link["href"])


def test_an_installation_is_carried_over_by_http_alone(hub: Hub, tmp_path: Path) -> None:
    with Serve(hub) as serve:
        first = begun(serve, EXPORT)
        assert (first["action"], first["snapshotType"], first["status"]) == ("EXPORT", "ALL", -1)
        done = ended(first["links"][0]["href"])
        assert (done["status"], done["jobStatus"], done["jobId"]) == (0, "SUCCESS", first["jobId"])
        assert done["outputFileName"] == "outbox/MyBackup.zip"
        assert (hub.home / "snapshots" / done["logFileName"]).read_text()
        again = ended(begun(serve, EXPORT)["links"][0]["href"])
        assert (again["status"], again["jobStatus"]) == (1, "FAILED")
        assert "is there already" in again["details"]
        assert worked_off(serve, {**EXPORT, "overwriteFile": "true"})["status"] == 0
        assert serve.end() == 0
    audited = hub.audited()
    archive = Archive(hub.home / "snapshots" / "outbox" / "MyBackup.zip")

    hub.home = tmp_path / "restored"
    hub.environment["WAYBILL_HOME"] = str(hub.home)
    inbox = hub.home / "snapshots" / "inbox" / "mybackup"
    inbox.mkdir(parents=True)
    shutil.copy(tmp_path / "hub" / "home" / "snapshots" / "outbox" / "MyBackup.zip", inbox)
    with Serve(hub) as serve:
        asked = {"action": "IMPORT", "fileName": "inbox/mybackup/MyBackup.zip"}
        brought = begun(serve, asked)
        assert (brought["action"], brought["jobId"], brought["status"]) == ("IMPORT", "0", -1)
        done = ended(brought["links"][0]["href"])
        assert (done["status"], done["outputFileName"]) == (0, None), done
        assert serve.end() == 0
    assert hub.audited() == audited
    assert hub.run().code == 0
    assert hub.stats("milvus")["creates"] == 40
    assert archive.params["lastProcessId"]


def test_what_is_mistyped_is_answered_with_400_and_a_way_out(hub: Hub) -> None:
    with Serve(hub) as serve:
        for change, told in (
            ({"action": "EXPROT"}, "write EXPORT"),
            ({"snapshotType": "INCREMENTEL"}, "write INCREMENTAL"),
            ({"fileName": "../MyBackup"}, "what to do"),
            ({"fileName": ""}, "fileName"),
            ({"overwriteFile": "perhaps"}, "true or false"),
            ({"overwriteFiles": True}, "write overwriteFile"),
        ):
            answer = serve.post(PATH, EXPORT | change)
            assert (answer.status_code, answer.json()["status"]) == (400, 4), answer.text
            assert told in answer.json()["details"]
        for name in ("inbox/nothing.zip", "/etc/passwd", "../hub/home/state.db", str(hub.home / "state.db")):
            answer = serve.post(PATH, {"action": "IMPORT", "fileName": name})
            assert (answer.status_code, answer.json()["status"]) == (400, 4), answer.text
        unknown = requests.get(f"{serve.url}/aif/rest/V1/jobs/17", timeout=PATIENCE)
        assert (unknown.status_code, unknown.json()["status"]) == (404, 2**31 - 1)
        assert requests.get(serve.url + PATH, timeout=PATIENCE).status_code == 405
        text = requests.post(serve.url + PATH, data="{}", headers={"Content-Type": "text/plain"}, timeout=PATIENCE)
        assert text.status_code == 415
        assert not (hub.home / "snapshots" / "outbox").exists()


def test_an_archive_that_is_damaged_fails_and_changes_nothing(hub: Hub) -> None:
    inbox = hub.home / "snapshots" / "inbox"
    with Serve(hub) as serve:
        assert worked_off(serve, EXPORT)["status"] == 0
        whole = (hub.home / "snapshots" / "outbox" / "MyBackup.zip").read_bytes()
        inbox.mkdir()
        # Behind the name of the first file and what is said of it, in what it holds.
        place = whole.index(b"setup/") + 60
        (inbox / "damaged.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        (inbox / "half.zip").write_bytes(whole[: len(whole) // 2])
        half = serve.post(PATH, {"action": "IMPORT", "fileName": "inbox/half.zip"})
        assert (half.status_code, half.json()["status"]) == (400, 4), "it is no archive"
        damaged = worked_off(serve, {"action": "IMPORT", "fileName": "inbox/damaged.zip"})
        assert (damaged["status"], damaged["jobStatus"]) == (1, "FAILED")
    assert hub.audited() == {"fetched": 40, "delivered": 40}


def test_a_serve_that_is_killed_at_a_job_leaves_none_running_and_no_half_archive(hub: Hub) -> None:
    jobs = []
    with Serve(hub) as serve:
        for number in range(KILLS):
            jobs.append(begun(serve, {**EXPORT, "fileName": f"killed-{number}"})["jobId"])
            serve.kill()
            serve.start()
            for job in jobs:
                stands = requests.get(f"{serve.url}/aif/rest/V1/jobs/{job}", timeout=PATIENCE).json()
                assert stands["status"] in (0, 1), stands
        assert worked_off(serve, EXPORT)["status"] == 0
    for archive in (hub.home / "snapshots" / "outbox").glob("*.zip"):
        Archive(archive)


def test_a_serve_that_is_told_to_end_brings_its_job_to_an_end(hub: Hub) -> None:
    with Serve(hub) as serve:
        job = begun(serve, EXPORT)["jobId"]
        assert serve.end(signal.SIGTERM) == 0, serve.said
        serve.start()
        status = requests.get(f"{serve.url}/aif/rest/V1/jobs/{job}", timeout=PATIENCE).json()["status"]
    assert status in (0, 3)
    assert (hub.home / "snapshots" / "outbox" / "MyBackup.zip").exists() is (status == 0)


def test_the_deployed_function_works_within_the_request(hub: Hub, runtime: Path, tmp_path: Path) -> None:
    """Two instances, each of what is deployed and nothing else: one works, the other one is asked."""
    scheduled = {"X_CloudScheduler_ScheduleTime": "2026-11-22T03:00:00Z"}
    environment = {name: value for name, value in hub.environment.items() if name != "WAYBILL_OVERLAY"}
    held = archives.members(ROOT, "snapshots")
    one, two = (
        Archived(runtime, archives.unpack(held, tmp_path / name / "snapshots"), "snapshots", environment)
        for name in ("one", "two")
    )
    with one, two:
        done = begun(one, EXPORT, **scheduled)
        assert (done["status"], done["jobId"].isdigit()) == (0, True), done
        stands = requests.get(f"{two.url}/aif/rest/V1/jobs/{done['jobId']}", timeout=PATIENCE).json()
        assert (stands["status"], stands["outputFileName"]) == (0, "outbox/MyBackup.zip")
        # Cloud Scheduler, unsure of the answer, calls again: it is the same job, and no file that is there already.
        assert begun(two, EXPORT, **scheduled)["jobId"] == done["jobId"]
        refused = two.post(PATH, EXPORT)
        assert (refused.status_code, refused.json()["status"]) == (500, 1), "the job fails"
        brought = begun(two, {"action": "IMPORT", "fileName": "outbox/MyBackup.zip"})
        assert (brought["jobId"], brought["status"]) == ("0", 0)
    assert hub.audited() == {"fetched": 40, "delivered": 40}
    assert hub.run().code == 0
    assert hub.stats("milvus")["creates"] == 40
