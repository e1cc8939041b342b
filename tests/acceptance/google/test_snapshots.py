"""Snapshots of a project: exported and imported by the deployed function, polled at another instance."""

from __future__ import annotations

import shutil
from pathlib import Path

import requests

from tests.acceptance.google.cloud import SINK, SOURCE, Deployed, GoogleHub, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import PATIENCE, ROOT, Document
from tests.acceptance.snapshots import Archive

FUNCTION = ROOT / "functions" / "snapshots" / "main.py"
PATH = "/aif/rest/V1/snapshots"
EXPORT = {"action": "EXPORT", "snapshotType": "ALL", "fileName": "MyBackup"}
IMPORT = {"action": "IMPORT", "fileName": "inbox/MyBackup.zip"}


def deliver(hub: GoogleHub, records: int) -> None:
    source, sink = Deployed(hub, "source"), Deployed(hub, "sink")
    with source, sink, routed(hub, {SOURCE: source, SINK: sink}):
        assert source.post().status_code == 200
        hub.wait_until_settled(records)


def worked_off(hub: GoogleHub, body: Document) -> Document:
    """Asked of one instance, which answers when it is done, and polled at another one."""
    with Deployed(hub, "snapshots", FUNCTION, 1) as one, Deployed(hub, "snapshots", FUNCTION, 2) as two:
        answer = one.post(PATH, body)
        assert (answer.status_code, answer.json()["status"]) == (200, 0), answer.text
        job = answer.json()["jobId"]
        stands: Document = requests.get(f"{two.url}/aif/rest/V1/jobs/{job}", timeout=PATIENCE).json()
    assert stands["status"] == 0
    return stands


def snapshots(hub: GoogleHub) -> Path:
    """The folder that stands for the bucket."""
    return hub.home / "blobs" / "snapshots"


def test_a_project_is_carried_over_to_another_one(make_google: MakeGoogleHub) -> None:
    hub = make_google()
    deliver(hub, 40)
    exported = worked_off(hub, EXPORT)
    assert exported["outputFileName"] == "outbox/MyBackup.zip"
    file = snapshots(hub) / "outbox" / "MyBackup.zip"
    archive = Archive(file)
    assert archive.params["counts"]["cells"] == 40
    audited = hub.audited()

    hub.project += "-other"
    hub.environment["GOOGLE_CLOUD_PROJECT"] = hub.project
    hub.environment["WAYBILL_HOME"] += "-other"
    hub.home = Path(hub.environment["WAYBILL_HOME"])
    (snapshots(hub) / "inbox").mkdir(parents=True)
    shutil.copy(file, snapshots(hub) / "inbox")
    assert worked_off(hub, IMPORT)["jobId"] == "0"

    assert hub.audited() == audited
    with Deployed(hub, "source") as source:
        again = source.post().json()["streams"]["customers"]
    assert again["delivered"] == again["pending"] == 0
    assert hub.stats("milvus")["creates"] == 40
