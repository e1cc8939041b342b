"""Ploomes: contacts, tasks and interaction records are read (`source.py`), contacts are written (`contacts.py`)."""

from __future__ import annotations

from infra.systems import Connection, one_of
from infra.systems.ploomes.contacts import Contacts
from infra.systems.ploomes.source import EXPANDED, LARGEST_PAGE, Ploomes
from shared.errors import ConfigError

__all__ = ["Contacts", "Ploomes", "open_sink", "open_source"]


def open_source(connection: Connection, read: str) -> Ploomes:
    """Raises ConfigError for a set that is not read here, a page larger than Ploomes allows, or a missing key."""
    one_of(EXPANDED, read, "Ploomes")
    if not 1 <= connection.page_size <= LARGEST_PAGE:
        raise ConfigError(
            f"a page of {connection.page_size} rows: Ploomes gives 1 to {LARGEST_PAGE}",
            cure=f"set source.page_size to {LARGEST_PAGE} or less",
        )
    return Ploomes(connection, read)


def open_sink(connection: Connection, write: str) -> Contacts:
    """Raises ConfigError for anything but contacts, or for a missing key."""
    return one_of({"contacts": Contacts}, write, "Ploomes")(connection)
