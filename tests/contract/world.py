"""A fresh home with two processes on it, a clock that tests set, and real processes to kill."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shared.ports import topic_of
from tests.contract.homes import Consumer, HomeUnderTest, Process
from tests.contract.suite import PATIENCE_SECONDS, Twin, Wrong

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
TOPIC = topic_of("shop")


class ManualClock:
    """Stands still until it is set, or slept on."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def random(self) -> float:
        return 0.5

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._elapsed += seconds

    def set_back(self, seconds: float) -> None:
        """What an operator or a time server does to the wall clock."""
        with self._lock:
            self._now -= timedelta(seconds=seconds)


class Child:
    """A real process that has done a deed of `child.py` and lives until it is killed or told to end."""

    def __init__(self, home: str, address: str, now: datetime, deed: str, arguments: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "tests.contract.child", home, address, now.isoformat(), deed]
        self._process = subprocess.Popen(
            [*command, json.dumps(arguments)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._said: Any = None

    @property
    def said(self) -> Any:
        """What the deed came to."""
        if self._said is None:
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
            line = self._process.stdout.readline() if ready else b""
            assert line, "the other process says nothing"
            self._said = json.loads(line)
        return self._said

    def kill(self) -> None:
        """SIGKILL: no clean-up of any kind runs in it."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self._close()

    def end(self) -> None:
        """Lets it come to its end."""
        self._close()
        assert self._process.wait(PATIENCE_SECONDS) == 0

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class World:
    """What a check works with. `here` and `there` are the ports of two processes on one state."""

    def __init__(self, home: HomeUnderTest, folder: Path, wrong: Wrong | None = None) -> None:
        self._home = home
        self._twin = Twin(wrong)
        self._site = home.found(folder)
        self._children: list[Child] = []
        self._processes: list[Process] = []
        self.clock = ManualClock()
        self._open()
        self._open()
        self.here, self.there = (self._twin.home(process.ports) for process in self._processes)

    def _open(self) -> None:
        self._processes.append(self._site.process(self.clock))

    def consumer(self, *topics: str) -> Consumer:
        """A consumer in the process `here`."""
        return self._consumer(0, topics)

    def consumer_there(self, *topics: str) -> Consumer:
        return self._consumer(1, topics)

    def _consumer(self, place: int, topics: tuple[str, ...]) -> Consumer:
        process = self._processes[place]
        return self._twin.consumer(process.consumer(topics or (TOPIC,)), process.ports)

    def child(self, deed: str, **arguments: Any) -> Child:
        """Starts a real process that does a deed."""
        child = Child(self._home.name, self._site.address, self.clock.now(), deed, arguments)
        self._children.append(child)
        return child

    def kill(self, child: Child) -> None:
        """Kills a process, and lets the time pass after which this has to be noticed."""
        child.kill()
        self.clock.advance(self._home.grace.total_seconds())

    def take_here_for_dead(self) -> None:
        """`here` goes on, but everybody takes it for dead: what a long pause of a process looks like."""
        self._processes[0].lapse()
        self.clock.advance(self._home.grace.total_seconds())

    def monitoring_rows(self) -> list[dict[str, Any]]:
        """What came to the monitoring table, as people read it."""
        return self._site.monitoring_rows()

    def unplug(self) -> None:
        self._site.unplug()

    def close(self) -> None:
        for child in self._children:
            if child.running:
                child.kill()
        for process in self._processes:
            process.close()
