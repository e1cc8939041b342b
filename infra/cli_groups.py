"""The commands that consist of several: snapshots, and tokens of data syncs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from infra.command import EXIT, Group, Session, command, confirmed, emit
from infra.environment import path_of
from shared.snapshot import SnapshotType


@click.group("snapshot", cls=Group)
def snapshot() -> None:
    """Archives of an installation: its set-up, and the history that keeps things from being sent twice."""


@command("export", "snapshot export nightly --type ALL_INCREMENTAL --overwrite", of=snapshot)
@click.argument("name")
@click.option(
    "--type",
    "kind",
    metavar="T",
    type=click.Choice(get_args(SnapshotType)),
    default="ALL",
    show_default=True,
    help=f"One of {', '.join(get_args(SnapshotType))}.",
)
@click.option("--overwrite", is_flag=True, help="Replace outbox/NAME.zip if it is there.")
@click.option("--with-data", is_flag=True, help="Personal data too: of open failures, and the hub's own objects.")
def snapshot_export(session: Session, name: str, kind: SnapshotType, overwrite: bool, with_data: bool) -> int:
    """Writes outbox/NAME.zip. ALL carries everything; ALL_INCREMENTAL too, and looks only at what changed since the
    last one; INCREMENTAL carries only that; SETUP the configuration alone."""
    from infra import progress, render_snapshots, snapshots

    session.listen()
    with progress.steps(session.hub) as told:
        document = snapshots.export(session.hub, name, kind, overwrite, with_data, told)
    emit(document) if session.json else render_snapshots.exported(document)
    return 0


@command("import", "snapshot import inbox/nightly.zip", of=snapshot)
@click.argument("file")
@click.option("--yes", is_flag=True, help="Do not ask.")
def snapshot_import(session: Session, file: str, yes: bool) -> int:
    """Brings an archive in: a file of this machine, or inbox/NAME.zip or outbox/NAME.zip of the snapshot folders. What
    it replaces is shown before, and all of it or nothing is done."""
    from infra import progress, render_snapshots, snapshots

    source = source_of(file)
    session.listen()
    with progress.steps(session.hub) as told:
        planned = snapshots.examine(session.hub, source, told)
    if not session.json:
        render_snapshots.planned(planned)
    if not confirmed("import it?", yes):
        return EXIT["usage"]
    with progress.steps(session.hub) as told:
        document = snapshots.restore(session.hub, source, told)
    emit(document) if session.json else render_snapshots.imported(document)
    return 0


def source_of(file: str) -> str | Path:
    """A name in the snapshot folders, or a file of this machine."""
    if file.startswith(("inbox/", "outbox/")):
        return file
    path = path_of(file)
    try:
        return path if path.exists() else file
    except OSError:
        # What is wrong with it is said when it is opened.
        return path


@command("list", "snapshot list", of=snapshot)
def snapshot_list(session: Session) -> int:
    """The archives in outbox and inbox, newest first."""
    from infra import render_snapshots, snapshots

    document = {"snapshots": snapshots.listing(session.hub)}
    emit(document) if session.json else render_snapshots.listing(document)
    return 0


@command("show", "snapshot show nightly", of=snapshot)
@click.argument("name")
def snapshot_show(session: Session, name: str) -> int:
    """What an archive holds, by point of view."""
    from infra import render_snapshots, snapshots

    document = snapshots.show(session.hub, name)
    emit(document) if session.json else render_snapshots.show(document)
    return 0


@click.group("token", cls=Group)
def token() -> None:
    """Tokens of the data-sync API: each opens one data sync, until it is revoked."""


DATA_SYNC = click.argument("data_sync", metavar="ID")


@command("create", "token create customers_import", of=token)
@DATA_SYNC
def token_create(session: Session, data_sync: str) -> int:
    """Makes a token of a data sync and shows it, this once."""
    from infra import render, tokens

    document = tokens.create(session.hub, data_sync)
    emit(document) if session.json else render.token(document)
    return 0


@command("list", "token list customers_import", of=token)
@DATA_SYNC
def token_list(session: Session, data_sync: str) -> int:
    """The tokens of a data sync by their ids, never themselves."""
    from infra import render, tokens

    document = tokens.listing(session.hub, data_sync)
    emit(document) if session.json else render.tokens(document)
    return 0


@command("revoke", "token revoke customers_import 5f2c9a01", of=token)
@DATA_SYNC
@click.argument("token_id", metavar="TOKEN_ID")
def token_revoke(session: Session, data_sync: str, token_id: str) -> int:
    """Ends a token at once. Others of the same data sync stay."""
    from infra import tokens

    document = tokens.revoke(session.hub, data_sync, token_id)
    emit(document) if session.json else click.echo(f"{token_id} opens {data_sync} no more")
    return 0
