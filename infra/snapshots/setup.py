"""The set-up as tables: everything that is configured, in full, in an order that does not change by itself.

What differs between installations for good reason never enters: secrets are in the environment, and the address of a
webhook is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from infra import config, yamlfile
from infra.mistakes import Mistake
from infra.quantities import format_duration
from infra.wiring import Hub
from shared.errors import ConfigError
from shared.rules import Rules
from shared.snapshot.periods import Periods

_encode = msgspec.json.Encoder(order="sorted").encode
_FLAGS: Final = (
    "polled",
    "appends",
    "deletes",
    "two_way",
    "verifies",
    "awaits",
    "place",
    "launched",
    "source",
    "target",
)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "integrations": ("integration", "source", "sink", "document"),
    "streams": ("integration", "stream", "enabled", "schedule", "own_keys", "document"),
    "rules": ("integration", "stream", "read", "write", "filters", "once", *_FLAGS, "problem"),
    "mappings": ("integration", "file", "sha256"),
    "syncs": ("data_sync", "integration", "title", "type", "kind", "authentication"),
    "schedules": ("integration", "stream", "schedule", "catch_up", "catch_up_window", "paused"),
    "alert_rules": ("integration", "consecutive_failures", "webhook"),
    "periods": ("period", "from", "until"),
}


class Table(NamedTuple):
    """One file of the set-up, in memory: there are not many streams."""

    name: str
    columns: tuple[str, ...]
    rows: list[Sequence[object]]


def tables(hub: Hub, periods: Periods) -> list[Table]:
    """Raises ConfigError where the configuration cannot be read, and StoreUnavailable."""
    documents = raw_documents(hub)
    streams = [(name, each) for name, integration in hub.integrations.items() for each in integration.streams.values()]
    rows: dict[str, Iterable[Sequence[object]]] = {
        "integrations": _integrations(hub, documents),
        "streams": (_stream(name, each, documents[name]) for name, each in streams),
        "rules": (_rules(hub, name, each) for name, each in streams),
        "mappings": modules(hub),
        "syncs": _syncs(hub, streams),
        "schedules": _schedules(hub, streams),
        "alert_rules": (
            (name, each.alerts.consecutive_failures, each.alerts.webhook is not None)
            for name, each in hub.integrations.items()
        ),
        "periods": ((span.name, span.since.isoformat(), span.until.isoformat()) for span in periods.spans),
    }
    return [Table(name, columns, [tuple(map(_cell, row)) for row in rows[name]]) for name, columns in COLUMNS.items()]


def raw_documents(hub: Hub) -> dict[str, dict[str, Any]]:
    """What is written of each integration, with the overlay over it and without its webhook."""
    mistakes: list[Mistake] = []
    over = None if hub.overlay is None else yamlfile.read(hub.overlay, mistakes)
    documents = {}
    for name, integration in hub.integrations.items():
        base = yamlfile.read(integration.file, mistakes)
        data = {} if base is None else base.data
        if over is not None:
            data = config.merge_overlay(data, over.at((name,)))
        documents[name] = _without_webhook(data)
    return documents


def base_documents(hub: Hub) -> dict[str, dict[str, Any]]:
    """The same without the overlay."""
    mistakes: list[Mistake] = []
    found = {name: yamlfile.read(each.file, mistakes) for name, each in hub.integrations.items()}
    return {name: _without_webhook(each.data) for name, each in found.items() if each is not None}


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: what was written as a date is a text."""
    found: dict[str, Any] = msgspec.json.decode(_encode(document))
    return found


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _without_webhook(data: Mapping[str, Any]) -> dict[str, Any]:
    alerts = data.get("alerts")
    if not isinstance(alerts, dict) or "webhook" not in alerts:
        return dict(data)
    return {**data, "alerts": {key: value for key, value in alerts.items() if key != "webhook"}}


def _integrations(hub: Hub, documents: Mapping[str, dict[str, Any]]) -> Iterator[Sequence[object]]:
    for name, integration in hub.integrations.items():
        about = {key: value for key, value in documents[name].items() if key != "streams"}
        yield name, integration.source.system, integration.sink.system, _encode(about).decode()


def _stream(name: str, stream: config.StreamConfig, document: Mapping[str, Any]) -> Sequence[object]:
    written = document["streams"][stream.name]
    own = {key: value for key, value in written.items() if key in stream.options}
    return (
        *(name, stream.name, stream.enabled, stream.schedule or ""),
        *(_encode(own).decode(), _encode(written).decode()),
    )


def _rules(hub: Hub, name: str, stream: config.StreamConfig) -> Sequence[object]:
    """What can be said of functions: their names. Where a key is missing, what the problem is."""
    try:
        rules = hub.rules(name, stream)
    except ConfigError as error:
        return name, stream.name, *[""] * (4 + len(_FLAGS)), str(error)
    return (
        *(name, stream.name, rules.read, rules.write, _filters(rules), rules.once or ""),
        *(getattr(rules, flag) for flag in _FLAGS),
        "",
    )


def _filters(rules: Rules) -> str:
    return " ".join([*(rule for rule, _ in rules.filters), *(["(by age)"] if rules.dated_filters else [])])


def modules(hub: Hub) -> Iterator[tuple[str, str, str]]:
    """Of each integration the files that its mapping is written or declared in, with their sums."""
    for name, integration in hub.integrations.items():
        folder = Path(integration.folder)
        # Metadata that streams name may lie in folders below.
        for file in sorted([*folder.glob("*.py"), *folder.rglob("*.json")]):
            if file.name not in ("__init__.py", "main.py"):
                yield name, file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()


def _syncs(hub: Hub, streams: Sequence[tuple[str, config.StreamConfig]]) -> Iterator[Sequence[object]]:
    for name, stream in streams:
        try:
            launched = bool(hub.rules(name, stream).launched)
        except ConfigError:
            launched = False
        if launched:
            said = {key: str(stream.options.get(key, "")) for key in ("title", "type", "kind")}
            yield stream.name, name, *said.values(), bool(stream.options.get("authentication", True))


def _schedules(hub: Hub, streams: Sequence[tuple[str, config.StreamConfig]]) -> Iterator[Sequence[object]]:
    paused = {name: hub.home.schedule.paused(name) for name in hub.integrations}
    for name, stream in streams:
        again = stream.catch_up
        catch_up = (again.schedule, format_duration(again.window)) if again is not None else ("", "")
        yield name, stream.name, stream.schedule or "", *catch_up, paused[name]
