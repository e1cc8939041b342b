"""How data syncs and their launches stand, as documents with the keys of the API, in its order; what is not known, or
is not the case, is left out."""

from __future__ import annotations

from typing import Any, Final

from infra.data_sync.formats import stamp
from infra.data_sync.syncs import Sync
from shared.launches import Launch
from shared.launching import look
from shared.ports import Home

LATEST: Final = 100
"""Launches that are listed."""
REMEMBERED: Final = 2000


def is_enabled(home: Home, sync: Sync) -> bool:
    return sync.config.enabled and not home.schedule.paused(sync.integration)


class Statuses:
    """How data syncs stand. A launch that is over stays as it is, so that its run is looked at once."""

    def __init__(self) -> None:
        self._over: dict[tuple[str, str, int], dict[str, Any]] = {}

    def of(self, home: Home, sync: Sync) -> dict[str, Any]:
        enabled = is_enabled(home, sync)
        document: dict[str, Any] = {"name": sync.title, "status": "enabled" if enabled else "disabled"}
        for launch in home.launches.recent(sync.integration, sync.id, 1):
            document["latest-launch"] = self.launch(home, launch)
        schedule = sync.config.schedule
        if enabled and (next_run := home.schedule.next_run(sync.integration, sync.id, schedule)) is not None:
            document["next-launch"] = stamp(next_run)
        return document

    def latest(self, home: Home, sync: Sync) -> list[dict[str, Any]]:
        """Newest first."""
        return [self.launch(home, launch) for launch in home.launches.recent(sync.integration, sync.id, LATEST)]

    def launch(self, home: Home, launch: Launch) -> dict[str, Any]:
        name = launch.integration, launch.stream, launch.id
        if name in self._over:
            return self._over[name]
        seen = look(home, launch)
        document: dict[str, Any] = {
            "id": launch.id,
            "status": seen.status,
            "scheduled-time": stamp(launch.scheduled_at),
        }
        if seen.started_at is not None:
            document["started-at"] = stamp(seen.started_at)
        if seen.message:
            document["status-message"] = seen.message
        if seen.status in ("finished", "cancelled"):
            if len(self._over) >= REMEMBERED:
                self._over.clear()
            self._over[name] = document
        return document
