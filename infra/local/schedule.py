"""The schedule on one machine: cron expressions, and which integrations are paused."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from infra.local.database import Database
from shared.ports import Clock


class LocalSchedule:
    """Cron times are in UTC unless a zone is given."""

    def __init__(self, database: Database, clock: Clock, zone: str = "UTC") -> None:
        self._database = database
        self._clock = clock
        self._zone = zone

    def next_run(self, integration: str, stream: str, cron: str | None) -> datetime | None:
        if cron is None or self.paused(integration):
            return None
        return next_after(cron, self._clock.now(), self._zone)

    def pause(self, integration: str) -> None:
        self._set(integration, paused=True)

    def resume(self, integration: str) -> None:
        self._set(integration, paused=False)

    def paused(self, integration: str) -> bool:
        with self._database.reading() as connection:
            row = connection.execute("SELECT paused FROM schedules WHERE integration = ?", (integration,)).fetchone()
        return row is not None and bool(row[0])

    def _set(self, integration: str, *, paused: bool) -> None:
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO schedules VALUES (?, ?)", (integration, paused)
            )
        )


def next_after(cron: str, instant: datetime, zone: str = "UTC") -> datetime:
    """The first time after `instant` that the five cron fields name."""
    from croniter import croniter

    local = instant.astimezone(ZoneInfo(zone))
    return croniter(cron, local).get_next(datetime)
