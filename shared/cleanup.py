"""Clean-up by age. It removes nothing that an audit, a replay or a later run could need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from shared.confirm import LAST_LOOK
from shared.launches import Launch, newest_first
from shared.launching import is_over
from shared.ports import Home

LATEST: Final = timedelta(seconds=2 * LAST_LOOK)
"""No look at a request is further away."""
UNNAMED: Final = timedelta(days=1)
"""So long a file may be there before its launch is."""


class Cleaned(msgspec.Struct):
    """How much was removed."""

    archives: int = 0
    uploads: int = 0
    exports: int = 0
    closed_failures: int = 0
    confirmations: int = 0
    monitoring: int = 0


class OldRows(msgspec.Struct, frozen=True):
    """The monitoring table of an integration, and from which age on its rows go."""

    dataset: str
    table: str
    age: timedelta


def clean_up(
    home: Home,
    integration: str,
    archive_age: timedelta,
    failure_age: timedelta,
    monitoring: OldRows | None = None,
    streams: Sequence[str] = (),
) -> Cleaned:
    """Removes archives whose batches are all settled and, of `streams`, no part of a request that may still fail;
    files that were sent for launches that are over; exports but for the newest of each stream that is whole; failures
    that are closed; what targets said of requests that have ended (by the failures' age); and, where the
    integration is monitored, rows of its table: all once they are old enough.

    Open failures, pending requests, ledger cells and the batches themselves stay: nothing that was delivered goes
    again.
    """
    now = home.clock.now()
    needed = {batch.blob for batch in home.batches.unsettled(integration)}
    needed |= {blob for stream in streams for blob in _unconfirmed(home, integration, stream)}
    cleaned = Cleaned()
    for name, written_at in list(home.blobs.names(f"archive/{integration}/")):
        if name not in needed and written_at <= now - archive_age:
            home.blobs.delete(name)
            cleaned.archives += 1
    for stream, uploads in _files(home, "uploads", integration).items():
        cleaned.uploads += _remove_uploads(home, integration, stream, uploads, now - archive_age)
    for stream, parts in _files(home, "exports", integration).items():
        cleaned.exports += _remove_exports(home, integration, stream, parts, now - archive_age)
    cleaned.closed_failures = home.failures.remove_closed(integration, now - failure_age)
    cleaned.confirmations = home.confirmations.remove_ended(integration, now - failure_age)
    if monitoring is not None:
        before = now - monitoring.age
        cleaned.monitoring = home.monitoring.remove(integration, monitoring.dataset, monitoring.table, before)
    return cleaned


def _files(home: Home, what: str, integration: str) -> dict[str, dict[str, datetime]]:
    """The files of launches, by stream: names, and when they were written."""
    found: dict[str, dict[str, datetime]] = {}
    for name, written_at in home.blobs.names(f"{what}/{integration}/"):
        found.setdefault(name.split("/")[2], {})[name] = written_at
    return found


def _remove_uploads(home: Home, integration: str, stream: str, written: dict[str, datetime], before: datetime) -> int:
    """The launch is told first: a crash leaves a file that no launch names."""
    left = {name for name, written_at in written.items() if written_at <= before}
    removed = 0
    for launch in newest_first(home.launches, integration, stream):
        if not left:
            break
        if launch.file in left:
            left.remove(launch.file)
            if is_over(home, launch):
                home.launches.note(msgspec.structs.replace(launch, file=""))
                home.blobs.delete(launch.file)
                removed += 1
    for name in left:
        if written[name] <= home.clock.now() - UNNAMED:
            home.blobs.delete(name)
            removed += 1
    return removed


def _remove_exports(home: Home, integration: str, stream: str, written: dict[str, datetime], before: datetime) -> int:
    """An export is as old as its newest part."""
    parts: dict[int, list[str]] = {}
    for name in written:
        parts.setdefault(int(name.split("/")[3]), []).append(name)
    old = {number for number, names in parts.items() if all(written[name] <= before for name in names)}
    if not old:
        return 0
    kept = next(
        (launch.id for launch in newest_first(home.launches, integration, stream) if _is_whole(home, launch)), None
    )
    removed = 0
    for number in old - {kept}:
        launch = home.launches.get(integration, stream, number)
        if launch is None or is_over(home, launch):
            for name in parts[number]:
                home.blobs.delete(name)
            removed += 1
    return removed


def _is_whole(home: Home, launch: Launch) -> bool:
    run = home.runs.get(launch.run)
    return run is not None and run.over and not run.error


def _unconfirmed(home: Home, integration: str, stream: str) -> Iterator[str]:
    """The archives of requests that may fail yet: their records would become failures."""
    for awaited in home.confirmations.due(integration, stream, home.clock.now() + LATEST):
        batch = home.batches.get(awaited.batch)
        if batch is not None:
            yield batch.blob
