"""The pace: below the limit in every sliding window, close to it, shared, and never in the way of a stop."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.pace import LATENESS, SLACK, Pace
from infra.quantities import Rate
from shared.errors import StoreUnavailable, TransientError
from tests.loopback import FakeClock

RATES = st.builds(Rate, st.integers(1, 400), st.sampled_from([1.0, 60.0]))


def most_in_any_window(times: list[float], seconds: float) -> int:
    return max(sum(start <= time < start + seconds for time in times) for start in times)


@settings(deadline=None)
@given(rate=RATES, count=st.integers(2, 40))
def test_it_is_even_and_close_to_the_limit(rate: Rate, count: int) -> None:
    clock = FakeClock()
    pace = Pace(rate, clock)
    times = []
    for _ in range(count):
        pace.acquire()
        times.append(clock.at)
    apart = [after - before for before, after in pairwise(times)]
    assert min(apart) >= rate.seconds / rate.count
    assert times[-1] - times[0] <= 1.05 * count * rate.seconds / rate.count


@settings(deadline=None)
@given(
    rate=RATES,
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=80),
    late=st.lists(st.floats(0, 0.05), min_size=1, max_size=10),
)
def test_no_sliding_window_ever_sees_more_than_the_limit(rate: Rate, pauses: list[float], late: list[float]) -> None:
    clock = FakeClock()
    pace = Pace(rate, clock)
    times: list[float] = []
    for number, pause in enumerate(pauses):
        clock.at += pause * rate.seconds / rate.count
        clock.late = late[number % len(late)] * rate.seconds
        pace.acquire()
        times.append(clock.at)
    jitter = (SLACK - 1 - LATENESS) * 0.99
    assert most_in_any_window(times, rate.seconds * (1 + jitter)) <= rate.count


def test_a_little_lateness_does_not_add_up() -> None:
    clock = FakeClock()
    clock.late = 0.004
    pace = Pace(Rate(120, 60.0), clock)
    for _ in range(241):
        pace.acquire()
    assert clock.at - 1000.0 <= 1.05 * 240 * 0.5


def test_after_a_rest_there_is_no_burst() -> None:
    clock = FakeClock()
    pace = Pace(Rate(60, 60.0), clock)
    pace.acquire()
    clock.at += 500
    pace.acquire()
    assert pace.claim() == pytest.approx(SLACK)


def test_without_a_rate_nobody_waits() -> None:
    clock = FakeClock()
    pace = Pace(None, clock)
    for _ in range(1000):
        pace.acquire()
    assert clock.slept == []


@pytest.mark.parametrize("rate", [None, Rate(600, 60.0)])
def test_a_hold_keeps_everybody_back_and_is_never_shortened(rate: Rate | None) -> None:
    clock = FakeClock()
    pace = Pace(rate, clock)
    pace.hold(20)
    pace.hold(5)
    pace.acquire()
    assert 1020 <= clock.at < 1021
    pace.acquire()
    assert clock.at < 1022


def test_a_hold_reaches_those_who_wait_already() -> None:
    clock = FakeClock()
    pace = Pace(Rate(1, 10.0), clock)
    pace.acquire()
    asked = iter([True])
    sleep = clock.sleep

    def sleep_and_ask(seconds: float) -> None:
        sleep(seconds)
        if next(asked, False):
            pace.hold(100)

    clock.sleep = sleep_and_ask  # type: ignore[method-assign]
    pace.acquire()
    assert clock.at >= 1100


def test_threads_share_one_pace() -> None:
    clock = FakeClock()
    pace = Pace(Rate(10, 1.0), clock)
    times: list[float] = []

    def work() -> None:
        for _ in range(10):
            pace.acquire()
            times.append(pace._slot)

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 60
    assert most_in_any_window(sorted(set(times)), 1.0) <= 10
    assert clock.at - 1000 >= 59 * 0.1


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_processes_share_one_pace_through_the_file(tmp_path_factory: pytest.TempPathFactory, turns: list[bool]) -> None:
    file = tmp_path_factory.mktemp("pace") / "deep" / "ploomes"
    clock = FakeClock()
    both = [Pace(Rate(120, 60.0), clock, file) for _ in range(2)]
    times = []
    for turn in turns:
        both[turn].acquire()
        times.append(clock.at)
    for pace in both:
        pace.close()
    assert min(after - before for before, after in pairwise(times)) >= 0.5


CLAIM_AND_WAIT = """
import sys
from itertools import pairwise
from pathlib import Path
from infra.clock import SystemClock
from infra.pace import Pace
from infra.quantities import Rate
assert Pace(Rate(1, 3600.0), SystemClock(), Path(sys.argv[1])).claim() == 0
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_its_slot_taken_and_nothing_locked(tmp_path: Path) -> None:
    from infra.clock import SystemClock

    file = tmp_path / "milvus"
    command = [sys.executable, "-c", CLAIM_AND_WAIT, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "claimed\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    pace = Pace(Rate(1, 3600.0), SystemClock(), file)
    assert pace.claim() > 3000
    pace.close()


@pytest.mark.parametrize("stored", [1e12, math.inf, math.nan])
def test_a_slot_that_nobody_can_have_meant_is_one_step_away(tmp_path: Path, stored: float) -> None:
    file = tmp_path / "ploomes"
    file.write_bytes(struct.pack("<d", stored))
    clock = FakeClock()
    pace = Pace(Rate(60, 60.0), clock, file)
    assert pace.claim() == pytest.approx(SLACK)
    pace.close()


@pytest.mark.parametrize("stored", [b"", b"abc", struct.pack("<d", -math.inf)])
def test_a_file_without_a_slot_holds_nobody_up(tmp_path: Path, stored: bytes) -> None:
    file = tmp_path / "ploomes"
    file.write_bytes(stored)
    pace = Pace(Rate(60, 60.0), FakeClock(), file)
    assert pace.claim() == 0
    pace.close()


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    pace = Pace(Rate(60, 60.0), FakeClock(), tmp_path)
    with pytest.raises(StoreUnavailable):
        pace.acquire()


def test_a_stop_ends_the_waiting_and_takes_no_slot() -> None:
    clock = FakeClock()
    stopping = False
    pace = Pace(Rate(1, 60.0), clock, stopping=lambda: stopping)
    pace.acquire()
    sleep = clock.sleep

    def sleep_until_asked(seconds: float) -> None:
        nonlocal stopping
        sleep(0)
        stopping = True

    clock.sleep = sleep_until_asked  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        pace.acquire()
    assert pace.claim() == pytest.approx(60 * SLACK)


def test_a_free_slot_is_taken_even_when_stopping() -> None:
    pace = Pace(Rate(1, 60.0), FakeClock(), stopping=lambda: True)
    pace.acquire()
    assert pace.claim() == pytest.approx(60 * SLACK)
