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


def clean_up(home: Home, integration: str, archive_age: timedelta, failure_age: timedelta) -> Cleaned:
    """Removes archives whose batches are all settled, failures that are closed and what targets said of requests that
    have ended, once they are old enough; the latter two by the same age.

    Open failures, pending requests, ledger cells and the batches themselves stay.
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
    return cleaned
