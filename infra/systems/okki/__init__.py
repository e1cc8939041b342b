"""OKKI (Xiaoman), the Chinese CRM: its users with their departments, and its companies, read."""

from __future__ import annotations

from typing import Final

from infra.systems import Connection, one_of
from infra.systems.okki.companies import Companies
from infra.systems.okki.users import Users

__all__ = ["Companies", "Users", "open_source"]

_SOURCES: Final[dict[str, type[Companies] | type[Users]]] = {"companies": Companies, "users": Users}


def open_source(connection: Connection, read: str) -> Companies | Users:
    """Raises ConfigError for anything else, for a page that OKKI does not give, or for missing credentials."""
    return one_of(_SOURCES, read, "OKKI")(connection)
