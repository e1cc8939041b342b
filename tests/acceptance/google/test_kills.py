"""`kill -9` of source and sink at whatever moment: Cloud Scheduler and Pub/Sub come again, and each customer arrives
once."""

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from time import sleep

import requests

from tests.acceptance.google.cloud import MISSED, OPERATIONS, SINK, SOURCE, Deployed, GoogleHub, routed
from tests.acceptance.google.conftest import MakeGoogleHub
from tests.acceptance.hub import NAME, wait_until

KILLS = 10
CUSTOMERS = 260
CHANGES = 80
SMALL = {
    "source": {"page_size": 20},
    "sink": {"batch_size": 6, "lanes": 4},
    # What is read a second time is read because of a kill, and not since windows overlap.
    "streams": {"customers": {"overlap": "0s"}},
}
FAULTS = "429=1%,retry_after=0,503=1%,ploomes.slow=0.02,milvus.slow=0.03,milvus.drop=2%"
REFUSED = {409, 500, 502, 503}
RETRY_SECONDS = 0.25
JOB = f"{NAME}-customers"


class Scheduler:
    """Cloud Scheduler with one job, whose call is made again under the same time until it is answered 2xx. Then
    customers change, and the job's next time has come."""

    def __init__(self, hub: GoogleHub, source: Deployed) -> None:
        self.hub = hub
        self.source = source
        self.answers: list[int] = []
        self.times = 0
        self._last = Event()

    def end(self) -> None:
        """The time that is under way is the last one."""
        self._last.set()

    def work(self) -> None:
        while True:
            self.times += 1
            while (answer := self._call()) != 200:
                assert answer in REFUSED, self.source.said
                # As Cloud Scheduler backs off.
                sleep(RETRY_SECONDS)
            if self._last.is_set():
                return
            self.hub.control("ploomes", "edit", count=CHANGES, seed=self.times)

    def _call(self) -> int:
        scheduled = f"2026-02-24T12:{self.times:02}:00Z"
        try:
            answer = self.source.post(X_CloudScheduler_ScheduleTime=scheduled, X_CloudScheduler_JobName=JOB).status_code
        except requests.RequestException:
            # As Cloud Run answers for an instance that died.
            answer = 502
        self.answers.append(answer)
        return answer


@contextmanager
def scheduled(hub: GoogleHub, source: Deployed, pool: ThreadPoolExecutor) -> Iterator[Scheduler]:
    """A scheduler at work. At the end its last call has been answered."""
    scheduler = Scheduler(hub, source)
    work = pool.submit(scheduler.work)
    try:
        yield scheduler
    finally:
        scheduler.end()
    work.result()


def archived(hub: GoogleHub) -> int:
    return sum(len(files) for _, _, files in os.walk(hub.home / "blobs"))


def moment_of_source(hub: GoogleHub, chance: random.Random) -> Callable[[], bool]:
    """While it reads, or between the archive and what comes after it."""
    if chance.random() < 0.3:
        files = archived(hub) + 1
        return lambda: archived(hub) >= files
    # One may still be counted of those that the last process asked.
    asked = hub.asked("ploomes") + chance.randrange(2, 14)
    return lambda: hub.asked("ploomes") >= asked


def moment_of_sink(hub: GoogleHub, chance: random.Random) -> Callable[[], bool]:
    asked = hub.asked("milvus") + chance.randrange(1, 25)
    return lambda: hub.asked("milvus") >= asked


def kill_again_and_again(victim: Deployed, moment: Callable[[], Callable[[], bool]], after: Callable[[], None]) -> int:
    """Kills it at such moments, and starts it again. Gives how often it was killed."""
    kills = 0
    for kill in range(KILLS):
        wait_until(moment(), f"the moment of kill {kill}")
        assert not victim.ended, victim.said
        victim.kill()
        kills += 1
        victim.start()
        after()
    return kills


def test_source_and_sink_killed_ten_times_each_deliver_everything_once(make_google: MakeGoogleHub) -> None:
    hub = make_google(CUSTOMERS, overlay=SMALL, faults=FAULTS)
    of_source, of_sink = random.Random(60), random.Random(61)

    with (
        Deployed(hub, "source", MISSED) as source,
        Deployed(hub, "sink", MISSED) as sink,
        Deployed(hub, "sweep", OPERATIONS) as sweeper,
        routed(hub, {SOURCE: source, SINK: sink}) as router,
        ThreadPoolExecutor(2) as pool,
    ):

        def sweep() -> None:
            answer = sweeper.post()
            assert answer.status_code == 200, answer.text

        with scheduled(hub, source, pool) as scheduler:
            of_sinks: Future[int] = pool.submit(kill_again_and_again, sink, lambda: moment_of_sink(hub, of_sink), sweep)
            kills = kill_again_and_again(source, lambda: moment_of_source(hub, of_source), lambda: None)
        kills += of_sinks.result()
        hub.wait_until_settled(CUSTOMERS)
        sweep()
        runs = hub("runs", NAME).document["runs"]

    assert kills == 2 * KILLS
    assert scheduler.answers.count(502) >= KILLS
    assert router.answered(SINK).count(502) >= KILLS
    assert set(router.answered(SINK)) <= {204, 502, 503}
    assert (len(runs), {run["state"] for run in runs}) == (scheduler.times, {"settled"})
    milvus = hub.stats("milvus")
    assert milvus["struck"].keys() >= {"drop"}
    assert len(milvus["clients_per_document"]) == CUSTOMERS
    assert set(milvus["clients_per_document"].values()) == {1}
    assert milvus["creates"] == CUSTOMERS
    assert hub.at_target() == hub.at_source()
    audited = hub.audited()
    assert audited["fetched"] >= CUSTOMERS
    assert audited.keys() <= {"fetched", "delivered", "unchanged", "superseded", "duplicate"}
    assert not hub.failures()
