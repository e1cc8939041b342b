"""Ledger: one cell per key, whatever the text of the key."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from shared.books import Batch, Run, Settlement
from shared.ledger import Cell
from shared.ports import Home, Lease
from tests.contract import make
from tests.contract.make import CUSTOMERS, LEASE, SHOP
from tests.contract.suite import Around, answering, at_once, breaks, contract, errors_of
from tests.contract.world import World

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
CELLS = st.builds(
    Cell,
    key=KEYS,
    version=TEXT,
    hash=TEXT,
    target_id=TEXT,
    origin=TEXT,
    deleted=st.booleans(),
    failed=TEXT,
    run=TEXT,
    at=st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    shown=TEXT,
    gave_way=TEXT,
    shown_version=TEXT,
)
TRICKY = [
    "a/b", "a.b", "a`b", "..", ".", "__name__", "a\\b", 'say "x"', "it's", "%", "_", "a b", " a", "a ", "A", "a", "\n",
    "\t",
    "\x00", "e\u0301", "\u00e9", "ﬁ", "İ", "ß", "🦆", "中文", "1", "01", "1.0", "null", "$x", "[0]", "*", "~", "\u200b",
    "k" * 300, "k" * 299 + "é", "/" * 300, "\U0001f986" * 300,
]  # fmt: skip
KEYS_WITH_TRICKS = [make.cell(key, version=str(number)) for number, key in enumerate(TRICKY)]


class OtherKeys(Around):
    """Keeps a key as something else, as a store does that allows less in its names."""

    keep: Callable[[str], str]

    def commit(self, lease: Lease, run: Run, cells: Sequence[Cell] = (), **parts: Any) -> None:
        kept = {key: msgspec.structs.replace(cell, key=key) for cell in cells for key in [self.keep(cell.key)]}
        self.inner.commit(lease, run, cells=list(kept.values()), **parts)


def keeping(keep: Callable[[str], str]) -> type[Around]:
    return type("Keeping", (OtherKeys,), {"keep": staticmethod(keep)})


class EmptyOnes(Around):
    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        found: dict[str, Cell] = self.inner.cells(integration, stream, keys)
        return {key: Cell(key) for key in keys} | found


class FirstOnes(Around):
    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        found: dict[str, Cell] = self.inner.cells(integration, stream, keys[:500])
        return found


class KeepsTheFirst(Around):
    def settle(self, settlement: Settlement) -> None:
        known = self.home.ledger.cells(SHOP, CUSTOMERS, [cell.key for cell in settlement.cells])
        new = [cell for cell in settlement.cells if cell.key not in known]
        self.inner.settle(msgspec.structs.replace(settlement, cells=new))


class WritesWholeCells(Around):
    """Writes over what a delivery applied since the cell was read."""

    def commit(self, lease: Lease, run: Run, cells: Sequence[Cell] = (), **parts: Any) -> None:
        number = self.shared["number"] = self.shared.get("number", 900) + 1
        batch = make.batch(number, run)
        self.inner.commit(lease, run, **parts | {"batches": [*parts.get("batches", ()), batch]})
        settle(self.home, batch, *cells)


def unmarked(found: dict[str, Cell]) -> dict[str, Cell]:
    return {key: msgspec.structs.replace(cell, failed="") for key, cell in found.items()}


def settle_cells(home: Home, number: int, *cells: Cell) -> None:
    """What a delivery applies."""
    settle(home, make.commit_batch(home, number=number, of=make.run(number)), *cells)


def settle(home: Home, batch: Batch, *cells: Cell) -> None:
    home.batches.begin(batch.id, "one")
    home.batches.settle(make.settlement(batch, "one", "ddd", cells=cells))


class JoinsNames(Around):
    """Names a stream by its integration and itself with a dot between them."""

    def commit(self, lease: Lease, run: Run, cells: Sequence[Cell] = (), **parts: Any) -> None:
        self.shared.setdefault(f"{run.integration}.{run.stream}", []).append((run.integration, run.stream))
        self.inner.commit(lease, run, cells=cells, **parts)


class JoinedNames(Around):
    def cells(self, integration: str, stream: str, keys: Sequence[str]) -> dict[str, Cell]:
        found: dict[str, Cell] = {}
        for names in self.shared.get(f"{integration}.{stream}", []):
            found |= self.inner.cells(*names, keys)
        return found

    def scan(self, integration: str, stream: str) -> Iterator[Cell]:
        for names in self.shared.get(f"{integration}.{stream}", []):
            yield from self.inner.scan(*names)


@contract(
    breaks("keeps no slashes", runs=keeping(lambda key: key.replace("/", "_"))),
    breaks("knows no upper case", runs=keeping(str.casefold)),
    breaks("strips blanks", runs=keeping(str.strip)),
    breaks("normalises", runs=keeping(lambda key: unicodedata.normalize("NFC", key))),
    breaks("cuts long keys", runs=keeping(lambda key: key[:299])),
    breaks("drops cells without an instant", ledger=answering(
        "cells", lambda found: {key: cell for key, cell in found.items() if cell.at is not None})),
)  # fmt: skip
def check_any_text_comes_back_as_it_was(world: World) -> None:
    lease, streams = world.here.leases.take(LEASE), itertools.count()

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CELLS, max_size=12, unique_by=lambda cell: cell.key))
    @example(KEYS_WITH_TRICKS)
    @example([Cell("nothing is known")])
    def comes_back(cells: list[Cell]) -> None:
        stream = f"customers{next(streams)}"
        world.here.runs.commit(lease, make.run(stream=stream), cells=cells)
        wanted = {cell.key: cell for cell in cells}
        assert world.there.ledger.cells(SHOP, stream, list(wanted)) == wanted
        scanned = {cell.key: cell for cell in world.there.ledger.scan(SHOP, stream)}
        assert {key: scanned.get(key) for key in wanted} == wanted

    comes_back()


@contract(breaks("gives empty cells", ledger=EmptyOnes))
def check_keys_without_a_cell_are_left_out(world: World) -> None:
    make.commit_cells(world.here, [make.cell("there")])
    asked = ["there", "absent", "There", "ther", "there "]
    assert world.there.ledger.cells(SHOP, CUSTOMERS, asked) == {"there": make.cell("there")}
    assert world.there.ledger.cells(SHOP, CUSTOMERS, []) == {}
    assert world.there.ledger.cells(SHOP, "unheard of", ["there"]) == {}
    assert list(world.there.ledger.scan(SHOP, "unheard of")) == []


@contract(breaks("answers for 500 keys", ledger=FirstOnes))
def check_any_number_of_keys_is_answered_at_once(world: World) -> None:
    cells = [make.cell(f"key {number}") for number in range(1300)]
    make.commit_cells(world.here, cells)
    asked = [f"key {number}" for number in range(2000)] + ["key 5"]
    assert world.there.ledger.cells(SHOP, CUSTOMERS, asked) == {cell.key: cell for cell in cells}


@contract(breaks("keeps the first", batches=KeepsTheFirst))
def check_a_later_cell_replaces_the_earlier_one_whole(world: World) -> None:
    settle_cells(world.here, 1, make.cell("k", failed="v2", origin="o"))
    assert world.there.ledger.cells(SHOP, CUSTOMERS, ["k"])["k"].failed == "v2"
    later = Cell("k", version="v2")
    settle_cells(world.there, 2, later)
    assert world.here.ledger.cells(SHOP, CUSTOMERS, ["k"]) == {"k": later}
    assert list(world.here.ledger.scan(SHOP, CUSTOMERS)) == [later]


@contract(
    breaks("writes whole cells", runs=WritesWholeCells),
    breaks("marks nothing", ledger=answering("cells", unmarked)),
)
def check_a_fetch_raises_the_failed_version_of_a_cell_and_nothing_else(world: World) -> None:
    """What it read of the cell may be old: a delivery has ended meanwhile."""
    applied = make.cell("k", "v3", origin="other")
    settle_cells(world.here, 1, make.cell("k", "v2", origin="o"))
    world.there.ledger.cells(SHOP, CUSTOMERS, ["k"])
    settle_cells(world.here, 2, applied)
    for failed, marked in (("v4", "v4"), ("v1", "v4")):
        make.commit_cells(world.there, [make.cell("k", "v2", failed=failed)], make.run(3))
        marked_cell = msgspec.structs.replace(applied, failed=marked)
        assert world.here.ledger.cells(SHOP, CUSTOMERS, ["k"]) == {"k": marked_cell}


@contract(breaks("forgets the mark", ledger=answering("cells", unmarked)))
def check_a_delivery_leaves_a_later_failed_version_marked(world: World) -> None:
    """The version failed in a fetch, after the delivery had read the cell."""
    batch = make.commit_batch(world.here)
    world.here.batches.begin(batch.id, "one")
    assert world.here.ledger.cells(SHOP, CUSTOMERS, ["k", "l"]) == {}
    make.commit_cells(world.there, [Cell("k", failed="v3"), Cell("l", failed="v1")], make.run(2))
    cells = [make.cell("k", "v2"), make.cell("l", "v2")]
    world.here.batches.settle(make.settlement(batch, "one", "ddd", cells=cells))
    later = msgspec.structs.replace(cells[0], failed="v3")
    assert world.there.ledger.cells(SHOP, CUSTOMERS, ["k", "l"]) == {"k": later, "l": cells[1]}


@contract(breaks("joins names by a dot", runs=JoinsNames, ledger=JoinedNames))
def check_streams_share_no_cells(world: World) -> None:
    names = [("a", "b.c"), ("a.b", "c"), ("a", "b"), ("b", "a")]
    for number, (integration, stream) in enumerate(names):
        cell = make.cell("same key", version=str(number))
        make.commit_cells(world.here, [cell], make.run(stream=stream, integration=integration, id=f"run-{number}"))
    for number, name in enumerate(names):
        cell = make.cell("same key", version=str(number))
        assert world.there.ledger.cells(*name, ["same key"]) == {"same key": cell}
        assert list(world.there.ledger.scan(*name)) == [cell]


@contract(
    breaks("stops at 2000", ledger=answering("scan", lambda found: list(found)[:2000])),
    breaks("gives some twice", ledger=answering("scan", lambda found: [*(some := list(found)), *some[:3]])),
)
def check_a_scan_gives_every_cell_once(world: World) -> None:
    cells = [make.cell(f"{number % 7}/{number}") for number in range(4100)]
    make.commit_cells(world.here, cells)
    found = list(world.there.ledger.scan(SHOP, CUSTOMERS))
    assert len(found) == 4100
    assert {cell.key for cell in found} == {cell.key for cell in cells}


@contract(
    breaks("stops at 2000", ledger=answering("versions", lambda found: list(found)[:2000])),
    breaks("leaves out what was never applied", ledger=answering(
        "versions", lambda found: [(key, version) for key, version in found if version])),
    breaks("gives the failed version", ledger=answering(
        "versions", lambda found: [(key, version or "v9") for key, version in found])),
)  # fmt: skip
def check_versions_are_those_applied(world: World) -> None:
    cells = [make.cell(f"k{number}", version=f"v{number}") for number in range(2100)]
    make.commit_cells(world.here, [*cells, Cell("only failed", failed="v9")])
    found = sorted(world.there.ledger.versions(SHOP, CUSTOMERS))
    assert found == sorted([(cell.key, cell.version) for cell in cells] + [("only failed", "")])


def write_cells(home: Home, name: str) -> None:
    """A stream of its own, and a cell after the other."""
    lease = home.leases.take(f"{SHOP}.{name}")
    for number in range(25):
        home.runs.commit(lease, make.run(stream=name), cells=[make.cell(f"{name} {number}")])
    home.leases.release(lease)


@contract(breaks("loses one", ledger=answering("scan", lambda found: list(found)[1:])))
def check_cells_written_at_once_are_all_there(world: World) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    homes = [world.here, world.there] * 3
    works = [lambda h=h, n=n: write_cells(h, n) for h, n in zip(homes, names, strict=True)]
    assert errors_of(at_once(*works)) == []
    for name in names:
        assert {cell.key for cell in world.here.ledger.scan(SHOP, name)} == {f"{name} {n}" for n in range(25)}
