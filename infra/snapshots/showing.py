"""What is said of the archives that are there."""

from __future__ import annotations

from typing import Any

from infra.report import stamp
from infra.snapshots.archive import Archive, opened
from infra.snapshots.based import archives
from infra.snapshots.folders import Folders
from infra.snapshots.sources import source_of, stored_name
from infra.wiring import Hub
from shared.errors import ConfigError


def listed(hub: Hub) -> list[dict[str, Any]]:
    """See `listing` of this package."""
    folders = Folders(hub.home.snapshots)
    found = []
    for name in archives(folders):
        about = _about(folders, name)
        try:
            with source_of(folders, name) as file, opened(file, name) as archive:
                about |= _said_of(archive)
        except ConfigError as error:
            about["error"] = str(error)
        found.append(about)
    return found


def shown(hub: Hub, name: str) -> dict[str, Any]:
    """See `show` of this package."""
    folders = Folders(hub.home.snapshots)
    stored = stored_name(name)
    if "/" not in name and not folders.has(stored):
        stored = f"outbox/{stored}"
    with source_of(folders, stored) as file, opened(file, stored) as archive:
        params = archive.params
        return {
            **_about(folders, stored),
            **_said_of(archive),
            "counts": params.counts,
            "files": [{"path": each.path, "rows": each.rows, "sha256": each.sha256} for each in params.files],
            "povs": [
                {
                    "location": pov.location,
                    "category": pov.category,
                    "period": pov.period,
                    "processId": pov.process_id,
                    "rows": pov.rows,
                }
                for pov in params.povs
            ],
            "removed": [
                {"location": location, "category": category, "period": period}
                for location, category, period in archive.removed
            ],
            "streams": [
                {"integration": mark.integration, "stream": mark.stream, "cursor": stamp(mark.cursor)}
                for mark in params.streams
            ],
        }


def _about(folders: Folders, name: str) -> dict[str, Any]:
    written_at = next((at for found, at in folders.blobs.names(name) if found == name), None)
    try:
        size = folders.blobs.size(name)
    except (FileNotFoundError, ConfigError):
        size = 0
    bare = name.rpartition("/")[2].removesuffix(".zip")
    return {"file": name, "name": bare, "size": size, "writtenAt": stamp(written_at)}


def _said_of(archive: Archive) -> dict[str, Any]:
    params = archive.params
    return {
        "type": params.type,
        "createdAt": stamp(params.created_at),
        "lastProcessId": params.last_process_id,
        "baseProcessId": params.base_process_id,
        "withData": params.with_data,
    }
