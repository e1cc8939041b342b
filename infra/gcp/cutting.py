"""Cuts a settlement that is too large for one commit.

Outcomes are letters, one per record, so a part that decides some records and leaves the others as they stand is true by
itself. What belongs to one key stays together: its cell, its failures, the failures it closes, and its letters. What a
request carried is true whatever is known of its records; requests come first, so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from shared.books import Batch, Closure, Failure, Settlement
from shared.confirm import Awaited
from shared.ledger import Cell

CELL_BYTES: Final = 700
"""What a cell takes in a commit besides its texts: field names, the path of its document."""
FAILURE_BYTES: Final = 2_500
CLOSURE_BYTES: Final = 1_500
AWAITED_BYTES: Final = 1_500
LARGEST_DATA: Final = 710_000
"""Larger data is kept in a blob."""


class KnowsKeys(Protocol):
    def keys(self, ids: Sequence[str]) -> Mapping[str, str]:
        """The key of each of these failures."""


class Unit:
    """All that a settlement says of one key, or one request."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.cells: list[Cell] = []
        self.failures: list[Failure] = []
        self.closures: list[Closure] = []
        self.awaited: list[Awaited] = []

    @property
    def size(self) -> int:
        return (
            sum(_cell_size(cell) for cell in self.cells)
            + sum(_failure_size(failure) for failure in self.failures)
            + CLOSURE_BYTES * len(self.closures)
            + sum(map(_awaited_size, self.awaited))
        )


def cut(settlement: Settlement, batch: Batch, stored: str, failures: KnowsKeys, room: int) -> Iterator[Settlement]:
    """The settlement in parts of at most `room` bytes, the whole one if that is small enough. `stored` is the outcomes
    as they stand. All but the last part keep the batch in hand."""
    size = sum(map(_cell_size, settlement.cells)) + sum(map(_failure_size, settlement.failures))
    size += CLOSURE_BYTES * len(settlement.closures) + sum(map(_awaited_size, settlement.awaited))
    if size <= room:
        yield settlement
        return
    letters = list(stored)
    parts = list(_packed(_units(settlement, batch, failures), room))
    for number, units in enumerate(parts, start=1):
        for place in [place for unit in units for place in unit.places]:
            letters[place] = settlement.outcomes[place]
        part = msgspec.structs.replace(
            settlement,
            cells=[cell for unit in units for cell in unit.cells],
            failures=[failure for unit in units for failure in unit.failures],
            closures=[closure for unit in units for closure in unit.closures],
            awaited=[awaited for unit in units for awaited in unit.awaited],
        )
        if number < len(parts):
            part = msgspec.structs.replace(part, outcomes="".join(letters), settled=False, keep=True)
        yield part


def _units(settlement: Settlement, batch: Batch, failures: KnowsKeys) -> list[Unit]:
    requests = []
    for awaited in settlement.awaited:
        requests.append(Unit())
        requests[-1].awaited.append(awaited)
    units: dict[str, Unit] = {}
    for cell in settlement.cells:
        units.setdefault(cell.key, Unit()).cells.append(cell)
    for failure in settlement.failures:
        units.setdefault(failure.key, Unit()).failures.append(failure)
    keys = failures.keys([closure.failure for closure in settlement.closures])
    for closure in settlement.closures:
        units.setdefault(keys.get(closure.failure, ""), Unit()).closures.append(closure)
    for place, key in enumerate(batch.keys):
        if key in units:
            units[key].places.append(place)
    return [*requests, *units.values()]


def _packed(units: list[Unit], room: int) -> Iterator[list[Unit]]:
    part: list[Unit] = []
    filled = 0
    for unit in units:
        if part and filled + unit.size > room:
            yield part
            part, filled = [], 0
        part.append(unit)
        filled += unit.size
    yield part


def _cell_size(cell: Cell) -> int:
    return CELL_BYTES + len(msgspec.json.encode(cell))


def _awaited_size(awaited: Awaited) -> int:
    return AWAITED_BYTES + 2 * len(awaited.id) + len(awaited.batch)


def _failure_size(failure: Failure) -> int:
    return FAILURE_BYTES + min(LARGEST_DATA, len(msgspec.json.encode(failure.data))) + 4 * len(failure.key)
