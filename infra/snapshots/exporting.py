"""Exporting: the set-up, the POVs that changed, and the archive.

Order of effects, and what a crash between two of them does:

1. The set-up is written anew. It is set aside by nobody, and written anew by the next export.
2. The POVs that are to be written lose their fingerprints in `SnapshotParams.json`, which still names the process of
   the last snapshot. From here on a crash leaves files that may hold more than it says; they count as changed.
3. Their files are written, each all or nothing, then `removed.csv`.
4. `next.json` says what `SnapshotParams.json` will be, and in which archive. A crash leaves it to the next export,
   which lets it count if the archive was written, and drops it if not.
5. The archive is written, all or nothing: with it the snapshot exists.
6. `SnapshotParams.json` takes its place, files of what is gone are deleted, and `next.json` goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from infra.config import HOLD_BACK
from infra.report import stamp
from infra.snapshots.archive import REMOVED_COLUMNS, WATCHED_ROWS
from infra.snapshots.based import is_needed
from infra.snapshots.folders import OUTPUT, REMOVED, SETUP, Folders, Intended, archive_name, objects_path, output_path
from infra.snapshots.kept import Kept, held
from infra.snapshots.packing import pack, report
from infra.snapshots.periods import periods_of
from infra.snapshots.povs import StreamPovs
from infra.snapshots.setup import tables
from infra.snapshots.spool import spool
from infra.wiring import Hub
from shared.books import StreamState
from shared.errors import ConfigError
from shared.snapshot import SnapshotType
from shared.snapshot.history import EXPORT, IMPORT, Past
from shared.snapshot.params import FORMAT, CarriedFile, Pov, PovName, SnapshotParams, StreamMark
from shared.snapshot.periods import Periods
from shared.snapshot.rows import COLUMNS, COUNTED, OBJECT_COLUMNS, Row, object_rows, written
from shared.snapshot.summary import Summary

ANOTHER_NAME: Final = "give it another name, or say --overwrite (over HTTP overwriteFile: true)"
TAKES_THE_PLACE: Final = (
    "it took the place of an archive that increments add to, which cannot be imported without a copy of that one: "
    "export one of type ALL_INCREMENTAL, which needs no other, or give each export a name of its own"
)
T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]
"""Told of each step as it goes on: what is being done, how much of it is done, and of how much, where that is known."""


class Measured:
    """A file while it is written: its sum, and its rows by what they are."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self.counts: dict[str, int] = {}

    def of(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
        for piece in written(columns, self._counted(rows)):
            self._sum.update(piece)
            yield piece

    def _counted(self, rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
        for row in rows:
            what = str(row[0]) if isinstance(row, Row) else "row"
            self.counts[what] = self.counts.get(what, 0) + 1
            yield row

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    @property
    def rows(self) -> int:
        return sum(self.counts.values())


class Export:
    """One export under its lease. Use `export` of this package."""

    def __init__(
        self, hub: Hub, file: str, type: SnapshotType, with_data: bool, kept: Kept, progress: Progress
    ) -> None:
        self.hub = hub
        self.home = hub.home
        self.folders = Folders(hub.home.snapshots)
        self.file = file
        self.type: SnapshotType = type
        self.with_data = with_data
        self.kept = kept
        self.progress = progress
        self.notes: list[str] = []
        self.files: list[CarriedFile] = []
        self.streams: list[StreamMark] = []
        self.povs: dict[PovName, Pov] = {}
        self.written: set[PovName] = set()
        self.objects = 0
        self.stored = self.folders.params()
        self.before = {} if self.stored is None else self.stored.by_name

    def carry_out(self) -> Intended:
        periods = periods_of(self.hub)
        self.write_setup(periods)
        if self.type == "SETUP":
            params = self.params(self.home.clock.now(), periods)
        else:
            with self.home.history.look() as past:
                self.write_povs(past, periods)
                self.write_objects(past)
                params = self.params(past.at, periods)
        done = Intended(self.file, len(self.written), params)
        pack(self.folders, done, self.watch_archive)
        return done

    # --- the data folder ----------------------------------------------------------------------------------------------

    def write_setup(self, periods: Periods) -> None:
        found = tables(self.hub, periods)
        self.folders.keep_only(SETUP, ())
        for done, table in enumerate(found, 1):
            self.write(f"{SETUP}{table.name}.csv", table.columns, table.rows)
            self.progress("set-up", done, len(found))

    def write_povs(self, past: Past, periods: Periods) -> None:
        """The POVs of the streams that are configured; of others nothing is carried."""
        names = [(name, stream) for name, each in self.hub.integrations.items() for stream in each.streams]
        gone = [" ".join(name) for name in past.streams() if name not in names]
        self.notes += [f"{name}: nobody configures it any more, and its history is not carried" for name in gone]
        kept_files = set(self.folders.names(OUTPUT))
        for done, name in enumerate(names, 1):
            with spool() as waiting:
                povs = StreamPovs(
                    past, self.home.blobs, waiting, periods, name, with_data=self.with_data, watch=self.kept.keep
                )
                hold_back, launched = self.reading(*name)
                self.note_what_is_left_out(povs, launched=launched)
                state = povs.state(hold_back, launched=launched)
                if state != StreamState(*name):
                    self.streams.append(
                        StreamMark(*name, state.cursor, state.aged_from, state.last_run, state.consecutive_failures)
                    )
                self.write_stream(povs, kept_files)
            self.progress("streams", done, len(names))
        self.write_removed()

    def write_stream(self, povs: StreamPovs, kept_files: set[str]) -> None:
        changed = []
        for period in sorted(povs.summaries):
            pov = self.compared((*povs.name, period), povs.summaries[period])
            if self.type == "ALL" or not pov.sha256 or output_path(pov.name) not in kept_files:
                changed.append(pov)
            else:
                self.povs[pov.name] = pov
        self.distrust(pov.name for pov in changed)
        for pov in changed:
            measured = Measured()
            rows = self.watched(povs.rows(pov.period), pov.name)
            self.folders.write(output_path(pov.name), measured.of(COLUMNS, rows))
            counts = {COUNTED[what]: count for what, count in measured.counts.items()}
            self.povs[pov.name] = msgspec.structs.replace(
                pov, sha256=measured.sha256, rows=measured.rows, counts=counts
            )
            self.written.add(pov.name)

    def compared(self, name: PovName, summary: Summary) -> Pov:
        """The POV as it is, without a sum where it has changed since the last snapshot. Then its process is a later one
        than that snapshot knows, even where nobody said when it was changed."""
        stored, last = self.stored, self.before.get(name)
        if stored is None:
            return Pov(*name, summary.process_id, summary.fingerprint)
        mark = stored.last_process_id or 0
        same = last is not None and last.fingerprint == summary.fingerprint and last.process_id <= mark
        if last is not None and same and stored.with_data == self.with_data:
            return last
        return Pov(*name, max(summary.process_id, mark + 1), summary.fingerprint)

    def distrust(self, names: Iterable[PovName]) -> None:
        """Lets these POVs count as changed, whatever becomes of this export."""
        doubted = set(names)
        if self.stored is not None and doubted:
            self.stored = distrusted(self.stored, doubted)
            self.folders.write_params(self.stored)

    def write_removed(self) -> None:
        """Those that the last snapshot had and this one has not: nobody configures them any more, or they are empty."""
        self.removed = sorted(name for name in self.before if name not in self.povs)
        self.write(REMOVED, REMOVED_COLUMNS, self.removed)

    def write_objects(self, past: Past) -> None:
        kinds = past.kinds() if self.with_data else []
        for kind in kinds:
            rows = self.watched(object_rows(kind, past.objects(kind.name)), ("objects", kind.name, ""))
            self.objects += self.write(objects_path(kind.name), OBJECT_COLUMNS, rows) - 1

    def write(self, path: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
        """Writes a file of the archive, and says how many rows it has."""
        measured = Measured()
        self.folders.write(path, measured.of(columns, rows))
        self.files.append(CarriedFile(path, measured.sha256, measured.rows))
        return measured.rows

    def watched(self, rows: Iterable[T], name: PovName) -> Iterator[T]:
        """The rows, with the leases kept and somebody told every now and then."""
        done = 0
        for done, row in enumerate(rows, 1):
            if done % WATCHED_ROWS == 0:
                self.kept.keep()
                self.progress("/".join(filter(None, name)), done, None)
            yield row
        self.kept.keep()
        self.progress("/".join(filter(None, name)), done, done)

    def reading(self, integration: str, stream: str) -> tuple[timedelta, bool]:
        """The hold-back of a stream, and whether it is launched."""
        each = self.hub.integrations[integration].streams[stream]
        try:
            made = self.hub.stream(self.hub.integrations[integration], each)
        except ConfigError:
            return timedelta(seconds=HOLD_BACK if each.hold_back is None else each.hold_back), False
        return made.hold_back, bool(made.rules.launched)

    def note_what_is_left_out(self, povs: StreamPovs, *, launched: bool) -> None:
        where = " ".join(povs.name)
        then = "ask for it again after an import" if launched else "they are read again after an import"
        for run in povs.under_way():
            left = povs.way.left_out.get(run.id, 0)
            self.notes.append(f"{where}: run {run.id} is under way; {left} records wait and are not carried: {then}")
        for launch in povs.waiting:
            self.notes.append(f"{where}: launch {launch.id} waits and is not carried: ask for it again after an import")

    def watch_archive(self, done: int) -> None:
        self.kept.keep()
        self.progress("archive", done, None)

    def params(self, at: datetime, periods: Periods) -> SnapshotParams:
        base = None if self.stored is None else self.stored.last_process_id
        if self.type == "SETUP":
            return SnapshotParams(FORMAT, self.type, base, None, at, False, {}, self.files, [], [], periods.spans)
        carried = self.povs.keys() if self.type != "INCREMENTAL" else self.written
        povs = [self.povs[name] for name in sorted(self.povs)]
        counts = dict.fromkeys((*COUNTED.values(), "objects"), 0)
        for pov in povs:
            if pov.name in carried:
                self.files.append(CarriedFile(output_path(pov.name), pov.sha256, pov.rows))
                for what, count in pov.counts.items():
                    counts[what] += count
        counts["objects"] = self.objects
        last = max([pov.process_id for pov in povs], default=0)
        if base is not None:
            last = max(last, base + 1 if self.removed else base)
        return SnapshotParams(
            format=FORMAT,
            type=self.type,
            last_process_id=last,
            base_process_id=base if self.type == "INCREMENTAL" else None,
            created_at=at,
            with_data=self.with_data,
            counts=counts,
            files=sorted(self.files, key=lambda file: file.path),
            streams=self.streams,
            povs=povs,
            periods=periods.spans,
        )


def distrusted(params: SnapshotParams, names: Set[PovName]) -> SnapshotParams:
    """With these POVs counted as changed, whatever is known of them."""
    povs = [msgspec.structs.replace(pov, fingerprint="") if pov.name in names else pov for pov in params.povs]
    return msgspec.structs.replace(params, povs=povs)


def carry_out(
    hub: Hub, name: str, type: SnapshotType, overwrite: bool, with_data: bool, progress: Progress
) -> dict[str, Any]:
    """See `export` of this package."""
    from infra.snapshots.importing import finish_what_was_left

    file = f"outbox/{archive_name(name)}"
    folders = Folders(hub.home.snapshots)
    with held(hub.home, EXPORT) as kept:
        with held(hub.home, IMPORT):
            left, notes = finish_what_was_left(hub, progress, kept)
        # Nobody else has what changed up to an INCREMENTAL, which the next one adds to.
        wanted = left is not None and left.file == file and left.is_of(type, with_data)
        if left is not None and wanted and (type == "INCREMENTAL" or not overwrite):
            return report(folders, left, [f"it was begun at {stamp(left.params.created_at)}, and interrupted"])
        if not overwrite and folders.has(file):
            raise ConfigError(f"{file} is there already", cure=ANOTHER_NAME)
        # Those of the other types are the beginning of a chain.
        breaks_the_chain = type in ("INCREMENTAL", "SETUP") and folders.has(file) and is_needed(folders, file)
        one = Export(hub, file, type, with_data, kept, progress)
        chain = [TAKES_THE_PLACE] if breaks_the_chain else []
        return report(folders, one.carry_out(), [*notes, *chain, *one.notes])
