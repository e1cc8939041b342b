"""Importing: the books of an archive take the place of those that are here, and its set-up is compared with this one's.

Order of effects, and what a crash between two of them does:

1. The archive is copied to `import.zip` of the data folder, so that it stays as it is. A crash leaves a copy that the
   next export or import deletes.
2. It is looked through from its beginning to its end; then the leases of all streams are taken, and under them an
   INCREMENTAL is held against its base.
3. The intent is noted and the books are replaced (`shared/snapshot/history.py`): embedded in one write; on Google Cloud
   after a crash in between nobody works until the next export or import has made the same replacement once more.
4. The data folder, the overlay and what is paused are put as the archive has them, which is the same however often it
   is done. A crash leaves it to the next export or import.
5. The intent goes, then the copy.

One of type INCREMENTAL adds to the snapshot that the data folder holds: together they are what is put in place
(`based.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from infra.report import stamp
from infra.snapshots.archive import WATCHED_ROWS, Archive, Unsound, opened
from infra.snapshots.based import check_base, retained
from infra.snapshots.folders import (
    OBJECTS,
    OUTPUT,
    OVERLAY,
    SETUP,
    STAGED,
    Folders,
    Intended,
    output_path,
)
from infra.snapshots.kept import Kept, held
from infra.snapshots.overlay import differences, overlay_of, read_set_up
from infra.snapshots.packing import settle_what_was_left
from infra.snapshots.sources import drop_files_of_nobody, source_of, stage
from infra.snapshots.spool import spool
from infra.snapshots.zipping import open_blob
from infra.wiring import Hub
from shared.confirm import Awaited
from shared.errors import ConfigError, Leased
from shared.launches import Launch
from shared.ledger import Cell
from shared.ports import Batch, Failure, Run, StreamState, lease_name
from shared.snapshot.history import EXPORT, IMPORT, Past, Placed, Unfinished
from shared.snapshot.on_its_way import PENDING
from shared.snapshot.params import Pov
from shared.snapshot.rows import KINDS, place_of, process_id

_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()}
NO_DATA = "its failures come without their data: none of them can be replayed before it is read again"


class Intent(msgspec.Struct, frozen=True):
    """An import that has begun to change something."""

    source: str
    adds: bool


class Import:
    """One archive on its way into this installation."""

    def __init__(self, hub: Hub, archive: Archive, progress: Any, kept: Kept | None = None) -> None:
        self.hub = hub
        self.home = hub.home
        self.folders = Folders(hub.home.snapshots)
        self.archive = archive
        self.params = archive.params
        self.progress = progress
        self.kept = kept
        self.begun_at = hub.home.clock.now()
        self.set_up = read_set_up(archive)
        self.adds = self.params.type == "INCREMENTAL" and self.params.base_process_id is not None

    def check(self) -> None:
        """Raises ConfigError where it cannot be imported anywhere."""
        self.archive.check(self.watch)
        if not self.adds and self.params.type != "SETUP" and len(self.archive.povs) < len(self.params.povs):
            raise Unsound(f"{self.archive.name} lists POVs whose files it does not hold")

    def check_base(self, watch: Callable[[], None] = lambda: None) -> None:
        """Raises ConfigError where it cannot be imported here. It is true for as long as no stream works."""
        if self.adds:
            check_base(self.hub, self.archive, watch)

    def keep(self) -> None:
        """Keeps the leases, if there are any."""
        if self.kept is not None:
            self.kept.keep()

    def watch(self, what: str, done: int) -> None:
        self.keep()
        self.progress(what, done, None)

    def plan(self) -> dict[str, Any]:
        """What is said of it beforehand."""
        replaced: dict[str, int] = {}
        notes = [NO_DATA] if self.params.counts.get("failures") and not self.params.with_data else []
        if self.params.type != "SETUP" and not self.adds:
            with self.home.history.look() as past:
                replaced = past.counts()
                for name in past.streams():
                    notes += self.what_waits(past, *name)
            if not self.params.with_data:
                replaced.pop("objects")
        return {
            "source": self.archive.name,
            "type": self.params.type,
            "createdAt": stamp(self.params.created_at),
            "lastProcessId": self.params.last_process_id,
            "baseProcessId": self.params.base_process_id,
            "withData": self.params.with_data,
            "counts": self.params.counts,
            "replaced": replaced,
            "differences": differences(self.hub, self.set_up),
            "notes": notes,
        }

    def what_waits(self, past: Past, *name: str) -> Iterator[str]:
        """Of a stream: what goes with the books that are replaced."""
        records = sum(batch.outcomes.count(PENDING) for batch in past.unsettled(*name))
        if records:
            yield f"{' '.join(name)}: {records} records that wait here go, and are read again if the archive is older"
        launches = [str(launch.id) for launch in self.home.launches.waiting(*name)]
        if launches:
            yield f"{' '.join(name)}: launches {', '.join(launches)} wait here and go: ask for them again"

    def leases(self) -> list[str]:
        """Of all streams of which anything is known, here or in the archive."""
        names = {(name, stream) for name, each in self.hub.integrations.items() for stream in each.streams}
        names |= {pov.name[:2] for pov in self.params.povs}
        with self.home.history.look() as past:
            names |= set(past.streams())
        return [lease_name(*name) for name in sorted(names)]

    def replace(self) -> None:
        """Steps 3 to 5."""
        intent = msgspec.json.encode(Intent(self.archive.name, self.adds))
        if self.params.type == "SETUP":
            self.home.history.replace(intent, None)
        else:
            self.home.history.replace(intent, self.entries, objects=self.params.with_data, watch=self.keep)
        self.place()

    def entries(self) -> Iterator[Placed]:
        """All that the books come to, each kind of a stream oldest first."""
        of_stream: dict[tuple[str, str], list[Pov]] = {}
        for pov in self.params.povs:
            of_stream.setdefault((pov.location, pov.category), []).append(pov)
        for name, povs in sorted(of_stream.items()):
            yield from self.entries_of(name, povs)
        for mark in self.params.streams:
            state = StreamState(
                *(mark.integration, mark.stream, mark.cursor, mark.last_run, mark.consecutive_failures, mark.aged_from)
            )
            yield Placed(mark.integration, mark.stream, state)
        for path in sorted(self.archive.files):
            if path.startswith(OBJECTS):
                for each in self.archive.objects(path):
                    yield Placed("", "", each)

    def entries_of(self, name: tuple[str, str], povs: list[Pov]) -> Iterator[Placed]:
        """Cells at once, those of the snapshot that is the oldest first; the others in the order of their times."""
        carried = {pov.name for pov in self.archive.povs}
        done = 0
        with spool() as waiting:
            for pov in sorted(povs, key=lambda pov: (pov.process_id, pov.period)):
                found = self.archive.things(pov) if pov.name in carried else retained(self.folders, pov)
                for row, thing in found:
                    done += 1
                    if done % WATCHED_ROWS == 0:
                        self.watch("/".join(name), done)
                    if isinstance(thing, Cell):
                        yield Placed(*name, thing)
                    else:
                        document = msgspec.json.encode(thing).decode()
                        waiting.put("", row.row, _at(thing), row.id, 0, document, place=place_of(thing, row.process_id))
            for kind, decoder in _DECODERS.items():
                for _, _, _, document in waiting.each("", kind):
                    yield Placed(*name, decoder.decode(document))
        self.watch("/".join(name), done)

    def place(self) -> None:
        """The folders, the overlay and what is paused, as the archive has them."""
        files = self.archive.files
        for path in sorted(files):
            self.folders.write(path, self.archive.pieces(path))
            self.watch(path, files[path].rows)
        self.folders.keep_only(SETUP, files)
        if self.params.type != "SETUP":
            drop_files_of_nobody(self.home, self.begun_at)
            self.folders.keep_only(OUTPUT, (output_path(pov.name) for pov in self.params.povs))
            self.folders.keep_only(OBJECTS, files)
            self.folders.write_params(self.params)
        self.folders.blobs.write(OVERLAY, overlay_of(self.hub, self.set_up))
        schedule = self.home.schedule
        for name in self.hub.integrations.keys() & self.set_up.documents.keys():
            paused = name in self.set_up.paused
            if schedule.paused(name) != paused:
                (schedule.pause if paused else schedule.resume)(name)
        self.home.history.finish()
        self.folders.blobs.delete(STAGED)


def carry_out(hub: Hub, source: str | Path, progress: Any) -> dict[str, Any]:
    """Imports an archive. See `restore` of this package."""
    home, folders = hub.home, Folders(hub.home.snapshots)
    with held(home, IMPORT, EXPORT) as kept:
        left = finish_what_was_left(hub, progress, kept)
        stage(folders, source, progress, kept)
        try:
            with opened(open_blob(folders.blobs, STAGED), str(source)) as archive:
                one = Import(hub, archive, progress, kept)
                one.check()
                process = process_id(home.clock.now()) if one.params.type == "SETUP" else 0
                with held(home, *([] if one.params.type == "SETUP" else one.leases()), besides=kept) as all_kept:
                    one.check_base(all_kept.keep)
                    plan = one.plan()
                    all_kept.keep()
                    one.replace()
        except ConfigError:
            if home.history.unfinished() is None:
                folders.blobs.delete(STAGED)
            raise
    notes = [*left.notes, *plan["notes"]]
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
            plan["notes"].insert(0, f"{_interrupted(left)}: it is brought to its end first")
        return plan


class Left(NamedTuple):
    """What was found in the middle and brought to its end: an export that counts by now, or an import, of which people
    are told."""

    export: Intended | None = None
    notes: tuple[str, ...] = ()


def finish_what_was_left(hub: Hub, progress: Any, kept: Kept) -> Left:
    """Brings an import to its end that was interrupted after it had begun to change something, or an export whose
    archive was written, and clears away what else was left behind."""
    if not hub.on_google_cloud:
        hub.embedded.snapshots.remove_abandoned()
    folders = Folders(hub.home.snapshots)
    left = hub.home.history.unfinished()
    if left is None:
        settled = settle_what_was_left(folders)
        folders.blobs.delete(STAGED)
        return Left(settled)
    intent = msgspec.json.decode(left.intent, type=Intent)
    done = Left(notes=(f"{_interrupted(left)}, and was brought to its end first",))
    if left.replaced and not folders.has(STAGED):
        # The books are those of the archive, and the next export tells by itself what changed since the data folder.
        hub.home.history.finish()
        return done
    if not folders.has(STAGED):
        raise ConfigError(
            f"the import of {intent.source} was interrupted, and its copy in the snapshot folder is gone",
            cure="put the archive back as data/snapshots/import.zip, then import once more",
        )
    with opened(open_blob(folders.blobs, STAGED), intent.source) as archive:
        one = Import(hub, archive, progress, kept)
        if left.replaced:
            one.place()
        else:
            one.replace()
    return done


def _interrupted(left: Unfinished) -> str:
    return f"the import of {msgspec.json.decode(left.intent, type=Intent).source} was interrupted"


def _at(thing: Run | Batch | Failure | Awaited | Launch) -> int:
    match thing:
        case Run():
            return process_id(thing.started_at)
        case Batch():
            return process_id(thing.committed_at)
        case Failure():
            return process_id(thing.first_at)
        case Awaited():
            return process_id(thing.sent_at)
    return process_id(thing.scheduled_at)


def _place_of_overlay(hub: Hub) -> str:
    return OVERLAY if hub.on_google_cloud else str(hub.state_folder / "snapshots" / OVERLAY)
