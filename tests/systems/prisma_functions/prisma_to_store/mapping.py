"""Rows of an export as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.rules import Rules
from shared.tabular import IDENTITY, identify

OPTIONS: Final[Mapping[str, Any]] = {"customers": {"data_sync": str, "token": str, "key": list[str], "launch": int}}


def to_target(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != IDENTITY}


STREAMS: Final = {
    "customers": Rules(read="export", write="customers", identify=identify, to_target=to_target, polled=True)
}
