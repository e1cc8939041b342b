"""Clean-up by age. It removes nothing that an audit, a replay or a later run could need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from shared.confirm import LAST_LOOK
from shared.ports import Home

LATEST: Final = timedelta(seconds=2 * LAST_LOOK)
"""No look at a request is further away."""


class Cleaned(msgspec.Struct):
    """How much was removed."""

    archives: int = 0
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
    failures that are closed; what targets said of requests that have ended (by the failures' age); and, where the
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
    cleaned.closed_failures = home.failures.remove_closed(integration, now - failure_age)
    cleaned.confirmations = home.confirmations.remove_ended(integration, now - failure_age)
    if monitoring is not None:
        before = now - monitoring.age
        cleaned.monitoring = home.monitoring.remove(integration, monitoring.dataset, monitoring.table, before)
    return cleaned


def _unconfirmed(home: Home, integration: str, stream: str) -> Iterator[str]:
    """The archives of requests that may fail yet: their records would become failures."""
    for awaited in home.confirmations.due(integration, stream, home.clock.now() + LATEST):
        batch = home.batches.get(awaited.batch)
        if batch is not None:
            yield batch.blob
