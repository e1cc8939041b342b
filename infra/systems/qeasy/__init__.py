"""Qeasy (轻易云), the integration platform: rows written into one of its schemes, or, as its `写入空操作`, nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infra.systems import Connection, one_of
from infra.systems.qeasy.api import MOST_ROWS
from infra.systems.qeasy.store import Store
from shared.ends import Change
from shared.outcome import Answer, CannotAsk, Probe, delivered

__all__ = ["Nothing", "Store", "open_sink"]


class Nothing:
    """A scheme that reads and writes nowhere: every row is delivered, and stands in the hub's own ledger only."""

    system = "qeasy"
    bulk = MOST_ROWS

    def __init__(self, connection: Connection) -> None:
        pass

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk() for _ in changes]

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        return [delivered() for _ in changes]

    def close(self) -> None:
        pass


_SINKS: Final[dict[str, type[Nothing] | type[Store]]] = {"nothing": Nothing, "store": Store}


def open_sink(connection: Connection, write: str) -> Nothing | Store:
    """Raises ConfigError for anything else, and for `store` without a scheme or without credentials."""
    return one_of(_SINKS, write, "Qeasy")(connection)
