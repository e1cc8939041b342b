"""Replay: failures go the way of records again, through the same lanes and fences, and nothing else goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import msgspec

from shared.books import Closure, Failure, FailureQuery, Run
from shared.ends import Source
from shared.errors import ConfigError, RecordError
from shared.fetch import Fetcher, new_run_id
from shared.group import Group, unforeseen
from shared.monitoring import monitored, retried_row
from shared.outcome import Outcome
from shared.ports import Home, Notice, lease_name
from shared.record import Record
from shared.stream import Stream

_AT_ONCE = 500


class ReplayPlan(msgspec.Struct):
    """What a replay would do: how many failures it takes up, how many of them a newer version has overtaken already."""

    planned: int = 0
    superseded: int = 0
    outcomes: dict[str, int] = {}

    @property
    def to_send(self) -> int:
        return self.planned - self.superseded


def plan_replay(stream: Stream, home: Home, query: FailureQuery) -> ReplayPlan:
    """Counts, and writes nothing."""
    plan = ReplayPlan(outcomes={})
    for failures in _portions(home, query):
        cells = home.ledger.cells(stream.integration, stream.name, list({failure.key for failure in failures}))
        for failure in failures:
            plan.planned += 1
            plan.outcomes[failure.outcome] = plan.outcomes.get(failure.outcome, 0) + 1
            cell = cells.get(failure.key)
            if cell is not None and cell.version > failure.version:
                plan.superseded += 1
    return plan


def replay(stream: Stream, home: Home, query: FailureQuery, reason: str, notice: Notice) -> Run:
    """Commits and publishes the failures that the query means, as a run of their own.

    A record that failed for want of an identity is identified again by the rules of today; where it has one, the
    failure under its makeshift name is superseded and the record travels under its own. Raises Leased while a run holds
    the stream.
    """
    if stream.rules.launched == "whole":
        raise ConfigError(
            f"{stream.integration}, stream {stream.name}: each launch gives everything anew, and nothing is replayed",
            cure=f"./waybill run {stream.integration} --stream {stream.name}",
        )
    lease = home.leases.take(lease_name(stream.integration, stream.name))
    try:
        now = home.clock.now()
        run = Run(
            id=new_run_id(stream.name, now),
            integration=stream.integration,
            stream=stream.name,
            kind="replay",
            state="running",
            started_at=now,
            reason=reason,
        )
        rows = monitored(stream.monitored, lambda: [retried_row(run, _location(home, query))])
        home.runs.commit(lease, run, monitored=rows)
        fetcher = Fetcher(stream, _no_source, home, lease, notice, lambda: False, lambda: False)
        for earlier in home.runs.unfinished(stream.integration, stream.name):
            if earlier.kind == "replay" and earlier.resumable and earlier.id != run.id:
                fetcher.give_up(earlier)
        again, renamed = Group(fetcher, run, "", kind="replay"), Group(fetcher, run, "", kind="fetch")
        for failures in _portions(home, query):
            for location, of_one_place in groupby(failures, lambda failure: failure.location):
                again.location = renamed.location = location
                for failure in of_one_place:
                    take_up(failure, stream, again, renamed)
                again.commit()
                renamed.commit()
                fetcher.keep_lease()
        run.fetch_done = True
        home.runs.commit(lease, run)
        notice("replay_started", run=run.id, records=run.fetched)
        return run
    finally:
        home.leases.release(lease)


def take_up(failure: Failure, stream: Stream, again: Group, renamed: Group) -> None:
    """Puts the record of one failure into the group where it belongs."""
    record = Record(failure.key, failure.version, failure.operation, failure.origin, failure.position, failure.data)
    if failure.key != f"{stream.source_system}:{failure.origin or failure.position}":
        again.begin()
        again.rows += 1
        again.put(record)
        return
    try:
        if not failure.origin:
            raise RecordError(failure.reason, field=failure.field, number=failure.number)
        key = stream.rules.identify(failure.data)
        if not failure.version or not key:
            raise RecordError(failure.reason, field=failure.field, number=failure.number)
    except RecordError as error:
        again.begin()
        again.rows += 1
        again.set_aside(record, error)
    except Exception as error:
        again.begin()
        again.rows += 1
        again.set_aside(record, unforeseen(error))
    else:
        renamed.begin()
        renamed.rows += 1
        renamed.put(msgspec.structs.replace(record, key=key))
        renamed.corrections.append(Closure(failure.id, failure.batch, failure.place, Outcome.SUPERSEDED))


def _location(home: Home, query: FailureQuery) -> str:
    """Where the records come from that a replay takes up: of the first of them, the others' is seldom another."""
    return next((failure.location for failure in home.failures.find(query)), "")


def _portions(home: Home, query: FailureQuery) -> Iterator[list[Failure]]:
    """The failures as they stand at the beginning: what fails again meanwhile is not taken up twice. Those of which no
    data is left (a person was forgotten, a snapshot came without) have nothing to send, and stay what they are."""
    portion: list[Failure] = []
    until = home.clock.now()
    for failure in home.failures.find(query):
        if failure.last_at > until or (not failure.data and failure.operation == "upsert"):
            continue
        portion.append(failure)
        if len(portion) == _AT_ONCE:
            yield portion
            portion = []
    if portion:
        yield portion


def _no_source() -> Source:
    raise RecordError("a replay reads no source")
