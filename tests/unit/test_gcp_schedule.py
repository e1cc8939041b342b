"""The schedule: as Cloud Scheduler has it, and as it is stored where there is no Cloud Scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.gcp.home import GoogleHome
from infra.gcp.schedule import GoogleSchedule, StoredSchedule
from shared.errors import ConfigError
from tests.contract import check_schedule
from tests.contract.world import START, ManualClock
from tests.emulators import Emulators
from tests.scheduler import LOCATION, FakeScheduler
from tests.unit.gcp_homes import Hub

EVERY_TEN = "*/10 * * * *"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[FakeScheduler]:
    fake = FakeScheduler()
    yield fake
    fake.close()


@pytest.fixture
def schedule(scheduler: FakeScheduler, request: pytest.FixtureRequest) -> Iterator[GoogleSchedule]:
    project, clock = request.node.name.replace("_", "-"), ManualClock()
    for name in ("shop-customers", "shop-tasks", "shop-more", "shopping-customers"):
        scheduler.add(project, name, EVERY_TEN, clock.now)
    home = GoogleHome(project, clock, scheduler=scheduler.client, location=LOCATION)
    assert isinstance(home.ports.schedule, GoogleSchedule)
    yield home.ports.schedule
    home.close()


def test_the_next_run_is_what_the_job_says(schedule: GoogleSchedule) -> None:
    assert schedule.next_run("shop", "customers", "0 0 * * *") == START + timedelta(minutes=10)
    assert schedule.next_run("shop", "customers", None) is None
    assert schedule.next_run("shop", "unheard_of", EVERY_TEN) is None


def test_every_job_of_an_integration_is_paused_and_no_other(schedule: GoogleSchedule) -> None:
    schedule.pause("shop")
    assert schedule.paused("shop")
    for stream in ("customers", "tasks", "more"):
        assert schedule.next_run("shop", stream, EVERY_TEN) is None
    assert not schedule.paused("shopping")
    assert schedule.next_run("shopping", "customers", EVERY_TEN) is not None
    schedule.resume("shop")
    assert not schedule.paused("shop")


def test_an_integration_that_is_half_paused_is_not_paused(schedule: GoogleSchedule, scheduler: FakeScheduler) -> None:
    schedule.pause("shop")
    (job,) = [job for name, job in scheduler.jobs.items() if "half-paused" in name and name.endswith("/shop-tasks")]
    job.state = job.State.ENABLED
    assert not schedule.paused("shop")
    schedule.pause("shop")
    assert schedule.paused("shop")


def test_an_integration_without_jobs_is_not_paused(schedule: GoogleSchedule) -> None:
    schedule.pause("market")
    assert not schedule.paused("market")


def test_a_stream_is_triggered_by_its_job(schedule: GoogleSchedule, scheduler: FakeScheduler) -> None:
    schedule.trigger("shop", "tasks")
    assert scheduler.triggered[-1].endswith("/jobs/shop-tasks")
    with pytest.raises(ConfigError):
        schedule.trigger("shop", "unheard_of")


class Stage:
    """What the checks of the contract need of a world, on stored schedules."""

    def __init__(self, hub: Hub) -> None:
        self.clock = hub.clock
        self.here, self.there = hub.home().ports, hub.home().ports


@pytest.mark.parametrize(
    "check",
    [
        check_schedule.check_the_next_run_is_the_next_time_that_the_fields_name,
        check_schedule.check_a_paused_integration_does_not_run_until_it_is_resumed,
    ],
)
def test_a_stored_schedule_keeps_what_every_schedule_promises(check: Any, emulators: Emulators, tmp_path: Path) -> None:
    hub = Hub(emulators, tmp_path)
    stage = Stage(hub)
    assert isinstance(stage.here.schedule, StoredSchedule)
    check(stage)
    hub.close()
