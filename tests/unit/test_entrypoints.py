"""Handlers and consumers at work on two integrations of the same rules, sandbox to sandbox."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import queries, render
from infra.entrypoints import Handlers
from infra.local.bus import Claimed
from infra.log import silent
from infra.operations import Operations
from infra.runner import run_streams
from infra.wiring import ROOT, Hub
from shared.errors import KILLED_ITS_SINK, StoreUnavailable
from shared.fetch import Order
from tests.sandbox import Sandbox

INTEGRATION = """\
name: {name}
source: {{system: ploomes, rate_limit: none}}
sink: {{system: milvus, rate_limit: none, batch_size: 5, redeliver_after: 10ms}}
streams: {{customers: {{hold_back: 0s}}}}
"""
ONE, OTHER = "one_way", "other_way"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=5, customers=20, ploomes_per_minute=None) as running:
        yield running


@pytest.fixture
def hub(tmp_path: Path, sandbox: Sandbox) -> Iterator[Hub]:
    for name in (ONE, OTHER):
        folder = tmp_path / "functions" / name
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "functions" / "ploomes_to_milvus" / "mapping.py", folder)
        (folder / "integration.yaml").write_text(INTEGRATION.format(name=name))
    made = Hub({**sandbox.environment, "WAYBILL_HOME": str(tmp_path / "home")}, tmp_path / "functions")
    yield made
    made.close()


def test_streams_of_one_name_that_are_scheduled_for_one_time_are_runs_of_their_own(hub: Hub) -> None:
    headers = {"X-CloudScheduler-ScheduleTime": "2026-02-24T12:00:00Z"}
    runs = []
    for name in (ONE, OTHER):
        reply = Handlers(hub, name, silent).source(b"", headers)
        assert reply.status == 200
        runs.append(reply.body["streams"]["customers"])
    assert [run["fetched"] for run in runs] == [20, 20]
    assert runs[0]["run"] != runs[1]["run"]


def test_a_bus_that_does_not_take_an_answer_ends_the_run_and_the_next_one_goes_on(
    hub: Hub, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(connection: sqlite3.Connection, claimed: Claimed, *times: float) -> None:
        raise StoreUnavailable("the disk is full")

    streams = hub.streams(hub.integration(ONE))
    with monkeypatch.context() as patch:
        patch.setattr(hub.embedded.bus, "_free", lost)
        (failed,) = run_streams(hub, ONE, streams, Order(), silent)
        assert failed.state == "failed"
        assert isinstance(failed.error, StoreUnavailable)
    (settled,) = run_streams(hub, ONE, streams, Order(), silent)
    assert settled.state == "settled"
    with sandbox.milvus.lock:
        assert {len(clients) for clients in sandbox.milvus.by_document.values()} == {1}
        assert len(sandbox.milvus.clients) == 20


def test_a_stream_that_lacks_a_setting_keeps_no_other_from_being_swept(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "functions" / ONE / "integration.yaml").write_text(
        INTEGRATION.format(name=ONE).replace("streams: {", "streams: {tasks: {}, ")
    )
    incomplete = Hub(hub.environ, tmp_path / "functions")
    said = []
    try:
        swept = Operations(incomplete, lambda event, **facts: said.append((event, facts))).carry_out("sweep", b"")
    finally:
        incomplete.close()
    assert swept.status == 200
    assert set(swept.body["integrations"]) == {ONE, OTHER}
    ((event, facts),) = said
    assert (event, facts["integration"], facts["stream"]) == ("stream_not_swept", ONE, "tasks")
    assert "tasks" in facts["error"]


def test_a_dead_letter_is_told_to_the_table_of_its_integration(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "functions" / ONE / "integration.yaml").write_text(
        INTEGRATION.format(name=ONE) + "monitoring: {enabled: true, table: dead}\n"
    )
    monitored = Hub(hub.environ, tmp_path / "functions")
    try:
        for name in (ONE, OTHER):
            assert Handlers(monitored, name, silent).source(b"", {}).status == 200
            for batch in monitored.home.batches.unsettled(name):
                data = monitored.home.blobs.read(batch.blob, batch.offset, batch.length)
                assert Operations(monitored, silent).bury(data).status == 204
        with monitored.embedded.state.reading() as connection:
            told = connection.execute("SELECT DISTINCT dag_name, type_id FROM dead").fetchall()
    finally:
        monitored.close()
    assert told == [(f"{ONE}.customers", KILLED_ITS_SINK)]


def test_what_fails_of_one_integration_keeps_no_other_from_being_cleaned_up_or_swept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(integration: str, *more: object) -> int:
        if integration == ONE:
            raise StoreUnavailable("it is away")
        return 0

    operations = Operations(hub, silent)
    with monkeypatch.context() as patch:
        patch.setattr(hub.home.failures, "remove_closed", away)
        reply = operations.carry_out("cleanup", b"")
        document = queries.cleanup(hub, None, None)
    assert (reply.status, document) == (503, {"integrations": reply.body["integrations"]})
    assert document["integrations"][ONE]["error"]["class"] == "StoreUnavailable"
    assert document["integrations"][OTHER]["archives"] == 0
    render.cleanup(document)
    assert "it is away" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr("infra.operations.sweep", lambda streams, *_, **__: 1 / (streams[0].integration != ONE))
        reply = operations.carry_out("sweep", b"")
    assert reply.status == 503
    assert reply.body["integrations"][ONE]["error"]["class"] == "ZeroDivisionError"
    assert "division" not in reply.body["integrations"][ONE]["error"]["message"], "it may quote a record"
    assert reply.body["integrations"][OTHER] == 1.0
