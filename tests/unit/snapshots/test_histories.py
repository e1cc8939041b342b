"""Histories of any kind, with crashes: what a chain of snapshots makes of an empty hub, and that nothing goes twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared.group
from infra.snapshots.povs import StreamPovs
from shared.books import FailureQuery
from shared.outcome import FAILED
from shared.replay import replay
from shared.snapshot.rows import Row
from shared.snapshot.summary import Summary
from tests.unit.fakes import IN_MEMORY, START, STEADY, Crash, Fuse, Process, Step, World, spare_the_disk
from tests.unit.installations import Installation, books_of

KEYS = [f"K{number}" for number in range(1, 31)]
DEEDS = st.lists(
    st.sampled_from(["change", "change", "run", "run", "crash", "replay", "a month", "export", "export"]),
    min_size=3,
    max_size=14,
)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)
    monkeypatch.setattr(shared.group, "GROUP_FILL", 1)


class Historian:
    """Does things to an installation, and exports what came of them from time to time."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.installation = Installation(folder / "source")
        self.chance = chance
        self.world = self.installation.world()
        self.world.page_size = chance.choice([3, 7, 14])
        self.world.askable = chance.random() < 0.5
        self.world.eager = chance.random() < 0.5
        self.chain: list[tuple[str, str]] = []
        self.changes = 0

    def do(self, deed: str) -> None:
        clock = self.installation.clock
        clock.advance(self.chance.choice([1, 60, 3600]))
        match deed:
            case "change":
                self.change()
            case "run":
                self.run(Fuse())
            case "crash":
                self.run(Fuse(self.chance.randint(1, 60), after=self.chance.random() < 0.5))
            case "replay":
                process = self.world.process()
                replay(process.stream, process.home, FailureQuery("shop", "things"), "again", process.notice)
                process.settle()
                process.close()
            case "a month":
                clock.advance(86_400 * self.chance.choice([1, 20, 40]))
            case _:
                self.export()

    def change(self) -> None:
        now = (self.installation.clock.now() - START).total_seconds()
        for _ in range(self.chance.randint(1, 12)):
            self.changes += 1
            number = self.chance.randint(1, 30)
            key = None if self.chance.random() < 0.05 else f"K{number}"
            seconds, odd = now - self.chance.random() * 0.5 - 0.001, self.chance.random()
            more: dict[str, Any] = {"bad": True} if odd < 0.1 else {"skip": True} if odd < 0.2 else {}
            self.world.shelf.put(number, seconds, key=key, name=f"name {self.changes}", **more)

    def run(self, fuse: Fuse) -> None:
        process = self.world.process(fuse)
        for key in KEYS:
            if self.chance.random() < 0.05:
                process.sink.script[key] = [
                    self.chance.choice([Step.DOUBT_AFTER, Step.DOUBT_BEFORE, Step.SILENT_AFTER])
                ]
        self.world.target.refused = {key for key in KEYS if self.chance.random() < 0.1}
        try:
            process.run()
            process.close()
        except Crash:
            process.die()

    def export(self) -> None:
        types = ["INCREMENTAL", "INCREMENTAL", "ALL_INCREMENTAL"] if self.chain else ["ALL"]
        self.chain.append((f"s{len(self.chain)}", self.chance.choice(types)))
        self.installation.export(*self.chain[-1])

    def restore_chain(self, there: Installation) -> None:
        """From the last snapshot that needs no base, or from the very first."""
        whole = max(place for place, (_, type) in enumerate(self.chain) if type != "INCREMENTAL")
        for name, _ in self.chain[self.chance.choice([0, whole]) :]:
            there.restore(self.installation.archive(name))


@contextmanager
def installations(folder: Path, source: Installation, count: int) -> Iterator[list[Installation]]:
    made = [Installation(folder / f"there-{number}", source.clock) for number in range(count)]
    yield made
    for each in made:
        each.close()


def check_books(process: Process) -> None:
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    for run in process.runs:
        counts = process.embedded.ports.books.counts(run.id)
        assert (counts.balanced, counts.pending) == (True, 0), run.id
    present = process.present()
    failures = {(failure.key, failure.version): failure.outcome for failure in process.failures()}
    assert failures == {identity: outcome for identity, outcome in present.items() if outcome in FAILED}


def check_sends_nothing_twice(there: Installation, of: World) -> None:
    """Runs what was imported: nothing that had arrived arrives again, and nothing is lost."""
    before = of.target.arrivals()
    of.target.refused = set()
    there.clock.advance(300)
    world = there.world(shelf=of.shelf, target=of.target)
    world.askable = of.askable
    process = world.process()
    check_books(process)
    process.run()
    check_books(process)
    after = of.target.arrivals()
    assert [identity for identity, count in after.items() if count > max(1, before.get(identity, 0))] == []
    failed = {failure.key for failure in process.failures()}
    for thing in of.shelf.things.values():
        travels = not (thing.data.keys() & {"bad", "skip"}) and thing.data.get("key", "") not in {"", *failed}
        assert not travels or (thing.data["key"], thing.data["name"]) in after, thing


def live(deeds: list[str], seed: int, settled: bool) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        historian = Historian(Path(folder), random.Random(seed))
        source = historian.installation
        for deed in [*deeds, *(["run"] if settled else []), "export"]:
            historian.do(deed)
        historian.world.close()
        with installations(Path(folder), source, 3) as (chained, whole, anew):
            historian.restore_chain(chained)
            assert chained.folder_files() == source.folder_files()
            source.export("whole", "ALL_INCREMENTAL")
            whole.restore(source.archive("whole"))
            source.export("anew", "ALL")
            anew.restore(source.archive("anew"))
            books = [books_of(each.hub().home) for each in (chained, whole, anew)]
            assert books[0] == books[1] == books[2]
            if settled:
                assert books[0] == books_of(source.hub().home)
                assert chained.export("own", "INCREMENTAL")["povs"]["exported"] == 0
            check_sends_nothing_twice(chained, historian.world)
        source.close()


@given(DEEDS, st.integers(0, 1_000_000))
@settings(STEADY, max_examples=40)
def test_a_chain_of_snapshots_is_what_all_at_once_would_be(deeds: list[str], seed: int) -> None:
    live(deeds, seed, settled=True)


@given(DEEDS, st.integers(0, 1_000_000))
@settings(STEADY, max_examples=40)
def test_a_snapshot_in_the_middle_of_work_sends_nothing_twice_and_loses_nothing(deeds: list[str], seed: int) -> None:
    live(deeds, seed, settled=False)


class OnlyTheCellsOfItsRuns(StreamPovs):
    """Leaves out the cells that another run changed last."""

    def _cells(self, batch: Any, period: str) -> Iterator[Row]:
        return (row for row in super()._cells(batch, period) if f'"run":"{batch.run}"' in row.document)


class SeesNoDifference(Summary):
    """Takes a POV for unchanged whatever happened in it."""

    def add(self, process_id: int, about: Any) -> None:
        super().add(process_id, None)

    @property
    def fingerprint(self) -> str:
        return "0"


@pytest.mark.parametrize(
    ("places", "twin"),
    [
        (("exporting.StreamPovs", "based.StreamPovs"), OnlyTheCellsOfItsRuns),
        (("povs.Summary",), SeesNoDifference),
    ],
)
def test_an_export_that_leaves_something_out_is_noticed(
    monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...], twin: type
) -> None:
    for place in places:
        monkeypatch.setattr(f"infra.snapshots.{place}", twin)
    deeds = ["change", "run", "export", "replay", "change", "run", "a month", "replay", "change", "run", "export"]

    def live_some() -> None:
        for seed in range(20):
            live(deeds, seed, settled=True)

    with pytest.raises(AssertionError):
        live_some()
