"""`kill -9` at whatever moment: the next run finishes what the dead one began."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from time import sleep

from tests.acceptance.conftest import MakeHub
from tests.acceptance.hub import Hub

KILLS = 25
MOST_RUNS = 60
SMALL = {"source": {"page_size": 50}, "sink": {"batch_size": 10, "lanes": 6}}


def archived(home: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(home / "blobs"))


def moment(hub: Hub, chance: random.Random) -> Callable[[], bool]:
    """A moment in the life of a run that begins now, by what it did to the outside so far."""
    kind = chance.choice(["at once", "reading", "archiving", "sending", "sending", "sending"])
    if kind == "at once":
        return lambda: True
    if kind == "reading":
        asked = hub.asked("ploomes") + chance.randrange(1, 15)
        return lambda: hub.asked("ploomes") >= asked
    if kind == "archiving":
        files = archived(hub.home) + chance.randrange(1, 4)
        return lambda: archived(hub.home) >= files
    sent = hub.asked("milvus") + chance.randrange(1, 300)
    return lambda: hub.asked("milvus") >= sent


def test_a_run_killed_at_25_moments_sends_nothing_twice_and_loses_nothing(make_hub: MakeHub) -> None:
    chance = random.Random(20)
    hub = make_hub(1_200, overlay=SMALL, faults="drop=2%,429=1%,retry_after=0,short_pages=5%")
    kills = 0
    for _ in range(MOST_RUNS):
        if kills == KILLS:
            break
        now = moment(hub, chance)
        run = hub.start("run", "ploomes_to_milvus")
        while run.poll() is None and not now():
            sleep(0.001)
        sleep(chance.random() * 0.02)
        run.kill()
        done = hub.finish(run)
        kills += done.code == -signal.SIGKILL
        assert done.code in (-signal.SIGKILL, 0), done
        if done.code == 0:
            hub.control("ploomes", "edit", count=150, seed=kills)

    last = hub.run()

    assert kills == KILLS
    assert last.code == 0, last
    assert hub.at_target() == hub.at_source()
    assert hub.stats("milvus")["creates"] == 1_200
    assert hub.audited().keys() <= {"fetched", "delivered", "unchanged", "superseded", "duplicate"}
    assert not hub.failures()


def test_runs_killed_while_they_begin_leave_nothing_behind(make_hub: MakeHub) -> None:
    chance = random.Random(21)
    hub = make_hub(30)
    for _ in range(8):
        run = hub.start("run", "ploomes_to_milvus")
        while run.poll() is None and not hub.home.exists():
            sleep(0.001)
        sleep(chance.random() * 0.05)
        run.kill()
        hub.finish(run)

    done = hub.run()

    assert done.code == 0, done
    assert hub.at_target() == hub.at_source()
    assert hub.audited()["delivered"] == 30
