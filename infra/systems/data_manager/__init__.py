"""Google's Data Manager API: conversion events, and the members of audiences, for Ads, Floodlight and others.

Facts: protos google/ads/datamanager/v1 and the guides "Limits and quotas", "Understand API errors", "Diagnostics".
"""

from __future__ import annotations

from typing import Final

from infra.systems import Connection, one_of
from infra.systems.data_manager.ingest import Audience, Events

__all__ = ["Audience", "Events", "open_sink"]

_SINKS: Final[dict[str, type[Audience] | type[Events]]] = {"audience": Audience, "events": Events}


def open_sink(connection: Connection, write: str) -> Audience | Events:
    """Raises ConfigError for anything else, and for settings that are missing, unknown or malformed."""
    return one_of(_SINKS, write, "Data Manager")(connection)
