"""Two streams that bring each other's changes across, against a model of two systems that people edit meanwhile.

`here` dates its objects, as Ploomes does; `there` is polled, as Milvus is. Each system keeps fields that the other does
not have, and the two mappings tidy what they carry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

import shared.opposite
from infra.local.home import EmbeddedHome
from shared.accounting import audit_stream
from shared.books import FailureQuery, Window
from shared.deliver import Delivery, Health, Settled, deliver
from shared.ends import Change, Page, Row
from shared.errors import REFUSED, UNREACHABLE, RecordError, TransientError
from shared.fetch import Order, fetch, publish_again
from shared.opposite import Beside
from shared.outcome import (
    FAILED,
    OUTCOMES,
    Absent,
    Answer,
    Found,
    InDoubt,
    Outcome,
    Probe,
    Verdict,
    delivered,
    rejected,
)
from shared.ports import topic_of
from shared.record import Envelope, version_at
from shared.replay import replay
from shared.rules import Rules
from shared.stream import Stream
from shared.sweep import conclude_runs, find_lost
from tests.unit.fakes import (
    _GUARDED,
    IN_MEMORY,
    NEVER_ENDS,
    START,
    STEADY,
    Crash,
    FakeClock,
    Fuse,
    Guarded,
    spare_the_disk,
)

HERE, THERE = "here", "there"
FORTH, BACK = "forth", "back"
ROUNDS: Final = 8
"""So many rounds of both directions are enough for anything to come to rest."""
MANY: Final = settings(STEADY, max_examples=150)
KEYS: Final = ("ana", "bia", "caio")


@pytest.fixture(autouse=True)
def at_ease(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)


# Two systems.


@dataclass
class Object:
    """One object, what it shows, and by which edits of people it came to that."""

    id: str
    key: str
    fields: dict[str, str]
    at: datetime
    edits: frozenset[int] = frozenset()
    newest: int = 0

    @property
    def read(self) -> dict[str, Any]:
        """As the system gives it, and with the edit that it came by."""
        return self.fields | {"key": self.key, "edit": self.newest}


@dataclass
class System:
    """One end, as people and both connectors meet it. A field that is not written stays where the system merges."""

    name: str
    merges: bool = False
    objects: dict[str, Object] = field(default_factory=dict)
    refuses: int = 0
    """So many writes to come are refused."""
    loses: list[bool] = field(default_factory=list)
    """The answers to the next writes are lost: before (False) or after (True) they were carried out."""
    down: bool = False
    writes: int = 0
    overwritten: list[tuple[str, Object, Object]] = field(default_factory=list)
    """Of each write: the key, what stood there, and what stands there now."""

    def of(self, key: str) -> Object | None:
        return next((each for each in self.objects.values() if each.key == key), None)


def tidy(fields: dict[str, str], *names: str) -> dict[str, str]:
    """The texts without spaces at their ends and twice in the middle; empty ones are left out."""
    found = {name: " ".join(fields.get(name, "").split()) for name in names}
    return {name: value for name, value in found.items() if value}


def to_there(fields: dict[str, str]) -> dict[str, str]:
    """`plan` is carried there and not back; `memo` stays here."""
    content = tidy(fields, "name", "town", "plan")
    if "name" not in content:
        raise RecordError("there is no name", field="name")
    return content


def to_here(fields: dict[str, str]) -> dict[str, str]:
    """`score` stays there."""
    content = tidy(fields, "name", "town")
    if "name" not in content:
        raise RecordError("there is no name", field="name")
    return content


class Sink:
    """Writes one system. As real connectors do, a create looks first whether the key is there."""

    bulk = 3

    def __init__(self, pair: Pair, system: System) -> None:
        self.pair, self.target = pair, system
        self.system = system.name

    def repeatable(self, change: Change) -> bool:
        return bool(change.target_id)

    def find(self, changes: Sequence[Change]) -> Sequence[Probe]:
        if self.target.down:
            raise TransientError("it is down", number=UNREACHABLE)
        return [self._find(change) for change in changes]

    def _find(self, change: Change) -> Found | Absent:
        found = self.target.objects.get(change.target_id) or self.target.of(change.key)
        if found is None:
            return Absent()
        polled = self.pair.streams[BACK if self.target.name == THERE else FORTH].rules.polled
        version = "" if polled else version_at(found.at, found.id)
        return Found(found.id, self._same(change, found), found.read, version=version)

    def _same(self, change: Change, found: Object) -> bool:
        shown = tidy(found.fields, *found.fields)
        if self.target.merges:
            return all(shown.get(name) == value for name, value in change.content.items())
        return {name: shown[name] for name in self.names if name in shown} == change.content

    @property
    def names(self) -> tuple[str, ...]:
        return ("name", "town", "plan") if self.target.name == THERE else ("name", "town")

    def write(self, changes: Sequence[Change]) -> Sequence[Answer | None]:
        if self.target.down:
            raise TransientError("it is down", number=UNREACHABLE)
        return [self._write(change) for change in changes]

    def _write(self, change: Change) -> Answer:
        target_id = change.target_id if change.target_id in self.target.objects else ""
        if not target_id and not change.absent:
            found = self._find(change)
            if isinstance(found, Found):
                if found.same:
                    return delivered(found.target_id)
                target_id = found.target_id
        if self.target.refuses:
            self.target.refuses -= 1
            return rejected(REFUSED, "it is refused", 422)
        carried_out = self.target.loses.pop(0) if self.target.loses else None
        if carried_out is False:
            return InDoubt("the connection was lost")
        target_id = self._carry_out(change, target_id)
        return delivered(target_id) if carried_out is None else InDoubt("the connection was lost")

    def _carry_out(self, change: Change, target_id: str) -> str:
        target = self.target
        target.writes += 1
        before = target.objects.get(target_id)
        newest = self.pair.names.get(str(change.content["name"]), 0)
        edits = self.pair.ancestors[newest]
        kept = {} if before is None else before.fields
        if before is not None and not target.merges:
            kept = {name: value for name, value in kept.items() if name not in self.names}
        now = Object(
            target_id or f"{target.name}{len(target.objects) + 1}",
            change.key,
            kept | change.content,
            self.pair.clock.now(),
            edits,
            newest,
        )
        target.objects[now.id] = now
        if before is not None:
            target.overwritten.append((change.key, before, now))
        return now.id

    def close(self) -> None:
        pass


class Source:
    """Reads one system: by the times of changes, or all of it each time under the window's end as the version."""

    def __init__(self, pair: Pair, system: System, polled: bool) -> None:
        self.pair, self.read, self.polled = pair, system, polled
        self.system = self.location = system.name

    def now(self) -> datetime:
        return self.pair.clock.now()

    def pages(self, window: Window, after: str) -> Iterator[Page]:
        while True:
            rows = [
                (self._version(each, window), each)
                for each in self.read.objects.values()
                if self.polled or window.since <= each.at < window.until
            ]
            rows = sorted((row for row in rows if row[0] > after), key=lambda row: row[0])[:2]
            if not rows:
                return
            after = rows[-1][0]
            yield Page([Row(each.id, version, each.id, each.read) for version, each in rows], after)

    def _version(self, each: Object, window: Window) -> str:
        return version_at(window.until if self.polled else each.at, each.id)

    def total(self, window: Window) -> int | None:
        return None

    def close(self) -> None:
        pass


# Two streams.


def make_pair_of_streams(overlap: float, polled: bool) -> dict[str, Stream]:
    def stream(integration: str, source: str, to_target: Any, polled: bool) -> Stream:
        rules = Rules("things", "things", lambda data: str(data["key"]), to_target, polled=polled, two_way=True)
        return Stream(
            integration,
            "things",
            rules,
            source,
            lanes=2,
            batch_size=2,
            since=START,
            overlap=timedelta(seconds=overlap),
            hold_back=timedelta(),
            max_attempts=2,
        )

    forth, back = stream(FORTH, HERE, to_there, False), stream(BACK, THERE, to_here, polled)
    return {
        FORTH: msgspec.structs.replace(forth, opposite=back),
        BACK: msgspec.structs.replace(back, opposite=forth),
    }


class Pair:
    """Both systems, both streams and their one home, and the processes that come and go on it."""

    def __init__(
        self, folder: Path, *, merges: bool = False, overlap: float = 0, polled: bool = True, both_ran: bool = True
    ) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.systems = {HERE: System(HERE, merges), THERE: System(THERE, merges)}
        self.streams = make_pair_of_streams(overlap, polled)
        self.ends = {FORTH: (HERE, THERE), BACK: (THERE, HERE)}
        self.health = {FORTH: Health(), BACK: Health()}
        self.edits = 0
        self.ancestors: dict[int, frozenset[int]] = {0: frozenset()}
        self.names: dict[str, int] = {}
        """Which edit gave an object this name."""
        self.seen: dict[tuple[str, str, str], int] = {}
        """Of each version that was read of a system: by which edit it came."""
        self.notices: list[str] = []
        self.begin()
        if both_ran:
            self.run(FORTH)
            self.run(BACK)

    def begin(self, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self.embedded = EmbeddedHome(self.folder, self.clock)
        ports = {name: Guarded(name, getattr(self.embedded.ports, name), self.fuse) for name in _GUARDED}
        self.home = msgspec.structs.replace(self.embedded.ports, **ports)
        self.bus: Any = Guarded("bus", self.embedded.bus, self.fuse)

    def die(self) -> None:
        self.fuse.blown = True
        self.embedded.state.close()
        self.embedded.transport.close()
        mine = self.embedded.owners._mine
        if mine is not None:
            os.close(mine[2])
            self.embedded.owners._mine = None

    # What people do.

    def edit(self, end: str, key: str, name: str = "", **fields: str) -> None:
        """Somebody changes an object, or makes it; without a name it gets one of its own."""
        self.clock.advance(5)
        system = self.systems[end]
        found = system.of(key)
        self.edits += 1
        number = self.edits
        if not name:
            name = f"{key} {number}"
        self.names[" ".join(name.split())] = number
        before = Object(f"{end}{len(system.objects) + 1}", key, {}, self.clock.now()) if found is None else found
        self.ancestors[number] = before.edits | {number}
        content = before.fields | {"name": name} | fields
        system.objects[before.id] = Object(before.id, key, content, self.clock.now(), before.edits | {number}, number)

    # What the hub does.

    def notice(self, action: str, **fields: Any) -> None:
        self.notices.append(action)

    def fetch(self, way: str) -> None:
        self.clock.advance(3)
        source, _ = self.ends[way]
        stream = self.streams[way]
        opened = Guarded("source", Source(self, self.systems[source], stream.rules.polled), self.fuse)
        fetch(stream, lambda: opened, self.home, Order(), self.notice)

    def sink(self, way: str) -> Any:
        _, target = self.ends[way]
        return Guarded("sink", Sink(self, self.systems[target]), self.fuse)

    def deliver(self, way: str, *, until_settled: bool = True) -> None:
        """Brings what waits in this direction; where the target is down, as often as it takes to know."""
        self.clock.advance(3)
        stream, sink = self.streams[way], self.sink(way)
        topic = [topic_of(stream.integration)]
        for _ in range(NEVER_ENDS):
            claimed = self.bus.claim(topic)
            if claimed is None:
                due = self.embedded.bus.next_due(topic)
                if due is not None and not self.systems[self.ends[way][1]].down:
                    self.clock.advance(due + 0.001)
                    continue
                lost = find_lost(stream, self.home)
                if not lost:
                    conclude_runs(stream, self.home)
                    return
                publish_again(self.home, lost)
                continue
            envelope = Envelope.from_bytes(claimed.message.data)
            for record in envelope.records:
                self.seen[self.ends[way][0], record.key, record.version] = record.data["edit"]
            done = deliver(envelope, stream, sink, self.home, self.health[way], self.notice)
            if isinstance(done, Settled):
                self.bus.acknowledge(claimed)
            else:
                self.bus.refuse(claimed, max(done.wait, 1.0))
        raise AssertionError("it never settles")

    def run(self, way: str) -> None:
        self.fetch(way)
        self.deliver(way)

    def crash(self, way: str, at: int, after: bool) -> None:
        """A run that ends at one of its calls, and the next process, which does nothing yet."""
        self.die()
        self.begin(Fuse(at, after=after))
        with suppress(Crash):
            self.run(way)
        self.die()
        self.begin()

    def replay(self, way: str) -> None:
        stream = self.streams[way]
        query = FailureQuery(stream.integration, stream.name)
        if self.home.failures.count(query):
            replay(stream, self.home, query, "mended", self.notice)
        self.deliver(way)

    def close(self) -> None:
        self.embedded.close()

    # What it comes to.

    @property
    def writes(self) -> int:
        return sum(system.writes for system in self.systems.values())

    def come_to_rest(self, first: str = FORTH) -> None:
        """Both directions in turns, until two rounds wrote nothing."""
        order = [first, BACK if first == FORTH else FORTH]
        for system in self.systems.values():
            system.down, system.refuses, system.loses = False, 0, []
        for way in order:
            self.deliver(way)
        quiet = 0
        for _ in range(ROUNDS):
            self.clock.advance(30)
            before = self.writes
            for way in order:
                self.run(way)
                self.replay(way)
            quiet = quiet + 1 if self.writes == before else 0
            if quiet == 2:
                return
        raise AssertionError("it never comes to rest")

    def present(self, way: str) -> dict[tuple[str, str], Outcome]:
        repeats = (Outcome.DUPLICATE, Outcome.UNCHANGED, Outcome.SUPERSEDED)
        found: dict[tuple[str, str], Outcome] = {}
        for entries in self.embedded.ports.books.entries(way, "things"):
            for key, version, letter in zip(entries.keys, entries.versions, entries.outcomes, strict=True):
                if OUTCOMES[letter] not in repeats or (key, version) not in found:
                    found[key, version] = OUTCOMES[letter]
        return found


def check_same(pair: Pair) -> None:
    here, there = pair.systems[HERE], pair.systems[THERE]
    for key in {each.key for system in pair.systems.values() for each in system.objects.values()}:
        for system in (here, there):
            assert len([o for o in system.objects.values() if o.key == key]) == 1, f"not once at {system.name}: {key}"
        ours, theirs = here.of(key), there.of(key)
        assert ours is not None and theirs is not None
        wanted = to_there(ours.fields)
        if here.merges:
            assert wanted["name"] == tidy(theirs.fields, "name")["name"], "they differ"
        else:
            assert wanted == tidy(theirs.fields, "name", "town", "plan"), "they differ"
            assert to_here(theirs.fields) == tidy(ours.fields, "name", "town"), "they differ"


def check_books(pair: Pair) -> None:
    for way in pair.streams:
        check_books_of(pair, way)


def check_books_of(pair: Pair, way: str) -> None:
    ports = pair.embedded.ports
    assert not list(ports.batches.unsettled(way, "things"))
    for run in ports.runs.recent(way, "things", 1000):
        counts = ports.books.counts(run.id)
        assert counts.balanced, (run.id, counts)
        assert counts.pending == 0
    audit = audit_stream(
        lambda: ports.books.entries(way, "things"),
        lambda: ((cell.key, cell.version) for cell in ports.ledger.scan(way, "things")),
        ports.books.fetched(way, "things"),
    )
    assert audit.balanced, audit.unaccounted
    failures = ports.failures.find(FailureQuery(way, "things"))
    failed = {identity: outcome for identity, outcome in pair.present(way).items() if outcome in FAILED}
    assert {(each.key, each.version): each.outcome for each in failures} == failed


def check_nothing_lost(pair: Pair) -> None:
    """What somebody wrote was overwritten by who knew it, or stands in the books as superseded."""
    way_from = {HERE: FORTH, THERE: BACK}
    for system in pair.systems.values():
        present = pair.present(way_from[system.name])
        for key, before, now in system.overwritten:
            gone, came = before.newest, now.newest
            if not gone or gone == came or gone in pair.ancestors[came]:
                continue
            books = {
                present.get((k, version))
                for (end, k, version), edit in pair.seen.items()
                if edit == gone and k == key and end == system.name
            }
            if Outcome.SUPERSEDED in books:
                continue
            assert came not in pair.ancestors[gone], f"{key}: edit {gone} was undone by what came before it, {came}"
            assert books, f"{key}: edit {gone} at {system.name} was overwritten by {came} and never read"
            raise AssertionError(f"{key}: edit {gone} at {system.name} is {books}, overwritten by {came}")


ends = st.sampled_from((HERE, THERE))
ways = st.sampled_from((FORTH, BACK))
keys = st.sampled_from(KEYS[:2])
texts = st.sampled_from(("", "Rio", " Rio ", "São  Paulo"))

an_edit = st.tuples(st.just("edit"), ends, keys, texts, st.sampled_from(("", "", "gold")))
a_run = st.tuples(st.just("run"), ways)
a_half = st.tuples(st.sampled_from(("fetch", "deliver")), ways)
a_fault = st.one_of(
    st.tuples(st.just("crash"), ways, st.integers(1, 60), st.booleans()),
    st.tuples(st.just("refuse"), ends),
    st.tuples(st.just("lose"), ends, st.booleans()),
    st.tuples(st.just("down"), ends),
    st.tuples(st.just("up"), ends),
    st.tuples(st.just("replay"), ways),
    st.tuples(st.just("wait")),
)


Steps = list[tuple[Any, ...]]


def do(pair: Pair, step: tuple[Any, ...]) -> None:
    match step:
        case ("edit", end, key, town, plan):
            pair.edit(end, key, town=town, **({"plan": plan} if plan and end == HERE else {}))
        case ("return", end, key, name):
            pair.edit(end, key, name=name)
        case ("run", way):
            pair.run(way)
        case ("fetch", way):
            pair.fetch(way)
        case ("deliver", way):
            pair.deliver(way)
        case ("crash", way, at, after):
            pair.crash(way, at, after)
        case ("refuse", end):
            pair.systems[end].refuses += 1
        case ("lose", end, after):
            pair.systems[end].loses.append(after)
        case ("down", end):
            pair.systems[end].down = True
        case ("up", end):
            pair.systems[end].down = False
        case ("replay", way):
            pair.replay(way)
        case ("wait",):
            pair.clock.advance(1200)


def go(steps: Steps, first: str = FORTH, lost: bool = True, **how: Any) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        pair = Pair(Path(folder), **how)
        try:
            for step in steps:
                do(pair, step)
            pair.come_to_rest(first)
            check_same(pair)
            check_books(pair)
            if lost:
                check_nothing_lost(pair)
            if all(step[0] in ("edit", "return", "run") for step in steps):
                assert pair.writes <= pair.edits, "an echo"
        finally:
            pair.close()


overlaps = st.sampled_from((0, 600))
"""The former reads nothing twice, the latter everything that the systems of these tests hold."""


@MANY
@given(st.lists(st.one_of(an_edit, an_edit, a_run, a_run), max_size=14), ways, overlaps, st.booleans())
def test_whole_runs_bring_both_to_the_same_content_and_lose_nothing(
    steps: Steps, first: str, overlap: int, polled: bool
) -> None:
    go(steps, first, polled=polled, overlap=overlap)


@MANY
@given(st.lists(st.one_of(an_edit, an_edit, a_run, a_half, a_half), max_size=16), ways, overlaps, st.booleans())
def test_runs_that_overlap_each_other_are_harmless(steps: Steps, first: str, overlap: int, polled: bool) -> None:
    go(steps, first, polled=polled, overlap=overlap)


a_return = st.tuples(st.just("return"), ends, keys, st.sampled_from(("Ana", " Ana ", "Bia")))


@MANY
@given(st.lists(st.one_of(a_return, a_return, a_run, a_run), max_size=14), ways, overlaps, st.booleans())
def test_content_that_comes_back_is_carried_like_any_other(
    steps: Steps, first: str, overlap: int, polled: bool
) -> None:
    go(steps, first, polled=polled, lost=False, overlap=overlap)


@MANY
@given(
    st.lists(st.one_of(an_edit, an_edit, a_run, a_half, a_fault, a_fault), max_size=18),
    ways,
    overlaps,
    st.booleans(),
    st.booleans(),
)
def test_crashes_refusals_lost_answers_and_outages_are_harmless(
    steps: Steps, first: str, overlap: int, merges: bool, polled: bool
) -> None:
    go(steps, first, overlap=overlap, merges=merges, polled=polled)


a_round = st.tuples(st.dictionaries(keys, st.tuples(ends, texts), max_size=2), ways)


@MANY
@given(st.lists(a_round, max_size=6), overlaps)
def test_every_edit_is_written_once_where_none_contradicts_another(
    rounds: list[tuple[dict[str, tuple[str, str]], str]], overlap: int
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        pair = Pair(Path(folder), overlap=overlap)
        for edits, first in rounds:
            before = pair.writes
            for key, (end, town) in edits.items():
                pair.edit(end, key, town=town)
            for way in (first, BACK if first == FORTH else FORTH):
                pair.run(way)
            assert pair.writes - before == len(edits)
        before = pair.writes
        pair.come_to_rest()
        assert pair.writes == before, "an echo"
        check_same(pair)
        check_books(pair)
        pair.close()


# What people do, step by step, and which part of the rules each of them needs.

SCENARIOS: Final[dict[str, Steps]] = {
    "both made it": [("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""), ("run", FORTH)],
    "both changed it": [
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("run", BACK),
        ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""), ("run", FORTH),
    ],
    "both changed it before the opposite stream had seen it": [
        ("edit", HERE, "ana", "", ""), ("run", FORTH),
        ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""), ("run", FORTH),
    ],
    "both give way": [
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("run", BACK),
        ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""),
        ("fetch", FORTH), ("fetch", BACK), ("deliver", FORTH), ("deliver", BACK),
    ],
    "back to what it was": [
        ("return", HERE, "ana", "Ana"), ("run", FORTH), ("return", THERE, "ana", "Bia"), ("run", BACK),
        ("return", HERE, "ana", "Ana"),
    ],
    "an echo that waits": [
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("fetch", BACK),
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("deliver", BACK),
    ],
    "an echo that waits on the way there": [
        ("edit", THERE, "ana", "", ""), ("run", BACK), ("fetch", FORTH),
        ("edit", THERE, "ana", "", ""), ("run", BACK), ("deliver", FORTH),
    ],
    "a failure that is replayed late": [
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("run", BACK), ("refuse", THERE),
        ("edit", HERE, "ana", "", ""), ("run", FORTH), ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""),
        ("run", FORTH), ("replay", FORTH),
    ],
    "a failure that gave way": [
        ("refuse", THERE), ("edit", HERE, "ana", "", ""), ("run", FORTH),
        ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""),
    ],
    "a lost answer": [
        ("edit", HERE, "ana", "", ""), ("lose", THERE, True), ("run", FORTH),
        ("edit", HERE, "ana", "", ""), ("edit", THERE, "ana", "", ""),
    ],
    "one change": [("edit", HERE, "ana", " Rio ", "gold"), ("run", FORTH), ("edit", THERE, "ana", "", "")],
}  # fmt: skip


@pytest.mark.parametrize("overlap", [0, 600])
@pytest.mark.parametrize("first", [FORTH, BACK])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_ends_well(scenario: str, first: str, overlap: int) -> None:
    steps = SCENARIOS[scenario]
    go(steps, first, lost=not any(step[0] == "return" for step in steps), overlap=overlap)


def test_a_direction_that_never_runs_leaves_the_other_one_to_itself(tmp_path: Path) -> None:
    pair = Pair(tmp_path, both_ran=False)
    for _ in range(4):
        pair.edit(HERE, "ana")
        pair.run(FORTH)
        found = pair.systems[THERE].of("ana")
        assert found is not None
        assert found.newest == pair.edits
    pair.close()


def test_a_replay_does_not_bring_back_what_the_other_side_has_overwritten(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.edit(HERE, "ana", "Ana")
    pair.run(FORTH)
    pair.run(BACK)
    pair.systems[THERE].refuses = 1
    pair.edit(HERE, "ana", "Bia")
    pair.run(FORTH)
    pair.edit(HERE, "ana", "Ana")
    pair.edit(THERE, "ana", "Caio")
    pair.run(BACK)
    pair.replay(FORTH)
    pair.come_to_rest(BACK)
    check_same(pair)
    found = pair.systems[THERE].of("ana")
    assert found is not None
    assert found.fields["name"] == "Caio"
    pair.close()


@pytest.mark.parametrize("first", [FORTH, BACK])
def test_where_nothing_changed_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    pair = Pair(tmp_path, overlap=600)
    pair.edit(HERE, "ana")
    pair.edit(THERE, "bia")
    pair.come_to_rest(first)
    pair.edit(THERE, "ana")
    pair.edit(HERE, "bia")
    pair.come_to_rest(first)
    monkeypatch.setattr(Sink, "find", always(None))
    pair.run(FORTH)
    pair.run(BACK)
    assert "connector_fell_over" not in pair.notices
    pair.close()


def test_what_gave_way_is_superseded_and_counted(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for step in SCENARIOS["both changed it"]:
        do(pair, step)
    assert pair.notices.count("gave_way") == 1
    assert [outcome.value for outcome in pair.present(FORTH).values()] == ["delivered", "superseded"]
    pair.close()


# Wrong twins.


def always(answer: object) -> Callable[..., Any]:
    return lambda *arguments, **named: answer


def never_recorded(self: Delivery, item: Any) -> None:
    self.decide(item.place, item.record, Verdict(Outcome.SUPERSEDED))


def not_compared(self: Sink, change: Change, found: Object) -> bool:
    return False


TWINS: Final[dict[str, tuple[Any, str, Any]]] = {
    "overwrites whatever it meets": (Beside, "may_overwrite", always(True)),
    "overwrites nothing": (Beside, "may_overwrite", always(False)),
    "does not remember what gave way": (Delivery, "give_way", never_recorded),
    "looks at nothing": (Beside, "concerns", always(False)),
    "takes what it applied for what is there": (shared.opposite, "mirrored", always(True)),
    "sends what was read long ago": (shared.opposite, "is_stale", always(False)),
    "sends back what came": (Sink, "_same", not_compared),
    "does not look at the opposite's books": (Beside, "look", always(None)),
}
"""Where each is wrong, and what is wrong there."""


@pytest.mark.parametrize("twin", TWINS)
def test_a_wrong_twin_is_found(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*TWINS[twin])
    found = []
    for scenario, steps in SCENARIOS.items():
        for first in (FORTH, BACK):
            try:
                go(steps, first, lost=not any(step[0] == "return" for step in steps))
            except AssertionError:
                found.append(scenario)
    assert found
