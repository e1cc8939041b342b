"""A world to test the two stories in: a clock, a source and a target that are told how to behave, and processes on a
real embedded home that can be made to die at any call that leaves them."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from infra.local.bus import Claimed
from infra.local.database import Database
from infra.local.home import EmbeddedHome
from shared.accounting import StreamAudit, audit_stream
from shared.books import Batch, Failure, FailureQuery, Run, StreamState, Window
from shared.deliver import Health, Settled, deliver
from shared.ends import Change, Page, Row
from shared.errors import (
    NO_IDENTITY,
    REFUSED,
    AuthError,
    Fenced,
    Leased,
    MalformedEnvelope,
    RecordError,
    StoreUnavailable,
)
from shared.fetch import Order, decode_continuation, fetch, go_on, publish_again
from shared.outcome import OUTCOMES, Absent, Answer, CannotAsk, Found, InDoubt, Outcome, Probe, delivered, rejected
from shared.ports import Home, continuation_topic, topic_of
from shared.record import Envelope, Operation, version_at
from shared.rules import Rules
from shared.stream import Stream
from shared.sweep import conclude_runs, find_lost

START: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
"""When the first objects of a shelf were changed; the clock begins an hour later."""
NEVER_ENDS: Final = 2000

STEADY: Final = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Property tests meet the same examples each time."""


IN_MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where temporary folders cost least, for TemporaryDirectory; None stands for its own choice."""


def spare_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: these tests end processes, not machines, and what a process wrote outlives it."""
    connect = Database._connect

    def at_ease(self: Database, *arguments: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(self, *arguments, **named)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    patch.setattr(Database, "_connect", at_ease)
    for name in ("fsync", "fdatasync"):
        patch.setattr(os, name, lambda file: None)


class FakeClock:
    """Stands still until it is slept on or moved."""

    def __init__(self, now: datetime = START + timedelta(hours=1), seed: int = 0) -> None:
        self._now = now
        self._elapsed = 0.0
        self._random = random.Random(seed)
        self.slept: list[float] = []
        self.while_asleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        self.while_asleep()

    def random(self) -> float:
        return self._random.random()

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Moves the wall clock alone, as an operator or a time server does."""
        self._now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Thing:
    """One object at the source, in one version."""

    id: int
    at: datetime
    data: dict[str, Any]
    operation: Operation = "upsert"
    problem: tuple[int, str] | None = None

    @property
    def version(self) -> str:
        return version_at(self.at, self.id)

    @property
    def row(self) -> Row:
        version = "" if self.problem is not None else self.version
        return Row(str(self.id), version, f"things({self.id})", self.data, self.operation, self.problem)


class Shelf:
    """What the source holds. It outlives the processes that read it."""

    def __init__(self, things: Sequence[Thing] = ()) -> None:
        self.things = {thing.id: thing for thing in things}

    def put(
        self,
        number: int,
        seconds: float,
        key: str | None = None,
        name: str | None = None,
        operation: Operation = "upsert",
        problem: tuple[int, str] | None = None,
        **more: Any,
    ) -> Thing:
        """Puts an object there as it was changed so many seconds after START. Without a key it has no identity."""
        data = {"name": name or f"name {number}", **more}
        if key is not None:
            data["key"] = key
        thing = Thing(number, START + timedelta(seconds=seconds), data, operation, problem)
        self.things[number] = thing
        return thing

    def fill(self, count: int, first: int = 1, per_second: int = 3) -> None:
        """Objects with keys of their own, several of which share each time stamp."""
        for number in range(first, first + count):
            self.put(number, number // per_second, key=f"K{number}")

    def within(self, window: Window) -> list[Thing]:
        found = [thing for thing in self.things.values() if window.since <= thing.at < window.until]
        return sorted(found, key=lambda thing: thing.version)


class FakeSource:
    """Pages of a shelf, ascending by time and id. What it is to do wrong is set on it before it is read."""

    system = "shelf"
    location = "https://shelf.example/things"

    def __init__(self, shelf: Shelf, clock: FakeClock, page_size: int = 10) -> None:
        self.shelf = shelf
        self.clock = clock
        self.page_size = page_size
        self.sizes: Sequence[int] = ()
        """Sizes of the first pages of each reading, where they are to be short."""
        self.skew = timedelta()
        self.totals: list[int | None] = []
        """What it says of the window, each time it is asked; the truth once they are used up."""
        self.counts = False
        self.faults: dict[int, Exception] = {}
        """Raised instead of the n-th page ever given, counted from 0, and once each."""
        self.tokens: dict[int, str] = {}
        """Given as the token after the n-th page ever given."""
        self.hidden: set[int] = set()
        """Objects that it counts and never gives."""
        self.refusal: Exception | None = None
        """Raised when it is asked for the time."""
        self.meanwhile: Callable[[int], None] = lambda page: None
        self.given = 0
        self.readings: list[tuple[Window, str]] = []
        self.closed = 0

    def now(self) -> datetime:
        if self.refusal is not None:
            raise self.refusal
        return self.clock.now() + self.skew

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        self.readings.append((window, after))
        sizes = iter(self.sizes)
        total = self.total(window) if self.counts and not after else None
        while True:
            if self.given > NEVER_ENDS:
                raise AssertionError("the source is read for ever")
            number, self.given = self.given, self.given + 1
            fault = self.faults.pop(number, None)
            if fault is not None:
                raise fault
            left = [t for t in self.shelf.within(window) if t.version > after and t.id not in self.hidden]
            things = left[: next(sizes, self.page_size)]
            if not left:
                if total:
                    yield Page((), after, total)
                return
            self.meanwhile(number)
            after = self.tokens.get(number, things[-1].version if things else after)
            yield Page([thing.row for thing in things], after, total)
            total = None

    def total(self, window: Window) -> int | None:
        if not self.counts:
            return None
        return self.totals.pop(0) if self.totals else len(self.shelf.within(window))

    def close(self) -> None:
        self.closed += 1


class Step(Enum):
    """What becomes of one write of one key."""

    OK = "carried out and confirmed"
    DOUBT_BEFORE = "not carried out, and no answer came"
    DOUBT_AFTER = "carried out, and no answer came"
    SILENT_BEFORE = "not carried out, and the connector says nothing"
    SILENT_AFTER = "carried out, and the connector says nothing"


Scripted = Step | Answer | Exception
"""An Answer is given without any effect; an exception ends the call, after the effects of the places before it."""


@dataclass
class Effect:
    """One write that the target carried out."""

    key: str
    operation: Operation
    content: dict[str, Any]
    target_id: str
    created: bool


class Target:
    """What stands at the other end, whoever dies on this one. It takes whatever it is sent: a second create of a key
    makes a second object."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[str, dict[str, Any]]] = {}
        self.effects: list[Effect] = []
        self.refused: set[str] = set()

    def carry_out(self, change: Change) -> str:
        created = change.operation == "upsert" and change.target_id not in self.objects
        target_id = f"T{len(self.effects) + 1}" if created else change.target_id
        if change.operation == "delete":
            self.objects.pop(change.target_id, None)
        else:
            self.objects[target_id] = (change.key, change.content)
        self.effects.append(Effect(change.key, change.operation, change.content, target_id, created))
        return target_id

    def ids_of(self, key: str) -> list[str]:
        return [target_id for target_id, (other, _) in self.objects.items() if other == key]

    def contents_of(self, key: str) -> list[dict[str, Any]]:
        return [content for other, content in self.objects.values() if other == key]

    def creations_of(self, key: str) -> int:
        return sum(effect.created for effect in self.effects if effect.key == key)

    def arrivals(self) -> dict[tuple[str, str], int]:
        """How often each content of each key arrived."""
        found: dict[tuple[str, str], int] = {}
        for effect in self.effects:
            identity = (effect.key, str(effect.content.get("name")))
            found[identity] = found.get(identity, 0) + 1
        return found


class FakeSink:
    """A connector to a target that can be asked or not. Where it can, an update by id is harmless to repeat."""

    system = "target"

    def __init__(self, target: Target, bulk: int = 5, askable: bool = True) -> None:
        self.target = target
        self.bulk = bulk
        self.askable = askable
        self.script: dict[str, list[Scripted]] = {}
        """By key, what becomes of its next writes; OK once they are used up."""
        self.always: dict[str, Scripted] = {}
        """By key, what becomes of every write that the script says nothing of."""
        self.calls: list[Exception | None] = []
        """Raised at the next calls of `write`, before anything is carried out."""
        self.finds: list[Exception | Sequence[Probe] | None] = []
        """Raised or given at the next calls of `find`; None lets it look."""
        self.down: Exception | None = None
        """Raised at every call."""
        self.comparable = True
        self.shortened = 0
        """So many answers are missing at the end of each call's."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Done in the middle of each call of `write`, after its effects."""
        self.written: list[list[Change]] = []
        self.asked: list[list[str]] = []

    def repeatable(self, change: Change) -> bool:
        return self.askable and bool(change.target_id)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        self.asked.append([change.key for change in changes])
        if self.down is not None:
            raise self.down
        scripted = self.finds.pop(0) if self.finds else None
        if isinstance(scripted, Exception):
            raise scripted
        return scripted if scripted is not None else [self._look(change) for change in changes]

    def _look(self, change: Change) -> Probe:
        if not self.askable:
            return CannotAsk()
        ids = self.target.ids_of(change.key)
        if not ids:
            return Absent()
        content = self.target.objects[ids[0]][1]
        return Found(ids[0], content == change.content if self.comparable else None, content)

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        self.written.append(list(changes))
        if self.down is not None:
            raise self.down
        if self.calls:
            error = self.calls.pop(0)
            if error is not None:
                raise error
        answers = [self._write(change) for change in changes]
        self.meanwhile()
        return answers[: len(answers) - self.shortened]

    def _write(self, change: Change) -> Answer | None:
        if change.key in self.target.refused:
            return rejected(REFUSED, "it is refused", 422)
        steps = self.script.get(change.key)
        step = steps.pop(0) if steps else self.always.get(change.key, Step.OK)
        if isinstance(step, Exception):
            raise step
        if not isinstance(step, Step):
            return step
        if step in (Step.OK, Step.DOUBT_AFTER, Step.SILENT_AFTER):
            target_id = self.target.carry_out(change)
        if step is Step.OK:
            return delivered(target_id)
        if step in (Step.DOUBT_BEFORE, Step.DOUBT_AFTER):
            return InDoubt("the connection was lost")
        return None

    def close(self) -> None:
        pass

    @property
    def sent(self) -> list[str]:
        """The keys of all writes, in their order."""
        return [change.key for call in self.written for change in call]


def identify(data: dict[str, Any]) -> str:
    if "key" not in data:
        raise RecordError("there is no key", field="key", number=NO_IDENTITY)
    key: str = data["key"]
    return key


def to_target(data: dict[str, Any]) -> dict[str, Any]:
    if data.get("bad"):
        raise RecordError("it is bad", field="bad")
    return {"name": data["name"]}


def skipped(data: dict[str, Any]) -> bool:
    return bool(data.get("skip"))


RULES: Final = Rules("things", "objects", identify, to_target, (("skipped", skipped),))


def make_stream(**changes: Any) -> Stream:
    """A stream of few lanes and small batches, which reads without overlap."""
    settings: dict[str, Any] = {
        "integration": "shop",
        "name": "things",
        "rules": RULES,
        "source_system": "shelf",
        "lanes": 3,
        "batch_size": 4,
        "since": START,
        "overlap": timedelta(),
        "hold_back": timedelta(),
    }
    return Stream(**(settings | changes))


class Crash(BaseException):
    """The end of a process. Nothing catches it, and nothing that runs on its way out has an effect."""


class Fuse:
    """Counts the calls that leave a process, and ends it just before or just after one of them."""

    def __init__(self, at: int = 0, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.calls: list[str] = []
        self.blown = False

    def call(self, name: str, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if self.blown:
            raise Crash
        self.calls.append(name)
        here = len(self.calls) == self.at
        if here and not self.after:
            self._blow()
        result = work(*arguments, **named)
        if isinstance(result, Iterator):
            # A reading generator would do its work after the crash.
            result = iter(list(result))
        if here:
            self._blow()
        return result

    def _blow(self) -> None:
        self.blown = True
        raise Crash


_HARMLESS: Final = frozenset({"repeatable", "close", "depth", "next_due", "system", "bulk", "location"})
"""What leaves no trace outside: a crash there is a crash at the next call."""


class Guarded:
    """Any port, source or sink, with its calls led through a fuse."""

    def __init__(self, name: str, inner: Any, fuse: Fuse) -> None:
        self._name = name
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in _HARMLESS or not callable(found):
            return found
        return lambda *a, **k: self._fuse.call(f"{self._name}.{name}", found, *a, **k)


class GuardedSource:
    """A source whose every page is a call of its own."""

    system = FakeSource.system
    location = FakeSource.location

    def __init__(self, inner: FakeSource, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def now(self) -> datetime:
        found: datetime = self._fuse.call("source.now", self._inner.now)
        return found

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        pages = self._inner.pages(window, after)
        while True:
            page = self._fuse.call("source.page", next, pages, None)
            if page is None:
                return
            yield page

    def total(self, window: Window) -> int | None:
        found: int | None = self._fuse.call("source.total", self._inner.total, window)
        return found

    def close(self) -> None:
        pass


_GUARDED: Final = ("leases", "runs", "batches", "books", "ledger", "failures", "confirmations", "bus", "blobs")


@dataclass
class World:
    """Everything that outlives a process: the folder of the home, both ends, time, and the rules of the stream."""

    folder: Path
    stream: Stream = field(default_factory=make_stream)
    shelf: Shelf = field(default_factory=Shelf)
    target: Target = field(default_factory=Target)
    clock: FakeClock = field(default_factory=FakeClock)
    bulk: int = 5
    askable: bool = True
    page_size: int = 10
    eager: bool = False
    """Whether each group is delivered as soon as it is published, instead of after the whole fetch."""
    hands_over: bool = False
    """Whether the time budget of a slice is used up after each group."""
    prepare: Callable[[Process], None] = lambda process: None
    """Done to each process before it does anything, such as telling its sink how to behave."""
    dead_letters: list[Claimed] = field(default_factory=list)
    notices: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def process(self, fuse: Fuse | None = None) -> Process:
        process = Process(self, fuse or Fuse())
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.close()
        self.processes.clear()

    def actions(self, action: str) -> list[dict[str, Any]]:
        """What was noticed under this name."""
        return [fields for name, fields in self.notices if name == action]


class Process:
    """One process on the home: it fetches, and brings messages to their handlers one at a time."""

    def __init__(self, world: World, fuse: Fuse) -> None:
        self.world = world
        self.fuse = fuse
        self.embedded = EmbeddedHome(world.folder, world.clock)
        ports = {name: Guarded(name, getattr(self.embedded.ports, name), fuse) for name in _GUARDED}
        self.home: Home = msgspec.structs.replace(self.embedded.ports, **ports)
        self.bus: Any = Guarded("bus", self.embedded.bus, fuse)
        self.source = FakeSource(world.shelf, world.clock, world.page_size)
        self.sink = FakeSink(world.target, world.bulk, world.askable)
        self.guarded_sink: Any = Guarded("sink", self.sink, fuse)
        self.health = Health()
        self.topics = [topic_of(world.stream.integration), continuation_topic(world.stream.integration)]
        self.deliveries: list[Any] = []
        self._open = True
        world.prepare(self)

    @property
    def stream(self) -> Stream:
        return self.world.stream

    def open_source(self) -> Any:
        return GuardedSource(self.source, self.fuse)

    def notice(self, action: str, **fields: Any) -> None:
        self.world.notices.append((action, fields))
        if action == "group_committed" and self.world.eager:
            self.pump()

    def fetch(self, order: Order | None = None, **more: Any) -> list[Run]:
        options: dict[str, Any] = {"time_is_up": lambda: self.world.hands_over} | more
        return fetch(self.stream, self.open_source, self.home, order or Order(), self.notice, **options)

    def run(self, order: Order | None = None) -> list[Run]:
        """What `./waybill run` does: fetches, and delivers until all is settled."""
        runs = self.fetch(order)
        self.settle()
        return runs

    def settle(self) -> None:
        """Delivers what waits, and brings back what the bus lost, until nothing is pending."""
        for _ in range(NEVER_ENDS):
            self.pump()
            if not list(self.home.batches.unsettled(self.stream.integration, self.stream.name)):
                conclude_runs(self.stream, self.home)
                return
            publish_again(self.home, find_lost(self.stream, self.home))
        raise AssertionError("it never settles")

    def pump(self) -> None:
        """Brings each message to its handler, waiting for those that are due later, until none is left."""
        for _ in range(NEVER_ENDS):
            claimed = self.bus.claim(self.topics)
            if claimed is not None:
                self.bring(claimed)
                continue
            due = self.embedded.bus.next_due(self.topics)
            if due is None:
                return
            # A clock of whole microseconds would stand still just before the time.
            self.world.clock.advance(due + 0.001)
        raise AssertionError("messages come for ever")

    def bring(self, claimed: Claimed) -> None:
        try:
            if claimed.topic == self.topics[1]:
                done: Any = self.go_on(claimed)
                wait = None
            else:
                done = self.deliver(Envelope.from_bytes(claimed.message.data))
                wait = None if isinstance(done, Settled) else done.wait
        except MalformedEnvelope:
            self.world.dead_letters.append(claimed)
            done, wait = None, None
        except (AuthError, Fenced, Leased, StoreUnavailable) as error:
            done, wait = error, self.stream.redeliver_after
        self.deliveries.append(done)
        if wait is None:
            self.bus.acknowledge(claimed)
        else:
            self.bus.refuse(claimed, wait)

    def go_on(self, claimed: Claimed) -> Run | None:
        return go_on(
            decode_continuation(claimed.message.data),
            self.stream,
            self.open_source,
            self.home,
            self.notice,
            lambda: self.world.hands_over,
        )

    def deliver(self, envelope: Envelope, must_stop: Callable[[], bool] = lambda: False) -> Any:
        return deliver(envelope, self.stream, self.guarded_sink, self.home, self.health, self.notice, must_stop)

    def envelopes(self) -> list[Envelope]:
        """What was committed and is not settled, as it would be delivered."""
        waiting = self.embedded.ports.batches.unsettled(self.stream.integration, self.stream.name)
        return [Envelope.from_bytes(self.embedded.ports.blobs.read(b.blob, b.offset, b.length)) for b in waiting]

    def die(self) -> None:
        """The operating system takes back what a dead process held. Its files stay as they are."""
        self.fuse.blown = True
        self.embedded.state.close()
        self.embedded.transport.close()
        mine = self.embedded.owners._mine
        if mine is not None:
            os.close(mine[2])
            self.embedded.owners._mine = None
        self._open = False

    def close(self) -> None:
        if self._open:
            self.embedded.close()
            self._open = False

    # What the stores hold, past the fuse.

    @property
    def state(self) -> StreamState:
        return self.embedded.ports.runs.state(self.stream.integration, self.stream.name)

    @property
    def runs(self) -> list[Run]:
        """Newest first."""
        return self.embedded.ports.runs.recent(self.stream.integration, self.stream.name, 1000)

    def batches(self) -> list[Batch]:
        return [batch for run in reversed(self.runs) for batch in self.embedded.ports.batches.of_run(run.id)]

    def failures(self, **query: Any) -> list[Failure]:
        asked = FailureQuery(self.stream.integration, self.stream.name, **query)
        return list(self.embedded.ports.failures.find(asked))

    def cell(self, key: str) -> Any:
        return self.embedded.ports.ledger.cells(self.stream.integration, self.stream.name, [key]).get(key)

    def outcomes(self) -> dict[str, int]:
        """The outcomes of all batches together, those that occurred."""
        found: dict[str, int] = {}
        for batch in self.batches():
            for letter in batch.outcomes:
                name = OUTCOMES[letter].value
                found[name] = found.get(name, 0) + 1
        return found

    def counts(self, run: str) -> dict[str, int]:
        """The counts of one run, those that are not 0."""
        return {n: c for n, c in self.embedded.ports.books.counts(run).as_dict().items() if c}

    def present(self) -> Mapping[tuple[str, str], Outcome]:
        """The present outcome of every record version, as the audit sees it."""
        present: dict[tuple[str, str], Outcome] = {}
        repeats = (Outcome.DUPLICATE, Outcome.UNCHANGED, Outcome.SUPERSEDED)
        for entries in self.embedded.ports.books.entries(self.stream.integration, self.stream.name):
            for key, version, letter in zip(entries.keys, entries.versions, entries.outcomes, strict=True):
                outcome = OUTCOMES[letter]
                if outcome not in repeats or (key, version) not in present:
                    present[key, version] = outcome
        return present

    def audit(self) -> StreamAudit:
        ports, stream = self.embedded.ports, self.stream
        return audit_stream(
            lambda: ports.books.entries(stream.integration, stream.name),
            lambda: ((c.key, c.version) for c in ports.ledger.scan(stream.integration, stream.name)),
            ports.books.fetched(stream.integration, stream.name),
        )
