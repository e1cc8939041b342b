"""The homes that the suite runs on. Another home is one more class like `Embedded` and one more entry in HOMES."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from infra.local.bus import LocalBus
from infra.local.home import EmbeddedHome
from shared.ports import Clock, Home, Message


class Trait(StrEnum):
    """What not every home can do. A check that needs a trait is skipped, visibly, on a home without it."""

    HONOURS_WAIT = "a refused message comes no sooner than was asked"
    COUNTS_ATTEMPTS = "a message says how often it was handed out"
    SAYS_WHAT_IT_CARRIES = "the bus knows which batches it has a message of"
    HANDS_OUT_EVERY_LANE = "any number of lanes is in hand at the same time (an emulator pushes two at a time)"
    WRITES_ROWS_WITH_WHAT_THEY_TELL_OF = "monitoring rows are part of the commit (here they are published before it)"
    REPLACES_THE_BOOKS_IN_ONE_WRITE = "the books are replaced in one write (here an intent is noted before)"
    WORKS_OUT_THE_TIME = "the next run follows from the fields asked about, not from what is deployed"


@dataclass(frozen=True)
class Received:
    """A message in a consumer's hands."""

    message: Message
    attempts: int
    handle: Any


class Consumer(Protocol):
    """The receiving end of a bus, as the process that runs the sinks sees it."""

    def receive(self) -> Received | None:
        """The next message, or None when none came for as long as one may take to come."""

    def acknowledge(self, received: Received) -> None: ...

    def refuse(self, received: Received, wait: float) -> None: ...


class Process(Protocol):
    """One process of the hub."""

    ports: Home

    def consumer(self, topics: Sequence[str]) -> Consumer: ...

    def lapse(self) -> None:
        """Whatever, apart from the passing of time, makes others take this process for dead while it goes on."""

    def close(self) -> None: ...


class Site(Protocol):
    """The state of one home, on which several processes work."""

    address: str
    """How another process finds it."""

    def process(self, clock: Clock) -> Process: ...

    def monitoring_rows(self) -> list[dict[str, Any]]:
        """The monitoring table, in no particular order, columns by name."""

    def unplug(self) -> None:
        """Takes the store away from every process, present and future."""


class HomeUnderTest(Protocol):
    """A kind of home."""

    name: str
    traits: frozenset[Trait]
    fixtures: tuple[str, ...]
    """The fixtures that have to run before it is founded."""
    grace: timedelta
    """How long a dead holder's lease, batch or message may stay taken."""

    def found(self, folder: Path) -> Site:
        """A home without a past."""

    def find(self, address: str) -> Site:
        """One that is there already."""


MONITORED = "tcrm_monitoring_table"
DATASET = "tcrm_monitoring_dataset"


class EmbeddedConsumer:
    def __init__(self, bus: LocalBus, topics: Sequence[str]) -> None:
        self._bus = bus
        self._topics = topics

    def receive(self) -> Received | None:
        claimed = self._bus.claim(self._topics)
        return None if claimed is None else Received(claimed.message, claimed.attempts, claimed)

    def acknowledge(self, received: Received) -> None:
        self._bus.acknowledge(received.handle)

    def refuse(self, received: Received, wait: float) -> None:
        self._bus.refuse(received.handle, wait)


class EmbeddedProcess:
    """A home object with an owner's file of its own counts as a process of its own."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._home = EmbeddedHome(folder, clock)
        self.ports = self._home.ports

    def consumer(self, topics: Sequence[str]) -> Consumer:
        return EmbeddedConsumer(self._home.bus, topics)

    def lapse(self) -> None:
        self._home.owners.close()

    def close(self) -> None:
        self._home.close()

    def unplug(self) -> None:
        self._home.state.close()
        self._home.transport.close()


class EmbeddedSite:
    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder
        self._processes: list[EmbeddedProcess] = []

    def process(self, clock: Clock) -> Process:
        self._processes.append(EmbeddedProcess(self._folder, clock))
        return self._processes[-1]

    def monitoring_rows(self) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self._folder / "state.db")
        connection.row_factory = sqlite3.Row
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (MONITORED,)).fetchone():
                return []
            return [dict(row) for row in connection.execute(f"SELECT * FROM {MONITORED}")]
        finally:
            connection.close()

    def unplug(self) -> None:
        for process in self._processes:
            process.unplug()
        for file in self._folder.glob("*.db*"):
            file.write_bytes(b"no database " * 1000)
        for name in ("blobs", "snapshots"):
            (self._folder / name).rename(self._folder / f"{name}.away")
            (self._folder / name).write_text("no folder")


class Embedded:
    """SQLite and a folder."""

    name = "embedded"
    traits = frozenset(Trait)
    fixtures: tuple[str, ...] = ()
    grace = timedelta(0)

    def found(self, folder: Path) -> Site:
        return EmbeddedSite(folder)

    def find(self, address: str) -> Site:
        return EmbeddedSite(Path(address))


class Google:
    """Emulators of Firestore and Pub/Sub, and servers for Cloud Storage and Cloud Scheduler. What it is made of takes
    half a second to import, so whoever runs on another home does without."""

    name = "google"
    traits: frozenset[Trait] = frozenset()
    fixtures: tuple[str, ...] = ("emulators",)
    grace = timedelta(seconds=60)

    def found(self, folder: Path) -> Site:
        from tests.contract.google import found

        return found()

    def find(self, address: str) -> Site:
        from tests.contract.google import find

        return find(address)


HOMES: tuple[HomeUnderTest, ...] = (Embedded(), Google())
