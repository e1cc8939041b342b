"""Schedule: when a stream runs by itself, and that a paused one does not."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.contract.homes import Trait
from tests.contract.make import CUSTOMERS, SHOP
from tests.contract.suite import Around, answering, breaks, contract, without
from tests.contract.world import START, World

EVERY_TEN = "*/10 * * * *"


class PausesNothing(Around):
    """Says that it is paused, and goes on."""

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        return START + timedelta(minutes=10) if cron else None


class PausesAll(Around):
    def pause(self, integration: str) -> None:
        self.shared["paused"] = True
        self.inner.pause(integration)

    def resume(self, integration: str) -> None:
        self.shared["paused"] = False
        self.inner.resume(integration)

    def paused(self, integration: str) -> bool:
        return bool(self.shared.get("paused"))


class RunsAlways(Around):
    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        found: datetime | None = self.inner.next_run(integration, stream, cron or "* * * * *")
        return found


@contract(
    breaks("is late", schedule=answering("next_run", lambda at: at and at + timedelta(minutes=1))),
    breaks("gives naive instants", schedule=answering("next_run", lambda at: at and at.replace(tzinfo=None))),
    breaks("runs without a schedule", schedule=RunsAlways),
    needs=(Trait.WORKS_OUT_THE_TIME,),
)
def check_the_next_run_is_the_next_time_that_the_fields_name(world: World) -> None:
    def next_run(cron: str | None) -> datetime | None:
        found = world.here.schedule.next_run(SHOP, CUSTOMERS, cron)
        assert found is None or found.utcoffset() == timedelta(0)
        return found

    assert next_run(EVERY_TEN) == START + timedelta(minutes=10)
    world.clock.advance(61)
    assert next_run(EVERY_TEN) == START + timedelta(minutes=10)
    assert next_run("* * * * *") == START + timedelta(minutes=2)
    assert next_run("30 6 * * *") == START.replace(day=2, hour=6, minute=30)
    assert next_run("0 0 1 1 *") == datetime(2027, 1, 1, tzinfo=START.tzinfo)
    assert next_run(None) is None


@contract(
    breaks("does not pause", schedule=without("pause")),
    breaks("does not resume", schedule=without("resume")),
    breaks("goes on all the same", schedule=PausesNothing),
    breaks("pauses all", schedule=PausesAll),
)
def check_a_paused_integration_does_not_run_until_it_is_resumed(world: World) -> None:
    here, there = world.here.schedule, world.there.schedule
    assert not there.paused(SHOP)
    for _ in range(2):
        here.pause(SHOP)
        assert there.paused(SHOP)
        assert there.next_run(SHOP, CUSTOMERS, EVERY_TEN) is None
        assert not there.paused("market")
        assert there.next_run("market", CUSTOMERS, EVERY_TEN) == START + timedelta(minutes=10)
    for _ in range(2):
        there.resume(SHOP)
        assert not here.paused(SHOP)
        assert here.next_run(SHOP, CUSTOMERS, EVERY_TEN) == START + timedelta(minutes=10)
