"""A system that data syncs of tests write to: it takes everything but what is called `refused`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infra.environment import SystemSettings
from infra.systems import Connection
from shared.ends import Change
from shared.errors import REFUSED
from shared.outcome import Answer, CannotAsk, Probe, delivered, rejected


def settings(environ: Mapping[str, str]) -> SystemSettings:
    return SystemSettings("", {})


def open_sink(connection: Connection, write: str) -> Target:
    return Target()


class Target:
    system = "target"
    bulk = 100

    def repeatable(self, change: Change) -> bool:
        return True

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        return [CannotAsk()] * len(changes)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        refusal = rejected(REFUSED, "it is refused")
        return [refusal if change.content.get("name") == "refused" else delivered() for change in changes]

    def close(self) -> None:
        pass
