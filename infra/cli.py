"""The command line: `./waybill`. Data on stdout, notes and progress on stderr, exit codes as in the README."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from infra.cli_groups import snapshot, token
from infra.command import EXIT, Session, also_called, command, confirmed, emit, main, note
from infra.quantities import parse_duration
from shared.errors import ConfigError

NAME = click.argument("name")
STREAM = click.option("--stream", metavar="S", help="Only this stream.")
FILTERS = (
    click.option("--outcome", metavar="O", type=click.Choice(["invalid", "rejected", "exhausted", "unknown"])),
    click.option("--number", metavar="N", type=int, help="Only this error number."),
    click.option("--status", metavar="HTTP", type=int, help="Only this HTTP status of the target."),
    click.option("--key", metavar="K", help="Only this record."),
    click.option("--older-than", metavar="AGE", help="Only failures whose last try is older, such as 2h or 3d."),
)


def filters(work: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(FILTERS):
        work = option(work)
    return work


def duration(text: str, option: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", cure=f"such as {option} 50d") from error


def instant(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigError(
            f"{option}: {text!r} is no instant with an offset", cure=f"such as {option} 2024-02-24T00:00:00-03:00"
        )
    return found.astimezone(UTC)


@command("list", "list")
def list_(session: Session) -> int:
    """Integrations, streams, schedules and state."""
    from infra import queries, render

    document = queries.listing(session.hub)
    emit(document) if session.json else render.listing(document)
    return 0


@command("check", "check ploomes_to_milvus")
@click.argument("name", required=False)
def check(session: Session, name: str | None) -> int:
    """Validates every integration.yaml and the environment, offline; names all mistakes at once."""
    from infra import queries, render

    document = queries.check(session.hub, name)
    emit(document) if session.json else render.check(document)
    return EXIT["usage"] if document["mistakes"] else 0


@command("plan", "plan ploomes_to_milvus --stream customers")
@NAME
@STREAM
def plan(session: Session, name: str, stream: str | None) -> int:
    """What a run would do, without writing anywhere: counts, differences, calls, minutes, cost."""
    from infra import queries, render

    session.listen()
    document = queries.plan(session.hub, name, stream)
    emit(document) if session.json else render.plan(document)
    return 0


@command("run", "run ploomes_to_milvus --stream customers --limit 100")
@NAME
@STREAM
@click.option("--full", is_flag=True, help="Read everything since the stream's first date again.")
@click.option("--since", metavar="T", help="Read from this instant on, such as 2024-02-24T00:00:00-03:00.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Read at most N rows; leaves the cursor alone.")
def run(session: Session, name: str, stream: str | None, full: bool, since: str | None, limit: int | None) -> int:
    """Fetches and delivers until all is settled. Finishes a crashed run first."""
    from infra import progress, render
    from infra.log import silent
    from infra.runner import run_streams, unready
    from shared.fetch import Order

    order = Order(full, instant(since, "--since") if since else None, limit)
    integration = session.hub.integration(name)
    broken: dict[str, ConfigError] = {}
    if stream is None:
        streams, broken = session.hub.sound_streams(integration)
    else:
        streams = session.hub.streams(integration, stream)
    if not streams and len(broken) == 1:
        raise next(iter(broken.values()))
    if not streams and not broken:
        raise ConfigError(f"no stream of {name} is enabled", cure="name one with --stream, or enable one")
    session.listen()
    with progress.showing(session.hub, streams) as watch:
        results = run_streams(session.hub, name, streams, order, watch.notice or silent, watch.look)
    reports = {result.stream.name: result.report(session.hub) for result in results}
    reports |= {name: unready(error) for name, error in broken.items()}
    document = {"integration": name, "streams": reports}
    emit(document) if session.json else render.run(document)
    return exit_code(list(reports.values()))


def exit_code(reports: Any) -> int:
    """The worst of the streams: what says most about what a person has to do."""
    found = set()
    for report in reports:
        parts = [report, *report.get("resumed", [])]
        if any(not part.get("balanced", True) for part in parts):
            found.add("unbalanced")
        error = report.get("error", {}).get("class")
        if report["state"] == "failed":
            found.add("guard" if error == "GuardTripped" else "usage" if error == "ConfigError" else "failed")
        elif report["state"] in ("stopped", "yielded", "running"):
            found.add("stopped")
        elif report["state"] == "leased":
            found.add("leased")
        if any(part.get("unknown", 0) for part in parts):
            found.add("unknown")
        if any(part.get(name, 0) for part in parts for name in ("invalid", "rejected", "exhausted")):
            found.add("failures")
    for name in ("unbalanced", "guard", "usage", "failed", "leased", "stopped", "unknown", "failures"):
        if name in found:
            return EXIT[name]
    return 0


@command("status", "status ploomes_to_milvus")
@click.argument("name", required=False)
def status(session: Session, name: str | None) -> int:
    """Per stream: last run, cursor, lease, funnel, open failures, pending, next run."""
    from infra import queries, render

    document = queries.status(session.hub, name)
    emit(document) if session.json else render.status(document)
    return 0


@command("runs", "runs ploomes_to_milvus --most 5")
@NAME
@STREAM
@click.option("--most", metavar="N", default=20, show_default=True, type=click.IntRange(min=1))
def runs(session: Session, name: str, stream: str | None, most: int) -> int:
    """The history, newest first."""
    from infra import queries, render

    document = queries.history(session.hub, name, stream, most)
    emit(document) if session.json else render.history(document)
    return 0


@command("show", "show customers-20260224T120000-1a2b3c")
@click.argument("run")
def show(session: Session, run: str) -> int:
    """One run: its funnel, its batches and its errors."""
    from infra import queries, render

    document = queries.show(session.hub, run)
    emit(document) if session.json else render.show(document)
    return 0


@command("failures", "failures ploomes_to_milvus --outcome rejected")
@NAME
@STREAM
@filters
@click.option("--reveal", is_flag=True, help="Show the records' data unmasked.")
def failures(session: Session, name: str, stream: str | None, reveal: bool, **asked: Any) -> int:
    """Open failures, each with its reason."""
    from infra import queries, render

    document = queries.failures(session.hub, query_of(session, name, stream, asked), reveal)
    emit(document) if session.json else render.failures(document)
    return 0


def query_of(session: Session, name: str, stream: str | None, asked: dict[str, Any]) -> Any:
    from shared.books import FailureQuery

    integration = session.hub.integration(name)
    if stream is not None and stream not in integration.streams:
        session.hub.check_name(integration, stream)
    age = asked.pop("older_than")
    before = session.hub.clock.now() - duration(age, "--older-than") if age else None
    return FailureQuery(name, stream, before=before, **asked)


@command("trace", "trace ploomes_to_milvus --stream customers --key 52998224725")
@NAME
@click.option("--stream", metavar="S", required=True)
@click.option("--key", metavar="K", required=True)
def trace(session: Session, name: str, stream: str, key: str) -> int:
    """One record's life: where it was read, what became of it, what the ledger holds."""
    from infra import queries, render

    document = queries.trace(session.hub, name, stream, key)
    emit(document) if session.json else render.trace(document)
    return 0


@command("replay", "replay ploomes_to_milvus --outcome rejected --reason 'validation mended' --plan")
@NAME
@STREAM
@filters
@click.option("--reason", metavar="TEXT", help="Why: it stands in the history.")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(
    session: Session, name: str, stream: str | None, reason: str | None, only_plan: bool, yes: bool, **asked: Any
) -> int:
    """Sends failures again, and nothing else."""
    from infra import render, replaying

    query = query_of(session, name, stream, asked)
    planned = replaying.plan(session.hub, query)
    if not only_plan and not (reason or "").strip():
        raise ConfigError("a replay needs a reason", cure="add --reason 'what was mended', or --plan to look first")
    if only_plan or not planned["planned"]:
        emit(planned) if session.json else render.replay_plan(planned)
        return 0
    if not session.json:
        render.replay_plan(planned)
    if not confirmed("send them again?", yes):
        return EXIT["usage"]
    session.listen()
    document = replaying.carry_out(session.hub, query, str(reason), planned)
    emit(document) if session.json else render.replay(document)
    return exit_code([document])


@command("audit", "audit ploomes_to_milvus --deep")
@NAME
@click.option("--deep", is_flag=True, help="Also compare the ledger with the source and the target, record by record.")
def audit(session: Session, name: str, deep: bool) -> int:
    """Proves the books: the present outcome of every record version ever fetched."""
    from infra import queries, render

    session.listen()
    document = queries.audit(session.hub, name, deep)
    emit(document) if session.json else render.audit(document)
    return 0 if document["balanced"] and not document["unaccounted"] else EXIT["unbalanced"]


@command("cleanup", "cleanup --all --older-than 50d")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every integration.")
@click.option("--older-than", metavar="AGE", help="Instead of the ages in integration.yaml.")
def cleanup(session: Session, name: str | None, everything: bool, older_than: str | None) -> int:
    """Removes old archives, closed failures and monitoring rows. Never an open failure, a ledger cell or a batch."""
    from infra import queries, render

    if (name is None) == (not everything):
        raise ConfigError("which integration?", cure="./waybill cleanup NAME, or ./waybill cleanup --all")
    age = duration(older_than, "--older-than") if older_than else None
    document = queries.cleanup(session.hub, name, age)
    emit(document) if session.json else render.cleanup(document)
    return 4 if any("error" in done for done in document["integrations"].values()) else 0


also_called(cleanup, "tcrm_monitoring_cleanup")  # as in TaglessCRM


@command("forget", "forget --key 52998224725 --yes")
@click.option("--key", metavar="K", required=True, help="The record's key, in every integration.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(session: Session, key: str, yes: bool) -> int:
    """Erases a person's data everywhere, keeps the books balanced, prints a receipt."""
    from infra import erasing, render

    found = erasing.find_traces(session.hub, key)
    if not session.json:
        render.traces(found)
    if not confirmed("erase all of it? Nothing brings it back", yes):
        return EXIT["usage"]
    document = erasing.forget(session.hub, key)
    emit(document) if session.json else render.receipt(document)
    return 0


@command("pause", "pause ploomes_to_milvus")
@NAME
def pause(session: Session, name: str) -> int:
    """Stops the schedule of an integration. `run` still works."""
    session.hub.integration(name)
    session.hub.home.schedule.pause(name)
    emit({"integration": name, "paused": True}) if session.json else click.echo(f"{name} is paused")
    return 0


@command("resume", "resume ploomes_to_milvus")
@NAME
def resume(session: Session, name: str) -> int:
    """Starts the schedule of an integration again."""
    session.hub.integration(name)
    session.hub.home.schedule.resume(name)
    emit({"integration": name, "paused": False}) if session.json else click.echo(f"{name} runs by its schedule again")
    return 0


main.add_command(snapshot)
main.add_command(token)


@command("serve", "serve --port 8080")
@click.option("--port", metavar="P", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True)
def serve(session: Session, port: int, host: str) -> int:
    """Every HTTP function, the schedule and the sweeper on this machine, until interrupted."""
    from infra.serve import serve as work

    session.listen()
    work(session.hub, host, port, note)
    session.signal = 0
    return 0


@command("sandbox", "sandbox --customers 500 --faults 429=2%,drop=1%")
@click.option("--seed", metavar="N", default=1, show_default=True, type=int)
@click.option("--customers", metavar="N", default=200, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--invalid", metavar="N", default=0, type=click.IntRange(min=0), help="Customers with a malformed CPF/CNPJ."
)
@click.option("--duplicates", metavar="N", default=0, type=click.IntRange(min=0), help="Customers sharing a CPF/CNPJ.")
@click.option("--tasks", metavar="N", default=100, show_default=True, type=click.IntRange(min=0), help="In Ploomes.")
@click.option(
    "--interactions", metavar="N", default=100, show_default=True, type=click.IntRange(min=0), help="In Ploomes."
)
@click.option("--clients", metavar="N", default=0, type=click.IntRange(min=0), help="Milvus clients of its own.")
@click.option("--users", metavar="N", default=100, show_default=True, type=click.IntRange(min=0), help="In OKKI.")
@click.option("--departments", metavar="N", default=20, show_default=True, type=click.IntRange(min=0), help="In OKKI.")
@click.option("--same-nicknames", metavar="N", default=0, type=click.IntRange(min=0), help="Users sharing a nickname.")
@click.option(
    "--conversions",
    metavar="N",
    default=100,
    show_default=True,
    type=click.IntRange(min=0),
    help="In BigQuery, table sandbox.crm.conversions.",
)
@click.option("--faults", metavar="F", default="", help="Such as 429=2%,503=1%,drop=1%,short_pages=10%.")
@click.option(
    "--ploomes-per-minute", metavar="N", default=120, show_default=True, type=click.IntRange(min=0), help="0: no limit."
)
def sandbox(session: Session, **asked: Any) -> int:
    """Fakes of the outside systems, until interrupted. Prints the environment to export."""
    try:
        from tests.sandbox.__main__ import run as start
    except ModuleNotFoundError as error:
        if error.name != "faker":
            raise
        raise ConfigError("the sandbox needs Faker", cure="pip install -r tests/requirements.txt") from error
    asked["ploomes_per_minute"] = asked["ploomes_per_minute"] or None
    try:
        return start(**asked)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error), cure="./waybill sandbox --help") from error


if __name__ == "__main__":
    main.main(prog_name="./waybill")
