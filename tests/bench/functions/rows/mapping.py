"""Rows of a file as they are, each known by its content: the most that a source of files can have to remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.rules import Rules
from shared.tabular import IDENTITY, identify

OPTIONS: Final[Mapping[str, Any]] = {"batch": {"path": str}}


def to_target(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != IDENTITY}


STREAMS: Final = {"batch": Rules(read="rows", write="batch", identify=identify, to_target=to_target)}
