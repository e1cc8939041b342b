"""Clean-up by age. It removes nothing that an audit, a replay or a later run could need."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from shared.ports import Home


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
) -> Cleaned:
    """Removes archives whose batches are all settled, failures that are closed, what targets said of requests that have
    ended (by the failures' age) and, where the integration is monitored, rows of its table, once they are old enough.

    Open failures, pending requests, ledger cells and the batches themselves stay: nothing that was delivered goes
    again.
    """
    now = home.clock.now()
    needed = {batch.blob for batch in home.batches.unsettled(integration)}
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
