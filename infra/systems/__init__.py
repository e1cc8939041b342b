"""Outside systems, a file or a folder each: `open_source(connection, read)` and `open_sink(connection, write)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infra.quantities import Rate
from shared.errors import ConfigError
from shared.ports import Clock, Home
from shared.retry import RetryPolicy

T = TypeVar("T")


class Connection(msgspec.Struct, frozen=True):
    """How one end of an integration is reached. `secrets` go by the names of their variables."""

    url: str
    secrets: dict[str, str]
    rate: Rate | None
    page_size: int
    retry: RetryPolicy
    clock: Clock
    pace_file: Path | None
    """Where processes that share the rate keep their common pace; None keeps it within this process."""
    stopping: Callable[[], bool]
    options: Mapping[str, Any] = {}
    """The keys of the stream's own (`mapping.py`, `OPTIONS`), as they were read."""
    home: Callable[[], Home] | None = None
    """The hub's own home, for the systems that are kept in it."""
    stream: tuple[str, str] = ("", "")
    """The integration and the stream that it is for."""

    def own_home(self) -> Home:
        """Raises ConfigError where there is none."""
        if self.home is None:
            raise ConfigError("this system is kept in the hub's own home, and there is none")
        return self.home()

    def secret(self, name: str) -> str:
        """Raises ConfigError if it is not there."""
        value = self.secrets.get(name)
        if not value:
            raise ConfigError(f"{name} is not set", cure=f"set {name} in the environment")
        return value


def one_of(choices: Mapping[str, T], name: str, system: str) -> T:
    """What `name` stands for at a system. Raises ConfigError with the names that there are."""
    if name not in choices:
        raise ConfigError(f"{system} has no {name!r}", cure=f"use one of {', '.join(sorted(choices))}")
    return choices[name]
