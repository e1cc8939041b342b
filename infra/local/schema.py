"""The tables of the embedded home. `state.db` holds what promises depend on, `bus.db` only the transport."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

STATE = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, integration TEXT NOT NULL, stream TEXT NOT NULL, state TEXT NOT NULL DEFAULT '{}',
    UNIQUE (integration, stream));
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, token INTEGER NOT NULL, owner TEXT NOT NULL, holder TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, integration TEXT NOT NULL, stream TEXT NOT NULL,
    open INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_of ON runs (integration, stream);
CREATE INDEX IF NOT EXISTS runs_open ON runs (integration, stream) WHERE open;
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL, integration TEXT NOT NULL,
    stream TEXT NOT NULL, kind TEXT NOT NULL, lane INTEGER, state TEXT NOT NULL, published_at INTEGER,
    attempt TEXT NOT NULL, owner TEXT NOT NULL, attempts INTEGER NOT NULL, committed_at INTEGER NOT NULL,
    touched_at INTEGER, blob TEXT NOT NULL, at INTEGER NOT NULL, length INTEGER NOT NULL, rules TEXT NOT NULL,
    amended TEXT NOT NULL, outcomes TEXT NOT NULL, idents BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batches_of_run ON batches (run);
CREATE INDEX IF NOT EXISTS batches_unsettled ON batches (integration, stream) WHERE state <> 'settled';
CREATE TABLE IF NOT EXISTS cells (
    stream INTEGER NOT NULL, key TEXT NOT NULL, version TEXT NOT NULL, hash TEXT NOT NULL, target_id TEXT NOT NULL,
    origin TEXT NOT NULL, deleted INTEGER NOT NULL, failed TEXT NOT NULL, run TEXT NOT NULL, at INTEGER,
    shown TEXT NOT NULL DEFAULT '', gave_way TEXT NOT NULL DEFAULT '', shown_version TEXT NOT NULL DEFAULT '',
    UNIQUE (stream, key));
CREATE TABLE IF NOT EXISTS failures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, integration TEXT NOT NULL, stream TEXT NOT NULL,
    key TEXT NOT NULL, version TEXT NOT NULL, outcome TEXT NOT NULL, number INTEGER NOT NULL, http_status INTEGER,
    first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, closed_at INTEGER, doc TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS failures_open ON failures (integration, stream, key) WHERE closed_at IS NULL;
CREATE TABLE IF NOT EXISTS awaited (
    id TEXT NOT NULL, integration TEXT NOT NULL, stream TEXT NOT NULL, batch TEXT NOT NULL, records INTEGER NOT NULL,
    sent_at INTEGER NOT NULL, look_at INTEGER NOT NULL, looks INTEGER NOT NULL, state TEXT NOT NULL,
    refused TEXT NOT NULL, repeats INTEGER NOT NULL, warnings TEXT NOT NULL, ended_at INTEGER,
    UNIQUE (integration, stream, id));
CREATE INDEX IF NOT EXISTS awaited_due ON awaited (integration, stream, look_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS awaited_ended ON awaited (integration, ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS launches (
    integration TEXT NOT NULL, stream TEXT NOT NULL, id INTEGER NOT NULL, waiting INTEGER NOT NULL, doc TEXT NOT NULL,
    UNIQUE (integration, stream, id));
CREATE INDEX IF NOT EXISTS launches_waiting ON launches (integration, stream, id) WHERE waiting;
CREATE TABLE IF NOT EXISTS tokens (
    seq INTEGER PRIMARY KEY, integration TEXT NOT NULL, stream TEXT NOT NULL, id TEXT NOT NULL, salt BLOB NOT NULL,
    digest BLOB NOT NULL, made_at INTEGER NOT NULL, revoked_at INTEGER, UNIQUE (integration, stream, id));
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, id TEXT NOT NULL, changed_at INTEGER NOT NULL, fields TEXT NOT NULL, UNIQUE (kind, id));
CREATE INDEX IF NOT EXISTS objects_changed ON objects (kind, changed_at, id);
CREATE TABLE IF NOT EXISTS object_fields (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS replacement (
    one INTEGER PRIMARY KEY CHECK (one = 1), intent BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS schedules (
    integration TEXT PRIMARY KEY, paused INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alerts (
    name TEXT PRIMARY KEY, raised INTEGER NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS monitored (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, integration TEXT NOT NULL, stream TEXT NOT NULL,
    key TEXT NOT NULL, at TEXT NOT NULL, digest TEXT NOT NULL);
"""

ADDED = tuple(("cells", name, "TEXT NOT NULL DEFAULT ''") for name in ("shown", "gave_way", "shown_version"))
"""Columns that a file of an earlier version lacks: table, name, declaration."""

_OWN: Final = frozenset(re.findall(r"CREATE (?:TABLE|INDEX) IF NOT EXISTS (\w+)", STATE))

INDEX: Final = "objects_by_"
"""How the names of the indexes begin by which objects are found by a field."""

BUS = """
CREATE TABLE IF NOT EXISTS lanes (
    topic TEXT NOT NULL, lane TEXT NOT NULL, owner TEXT NOT NULL DEFAULT '', deliver_at REAL NOT NULL DEFAULT 0,
    refused_at REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, lane)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, lane TEXT NOT NULL, batch TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, unanswered INTEGER NOT NULL DEFAULT 0,
    published_at REAL NOT NULL, attributes TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS messages_of_lane ON messages (topic, lane, id);
CREATE INDEX IF NOT EXISTS messages_of_batch ON messages (batch) WHERE batch IS NOT NULL;
"""


def is_taken(name: str) -> bool:
    """Whether a table of this name would be one of `state.db`'s own, or one of SQLite's."""
    return name.lower() in _OWN or name.lower().startswith(("sqlite_", INDEX))


def micros(instant: datetime | None) -> int | None:
    """Microseconds since 1970, as instants are stored."""
    return None if instant is None else round(instant.timestamp() * 1_000_000)


def instant(stored: int | None) -> datetime | None:
    return None if stored is None else datetime.fromtimestamp(stored / 1_000_000, UTC)
