"""Google Analytics 4: events collected by its Measurement Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.systems import Connection, one_of

if TYPE_CHECKING:
    from infra.systems.ga4.events import Events


def open_sink(connection: Connection, write: str) -> Events:
    """Raises ConfigError for anything but `events`, and for a stream that is not named or has no secret."""
    # A mapping checks its events by `limits`, and needs no client for that.
    from infra.systems.ga4.events import Events

    return one_of({"events": Events}, write, "GA4")(connection)
