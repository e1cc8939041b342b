"""The records that are committed together: how a reader's rows become batches in lanes.

A record is kept as the bytes that will travel, not as the object that it was read as: a group of thousands stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from shared.books import Batch, Closure, Failure, FailureQuery, Run, RunKind
from shared.ends import Page, Row
from shared.errors import BAD_IDENTITY, NO_IDENTITY, TOO_LARGE, UNMAPPABLE, RecordError
from shared.ledger import NOBODY_WINS, Cell, failed
from shared.monitoring import failure_rows, monitored
from shared.outcome import LETTERS, Outcome, Verdict
from shared.ports import Message, topic_of
from shared.record import Record, content_hash, join_envelope, lane_of, version_at
from shared.stream import MESSAGE_BYTES

if TYPE_CHECKING:
    from shared.fetch import Fetcher

GROUP_FILL: Final = 4
"""Full batches per lane in a group: the larger, the fuller the batches and the fewer the commits."""
GROUP_SECONDS: Final = 2.0
"""A slow source's records wait no longer than this for their group to fill."""
COMMIT_BYTES: Final = 2_500_000
"""A group ends with the page that makes it so heavy; a request to Firestore may have 10 MB, to its emulator 4."""
HEAVIEST: Final = 3_000_000
"""What is heavier, however large its last page was, takes more than one commit."""
FAILURE_BYTES: Final = 3_000
"""What a failure and its cell take of a commit besides the record."""
CORRECTION_BYTES: Final = 1_000
"""What a failure takes of it that is over."""
CONTESTED: Final = "another object of the source has this identity too"
PENDING: Final = LETTERS[Outcome.PENDING]


class Travelling(NamedTuple):
    """A record on its way into a batch."""

    key: str
    version: str
    origin: str
    data: bytes


class Group:
    """What was read since the last commit: records by lane, and those that ended while being read."""

    def __init__(self, fetcher: Fetcher, run: Run, location: str, kind: RunKind = "fetch") -> None:
        self.fetcher = fetcher
        self.stream = fetcher.stream
        self.home = fetcher.home
        self.run = run
        self.location = location
        self.kind: RunKind = kind
        self.clear()

    def clear(self) -> None:
        self.rows = 0
        self.size = 0
        self.weight = 0
        self.ended_weight = 0
        """Of what ended here, which stands in one batch and so in one document of at most 1 MiB."""
        self.after = self.run.after
        self.begun: float | None = None
        self.lanes: dict[int, list[Travelling]] = {}
        self.ended: list[tuple[str, str, Outcome]] = []
        self.rules: dict[str, int] = {}
        self.invalid: list[tuple[Record, RecordError]] = []
        self.corrections: list[Closure] = []
        self.newest: dict[str, str] = {}

    def begin(self) -> None:
        if self.begun is None:
            self.begun = self.home.clock.monotonic()

    def add(self, page: Page) -> None:
        """Judges each row of a page: it ends here, or goes into its lane."""
        self.begin()
        rows: Sequence[Row] = page.rows
        if self.run.limit is not None:
            rows = rows[: max(0, self.run.limit - self.run.fetched - self.rows)]
        identify, filters = self.stream.rules.identify, self.stream.rules.filters
        dated = self.fetcher.dated_filters(self.run)
        operation_of = self.stream.rules.operation_of
        nameless = self.fetcher.nameless
        aged: list[tuple[Record, str]] = []
        if self.stream.rules.polled:
            rows = [msgspec.structs.replace(row, version=self.version_of(row)) for row in rows]
        for row in rows:
            try:
                if row.problem is not None:
                    raise RecordError(row.problem[1], number=row.problem[0])
                rule = next((name for name, holds in filters if holds(row.data)), None) if filters else None
                key = identify(row.data) if rule is None else ""
            except RecordError as error:
                self.set_aside(self.nameless(row), error)
                continue
            except Exception as error:
                self.set_aside(self.nameless(row), unforeseen(error))
                continue
            if rule is not None:
                self.leave_out(row.origin or row.position, row.version, rule)
                continue
            if not key or not is_whole(key):
                self.set_aside(self.nameless(row), RecordError("it has no identity", number=NO_IDENTITY))
                continue
            record = Record(key, row.version, operation_of(row), row.origin, row.position, row.data)
            if nameless and row.origin in nameless:
                self.correct(nameless[row.origin], record)
            if dated:
                try:
                    rule = next((name for name, holds in dated if holds(row.data)), None)
                except RecordError as error:
                    self.set_aside(record, error)
                    continue
                except Exception as error:
                    self.set_aside(record, unforeseen(error))
                    continue
                if rule is not None:
                    aged.append((record, rule))
                    continue
            self.put(record)
        if aged:
            taken_up = self.fetcher.taken_up([record.key for record, _ in aged])
            for record, rule in aged:
                if record.key in taken_up:
                    self.put(record)
                else:
                    self.leave_out(record.origin or record.position, record.version, rule)
        self.rows += len(rows)
        self.after = page.after

    def version_of(self, row: Row) -> str:
        """Of a row whose source has no versions: the run's start, and what orders objects of one identity. That is a
        number, or stands for a text that may name a person: versions are kept when whose they were is forgotten."""
        if self.stream.rules.launched == "whole":
            return version_at(self.run.started_at)
        return version_at(self.run.started_at, row.origin if row.origin.isdecimal() else content_hash(row.origin)[:12])

    def leave_out(self, origin: str, version: str, rule: str) -> None:
        """A rule says that it does not travel, whoever it is: it stands in the books by its id at the source."""
        key = f"{self.stream.source_system}:{origin}"
        self.ended.append((key, version, Outcome.FILTERED))
        self.ended_weight += len(key) + len(version) + 8
        self.rules[rule] = self.rules.get(rule, 0) + 1

    def put(self, record: Record) -> None:
        """Puts a record into its lane, unless it cannot travel."""
        try:
            data = record.to_bytes()
        except UnicodeEncodeError:
            whole = msgspec.structs.replace(record, data=without_halves(record.data))
            self.set_aside(whole, RecordError("a text in it holds half a character (a lone surrogate)"))
            return
        if len(data) > MESSAGE_BYTES:
            self.set_aside(record, RecordError(f"it has {len(data)} bytes", number=TOO_LARGE))
            return
        self.newest[record.origin] = max(record.version, self.newest.get(record.origin, ""))
        lane = lane_of(record.key, self.fetcher.lanes)
        travelling = Travelling(record.key, record.version, record.origin, data)
        try:
            self.lanes[lane].append(travelling)
        except KeyError:
            self.lanes[lane] = [travelling]
        self.size += 1
        self.weight += len(record.key) + len(record.version) + 8

    def set_aside(self, record: Record, error: RecordError) -> None:
        """Makes a record invalid."""
        self.invalid.append((record, error))
        self.weight += weight_of(record)

    def set_contested_aside(self) -> None:
        """Makes all records invalid whose identity more than one object claims, before any of them travels."""
        for lane, records in self.lanes.items():
            origins: dict[str, set[str]] = {}
            for record in records:
                origins.setdefault(record.key, set()).add(record.origin)
            for record in records:
                if len(origins[record.key]) > 1:
                    self.set_aside(Record.from_bytes(record.data), RecordError(CONTESTED, number=BAD_IDENTITY))
            self.lanes[lane] = [record for record in records if len(origins[record.key]) == 1]

    def nameless(self, row: Row) -> Record:
        """The record of a row without a usable identity: named by its system and its id there."""
        key = f"{self.stream.source_system}:{row.origin or row.position}"
        operation = self.stream.rules.operation_of(row)
        return Record(key, row.version, operation, row.origin, row.position, without_halves(row.data))

    def correct(self, failures: list[Failure], record: Record) -> None:
        """An object that had no usable identity has one in this version: what failed without one is superseded."""
        for failure in [f for f in failures if f.version < record.version]:
            self.corrections.append(Closure(failure.id, failure.batch, failure.place, Outcome.SUPERSEDED))
            self.weight += CORRECTION_BYTES
            failures.remove(failure)

    def is_full(self) -> bool:
        if self.begun is None:
            return False
        if self.size >= self.fetcher.lanes * self.stream.batch_size * GROUP_FILL or self.weight >= COMMIT_BYTES:
            return True
        if self.ended_weight >= MESSAGE_BYTES:
            return True
        return self.home.clock.monotonic() - self.begun >= GROUP_SECONDS

    def commit(self) -> None:
        """Steps 4 to 6 of the story (`shared/fetch.py`): archive, then commit, then publish."""
        if self.begun is None:
            return
        read = self.rows
        if self.stream.on_conflict == NOBODY_WINS:
            self.set_contested_aside()
        self.commit_failures()
        self.write(read)

    def commit_failures(self) -> None:
        """The failures that one commit has no room for, in commits of their own, under the checkpoint as it stands:
        after a crash their rows are read again, and are duplicates."""
        done = 0
        while done < len(self.invalid) and self.weight > HEAVIEST:
            part = Group(self.fetcher, self.run, self.location, self.kind)
            part.newest = self.newest
            for record, error in self.invalid[done:]:
                part.set_aside(record, error)
                part.rows += 1
                if part.weight >= COMMIT_BYTES:
                    break
            done += part.rows
            self.rows -= part.rows
            self.weight -= part.weight
            part.write(0)
        del self.invalid[:done]

    def write(self, read: int) -> None:
        """Commits all that is here; `read` is the number of rows between the checkpoint and the one before."""
        run, home = self.run, self.home
        name = f"archive/{run.integration}/{run.stream}/{run.id}/{self.fetcher.lease.token}-{run.groups:06d}"
        batches, parts = self.batches(name)
        ended, failures, cells = self.ended_here(len(batches))
        if parts:
            home.blobs.write(name, b"".join(parts))
        run.fetched += self.rows
        run.pass_rows += read
        run.groups += 1
        run.after = self.after
        run.lanes = self.fetcher.lanes
        run.touched_at = home.clock.now()
        at = run.touched_at
        rows = monitored(self.stream.monitored, lambda: failure_rows(failures, at))
        home.runs.commit(self.fetcher.lease, run, [*batches, *ended], failures, cells, self.corrections, rows)
        self.fetcher.remember_nameless(failures)
        if batches:
            home.bus.publish(topic_of(run.integration), [as_message(b, p) for b, p in zip(batches, parts, strict=True)])
            home.batches.published([batch.id for batch in batches], home.clock.now())
        self.fetcher.notice("group_committed", run=run.id, stream=run.stream, fetched=run.fetched, total=run.total)
        self.clear()

    def batches(self, blob: str) -> tuple[list[Batch], list[bytes]]:
        """The batches of each lane, and their bytes as they stand in the archive and in the messages."""
        batches: list[Batch] = []
        parts: list[bytes] = []
        offset, run = 0, self.run
        for lane in sorted(lane for lane, records in self.lanes.items() if records):
            for chunk in in_messages(self.lanes[lane], self.stream.batch_size):
                batch_id = self.batch_id(len(batches))
                records = [record.data for record in chunk]
                data = join_envelope(run.integration, run.stream, run.id, batch_id, lane, records, self.location)
                batches.append(
                    Batch(
                        id=batch_id,
                        run=run.id,
                        integration=run.integration,
                        stream=run.stream,
                        kind=self.kind,
                        lane=lane,
                        keys=[record.key for record in chunk],
                        versions=[record.version for record in chunk],
                        outcomes=PENDING * len(chunk),
                        committed_at=self.home.clock.now(),
                        blob=blob,
                        offset=offset,
                        length=len(data),
                    )
                )
                parts.append(data)
                offset += len(data)
        return batches, parts

    def batch_id(self, number: int) -> str:
        return f"{self.run.id}.{self.run.groups}.{number}"

    def ended_here(self, number: int) -> tuple[list[Batch], list[Failure], list[Cell]]:
        """The batch of what ended while being read: filtered, invalid, or invalid as it already was (a duplicate)."""
        if not self.ended and not self.invalid:
            return [], [], []
        run, now = self.run, self.home.clock.now()
        known = self.home.ledger.cells(run.integration, run.stream, [record.key for record, _ in self.invalid])
        batch = Batch(
            id=self.batch_id(number),
            run=run.id,
            integration=run.integration,
            stream=run.stream,
            kind=self.kind,
            lane=None,
            keys=[],
            versions=[],
            outcomes="",
            committed_at=now,
            state="settled",
            rules=self.rules,
            published_at=now,
        )
        ended = list(self.ended)
        failures: list[Failure] = []
        cells: dict[str, Cell] = {}
        open_data, waiting = self.open_failures(known)
        for record, error in self.invalid:
            if record.origin and self.newest.get(record.origin, "") > record.version:
                ended.append((record.key, record.version, Outcome.SUPERSEDED))
                continue
            cell = cells.get(record.key) or known.get(record.key)
            if self.kind == "fetch" and cell is not None and cell.version > record.version:
                ended.append((record.key, record.version, Outcome.SUPERSEDED))
                continue
            waits = (cell is not None and cell.failed == record.version) or (record.key, record.version) in waiting
            if self.kind == "fetch" and (waits or record.data in open_data.get(record.key, ())):
                ended.append((record.key, record.version, Outcome.DUPLICATE))
                continue
            failures.append(Failure.of(record, invalid(error), batch, len(ended), now, self.location))
            ended.append((record.key, record.version, Outcome.INVALID))
            cells[record.key] = failed(record, cell, run.id, now)
        batch.keys = [key for key, _, _ in ended]
        batch.versions = [version for _, version, _ in ended]
        batch.outcomes = "".join(LETTERS[outcome] for _, _, outcome in ended)
        return [batch], failures, list(cells.values())

    def open_failures(self, known: dict[str, Cell]) -> tuple[dict[str, list[dict[str, Any]]], set[tuple[str, str]]]:
        """What failed already: by key what it held, which a polled source gives under a new version each time; and keys
        with versions."""
        data: dict[str, list[dict[str, Any]]] = {}
        versions: set[tuple[str, str]] = set()
        if keys := tuple(key for key, cell in known.items() if cell.failed):
            for failure in self.home.failures.find(FailureQuery(self.stream.integration, self.stream.name, keys=keys)):
                versions.add((failure.key, failure.version))
                if self.stream.rules.polled and not self.stream.rules.tries_again:
                    data.setdefault(failure.key, []).append(failure.data)
        return data, versions


def weight_of(record: Record) -> int:
    """About how many bytes of a commit a record takes that failed."""
    return FAILURE_BYTES + len(record.to_bytes())


def in_messages(records: list[Travelling], batch_size: int) -> Iterator[list[Travelling]]:
    """The records of a lane in as few messages as hold them, of about the same length and below the limit of bytes."""
    size = -(-len(records) // -(-len(records) // batch_size))
    chunk: list[Travelling] = []
    room = MESSAGE_BYTES
    for record in records:
        if chunk and (len(chunk) == size or len(record.data) > room):
            yield chunk
            chunk, room = [], MESSAGE_BYTES
        chunk.append(record)
        room -= len(record.data) + 1
    if chunk:
        yield chunk


def as_message(batch: Batch, data: bytes) -> Message:
    """The message of a batch. Its ordering key keeps a lane's batches in order, and apart from other streams' lanes."""
    return Message(data, ordering_key=f"{batch.stream}-{batch.lane}", attributes={"run": batch.run, "batch": batch.id})


def invalid(error: RecordError) -> Verdict:
    return Verdict(Outcome.INVALID, error.number, error.reason, error.field)


def unforeseen(error: Exception) -> RecordError:
    """A rule that fell over its input. The text of the exception may quote the record, so only its kind is kept."""
    return RecordError(f"a rule failed with {type(error).__name__}", number=UNMAPPABLE)


def is_whole(text: str) -> bool:
    """Whether a text can be written: some APIs cut texts in the middle of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_halves(value: Any) -> Any:
    """The value with every half of a character replaced by a question mark, so that it can be kept."""
    if isinstance(value, str):
        return value.encode("utf8", "replace").decode()
    if isinstance(value, dict):
        return {without_halves(name): without_halves(each) for name, each in value.items()}
    return [without_halves(each) for each in value] if isinstance(value, list) else value
