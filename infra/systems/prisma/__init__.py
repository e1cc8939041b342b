"""Prisma Campaigns: its data syncs, as the vendor's console has them, as a source (`export`) and as sinks (`import` and
`delete`). Our own data-sync API is one of these servers too.

Options of every stream: `data_sync`, the id; `token`, the variable that holds the token of this very data sync
(`PRISMA_TOKEN` if left out, whose name begins that of every other one). One without authentication needs none.
"""

from __future__ import annotations

from typing import Final

from infra.systems import Connection, one_of
from infra.systems.prisma.sink import Imports
from infra.systems.prisma.source import Export
from shared.record import Operation

__all__ = ["Export", "Imports", "open_sink", "open_source"]

_SINKS: Final[dict[str, Operation]] = {"import": "upsert", "delete": "delete"}


def open_source(connection: Connection, read: str) -> Export:
    """Raises ConfigError for anything but `export`, and for options that cannot be."""
    return one_of({"export": Export}, read, "Prisma")(connection)


def open_sink(connection: Connection, write: str) -> Imports:
    """Raises ConfigError for anything but `import` and `delete`, and for options that cannot be."""
    return Imports(connection, one_of(_SINKS, write, "Prisma"))
