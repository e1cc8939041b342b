"""Ledger: one cell per key, whatever the text of the key."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from shared.ledger import Cell
from shared.ports import Home, Lease, Run
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
    def commit(self, lease: Lease, run: Run, cells: Sequence[Cell] = (), **parts: Any) -> None:
        known = self.home.ledger.cells(run.integration, run.stream, [cell.key for cell in cells])
        self.inner.commit(lease, run, cells=[cell for cell in cells if cell.key not in known], **parts)


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
    run, lease = make.run(), world.here.leases.take(LEASE)

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
        world.here.runs.commit(lease, run, cells=cells)
        wanted = {cell.key: cell for cell in cells}
        assert world.there.ledger.cells(SHOP, CUSTOMERS, list(wanted)) == wanted
        scanned = {cell.key: cell for cell in world.there.ledger.scan(SHOP, CUSTOMERS)}
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


@contract(breaks("keeps the first", runs=KeepsTheFirst))
def check_a_later_cell_replaces_the_earlier_one_whole(world: World) -> None:
    make.commit_cells(world.here, [make.cell("k", failed="v9", origin="o")])
    assert world.there.ledger.cells(SHOP, CUSTOMERS, ["k"])["k"].failed == "v9"
    later = Cell("k", version="v2")
    make.commit_cells(world.there, [later])
    assert world.here.ledger.cells(SHOP, CUSTOMERS, ["k"]) == {"k": later}
    assert list(world.here.ledger.scan(SHOP, CUSTOMERS)) == [later]


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
