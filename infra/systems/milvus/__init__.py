"""Milvus, the Brazilian help desk: its clients, read and written, and its tickets, written."""

from __future__ import annotations

from typing import Final

from infra.systems import Connection, one_of
from infra.systems.milvus.client_list import ClientList
from infra.systems.milvus.clients import Clients
from infra.systems.milvus.tickets import Tickets

__all__ = ["ClientList", "Clients", "Tickets", "open_sink", "open_source"]

_SINKS: Final[dict[str, type[Clients] | type[Tickets]]] = {"clients": Clients, "tickets": Tickets}


def open_source(connection: Connection, read: str) -> ClientList:
    """Raises ConfigError for anything but clients, for a page without rows, or for a missing token."""
    return one_of({"clients": ClientList}, read, "Milvus")(connection)


def open_sink(connection: Connection, write: str) -> Clients | Tickets:
    """Raises ConfigError for anything but clients and tickets, or for a missing token."""
    return one_of(_SINKS, write, "Milvus")(connection)
