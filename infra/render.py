"""The same documents for people: tables on stdout, and the next useful command at the end."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.accounting import NAMES

_PIPE_WIDTH = 240
"""Into a file or a pipe nothing is cut."""

_STYLES = {
    "settled": "green", "delivered": "green", "failed": "red", "rejected": "red", "invalid": "red", "exhausted": "red",
    "unknown": "bold red", "pending": "yellow", "stopped": "yellow", "running": "cyan", "yielded": "cyan",
}  # fmt: skip


def _print(*things: Any) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for thing in things:
        console.print(thing, markup=False)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMERIC else "left", no_wrap=column in ("key", "run"))
    return table


_NUMERIC = frozenset({"count", "number", "fetched", "open", "pending", "records", "tries", *NAMES})


def _cell(value: Any) -> Text:
    text = "–" if value is None or value == "" else f"{value:,}" if isinstance(value, int) else str(value)
    return Text(text, style=_STYLES.get(text, ""))


def _row(table: Table, *values: Any) -> None:
    table.add_row(*(_cell(value) for value in values))


def listing(document: dict[str, Any]) -> None:
    table = _table("integration", "from → to", "stream", "schedule", "state")
    for each in document["integrations"]:
        for place, stream in enumerate(each["streams"]):
            schedule = "paused" if each["paused"] else stream["schedule"] or "by hand"
            _row(
                table,
                each["name"] if place == 0 else " ",
                f"{each['source']} → {each['sink']}" if place == 0 else " ",
                stream["name"],
                schedule if stream["enabled"] else f"{schedule} (not enabled)",
                stream["state"],
            )
    _print(table)


def check(document: dict[str, Any]) -> None:
    for mistake in document["mistakes"]:
        place = f"{mistake['file']}:{mistake['line']}" if mistake["line"] else mistake["file"]
        expected = f", expected {mistake['expected']}" if mistake["expected"] else ""
        _print(f"{place}: {mistake['path']}: {mistake['found']}{expected}", f"  what to do: {mistake['cure']}")
    for text in document["notes"]:
        _print(f"note: {text}")
    if document["mistakes"]:
        count = len(document["mistakes"])
        _print(f"{count} mistake{'s' if count > 1 else ''}")
    else:
        _print(f"in order: {', '.join(document['integrations']) or 'there is no integration'}")


def funnel(title: str, counts: dict[str, Any]) -> Table:
    """The equation of one stream: what was fetched, and what it came to."""
    table = _table("", "count", title=title)
    _row(table, "fetched", counts["fetched"])
    for name in NAMES:
        if counts[name] or name in ("delivered", "pending"):
            _row(table, f"  {name}", counts[name])
    total = sum(counts[name] for name in NAMES)
    mark = "balanced" if total == counts["fetched"] else f"DOES NOT BALANCE: {total:,} accounted for"
    table.add_row(Text("  " + mark, style="green" if total == counts["fetched"] else "bold red"), "")
    return table


def run(document: dict[str, Any]) -> None:
    name = document["integration"]
    failed = False
    for stream, report in document["streams"].items():
        for earlier in report["resumed"]:
            _print(funnel(f"{name} {stream}: finished run {earlier['run']} ({earlier['state']})", earlier))
        if report["run"] is not None:
            title = f"{name} {stream}: {report['state']} in {report['seconds']:.1f} s"
            _print(funnel(title, report))
            for rule, count in report["rules"].items():
                _print(f"  filtered by {rule}: {count:,}")
        elif report["state"] == "settled":
            _print(f"{name} {stream}: nothing waits")
        _error(report)
        failed = failed or any(report.get(each) for each in ("invalid", "rejected", "exhausted", "unknown"))
    if failed:
        _print(f"next: ./waybill failures {name}")


def _error(report: dict[str, Any]) -> None:
    if "error" in report:
        _print(Text(f"{report['state']}: {report['error']['message']}", style="red"))
        if report["error"].get("cure"):
            _print(f"  what to do: {report['error']['cure']}")


def plan(document: dict[str, Any]) -> None:
    for stream, planned in document["streams"].items():
        cost = "no cost on this machine" if planned["cost_usd"] is not None else "for the cost see docs/costs.md"
        _print(
            funnel(f"{document['integration']} {stream}: what a run would do", planned),
            f"  {planned['creates']:,} new, {planned['updates']:,} changed; about {planned['calls']:,} calls, "
            f"{planned['minutes']:.1f} minutes at the rate limits; {cost}",
        )
        for sample in planned["samples"]:
            fields = ", ".join(sample["fields"]) or "no field that can be compared"
            _print(f"  {sample['action']} {sample['key']}: {fields}")
    _print(f"next: ./waybill run {document['integration']}")


def status(document: dict[str, Any]) -> None:
    for each in document["integrations"]:
        title = f"{each['name']}  {each['source']} → {each['sink']}" + ("  paused" if each["paused"] else "")
        columns = ("stream", "state", "last run", "cursor", "fetched", "delivered", "pending", "open", "next run")
        table = _table(*columns, title=title)
        for s in each["streams"]:
            next_run = s["next_run"] if s["enabled"] else "not enabled"
            counts = (s["fetched"], s["delivered"], s["pending"], s["open_failures"])
            _row(table, s["name"], s["state"], s["last_run_at"], s["cursor"], *counts, next_run)
        _print(table)
        for s in each["streams"]:
            if s["lease"]:
                _print(f"  {s['name']} is being run by {s['lease']}")
            confirmation = s["confirmation"]
            if confirmation["pending_requests"]:
                _print(f"  {s['name']}: {confirmation['pending_records']:,} pending confirmation")
            if confirmation["refused"]:
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(confirmation["refused"].items()))
                _print(f"  {s['name']}: accepted, and then: {reasons}")
    for alert, text in document["alerts"].items():
        _print(Text(f"alert {alert}: {text}", style="red"))


def history(document: dict[str, Any]) -> None:
    table = _table("run", "stream", "kind", "state", "started", "fetched", "delivered", "unchanged", "pending")
    for r in document["runs"]:
        _row(table, r["run"], r["stream"], r["kind"], r["state"], r["started_at"], r["fetched"], r["delivered"],
             r["unchanged"], r["pending"])  # fmt: skip
    _print(table if document["runs"] else "it never ran; next: ./waybill run")


def show(document: dict[str, Any]) -> None:
    _print(funnel(f"{document['run']}: {document['kind']} of {document['stream']}, {document['state']}", document))
    for rule, count in document["rules"].items():
        _print(f"  filtered by {rule}: {count:,}")
    _error(document)
    states: dict[str, int] = {}
    for batch in document["batches"]:
        states[batch["state"]] = states.get(batch["state"], 0) + 1
    _print(f"  {len(document['batches'])} batches: " + (", ".join(f"{n} {s}" for s, n in states.items()) or "none"))
    if document["errors"]:
        table = _table("number", "count", "reason", "advice", title="errors")
        for error in document["errors"]:
            _row(table, error["number"], error["count"], error["reason"], error["advice"])
        _print(table)


def failures(document: dict[str, Any]) -> None:
    if not document["failures"]:
        _print("no open failures")
        return
    table = _table("stream", "key", "outcome", "number", "reason", "tries", "last try", "position")
    for f in document["failures"]:
        named = f["field"] and not f["reason"].startswith(f["field"])
        reason = f"{f['field']}: {f['reason']}" if named else f["reason"]
        _row(
            table, f["stream"], f["key"], f["outcome"], f["number"], reason, f["attempts"], f["last_at"], f["position"]
        )
    count = len(document["failures"])
    _print(table, f"{count:,} open; next: ./waybill replay NAME --reason '...' --plan")


def trace(document: dict[str, Any]) -> None:
    table = _table(
        "at", "what", "run", "version", "", title=f"{document['integration']} {document['stream']} {document['key']}"
    )
    for event in document["events"]:
        more = event.get("reason") or (f"as {event['as']}" if "as" in event else "")
        _row(table, event["at"], event["action"], event.get("run"), event.get("version"), more)
    _print(table)
    cell = document["cell"]
    if cell is not None:
        applied = (
            f"version {cell['version']} as {cell['target_id'] or 'an unnamed object'}" if cell["version"] else "nothing"
        )
        _print(f"the target has: {applied}", *([f"open failure: version {cell['failed']}"] if cell["failed"] else []))


def replay_plan(document: dict[str, Any]) -> None:
    if not document["planned"]:
        _print("nothing to send: no open failure matches")
        return
    kinds = ", ".join(f"{count:,} {outcome}" for outcome, count in document["outcomes"].items())
    _print(
        f"{document['planned']:,} failures ({kinds}), {document['superseded']:,} of them superseded by newer versions",
        f"about {document['calls']:,} calls, {document['minutes']:.1f} minutes at the rate limit",
    )
    if "unknown" in document["outcomes"]:
        _print(
            "the target is asked for what is unknown; one that cannot be asked is sent it, and may have it twice then"
        )


def replay(document: dict[str, Any]) -> None:
    _print(funnel(f"replay {document['run']}: {document['state']}", document))
    _error(document)


def audit(document: dict[str, Any]) -> None:
    met = {stream: found for stream, found in document["streams"].items() if found["fetched"]}
    for stream, found in (met or document["streams"]).items():
        _print(funnel(f"{document['integration']} {stream}: every record version ever fetched", found))
    if met and len(met) < len(document["streams"]):
        _print(f"nothing was ever fetched by {', '.join(name for name in document['streams'] if name not in met)}")
    for one in document["unaccounted"]:
        name = one.get("key") or one.get("run") or one.get("batch")
        _print(Text(f"  {one['stream']} {name}: {one['reason']}", style="red"))
    if document["balanced"] and not document["unaccounted"]:
        _print(Text("the books balance; nothing is unaccounted for", style="green"))
    else:
        _print(Text(f"{len(document['unaccounted']):,} unaccounted for", style="bold red"))


def cleanup(document: dict[str, Any]) -> None:
    for name, done in document["integrations"].items():
        if "error" in done:
            _print(Text(f"{name}: not cleaned up to the end: {done['error']['message']}", style="red"))
            _print(f"  what to do: {done['error']['cure']}")
            continue
        removed = f"{done['archives']:,} archives, {done['uploads']:,} uploads, {done['exports']:,} exports"
        others = (
            f"{done['closed_failures']:,} closed failures, {done['confirmations']:,} confirmations and "
            f"{done['monitoring']:,} monitoring rows"
        )
        _print(f"{name}: removed {removed}, {others}")


def token(document: dict[str, Any]) -> None:
    _print(f"token {document['id']} of {document['data_sync']}; it is not shown again:", document["token"])
    for text in document["notes"]:
        _print(f"note: {text}")


def tokens(document: dict[str, Any]) -> None:
    table = _table("id", "state", "made", "revoked", title=f"tokens of {document['data_sync']}")
    for each in document["tokens"]:
        _row(table, each["id"], each["state"], each["made_at"], each["revoked_at"] or "")
    _print(table)
    for text in document["notes"]:
        _print(f"note: {text}")


def traces(found: dict[str, int]) -> None:
    _print("found: " + (", ".join(f"{count:,} {place}" for place, count in found.items() if count) or "nothing"))


def receipt(document: dict[str, Any]) -> None:
    _print(f"erased at {document['at']}, receipt {document['receipt']}")
    for place, count in document["erased"].items():
        _print(f"  {place}: {count:,}")
    for text in document["notes"]:
        _print(f"note: {text}")
