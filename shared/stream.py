"""One stream of an integration, as the two stories need it: its rules and its limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shared.ledger import NEWEST_WINS
from shared.retry import RetryPolicy
from shared.rules import Rules

MESSAGE_BYTES: Final = 900_000
"""A batch stays below 1 MB, base64 and envelope of the push included in no message's limit of 10 MB."""


class Stream(msgspec.Struct, frozen=True):
    """What moves, and how: durations in seconds."""

    integration: str
    name: str
    rules: Rules
    source_system: str
    lanes: int = 4
    batch_size: int = 100
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    overlap: timedelta = timedelta(minutes=10)
    hold_back: timedelta = timedelta(minutes=1)
    on_conflict: str = NEWEST_WINS
    retry: RetryPolicy = RetryPolicy()
    max_attempts: int = 10
    redeliver_after: float = 10.0
    monitored: str = ""
    """The table that takes the monitoring rows (`shared/monitoring.py`); empty where monitoring is off."""
    others: tuple[str, ...] = ()
    """The streams of this integration with the same `Rules.place`."""
    opposite: Stream | None = None
    """The stream that brings the target's own changes back, where there is one."""
