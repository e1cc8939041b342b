"""Homes on the emulators for the tests of their adapters, and stores that fail in ways that emulators do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.gcp.home import GoogleHome
from infra.gcp.store import Store, Write
from infra.local.blobs import LocalBlobs
from shared.errors import StoreUnavailable
from shared.ports import Clock
from tests.contract.world import ManualClock
from tests.emulators import Emulators


class Hub:
    """A project of its own. Each home that it gives is a process of its own."""

    def __init__(self, emulators: Emulators, folder: Path) -> None:
        self.project = emulators.project()
        self.clock = ManualClock()
        self.blobs = LocalBlobs(folder / "blobs")
        self._homes: list[GoogleHome] = []

    def home(self, clock: Clock | None = None) -> GoogleHome:
        self._homes.append(GoogleHome(self.project, clock or self.clock, self.blobs))
        return self._homes[-1]

    def close(self) -> None:
        for home in self._homes:
            home.close()


def lose_answers(store: Store, count: int = 1) -> None:
    """The next commits come through, and their answers do not: they are tried again, as a client does by itself."""
    commit, left = store.commit, [count]

    def losing(writes: Sequence[Write]) -> list[Any]:
        if left[0]:
            left[0] -= 1
            commit(writes)
        return commit(writes)

    store.commit = losing  # type: ignore[method-assign]


def lose_contact(store: Store) -> None:
    """The next commit comes through, and nobody ever hears of it."""
    commit = store.commit

    def lost(writes: Sequence[Write]) -> list[Any]:
        store.commit = commit  # type: ignore[method-assign]
        commit(writes)
        raise StoreUnavailable("the line is dead")

    store.commit = lost  # type: ignore[method-assign]
