"""How data syncs and their launches stand, as documents with the keys of the API, in its order; what is not known, or
is not the case, is left out."""

from __future__ import annotations

from typing import Any, Final

from infra.data_sync.formats import stamp
from infra.data_sync.syncs import Sync
from shared.launches import Launch
from shared.launching import look
from shared.ports import Home

LATEST: Final = 20
"""Launches that are listed."""


def is_enabled(home: Home, sync: Sync) -> bool:
    return sync.config.enabled and not home.schedule.paused(sync.integration)


def status_of(home: Home, sync: Sync) -> dict[str, Any]:
    enabled = is_enabled(home, sync)
    document: dict[str, Any] = {"name": sync.title, "status": "enabled" if enabled else "disabled"}
    for launch in home.launches.recent(sync.integration, sync.id, 1):
        document["latest-launch"] = launch_document(home, launch)
    if enabled and (next_run := home.schedule.next_run(sync.integration, sync.id, sync.config.schedule)) is not None:
        document["next-launch"] = stamp(next_run)
    return document


def latest_launches(home: Home, sync: Sync) -> list[dict[str, Any]]:
    """Newest first."""
    return [launch_document(home, launch) for launch in home.launches.recent(sync.integration, sync.id, LATEST)]


def launch_document(home: Home, launch: Launch) -> dict[str, Any]:
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
    return document
