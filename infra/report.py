"""What people and scripts are told of runs: the JSON of design.md's outside interface."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from infra import config
from shared.accounting import Counts
from shared.books import Run
from shared.ledger import ALREADY_THERE
from shared.ports import Home


def stamp(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state_of(run: Run, counts: Counts) -> str:
    """How a run stands: read and nothing pending is settled, whether or not somebody wrote that down yet."""
    if run.state in ("running", "settled") and run.fetch_done:
        return "settled" if counts.pending == 0 else "running"
    return run.state


def error_of(run: Run) -> dict[str, str]:
    return {"class": run.error_class, "message": run.error, "cure": run.cure}


def stream_report(home: Home, run: Run, resumed: list[Run], seconds: float | None = None) -> dict[str, Any]:
    """One stream of a run's JSON: state, the ten counts, and the runs that were finished before."""
    counts = home.books.counts(run.id)
    report: dict[str, Any] = {
        "run": run.id,
        "state": state_of(run, counts),
        **counts.as_dict(),
        "balanced": counts.balanced,
        "seconds": round(seconds if seconds is not None else _seconds(run, home.clock.now()), 3),
        "rules": rules_of(home, run, counts),
        "resumed": [],
    }
    for earlier in resumed:
        before = home.books.counts(earlier.id)
        report["resumed"].append(
            {"run": earlier.id, "state": state_of(earlier, before), **before.as_dict(), "balanced": before.balanced}
        )
    if run.error:
        report["error"] = error_of(run)
    return report


def rules_of(home: Home, run: Run, counts: Counts) -> dict[str, int]:
    """How many records each rule filtered. What was filtered while delivering was there already: there is no other rule
    for it, so it is the rest."""
    rules = home.books.rules(run.id)
    rest = counts.filtered - sum(rules.values())
    return rules | ({ALREADY_THERE: rest} if rest else {})


def run_report(home: Home, run: Run) -> dict[str, Any]:
    """One line of the history."""
    counts = home.books.counts(run.id)
    report: dict[str, Any] = {
        "run": run.id,
        "integration": run.integration,
        "stream": run.stream,
        "kind": run.kind,
        "state": state_of(run, counts),
        "started_at": stamp(run.started_at),
        "finished_at": stamp(run.finished_at),
        "window": None if run.window is None else {"since": stamp(run.window.since), "until": stamp(run.window.until)},
        **counts.as_dict(),
        "balanced": counts.balanced,
    }
    if run.reason:
        report["reason"] = run.reason
    if run.error:
        report["error"] = error_of(run)
    return report


def systems_of(integration: config.Integration) -> dict[str, str]:
    return {"name": integration.name, "source": integration.source.system, "sink": integration.sink.system}


def _seconds(run: Run, now: datetime) -> float:
    return ((run.finished_at or now) - run.started_at).total_seconds()
