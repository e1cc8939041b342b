"""Forgetting a person, in whichever home the process works on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from infra.quantities import format_duration
from infra.snapshots.forgetting import Wanted, erase_in_snapshots, look_into_snapshots, undisturbed
from infra.systems.store.source import SYSTEM as STORE
from infra.wiring import Hub, monitoring_table
from shared.books import Failure, Run
from shared.errors import ConfigError
from shared.forget import Telling
from shared.forget_customer import UPLOADS, Keeping, Person, is_at
from shared.kinds import is_of
from shared.rules import Rules


def find_traces(hub: Hub, key: str) -> dict[str, int]:
    """How often a key stands where, and how many records tell of it. Raises ConfigError."""
    tellings, keepings = list(_tellings(hub)), list(_keepings(hub))

    def also(person: Person) -> dict[str, int]:
        return look_into_snapshots(hub, _wanted(hub, person)).counts

    if hub.on_google_cloud:
        from infra.gcp.erase import find_traces as on_google_cloud

        return on_google_cloud(hub.google, _streams(hub), key, tellings, keepings, also)
    from infra.local.erase import find_traces as embedded

    return embedded(hub.embedded, key, tellings, keepings, also)


def forget(hub: Hub, key: str) -> dict[str, Any]:
    """Erases a key and what tells of it, and gives the receipt, whose notes say what stays. Raises Leased while such a
    record is on its way, or while a snapshot is exported or imported, and ConfigError."""
    tellings, keepings = list(_tellings(hub)), list(_keepings(hub))
    notes: list[str] = []

    def first(person: Person) -> dict[str, int]:
        found = erase_in_snapshots(hub, _wanted(hub, person))
        notes.extend(found.notes)
        return found.counts

    with undisturbed(hub):
        if hub.on_google_cloud:
            from infra.gcp.erase import forget as on_google_cloud

            receipt = on_google_cloud(hub.google, _streams(hub), key, tellings, keepings, first)
            notes.extend(_of_monitoring(hub))
        else:
            from infra.local.erase import forget as embedded

            receipt = embedded(hub.embedded, key, tellings, keepings, first)
    return receipt | {"notes": notes}


def _wanted(hub: Hub, person: Person) -> Wanted:
    """Who is meant, as snapshots have it: by their keys, by the makeshift key of the time before there was one, and by
    what tells of them."""
    key = person.key

    @cache
    def makeshift(integration: str, stream: str) -> str:
        cell = hub.home.ledger.cells(integration, stream, [key]).get(key)
        return f":{cell.origin}" if cell is not None and cell.origin else ""

    def keys(integration: str, stream: str) -> set[str]:
        return person.keys_in((integration, stream))

    def tells(integration: str, stream: str, failure: Failure) -> bool:
        where = integration, stream
        if where in person.told:
            return person.told[where](failure)
        if where in person.theirs:
            return person.theirs[where].is_record(failure)
        ending = makeshift(integration, stream)
        return bool(ending) and failure.key.endswith(ending)

    def owns(kind: str, id: str, fields: Any) -> bool:
        return is_of(kind, id, key) or key in fields.values()

    def at(integration: str, stream: str, run: Run) -> bool:
        where = integration, stream
        return where in person.theirs and is_at(run, person.theirs[where])

    return Wanted(keys, tells, owns, at)


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


def _keepings(hub: Hub) -> Iterator[Keeping]:
    """The streams that read or write the hub's own store, enabled or not."""
    for name, integration in hub.integrations.items():
        for each in integration.streams.values():
            try:
                rules = hub.rules(name, each)
            except ConfigError:
                continue
            source = rules.source or integration.source.system
            reads, writes = source == STORE, (rules.target or integration.sink.system) == STORE
            if reads or writes:
                match = str(rules.settings.get("match") or "")
                yield Keeping(
                    name,
                    each.name,
                    source=source,
                    kind=rules.write if writes else rules.read,
                    reads=reads,
                    writes=writes,
                    by_id=bool(rules.launched) and not match,
                    match=match,
                    identify=rules.identify if source == UPLOADS else None,
                    delimiter=str(rules.settings.get("delimiter") or ""),
                )
