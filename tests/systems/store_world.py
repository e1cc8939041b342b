"""A home, and connections to the hub's own store in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.gcp.home import GoogleHome
from infra.local.blobs import LocalBlobs
from infra.local.home import EmbeddedHome
from infra.systems import Connection
from infra.systems.store import Store, Stored, open_sink, open_source
from shared.books import Window
from shared.ends import Change, Row
from shared.objects import MOST
from shared.retry import RetryPolicy
from tests.unit.fakes import FakeClock

NOW = FakeClock().now()
AN_HOUR = Window(NOW, NOW + timedelta(hours=1))
ANA = {"id": "7", "email": "ana@example.com", "name": "Ana"}
Content = dict[str, Any]


class World:
    """The home and its clock, which stands still."""

    def __init__(self, home: EmbeddedHome | GoogleHome, clock: FakeClock) -> None:
        self.clock = clock
        self.home = home
        self.objects = home.ports.objects

    def connection(self, size: int = 3, **options: Any) -> Connection:
        return Connection(
            "", {}, None, size, RetryPolicy(), self.clock, None, lambda: False, options, lambda: self.home.ports
        )

    def source(self, kind: str = "customers", size: int = 3, **options: Any) -> Stored:
        return open_source(self.connection(size, **options), kind)

    def sink(self, kind: str = "customers", **options: Any) -> Store:
        return open_sink(self.connection(**options), kind)

    def put(self, key: str, seconds: float = 0, kind: str = "customers", /, **fields: Any) -> None:
        """Another writer's object, that many seconds after now."""
        self.objects.put(kind, {key: fields}, NOW + timedelta(seconds=seconds))

    def held(self, kind: str = "customers") -> dict[str, Content]:
        return {each.id: each.fields for each in self.objects.page(kind, "", MOST)}


HOMES = ("embedded", "google")


@contextmanager
def opened(request: pytest.FixtureRequest, folder: Path) -> Iterator[World]:
    """A home of the kind that the fixture's parameter names; Google's where the emulators are."""
    clock = FakeClock(NOW)
    home: EmbeddedHome | GoogleHome
    if request.param == "google":
        project = request.getfixturevalue("emulators").project()
        home = GoogleHome(project, clock, LocalBlobs(folder / "blobs"))
    else:
        home = EmbeddedHome(folder, clock)
    try:
        yield World(home, clock)
    finally:
        home.close()


def upsert(content: Mapping[str, Any], key: str = "k") -> Change:
    return Change(key, "upsert", dict(content))


def delete(content: Mapping[str, Any], key: str = "k", target_id: str = "") -> Change:
    return Change(key, "delete", dict(content), target_id)


def rows_of(source: Stored, window: Window = AN_HOUR, after: str = "") -> list[Row]:
    return [row for page in source.pages(window, after) for row in page.rows]


def origins(source: Stored, window: Window = AN_HOUR) -> list[str]:
    return [row.origin for row in rows_of(source, window)]
