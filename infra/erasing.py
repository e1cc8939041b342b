"""Forgetting a person, in whichever home the process works on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from infra.quantities import format_duration
from infra.snapshots.forgetting import Wanted, erase_in_snapshots, look_into_snapshots, undisturbed
from infra.wiring import Hub, monitoring_table
from shared.forget import Telling, who_is_meant
from shared.ports import Failure
from shared.rules import Rules


def find_traces(hub: Hub, key: str) -> dict[str, int]:
    """How often a key stands where, and how many records tell of it. Raises ConfigError."""
    tellings = list(_tellings(hub))
    snapshots = look_into_snapshots(hub, _wanted(hub, key, tellings)).counts
    if hub.on_google_cloud:
        from infra.gcp.erase import find_traces as on_google_cloud

        return on_google_cloud(hub.google, _streams(hub), key, tellings) | snapshots
    from infra.local.erase import find_traces as embedded

    return embedded(hub.embedded, key, tellings) | snapshots


def forget(hub: Hub, key: str) -> dict[str, Any]:
    """Erases a key and what tells of it, and gives the receipt, whose notes say what stays. Raises Leased while such a
    record is on its way, or while a snapshot is exported or imported, and ConfigError."""
    tellings, notes = list(_tellings(hub)), []

    def first() -> dict[str, int]:
        found = erase_in_snapshots(hub, _wanted(hub, key, tellings))
        notes.extend(found.notes)
        return found.counts

    with undisturbed(hub):
        if hub.on_google_cloud:
            from infra.gcp.erase import forget as on_google_cloud

            receipt = on_google_cloud(hub.google, _streams(hub), key, tellings, first)
            notes.extend(_of_monitoring(hub))
        else:
            from infra.local.erase import forget as embedded

            receipt = embedded(hub.embedded, key, tellings, first)
    return receipt | {"notes": notes}


def _wanted(hub: Hub, key: str, tellings: list[Telling]) -> Wanted:
    """Who is meant, as snapshots have it: by the key, by the makeshift key of the time before there was one, and by
    what tells of them."""
    told = who_is_meant(hub.home, tellings, key)

    @cache
    def makeshift(integration: str, stream: str) -> str:
        cell = hub.home.ledger.cells(integration, stream, [key]).get(key)
        return f":{cell.origin}" if cell is not None and cell.origin else ""

    def keys(integration: str, stream: str) -> set[str]:
        return {key}

    def tells(integration: str, stream: str, failure: Failure) -> bool:
        meant = told.get((integration, stream))
        if meant is not None:
            return meant(failure)
        ending = makeshift(integration, stream)
        return bool(ending) and failure.key.endswith(ending)

    def owns(kind: str, id: str, fields: Any) -> bool:
        return key == id or key in fields.values()

    return Wanted(keys, tells, owns)


def _of_monitoring(hub: Hub) -> Iterator[str]:
    """What a table without keys keeps of a person."""
    tables: dict[str, float] = {}
    for integration in hub.integrations.values():
        table = monitoring_table(integration)
        if table:
            name = f"{integration.monitoring.dataset}.{table}"
            tables[name] = max(tables.get(name, 0.0), integration.retention.monitoring)
    for name, age in tables.items():
        yield (
            f"BigQuery's table {name} has no keys: error rows that hold this person's data stay in it until they are "
            f"{format_duration(age)} old and a clean-up removes them"
        )


def _streams(hub: Hub) -> list[tuple[str, str]]:
    return [(name, stream) for name, integration in hub.integrations.items() for stream in integration.streams]


def _tellings(hub: Hub) -> Iterator[Telling]:
    """The streams whose records tell of another one's objects, enabled or not: they may hold something from the time
    when they were."""
    for name, stream in _streams(hub):
        rules = hub.mapped(name, stream)
        if isinstance(rules, Rules):
            system = hub.integrations[name].source.system.rpartition(".")[2]
            for other, key_in in rules.mentioned_in.items():
                yield Telling(name, other, stream, system, key_in)
