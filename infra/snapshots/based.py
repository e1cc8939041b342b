"""What a snapshot of type INCREMENTAL adds to: it has to be here, as it was, and nothing may have happened since."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import BinaryIO, cast

from infra.snapshots.archive import WATCHED_ROWS, Archive, Summed, opened, thing_in
from infra.snapshots.folders import ROOT, Folders, output_path
from infra.snapshots.povs import StreamPovs
from infra.snapshots.spool import spool
from infra.snapshots.zipping import READ_AHEAD, open_blob
from infra.wiring import Hub
from shared.errors import ConfigError, WaybillError
from shared.snapshot.params import Pov, SnapshotParams
from shared.snapshot.periods import Periods, Span
from shared.snapshot.rows import COLUMNS, Row, Thing, read


def check_base(hub: Hub, archive: Archive, watch: Callable[[], None]) -> None:
    """Raises ConfigError where the snapshot that the archive adds to is not the one that this installation holds.
    It may hold the archive's own as well: who does not know whether an import came through makes it once more. `watch`
    is called every now and then."""
    folders = Folders(hub.home.snapshots)
    stored, wanted = folders.params(), archive.params.base_process_id
    if stored is None or (stored.last_process_id != wanted and stored != archive.params):
        holds = "none" if stored is None else f"the one whose lastProcessId is {stored.last_process_id}"
        found = [name for name in archives(folders) if _last_process(folders, name) == wanted]
        raise ConfigError(
            f"{archive.name} adds to the snapshot whose lastProcessId is {wanted}, and this installation holds {holds}",
            cure=f"import {found[0]} first" if found else "import that snapshot first, or one of type ALL_INCREMENTAL",
        )
    before, carried = stored.by_name, {pov.name for pov in archive.povs}
    for pov in archive.params.povs:
        if pov.name not in carried:
            known = before.get(pov.name)
            if known is None or _of_its_file(known) != _of_its_file(pov):
                raise _other(pov)
            for number, _ in enumerate(retained(folders, pov)):
                if number % WATCHED_ROWS == 0:
                    watch()
    _check_nothing_happened(hub, folders, stored, watch)


def _of_its_file(pov: Pov) -> tuple[object, ...]:
    return pov.fingerprint, pov.sha256, pov.rows, {what: count for what, count in pov.counts.items() if count}


def retained(folders: Folders, pov: Pov) -> Iterator[tuple[Row, Thing]]:
    """The rows of the file of a POV in the data folder. Raises ConfigError where it is not what it should be."""
    try:
        with open_blob(folders.blobs, f"{ROOT}{output_path(pov.name)}") as file:
            summed = Summed(file)
            for row in read(cast(BinaryIO, io.BufferedReader(summed, READ_AHEAD)), COLUMNS):
                yield thing_in(row, pov.name)
    except FileNotFoundError:
        raise _other(pov) from None
    except ConfigError as error:
        raise _other(pov) from error
    if summed.sha256 != pov.sha256:
        raise _other(pov)


def _other(pov: Pov) -> ConfigError:
    return ConfigError(
        f"what the data folder has of {'/'.join(pov.name)} is not what the archive adds to",
        cure="import a snapshot of type ALL or ALL_INCREMENTAL",
    )


def _check_nothing_happened(hub: Hub, folders: Folders, stored: SnapshotParams, watch: Callable[[], None]) -> None:
    """Raises ConfigError for what this installation knows and the snapshot that it holds does not."""
    periods = _periods_then(folders, stored)
    fingerprints = {pov.name: pov.fingerprint for pov in stored.povs}
    with hub.home.history.look() as past:
        for name in past.streams():
            with spool() as waiting:
                povs = StreamPovs(past, hub.home.blobs, waiting, periods, name, with_data=False, watch=watch)
                own = {(*name, period): summary.fingerprint for period, summary in povs.summaries.items()}
                before = {pov: known for pov, known in fingerprints.items() if pov[:2] == name}
                if own != before or povs.waiting or povs.way.left_out:
                    raise ConfigError(
                        f"{'/'.join(name)} has worked since the snapshot that the archive adds to",
                        cure="import a snapshot of type ALL or ALL_INCREMENTAL, which replaces what is here",
                    )


def _periods_then(folders: Folders, stored: SnapshotParams) -> Periods:
    """The named spans of the snapshot that the data folder holds: where it does not say them, those of the set-up
    beside it."""
    if stored.periods is not None:
        return Periods(stored.periods)
    try:
        text = b"".join(folders.pieces("setup/periods.csv")).decode()
    except FileNotFoundError:
        return Periods()
    rows = list(csv.reader(io.StringIO(text)))[1:]
    return Periods(
        tuple(Span(name, datetime.fromisoformat(since), datetime.fromisoformat(until)) for name, since, until in rows)
    )


def archives(folders: Folders) -> list[str]:
    """The names of all archives in the snapshot folders, newest first."""
    found = [
        (written_at, name)
        for folder in ("outbox/", "inbox/")
        for name, written_at in folders.blobs.names(folder)
        if name.endswith(".zip")
    ]
    return [name for _, name in sorted(found, reverse=True)]


def is_needed(folders: Folders, name: str) -> bool:
    """Whether this archive is a link of the chain that leads to the snapshot which the next INCREMENTAL adds to, and no
    other one takes its part: not one of the same snapshot, nor a later one that carries everything."""
    stored = folders.params()
    if stored is None or stored.last_process_id is None:
        return False
    known = {each: params for each in archives(folders) if (params := _params(folders, each))}
    others = [params for each, params in known.items() if each != name]
    return _leads_back_to(stored.last_process_id, others) > _leads_back_to(stored.last_process_id, known.values())


def _leads_back_to(process: int, known: Iterable[SnapshotParams]) -> int:
    """The oldest snapshot that archives lead back to from this one, by its `lastProcessId`; -1 where they lead to one
    that carries everything."""
    met = {process}
    for params in sorted(known, key=lambda params: params.last_process_id or 0, reverse=True):
        base = -1 if params.base_process_id is None else params.base_process_id
        # One that changes nothing is no link: it adds to the snapshot that it is.
        if params.type != "SETUP" and params.last_process_id in met and base != params.last_process_id:
            met.add(base)
    return min(met)


def _last_process(folders: Folders, name: str) -> int | None:
    params = _params(folders, name)
    return None if params is None else params.last_process_id


def _params(folders: Folders, name: str) -> SnapshotParams | None:
    """What an archive is, None where nobody can read it."""
    try:
        with opened(open_blob(folders.blobs, name), name) as archive:
            return archive.params
    except (WaybillError, FileNotFoundError):
        return None
