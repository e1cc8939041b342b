"""Replay from the command line or over HTTP: the plan, then the runs, until all is settled."""

from __future__ import annotations

from typing import Any

import msgspec

from infra.log import silent
from infra.report import error_of, state_of
from infra.runner import StreamRun, deliverers, settle_stream
from infra.wiring import Hub
from shared.accounting import Counts
from shared.books import FailureQuery
from shared.ports import Notice
from shared.replay import plan_replay, replay
from shared.stream import Stream


def streams_of(hub: Hub, query: FailureQuery) -> list[Stream]:
    """The streams that a query may mean, enabled or not."""
    integration = hub.integration(query.integration)
    return hub.streams(integration, query.stream) if query.stream else hub.every_stream(integration)


def plan(hub: Hub, query: FailureQuery) -> dict[str, Any]:
    """What a replay would do. Writes nothing."""
    planned, superseded = 0, 0
    outcomes: dict[str, int] = {}
    for stream in streams_of(hub, query):
        found = plan_replay(stream, hub.home, msgspec.structs.replace(query, stream=stream.name))
        planned += found.planned
        superseded += found.superseded
        for outcome, count in found.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    # A target that is asked before it creates takes two calls for a record.
    calls = 2 * (planned - superseded)
    rate = hub.integration(query.integration).sink.limit
    return {
        "run": None,
        "planned": planned,
        "superseded": superseded,
        "outcomes": outcomes,
        "calls": calls,
        "minutes": round(calls * rate.seconds / rate.count / 60, 2) if rate else 0.0,
    }


def carry_out(
    hub: Hub, query: FailureQuery, reason: str, planned: dict[str, Any], notice: Notice = silent
) -> dict[str, Any]:
    """Replays stream by stream and waits until it is settled."""
    streams = streams_of(hub, query)
    if not hub.on_google_cloud:
        hub.check_environment(streams)
    consumers = deliverers(hub, query.integration, streams, notice)
    consumers.start()
    counts, runs, state = Counts(), [], "settled"
    error: dict[str, str] = {}
    try:
        for stream in streams:
            narrowed = msgspec.structs.replace(query, stream=stream.name)
            if not hub.home.failures.count(narrowed):
                continue
            result = StreamRun(stream, [replay(stream, hub.home, narrowed, reason, notice)])
            settle_stream(hub, stream, consumers, result, lambda: None)
            run = result.runs[-1]
            runs.append(run.id)
            found = hub.home.books.counts(run.id)
            counts.add(found)
            if result.state != "settled":
                state = result.state
            elif state_of(run, found) != "settled":
                state = "stopped"
            if result.error is not None:
                error = {"class": type(result.error).__name__, "message": str(result.error), "cure": result.error.cure}
            elif run.error:
                error = error_of(run)
    finally:
        consumers.stop()
    return {
        "run": runs[-1] if runs else None,
        "runs": runs,
        "state": state,
        "planned": planned["planned"],
        **counts.as_dict(),
        "balanced": counts.balanced,
        **({"error": error} if error else {}),
    }
