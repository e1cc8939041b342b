"""Installations to take snapshots of: a home with its functions folder, as `fakes.World` runs streams on it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from infra import snapshots
from infra.clock import SystemClock
from infra.wiring import Hub
from shared.books import Failure, Run
from shared.confirm import Awaited
from shared.launches import Launch
from shared.ports import Home
from shared.snapshot.rows import without_data
from tests.unit.fakes import Crash, FakeClock, Fuse, Guarded, Shelf, Target, World, make_stream

GUARDED = ("leases", "snapshots", "history", "schedule", "blobs")

MAPPING = """
from tests.unit.fakes import RULES

STREAMS = {"things": RULES, "others": RULES, "more": RULES}
"""
THINGS: dict[str, Any] = {
    "schedule": "0 * * * *", "since": "2026-03-01T12:00:00+00:00", "overlap": "0s", "hold_back": "0s",
}  # fmt: skip


@dataclass
class Installation:
    """One hub in a folder, and the worlds of its streams, which share the clock."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    streams: dict[str, dict[str, Any]] = field(default_factory=lambda: {"things": dict(THINGS)})
    environ: dict[str, str] = field(default_factory=dict)
    mapping: str = MAPPING
    _hubs: list[Hub] = field(default_factory=list)
    _worlds: list[World] = field(default_factory=list)

    def configure(self) -> None:
        folder = self.folder / "functions" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mapping.py").write_text(self.mapping)
        document = {
            "name": "shop",
            "source": {"system": "ploomes", "rate_limit": "80/min"},
            "sink": {"system": "milvus", "rate_limit": "60/min", "batch_size": 4, "lanes": 3},
            "streams": self.streams,
        }
        (folder / "integration.yaml").write_text(yaml.safe_dump(document))

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def snapshots(self) -> Path:
        return self.home / "snapshots"

    def hub(self) -> Hub:
        """Another process."""
        self.configure()
        environ = {"WAYBILL_HOME": str(self.home), **self.environ}
        self._hubs.append(Hub(environ, self.folder / "functions", cast(SystemClock, self.clock)))
        return self._hubs[-1]

    def world(self, stream: str = "things", shelf: Shelf | None = None, target: Target | None = None) -> World:
        """The world of one of its streams."""
        made = World(self.home, make_stream(name=stream), shelf or Shelf(), target or Target(), self.clock)
        self._worlds.append(made)
        return made

    def export(self, name: str, type: Any = "ALL", **more: Any) -> dict[str, Any]:
        return snapshots.export(self.hub(), name, type, **more)

    def restore(self, source: str | Path) -> dict[str, Any]:
        return snapshots.restore(self.hub(), source)

    def archive(self, name: str) -> Path:
        return self.snapshots / "outbox" / f"{name}.zip"

    def folder_files(self) -> dict[str, bytes]:
        """What the data folder holds, by the names in an archive."""
        root = self.snapshots / "data" / "snapshots"
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != "overlay.yaml"
        }

    def close(self) -> None:
        for hub in self._hubs:
            hub.close()
        for world in self._worlds:
            world.close()


def unpacked(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in sorted(opened.namelist())}


def params_of(archive: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(unpacked(archive)["data/SnapshotParams.json"])
    return found


def books_of(home: Home, *, with_data: bool = False) -> dict[str, Any]:
    """All that the books of a home hold, by what it is."""
    found: dict[str, Any] = {}
    with home.history.look() as past:
        for name in past.streams():
            runs = list(past.told(Run, *name))
            ids = [head.id for head in past.heads(*name)]
            batches = [msgspec.structs.replace(batch, attempt="", attempts=0) for batch in past.batches(ids)]
            # Of those of one time, nobody promises an order.
            failures = sorted(past.told(Failure, *name), key=lambda failure: (failure.first_at, failure.id))
            found["/".join(name)] = {
                "state": past.state(*name),
                "runs": runs,
                "batches": batches,
                "cells": sorted(home.ledger.scan(*name), key=lambda cell: cell.key),
                "failures": failures if with_data else [without_data(failure) for failure in failures],
                "requests": sorted(past.told(Awaited, *name), key=lambda each: each.id),
                "launches": list(past.told(Launch, *name)),
            }
    return found


class FragileHub(Hub):
    """A process that works on snapshots, and ends at any call that leaves it."""

    def __init__(self, installation: Installation, fuse: Fuse) -> None:
        installation.configure()
        environ = {"WAYBILL_HOME": str(installation.home), **installation.environ}
        super().__init__(environ, installation.folder / "functions", cast(SystemClock, installation.clock))
        self.fuse = fuse

    @property
    def home(self) -> Home:
        ports = self.embedded.ports
        guarded = {name: Guarded(name, getattr(ports, name), self.fuse) for name in GUARDED}
        return msgspec.structs.replace(ports, **guarded)

    def die(self) -> None:
        """The operating system takes back what a dead process held. Its files stay as they are."""
        self.fuse.blown = True
        self.embedded.state.close()
        self.embedded.transport.close()
        mine = self.embedded.owners._mine
        if mine is not None:
            os.close(mine[2])
            self.embedded.owners._mine = None


def until_the_crash(hub: FragileHub, work: Callable[[Hub], object]) -> bool:
    """Whether it came to the crash. The process is dead afterwards in either case."""
    try:
        work(hub)
    except Crash:
        return True
    finally:
        hub.die()
    return False
