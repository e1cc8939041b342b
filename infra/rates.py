"""Whether the integrations together stay below what a system allows an account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from infra.config import Integration, SinkConfig, SourceConfig
from infra.environment import SYSTEM_VARIABLES
from infra.mistakes import Mistake
from infra.quantities import Rate, format_rate


class Part(NamedTuple):
    """What one end of an integration takes of a system's allowance."""

    integration: Integration
    end: str
    rate: Rate | None

    @property
    def per_minute(self) -> float:
        return self.rate.count / self.rate.seconds * 60 if self.rate else 0.0

    @property
    def name(self) -> str:
        return f"{self.integration.name}.{self.end}"


def split(integrations: Iterable[Integration]) -> dict[str, list[Part]]:
    """The ends of integrations that run, by the system whose account they share."""
    parts: dict[str, list[Part]] = {}
    for each in integrations:
        if not any(stream.enabled for stream in each.streams.values()):
            continue
        ends: tuple[tuple[str, SourceConfig | SinkConfig], ...] = (("source", each.source), ("sink", each.sink))
        for end, settings in ends:
            variables = SYSTEM_VARIABLES.get(settings.system)
            if variables is not None and variables.calls_per_minute:
                parts.setdefault(settings.system, []).append(Part(each, end, settings.limit))
    return parts


def overdrawn(integrations: Iterable[Integration]) -> Iterator[Mistake]:
    """A mistake for each system of which the integrations together take more than it allows."""
    for system, parts in split(integrations).items():
        allowed = SYSTEM_VARIABLES[system].calls_per_minute
        taken = sum(part.per_minute for part in parts)
        if taken > allowed:
            largest = max(parts, key=lambda part: part.per_minute)
            shares = " + ".join(f"{part.name} {format_rate(part.rate)}" for part in parts if part.rate)
            yield Mistake(
                str(largest.integration.file),
                f"{largest.end}.rate_limit",
                None,
                f"{taken:g} calls a minute to {system} in all: {shares}",
                f"at most {allowed} a minute, which is what {system} allows an account",
                f"lower rate_limit by {taken - allowed:g}/min in all",
            )


def unlimited(integrations: Iterable[Integration]) -> Iterator[str]:
    """A note for each end that has no limit at a system that has one."""
    for system, parts in split(integrations).items():
        for part in parts:
            if part.rate is None:
                yield (
                    f"{part.name} has no rate_limit, and {system} allows an account "
                    f"{SYSTEM_VARIABLES[system].calls_per_minute} calls a minute"
                )
