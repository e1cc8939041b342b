"""Data syncs: the streams of any integration whose runs are launches. The id of one is the name of its stream."""

from __future__ import annotations

from typing import Literal

import msgspec

from infra.config import StreamConfig
from infra.systems.exports import Style
from infra.wiring import Hub
from shared.errors import ConfigError
from shared.stream import Stream

Type = Literal["import", "export", "delete"]
MOST: int = 1_000_000_000
"""Bytes of a file, unless its stream says otherwise."""


class Sync(msgspec.Struct, frozen=True):
    """One data sync, as its stream's rules and keys have it."""

    stream: Stream
    config: StreamConfig

    @property
    def id(self) -> str:
        return self.stream.name

    @property
    def integration(self) -> str:
        return self.stream.integration

    @property
    def type(self) -> Type:
        if self.stream.rules.launched == "whole":
            return "export"
        return "delete" if self.stream.rules.deletes else "import"

    @property
    def title(self) -> str:
        return str(self.config.options.get("title") or self.id)

    @property
    def asks_for_a_token(self) -> bool:
        return bool(self.config.options.get("authentication", True))

    @property
    def most(self) -> int:
        return int(self.config.options.get("max_upload") or MOST)

    @property
    def style(self) -> Style:
        """How the files are written that it produces."""
        options = {**self.config.options, **self.stream.rules.settings}
        return Style(str(options.get("delimiter") or ","), options.get("escape_formulas", True) is not False)


def find_sync(hub: Hub, id: str) -> Sync | None:
    """None for what is no data sync, or lacks a setting. Reads the rules of no other stream."""
    for integration in hub.integrations.values():
        config = integration.streams.get(id)
        if config is None:
            continue
        try:
            stream = hub.stream(integration, config)
        except ConfigError:
            continue
        if stream.rules.launched:
            return Sync(stream, config)
    return None


def ids(hub: Hub) -> list[str]:
    """Of all data syncs, enabled or not."""
    return [
        stream.name
        for integration in hub.integrations.values()
        for stream in hub.sound_streams(integration, disabled=True)[0]
        if stream.rules.launched
    ]
