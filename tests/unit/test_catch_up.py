"""A second schedule that reads the last days again, as integration.yaml or a scheme's metadata says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.config import CatchUp
from infra.entrypoints import Handlers
from infra.log import silent
from infra.serve import Due, Timetable
from infra.wiring import ROOT, Hub
from shared.errors import ConfigError
from tests.sandbox import Sandbox

DAILY = {"schedule": "0 3 * * *", "window": "2d"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=5, customers=20, users=12, departments=5, ploomes_per_minute=None) as running:
        yield running


class At:
    """A clock that stands still."""

    stopping = False

    def __init__(self, now: datetime) -> None:
        self.instant = now

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.instant.timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")

    def random(self) -> float:
        return 0.5


def hub_of(tmp_path: Path, sandbox: Sandbox, name: str, stream: str, own: dict[str, Any], clock: Any = None) -> Hub:
    """A hub with one of the shipped integrations, whose stream has keys of its own."""
    if not (tmp_path / name).exists():
        shutil.copytree(ROOT / "functions" / name, tmp_path / name)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(json.dumps({name: {"streams": {stream: own}}}))
    environ = {**sandbox.environment, "WAYBILL_HOME": str(tmp_path / "home"), "WAYBILL_OVERLAY": str(overlay)}
    return Hub(environ, tmp_path, clock)


def test_it_is_read_from_the_file_and_comes_due_beside_the_schedule(tmp_path: Path, sandbox: Sandbox) -> None:
    clock: Any = At(datetime(2026, 3, 1, 2, 55, tzinfo=UTC))
    hub = hub_of(tmp_path, sandbox, "ploomes_to_milvus", "customers", {"catch_up": DAILY}, clock)
    stream = hub.streams(hub.integration("ploomes_to_milvus"), "customers")[0]
    assert hub.catch_up(stream) == CatchUp("0 3 * * *", 172_800.0)
    timetable = Timetable(hub, ["ploomes_to_milvus"])
    assert timetable.take_due() == []
    clock.instant += timedelta(minutes=5)
    regular, second = Due("ploomes_to_milvus", "customers"), Due("ploomes_to_milvus", "customers", catch_up=True)
    assert timetable.take_due() == [(regular, clock.instant), (second, clock.instant)]
    clock.instant += timedelta(minutes=10)
    assert timetable.take_due() == [(regular, clock.instant)]
    hub.close()


def test_one_that_another_run_kept_out_comes_again_unless_its_next_time_has_come(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    clock: Any = At(datetime(2026, 3, 1, 2, 55, tzinfo=UTC))
    hub = hub_of(tmp_path, sandbox, "ploomes_to_milvus", "customers", {"catch_up": DAILY}, clock)
    timetable = Timetable(hub, ["ploomes_to_milvus"])
    clock.instant += timedelta(minutes=5)
    (_, (due, at)) = timetable.take_due()
    timetable.put_back(due, at)
    assert timetable.take_due() == [(due, at)]
    assert timetable.take_due() == []
    clock.instant += timedelta(days=2)
    timetable.put_back(due, at)
    assert (due, at) not in timetable.take_due()
    hub.close()


def test_one_that_never_comes_around_is_a_mistake(tmp_path: Path, sandbox: Sandbox) -> None:
    hub = hub_of(tmp_path, sandbox, "ploomes_to_milvus", "customers", {"catch_up": DAILY | {"schedule": "0 0 31 2 *"}})
    with pytest.raises(ConfigError, match="comes around"):
        hub.load(thorough=True)
    hub.close()


def test_a_catch_up_reads_its_window_and_leaves_what_is_known_alone(tmp_path: Path, sandbox: Sandbox) -> None:
    hub = hub_of(tmp_path, sandbox, "ploomes_to_milvus", "customers", {"catch_up": DAILY | {"window": "3650d"}})
    handlers = Handlers(hub, "ploomes_to_milvus", silent)
    body = msgspec.json.encode({"stream": "customers", "catch_up": True})
    at = {"X-CloudScheduler-ScheduleTime": "2026-03-01T03:00:00Z"}
    regular = handlers.source(b'{"stream": "customers"}', at).body["streams"]["customers"]
    caught_up = handlers.source(body, at).body["streams"]["customers"]
    assert regular["fetched"] == caught_up["fetched"] == 20
    assert caught_up["run"].endswith("customers-catch-up-20260301T030000Z")
    state = hub.home.runs.state("ploomes_to_milvus", "customers")
    assert state.last_run == caught_up["run"]
    hub.close()


@pytest.mark.parametrize("body", [{"catch_up": True}, {"catch_up": True, "since": "2026-01-01T00:00:00Z"}])
def test_a_stream_without_one_refuses_it(tmp_path: Path, sandbox: Sandbox, body: dict[str, Any]) -> None:
    own = {"catch_up": DAILY} if "since" in body else {}
    hub = hub_of(tmp_path, sandbox, "ploomes_to_milvus", "customers", own)
    reply = Handlers(hub, "ploomes_to_milvus", silent).source(msgspec.json.encode({"stream": "customers"} | body), {})
    assert (reply.status, "catch_up" in reply.body["detail"]) == (400, True)
    hub.close()


def test_the_metadata_of_a_scheme_may_say_it(tmp_path: Path, sandbox: Sandbox) -> None:
    scheme = json.loads((ROOT / "functions" / "okki_to_qeasy" / "source.json").read_text())
    scheme["omissionRemedy"] = {
        "crontab": "30 2 * * *",
        "takeOverRequest": [{"field": "now", "type": "string", "value": "{{DAYS_AGO_3|datetime}}"}],
    }
    (tmp_path / "remedy.json").write_text(json.dumps(scheme))
    own = {"metadata": {"source": str(tmp_path / "remedy.json"), "target": "target.json"}}
    clock: Any = At(datetime(2026, 3, 4, 4, 5, 6, tzinfo=UTC))
    hub = hub_of(tmp_path, sandbox, "okki_to_qeasy", "users", own, clock)
    stream = hub.streams(hub.integration("okki_to_qeasy"), "users")[0]
    assert hub.catch_up(stream) == CatchUp("30 2 * * *", 3 * 86_400.0)
    request = stream.rules.request
    assert request is not None
    assert request(None, clock.now(), True) == {"now": "2026-03-01 12:05:06"}
    assert request(clock.now(), clock.now(), False) == {"now": "2026-03-04 12:05:06"}
    hub.close()
