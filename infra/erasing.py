"""Forgetting a person, in whichever home the process works on."""

from __future__ import annotations

from typing import Any

from infra.wiring import Hub


def find_traces(hub: Hub, key: str) -> dict[str, int]:
    """How often a key stands where."""
    if hub.on_google_cloud:
        from infra.gcp.erase import find_traces as on_google_cloud

        return on_google_cloud(hub.google, _streams(hub), key)
    from infra.local.erase import find_traces as embedded

    return embedded(hub.embedded, key)


def forget(hub: Hub, key: str) -> dict[str, Any]:
    """Erases a key and gives the receipt. Raises Leased while a record of it is on its way."""
    if hub.on_google_cloud:
        from infra.gcp.erase import forget as on_google_cloud

        return on_google_cloud(hub.google, _streams(hub), key)
    from infra.local.erase import forget as embedded

    return embedded(hub.embedded, key)


def _streams(hub: Hub) -> list[tuple[str, str]]:
    return [(name, stream) for name, integration in hub.integrations.items() for stream in integration.streams]
