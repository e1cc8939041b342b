"""Data syncs as people and the bus run them: the shipped ones on an embedded home, without the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shared.group
from infra import queries
from infra.cli import exit_code
from infra.clock import SystemClock
from infra.entrypoints import Handlers
from infra.local.blobs import LocalBlobs
from infra.log import silent
from infra.runner import run_streams
from infra.wiring import Hub
from shared.errors import StoreUnavailable
from shared.fetch import Order
from shared.launches import Launch, launch_id
from shared.launching import Summons, ask, look
from shared.ports import continuation_topic
from tests.unit.fakes import spare_the_disk

NAME = "data_syncs"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    spare_the_disk(monkeypatch)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data_syncs: {source: {page_size: 20}}")
    made = Hub({"WAYBILL_HOME": str(tmp_path / "home"), "WAYBILL_OVERLAY": str(overlay)})
    yield made
    made.close()


def send(hub: Hub, stream: str, text: str) -> Launch:
    """What the API does with a file, but for the summons."""
    at = hub.clock.now()
    file = f"uploads/{NAME}/{stream}/{at.timestamp()}"
    hub.home.blobs.write(file, text.encode())
    return ask(hub.home, Launch(NAME, stream, launch_id(at), at, file=file))


def run(hub: Hub, stream: str) -> dict[str, Any]:
    (result,) = run_streams(hub, NAME, hub.streams(hub.integration(NAME), stream), Order(), silent)
    return result.report(hub)


def summon(hub: Hub, stream: str) -> Any:
    return Handlers(hub, NAME, silent).go_on(msgspec.json.encode(Summons(NAME, stream, 0)))


def test_a_file_that_cannot_be_read_is_told_although_the_next_one_could(hub: Hub) -> None:
    send(hub, "customers_import", "\n")
    send(hub, "customers_import", "id\n1\n")
    report = run(hub, "customers_import")
    assert (report["state"], report["delivered"], exit_code([report])) == ("failed", 1, 9)
    assert report["error"]["message"] == "the file: its first line is empty: there is no header"
    assert hub.home.runs.state(NAME, "customers_import").consecutive_failures == 0
    assert exit_code([run(hub, "customers_import")]) == 0


def test_a_plan_of_an_export_says_that_everything_goes(hub: Hub) -> None:
    send(hub, "customers_import", "id\n1\n2\n")
    for stream in ("customers_import", "customers_export"):
        assert exit_code([run(hub, stream)]) == 0
    planned = queries.plan(hub, NAME, "customers_export")["streams"]["customers_export"]
    assert (planned["fetched"], planned["delivered"]) == (2, 2)


def test_what_another_data_sync_deleted_is_not_missing(hub: Hub) -> None:
    send(hub, "customers_import", "id\n1\n2\n")
    send(hub, "customers_delete", "id\n2\n")
    for stream in ("customers_import", "customers_delete"):
        assert exit_code([run(hub, stream)]) == 0
    found = queries.audit(hub, NAME, deep=True)
    assert (found["balanced"], found["unaccounted"]) == (True, [])


def unreachable(self: LocalBlobs, name: str, offset: int = 0, length: int | None = None) -> bytes:
    raise StoreUnavailable("cannot reach it")


def test_a_launch_that_cannot_be_read_at_the_moment_is_summoned_again_after_a_while(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = send(hub, "customers_import", "id\n1\n")
    with monkeypatch.context() as patch:
        patch.setattr(LocalBlobs, "read", unreachable)
        reply = summon(hub, "customers_import")
    assert (reply.status, reply.wait) == (503, 5.0)
    assert summon(hub, "customers_import").status == 204
    assert look(hub.home, launch).message == ""


def test_a_launch_that_was_stopped_is_summoned_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    send(hub, "customers_import", "id\n1\n")
    with monkeypatch.context() as patch:
        patch.setattr(SystemClock, "stopping", property(lambda self: True))
        assert summon(hub, "customers_import").status == 503
    assert summon(hub, "customers_import").status == 204


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is a slice."""
    monkeypatch.setattr(shared.group, "GROUP_FILL", 0.01)
    monkeypatch.setattr("shared.pieces.PIECE", 64)
    monkeypatch.setattr("infra.entrypoints.SLICE_SECONDS", -1.0)


def continuation(hub: Hub) -> bytes:
    claimed = None
    while (found := hub.embedded.bus.claim([continuation_topic(NAME)])) is not None:
        hub.embedded.bus.acknowledge(found)
        claimed = found
    assert claimed is not None
    return claimed.message.data


def in_slices(hub: Hub) -> Launch:
    """A launch that is handed over behind its first slice."""
    launch = send(hub, "customers_import", "id\n" + "".join(f"{n}\n" for n in range(60)))
    assert summon(hub, "customers_import").status == 204
    assert hub.home.runs.get(launch.run).state == "yielded"  # type: ignore[union-attr]
    return launch


@pytest.mark.usefixtures("slices")
def test_a_launch_that_waited_while_another_was_handed_over_begins_behind_it(hub: Hub) -> None:
    in_slices(hub)
    second = send(hub, "customers_import", "id\nlast\n")
    # Its summons comes between two slices, and goes for the launch before it.
    assert summon(hub, "customers_import").status == 204
    while hub.home.runs.get(second.run) is None:
        assert Handlers(hub, NAME, silent).go_on(continuation(hub)).status == 204
    assert look(hub.home, second).status != "scheduled"


@pytest.mark.usefixtures("slices")
def test_a_launch_whose_file_is_gone_in_the_middle_keeps_no_other_one_waiting(hub: Hub) -> None:
    first = in_slices(hub)
    second = send(hub, "customers_import", "id\nlast\n")
    hub.home.blobs.delete(first.file)
    assert summon(hub, "customers_import").status == 204
    assert look(hub.home, first).message == "the file: it was changed or removed while it was read"
    assert hub.home.runs.get(second.run) is not None


@pytest.mark.parametrize("stays", ["first", "invalid"])
def test_a_launch_is_no_other_object_than_the_one_before(hub: Hub, stays: str) -> None:
    """Rows are known by their line, so that each later file's would give way to the first one's, or both be refused."""
    (hub.embedded.folder.parent / "overlay.yaml").write_text(
        f"data_syncs: {{streams: {{customers_import: {{on_conflict: {stays}}}}}}}"
    )
    (mistake,) = queries.check(Hub(dict(hub.environ)), NAME)["mistakes"]
    assert f"on_conflict: {stays}" in str(mistake) and "remove on_conflict" in mistake["cure"]
