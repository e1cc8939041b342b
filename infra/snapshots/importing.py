"""Importing: the books of an archive take the place of those that are here, and its set-up is compared with this one's.

Order of effects, and what a crash between two of them does:

1. The archive is copied to `imports/` of the data folder, so that it stays as it is. A crash leaves a copy that
   the next export or import deletes.
2. It is looked through from its beginning to its end; then the leases of all streams are taken, and under them an
   INCREMENTAL is held against its base.
3. The intent is noted and the books are replaced (`shared/snapshot/history.py`): embedded in one write; on Google Cloud
   after a crash in between nobody works until the next export or import has made the same replacement once more, or
   another whole archive has taken its place.
4. The data folder, the overlay and what is paused are put as the archive has them, which is the same however often it
   is done. A crash leaves it to the next export or import.
5. The intent goes, then the copy.

One of type INCREMENTAL adds to the snapshot that the data folder holds: together they are what is put in place
(`based.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from infra.snapshots.archive import opened
from infra.snapshots.folders import OVERLAY, Folders, Intended
from infra.snapshots.kept import Kept, held
from infra.snapshots.packing import settle_what_was_left
from infra.snapshots.replacing import Import, Intent
from infra.snapshots.sources import source_of, stage
from infra.snapshots.zipping import open_blob
from infra.wiring import Hub
from shared.errors import ConfigError, Leased
from shared.snapshot.history import EXPORT, IMPORT, Unfinished
from shared.snapshot.rows import process_id

ANOTHER = "import a snapshot of type ALL or ALL_INCREMENTAL, which takes its place"


class Left(NamedTuple):
    """What was found in the middle and brought to its end: an export that counts by now, or an import, of which people
    are told."""

    export: Intended | None = None
    notes: tuple[str, ...] = ()


def carry_out(hub: Hub, source: str | Path, progress: Any) -> dict[str, Any]:
    """Imports an archive. See `restore` of this package."""
    home, folders = hub.home, Folders(hub.home.snapshots)
    with held(home, IMPORT, EXPORT) as kept:
        left = home.history.unfinished()
        gives_way = left is not None and takes_its_place(hub, left, source, progress, kept)
        # From its intent on nobody was given the lease of a stream. One of the set-up had none of them before.
        is_held = left is not None and gives_way and _intent(left).held
        try:
            notes = [] if is_held else list(finish_what_was_left(hub, progress, kept).notes)
        except ConfigError:
            if left is None or not gives_way:
                raise
            home.history.finish(left.intent)
            notes = []
        if left is not None and gives_way and not notes:
            notes = [f"{_interrupted(left)}, and this one takes its place"]
        copy = stage(folders, source, progress, kept)
        try:
            with opened(open_blob(folders.blobs, copy), str(source)) as archive:
                one = Import(hub, archive, progress, kept, copy)
                one.check()
                is_set_up = one.params.type == "SETUP"
                process = process_id(home.clock.now()) if is_set_up else 0
                with held(home, *([] if is_set_up or is_held else one.leases()), besides=kept) as all_kept:
                    one.kept = all_kept
                    one.check_base(all_kept.keep)
                    plan = one.plan()
                    one.replace()
        except ConfigError:
            begun = home.history.unfinished()
            if begun is None or _intent(begun).copy != copy:
                folders.blobs.delete(copy)
            raise
    notes += [*plan["notes"], *(note for note in one.waits or () if note not in plan["notes"])]
    return {**plan, "notes": notes, "processId": process, "overlay": _place_of_overlay(hub)}


def look_ahead(hub: Hub, source: str | Path, progress: Any) -> dict[str, Any]:
    """See `examine` of this package."""
    folders = Folders(hub.home.snapshots)
    with source_of(folders, source) as file, opened(file, str(source)) as archive:
        one = Import(hub, archive, progress)
        one.check()
        left = hub.home.history.unfinished()
        if left is None:
            one.check_base()
        for name in [IMPORT, EXPORT, *([] if one.params.type == "SETUP" else one.leases())]:
            holder = hub.home.leases.holder(name)
            if holder is not None:
                raise Leased(f"{name} is held by {holder}", holder=holder)
        plan = one.plan()
        if left is not None:
            plan["notes"].insert(0, f"{_interrupted(left)}: it is brought to its end, or this one takes its place")
        return plan


def takes_its_place(hub: Hub, left: Unfinished, source: str | Path, progress: Any, kept: Kept) -> bool:
    """Whether nothing stays of an import that was interrupted, once this archive is brought in: then it need not be
    brought to its end, which it may not come to. Raises ConfigError for an archive that is not sound."""
    with source_of(Folders(hub.home.snapshots), source) as file, opened(file, str(source)) as archive:
        one = Import(hub, archive, progress, kept)
        # Objects that were deleted come back only from an archive that has some.
        replaces_all = one.replaces_all and (left.replaced or one.params.with_data or not _intent(left).objects)
        if replaces_all:
            one.check()
        return replaces_all


def finish_what_was_left(hub: Hub, progress: Any, kept: Kept) -> Left:
    """Brings an import to its end that was interrupted after it had begun to change something, or an export whose
    archive was written, and clears away what else was left behind."""
    if not hub.on_google_cloud:
        hub.embedded.snapshots.remove_abandoned()
    folders = Folders(hub.home.snapshots)
    left = hub.home.history.unfinished()
    if left is None:
        settled = settle_what_was_left(folders)
        folders.drop_copies()
        return Left(settled)
    done, intent = Left(notes=(f"{_interrupted(left)}, and was brought to its end first",)), _intent(left)
    cure = f"{ANOTHER}, with data as it has" if intent.objects and not left.replaced else ANOTHER
    folders.drop_copies(but=intent.copy)
    if not folders.has(intent.copy):
        raise ConfigError(f"{_interrupted(left)}, and its copy is gone", cure=cure)
    try:
        with opened(open_blob(folders.blobs, intent.copy), intent.source) as archive:
            one = Import(hub, archive, progress, kept, intent.copy)
            if left.replaced:
                one.place()
            else:
                one.check()
                one.replace()
    except ConfigError as error:
        raise ConfigError(f"{_interrupted(left)}, and cannot be brought to its end: {error}", cure=cure) from error
    return done


def _interrupted(left: Unfinished) -> str:
    return f"the import of {_intent(left).source} was interrupted"


def _intent(left: Unfinished) -> Intent:
    return msgspec.json.decode(left.intent, type=Intent)


def _place_of_overlay(hub: Hub) -> str:
    return OVERLAY if hub.on_google_cloud else str(hub.state_folder / "snapshots" / OVERLAY)
