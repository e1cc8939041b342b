"""One archive that takes the place of the books, and of the folder of the snapshot before (`importing.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from infra.report import stamp
from infra.snapshots.archive import WATCHED_ROWS, Archive, Unsound
from infra.snapshots.based import check_base, retained
from infra.snapshots.folders import OBJECTS, OUTPUT, OVERLAY, SETUP, Folders, output_path
from infra.snapshots.kept import Kept
from infra.snapshots.overlay import differences, overlay_of, read_set_up
from infra.snapshots.sources import drop_files_of_nobody
from infra.snapshots.spool import spool
from infra.wiring import Hub
from shared.books import Batch, Failure, Run, StreamState
from shared.confirm import Awaited
from shared.launches import Launch
from shared.ledger import Cell
from shared.ports import lease_name
from shared.snapshot.history import Placed
from shared.snapshot.on_its_way import PENDING
from shared.snapshot.params import Pov
from shared.snapshot.rows import KINDS, place_of, process_id

_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()}
NO_DATA = "its failures come without their data: none of them can be replayed before it is read again"


class Intent(msgspec.Struct, frozen=True):
    """An import that has begun to change something."""

    source: str
    copy: str
    """Of its archive, which no other import has."""
    held: bool
    """Whether nobody works since it began: one of the set-up takes no lease of a stream."""
    objects: bool
    """Whether it replaces the hub's own objects."""


class Import:
    """One archive on its way into this installation."""

    def __init__(self, hub: Hub, archive: Archive, progress: Any, kept: Kept | None = None, copy: str = "") -> None:
        self.hub = hub
        self.home = hub.home
        self.folders = Folders(hub.home.snapshots)
        self.archive = archive
        self.params = archive.params
        self.progress = progress
        self.kept = kept
        self.begun_at = hub.home.clock.now()
        self.intent = msgspec.json.encode(
            Intent(archive.name, copy, self.params.type != "SETUP", self.params.with_data)
        )
        self.waits: list[str] | None = None
        self.set_up = read_set_up(archive)
        self.adds = self.params.type == "INCREMENTAL" and self.params.base_process_id is not None

    @property
    def replaces_all(self) -> bool:
        """Whether nothing stays of the books that were there."""
        return self.params.type != "SETUP" and not self.adds

    def check(self) -> None:
        """Raises ConfigError where it cannot be imported anywhere."""
        self.archive.check(self.watch)
        if self.replaces_all and len(self.archive.povs) < len(self.params.povs):
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
        if self.replaces_all:
            with self.home.history.look() as past:
                replaced = past.counts()
            if not self.params.with_data:
                replaced.pop("objects")
            notes += self.what_waits()
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

    def what_waits(self) -> Iterator[str]:
        """What goes with the books that are replaced, and has not become anything."""
        with self.home.history.look() as past:
            for name in past.streams():
                where = " ".join(name)
                records = sum(batch.outcomes.count(PENDING) for batch in past.unsettled(*name))
                if records:
                    yield f"{where}: {records} records that wait here go, and are read again if the archive is older"
                launches = [str(launch.id) for launch in self.home.launches.waiting(*name)]
                if launches:
                    yield f"{where}: launches {', '.join(launches)} wait here and go: ask for them again"

    def before_it_is_too_late(self) -> None:
        """Keeps the leases, and looks once at what is about to go: from the intent on no launch is accepted, and nobody
        is given the lease of a stream, so that whoever has them at this moment has them to the end."""
        self.keep()
        if self.waits is None:
            if self.kept is not None:
                self.kept.renew()
            self.waits = [] if self.adds else list(self.what_waits())

    def leases(self) -> list[str]:
        """Of all streams of which anything is known, here or in the archive."""
        names = {(name, stream) for name, each in self.hub.integrations.items() for stream in each.streams}
        names |= {pov.name[:2] for pov in self.params.povs}
        with self.home.history.look() as past:
            names |= set(past.streams())
        return [lease_name(*name) for name in sorted(names)]

    def replace(self) -> None:
        """Steps 3 to 5."""
        # A set-up that cannot be put in place is to stop it while nothing has changed.
        overlay_of(self.hub, self.set_up)
        if self.params.type == "SETUP":
            self.home.history.replace(self.intent, None)
        else:
            self.home.history.replace(
                self.intent, self.entries, objects=self.params.with_data, watch=self.before_it_is_too_late
            )
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
            drop_files_of_nobody(self.home, self.begun_at, self.keep)
            self.folders.keep_only(OUTPUT, (output_path(pov.name) for pov in self.params.povs))
            self.folders.keep_only(OBJECTS, files)
            self.folders.write_params(self.params)
        self.folders.blobs.write(OVERLAY, overlay_of(self.hub, self.set_up))
        schedule = self.home.schedule
        for name in self.hub.integrations.keys() & self.set_up.documents.keys():
            # What a human paused here stays so: `differences` names it.
            if name in self.set_up.paused and not schedule.paused(name):
                schedule.pause(name)
        self.home.history.finish(self.intent)
        self.folders.drop_copies()


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
