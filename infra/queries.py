"""What the reading commands say, as the JSON of the outside interface."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec

from infra import config, environment, tokens
from infra.mistakes import ConfigMistakes, Mistake
from infra.rates import overdrawn, unlimited
from infra.report import rules_of, run_report, stamp, state_of, systems_of
from infra.wiring import Hub
from shared.accounting import Counts, StreamAudit, audit_stream
from shared.books import Failure, FailureQuery, Run
from shared.cleanup import OldRows, clean_up
from shared.declared.faults import Faults
from shared.errors import CUSTOMER_MISSING, NUMBERS, ConfigError, WaybillError
from shared.outcome import OUTCOMES
from shared.ports import lease_name
from shared.stream import Stream

MASK = "•••"


def listing(hub: Hub) -> dict[str, Any]:
    return {"integrations": [_listed(hub, integration) for integration in hub.integrations.values()]}


def _listed(hub: Hub, integration: config.Integration) -> dict[str, Any]:
    home = hub.home
    paused = home.schedule.paused(integration.name)
    streams = []
    for stream in integration.streams.values():
        last = _last_run(hub, integration.name, stream.name)
        state = "never ran" if last is None else state_of(last, home.books.counts(last.id))
        about = {"name": stream.name, "enabled": stream.enabled, **_own_ends(hub, integration, stream)}
        streams.append({**about, "schedule": stream.schedule, "state": state})
    return {**systems_of(integration), "paused": paused, "streams": streams}


def _own_ends(hub: Hub, integration: config.Integration, stream: config.StreamConfig) -> dict[str, str]:
    """The systems of a stream that are not its integration's."""
    if not hub.is_any(integration.name, stream.name):
        return {}
    try:
        rules = hub.rules(integration.name, stream)
    except ConfigError:
        return {}
    return {end: system for end, system in (("source", rules.source), ("sink", rules.target)) if system}


def _last_run(hub: Hub, integration: str, stream: str) -> Run | None:
    return next(iter(hub.home.runs.recent(integration, stream, 1)), None)


def check(hub: Hub, name: str | None) -> dict[str, Any]:
    """All mistakes of files and environment; nothing is called."""
    try:
        integrations = hub.load(thorough=True)
    except ConfigMistakes as error:
        return {"integrations": [], "mistakes": msgspec.to_builtins(error.mistakes), "notes": []}
    if name is not None:
        integrations = [hub.integration(name)]
    mistakes: list[dict[str, Any]] = []
    notes: list[str] = []
    for integration in integrations:
        for stream in integration.streams.values():
            try:
                hub.mapped(integration.name, stream.name)
                if stream.enabled:
                    hub.rules(integration.name, stream)
            except ConfigError as error:
                mistakes += _mistakes_of(error, integration, stream.name)
        for system in _systems_in_use(hub, integration):
            if "." in system:
                continue
            try:
                environment.system_settings(system, hub.environ)
            except ConfigError as error:
                mistakes.append(_mistake("environment", system, str(error).removeprefix(f"{system}: "), error.cure))
        mistakes += _mistakes_of_sinks(hub, integration)
    # A share of an account is a matter of all who have one, whichever of them was asked about.
    every = list(hub.integrations.values())
    mistakes += msgspec.to_builtins(list(overdrawn(every)))
    notes += unlimited(integrations)
    notes += tokens.warnings(hub, [each.name for each in integrations])
    unique = list({(m["file"], m["path"], m["found"]): m for m in mistakes}.values())
    if not any(stream.enabled for each in integrations for stream in each.streams.values()):
        notes.append("no stream is enabled")
    return {"integrations": [each.name for each in integrations], "mistakes": unique, "notes": notes}


def _systems_in_use(hub: Hub, integration: config.Integration) -> list[str]:
    """Of the streams that are enabled; where none is, of those that have no system of their own."""
    streams, _ = hub.sound_streams(integration)
    if not streams:
        every, _ = hub.sound_streams(integration, disabled=True)
        streams = [stream for stream in every if not (stream.rules.source or stream.rules.target)]
    return list(dict.fromkeys(end for stream in streams for end in hub.ends(stream)))


def _mistakes_of_sinks(hub: Hub, integration: config.Integration) -> list[dict[str, Any]]:
    """What a sink lacks besides its secrets; told as soon as these are there."""
    found = []
    streams, _ = hub.sound_streams(integration)
    for stream in streams:
        try:
            hub.check_environment([stream])
        except ConfigError:
            return []
        try:
            hub.check_sinks([stream])
        except ConfigError as error:
            file, path, line = _place_of(integration, stream.name)
            found.append({**_mistake(file, path, str(error), error.cure), "line": line})
    return found


def _place_of(integration: config.Integration, stream: str) -> tuple[str, str, int | None]:
    """Where a stream is written: file, path in it, line. The overlay's word is the last one."""
    overlaid = integration.overlaid.get(stream)
    if overlaid is None:
        return str(integration.file), f"streams.{stream}", None
    return str(overlaid[0]), f"{integration.name}.streams.{stream}", overlaid[1]


def _mistakes_of(error: ConfigError, integration: config.Integration, stream: str) -> list[dict[str, Any]]:
    """Each thing that is wrong with a stream's own keys, or the one that there is."""
    file, path, line = _place_of(integration, stream)
    declared = error.__cause__
    if isinstance(declared, Faults):
        return [
            msgspec.to_builtins(Mistake(file, f"{path}.{each.path}", line, each.found, each.expected, each.cure))
            for each in declared.mistakes
        ]
    return [{**_mistake(file, path, str(error), error.cure), "line": line}]


def _mistake(file: str, path: str, found: str, cure: str) -> dict[str, Any]:
    return {"file": file, "path": path, "line": None, "found": found, "expected": "", "cure": cure}


def status(hub: Hub, name: str | None) -> dict[str, Any]:
    chosen = [hub.integration(name)] if name else list(hub.integrations.values())
    return {"integrations": [_status(hub, integration) for integration in chosen], "alerts": hub.home.alerts.raised()}


def _status(hub: Hub, integration: config.Integration) -> dict[str, Any]:
    home = hub.home
    streams = []
    for stream in integration.streams.values():
        last = _last_run(hub, integration.name, stream.name)
        counts = home.books.counts(last.id) if last is not None else Counts()
        waiting = sum(
            batch.outcomes.count(".") + batch.outcomes.count("?")
            for batch in home.batches.unsettled(integration.name, stream.name)
        )
        requests, records = home.confirmations.pending(integration.name, stream.name)
        streams.append(
            {
                "name": stream.name,
                "enabled": stream.enabled,
                "schedule": stream.schedule,
                "state": "never ran" if last is None else state_of(last, counts),
                "last_run": None if last is None else last.id,
                "last_run_at": None if last is None else stamp(last.started_at),
                "cursor": stamp(home.runs.state(integration.name, stream.name).cursor),
                "lease": home.leases.holder(lease_name(integration.name, stream.name)),
                **{**counts.as_dict(), "pending": waiting},
                "open_failures": home.failures.count(FailureQuery(integration.name, stream.name)),
                "confirmation": {
                    "pending_requests": requests,
                    "pending_records": records,
                    "refused": home.confirmations.refused(integration.name, stream.name),
                },
                "next_run": stamp(home.schedule.next_run(integration.name, stream.name, stream.schedule))
                if stream.enabled
                else None,
            }
        )
    return {**systems_of(integration), "paused": home.schedule.paused(integration.name), "streams": streams}


def history(hub: Hub, name: str, stream: str | None, most: int) -> dict[str, Any]:
    integration = hub.integration(name)
    if stream is not None:
        hub.check_name(integration, stream)
    return {"runs": [run_report(hub.home, run) for run in hub.home.runs.recent(name, stream, most)]}


def show(hub: Hub, run_id: str) -> dict[str, Any]:
    run = hub.home.runs.get(run_id)
    if run is None:
        raise ConfigError(f"no run is called {run_id!r}", cure="./waybill runs NAME lists them")
    batches = []
    for batch in hub.home.batches.of_run(run_id):
        counts = Counts()
        counts.add_letters(batch.outcomes)
        found = {name: count for name, count in counts.as_dict().items() if count}
        batches.append({"id": batch.id, "lane": batch.lane, "state": batch.state, "records": len(batch.keys), **found})
    reasons: Counter[tuple[int, str]] = Counter()
    for failure in hub.home.failures.find(FailureQuery(run.integration, run.stream, include_closed=True)):
        if failure.run == run_id:
            # A reason that names its customer would be a line for each.
            reason = NUMBERS[failure.number].meaning if failure.number == CUSTOMER_MISSING else failure.reason
            reasons[failure.number, reason] += 1
    errors = [
        {
            "number": number,
            "reason": reason,
            "count": count,
            "advice": NUMBERS[number].advice if number in NUMBERS else "",
        }
        for (number, reason), count in reasons.most_common()
    ]
    rules = rules_of(hub.home, run, hub.home.books.counts(run_id))
    return {**run_report(hub.home, run), "rules": rules, "batches": batches, "errors": errors}


def failures(hub: Hub, query: FailureQuery, reveal: bool) -> dict[str, Any]:
    return {"failures": [_failure(failure, reveal) for failure in hub.home.failures.find(query)]}


def _failure(failure: Failure, reveal: bool) -> dict[str, Any]:
    return {
        "id": failure.id,
        "stream": failure.stream,
        "key": failure.key,
        "version": failure.version,
        "outcome": failure.outcome.value,
        "number": failure.number,
        "reason": failure.reason,
        "field": failure.field,
        "http_status": failure.http_status,
        "attempts": failure.attempts,
        "first_at": stamp(failure.first_at),
        "last_at": stamp(failure.last_at),
        "run": failure.run,
        "location": failure.location,
        "position": failure.position,
        "data": failure.data if reveal else masked(failure.data),
    }


def masked(value: Any) -> Any:
    """The shape of a payload without what it says: names of fields stay, values go."""
    if isinstance(value, dict):
        return {key: masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    return value if value is None or isinstance(value, bool) else MASK


def trace(hub: Hub, name: str, stream: str, key: str) -> dict[str, Any]:
    hub.check_name(hub.integration(name), stream)
    home = hub.home
    events: list[dict[str, Any]] = []
    for batch in home.batches.naming(name, stream, key):
        for place in (place for place, each in enumerate(batch.keys) if each == key):
            outcome = OUTCOMES[batch.outcomes[place]].value
            what: dict[str, Any] = {"run": batch.run, "batch": batch.id, "version": batch.versions[place]}
            events.append({"at": stamp(batch.committed_at), "action": "fetched", **what, "kind": batch.kind})
            if batch.published_at is not None and batch.lane is not None:
                events.append({"at": stamp(batch.published_at), "action": "published", **what, "lane": batch.lane})
            events.append({"at": stamp(batch.touched_at or batch.committed_at), "action": outcome, **what})
    for failure in home.failures.find(FailureQuery(name, stream, key=key, include_closed=True)):
        why = {"failure": failure.id, "version": failure.version, "number": failure.number, "reason": failure.reason}
        events.append({"at": stamp(failure.last_at), "action": "failed", **why, "attempts": failure.attempts})
        if failure.closed_at is not None:
            closed = {"as": failure.closed_as, "run": failure.closed_by}
            events.append({"at": stamp(failure.closed_at), "action": "closed", **closed, **why})
    events.sort(key=lambda event: str(event["at"]))
    cell = home.ledger.cells(name, stream, [key]).get(key)
    if not events and cell is None:
        raise ConfigError(f"{name} {stream} never met a record with the key {key!r}", cure="keys are shown by failures")
    return {
        "integration": name,
        "stream": stream,
        "key": key,
        "cell": None if cell is None else {**msgspec.to_builtins(cell), "at": stamp(cell.at)},
        "events": events,
    }


def audit(hub: Hub, name: str, deep: bool) -> dict[str, Any]:
    """Every stream that ever ran, by identity; with `deep` also against both ends."""
    integration = hub.integration(name)
    streams: dict[str, Any] = {}
    for each in integration.streams.values():
        found = audit_one(hub, name, each.name)
        balanced = found.balanced
        if deep and (each.enabled or found.counts.fetched):
            stream = hub.streams(integration, each.name)[0]
            found.unaccounted.extend(compare_ends(hub, stream))
        streams[each.name] = {
            **found.counts.as_dict(),
            "balanced": balanced,
            "unaccounted": found.unaccounted,
        }
    unaccounted = [{"stream": name, **one} for name, each in streams.items() for one in each["unaccounted"]]
    return {
        "integration": name,
        "balanced": all(each["balanced"] for each in streams.values()),
        "unaccounted": unaccounted,
        "streams": streams,
    }


def audit_one(hub: Hub, name: str, stream: str) -> StreamAudit:
    home = hub.home
    found = audit_stream(
        lambda: home.books.entries(name, stream),
        lambda: home.ledger.versions(name, stream),
        home.books.fetched(name, stream),
    )
    for run in home.runs.recent(name, stream, 1_000_000):
        counts = home.books.counts(run.id)
        if not counts.balanced:
            found.unaccounted.append(
                {"run": run.id, "reason": f"fetched {counts.fetched}, accounted for {counts.settled + counts.pending}"}
            )
    return found


def compare_ends(hub: Hub, stream: Stream) -> list[dict[str, str]]:
    """Keys that the ledger, the source and the target do not agree on."""
    from shared.deep import compare_with_source, compare_with_target

    hub.check_environment([stream])
    source, sink = hub.open_source(stream), hub.open_sink(stream)
    try:
        return [
            *compare_with_source(stream, hub.home, source),
            *compare_with_target(stream, hub.home, sink, lambda: hub.clock.stopping),
        ]
    finally:
        source.close()
        sink.close()


def plan(hub: Hub, name: str, stream_name: str | None) -> dict[str, Any]:
    from shared.plan import plan_stream

    integration = hub.integration(name)
    streams = hub.streams(integration, stream_name)
    hub.check_environment(streams)
    documents = {}
    for stream in streams:
        source, sink = hub.open_source(stream), hub.open_sink(stream)
        try:
            planned = plan_stream(stream, hub.home, source, sink)
            together = getattr(sink, "rows_per_call", 1)
        finally:
            source.close()
            sink.close()
        # A target that takes one record a call and can be asked is, before it creates: two calls for a new one.
        asks = planned.creates if planned.asks and together == 1 else 0
        writes = -(-(planned.creates + planned.updates) // together)
        documents[stream.name] = {
            **planned.counts.as_dict(),
            "creates": planned.creates,
            "updates": planned.updates,
            "calls": planned.pages + asks + writes,
            "minutes": round(
                _minutes(planned.pages, hub.rate(stream, integration.source))
                + _minutes(asks + writes, hub.rate(stream, integration.sink)),
                2,
            ),
            "cost_usd": None if hub.on_google_cloud else 0.0,
            "samples": [
                {
                    "key": s.key,
                    "action": s.action,
                    "fields": {n: {"from": a, "to": b} for n, (a, b) in s.fields.items()},
                }
                for s in planned.samples
            ],
        }
    return {"integration": name, "streams": documents}


def _minutes(calls: int, rate: Any) -> float:
    return calls * rate.seconds / rate.count / 60 if rate else 0.0


def cleanup(hub: Hub, name: str | None, age: timedelta | None) -> dict[str, Any]:
    """What was removed of each integration, or why nothing more was: `error`, which keeps no other one waiting."""
    chosen = [hub.integration(name)] if name else list(hub.integrations.values())
    cleaned: dict[str, Any] = {}
    for integration in chosen:
        keep, monitoring = integration.retention, integration.monitoring
        rows_age = age if age is not None else timedelta(seconds=keep.monitoring)
        try:
            done = clean_up(
                hub.home,
                integration.name,
                age if age is not None else timedelta(seconds=keep.archive),
                age if age is not None else timedelta(seconds=keep.closed_failures),
                OldRows(monitoring.dataset, monitoring.table, rows_age) if monitoring.enabled else None,
                list(integration.streams),
            )
        except WaybillError as error:
            what = {"class": type(error).__name__, "message": str(error), "cure": error.cure}
            cleaned[integration.name] = {"error": what}
        else:
            cleaned[integration.name] = msgspec.to_builtins(done)
    if not hub.on_google_cloud:
        # Cloud Storage forgets an upload by itself that nobody brought to its end.
        for blobs in (hub.embedded.blobs, hub.embedded.snapshots):
            blobs.remove_abandoned()
    return {"integrations": cleaned}
