"""Runs, batches, failures and cells to check with, and the smallest ways to get them into a home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from shared.books import Batch, Closure, Failure, Run, RunKind, Settlement
from shared.confirm import Awaited
from shared.ledger import Cell
from shared.outcome import Outcome
from shared.ports import Home, lease_name
from shared.record import failure_id
from shared.snapshot.history import Placed
from tests.contract.world import START

T = TypeVar("T")

SHOP = "shop"
CUSTOMERS = "customers"
LEASE = lease_name(SHOP, CUSTOMERS)


def filled(made: type[T], fields: dict[str, Any], /, **usual: Any) -> T:
    """One of this kind, with the usual values where no others are given."""
    return made(**usual | fields)


def run(number: int = 1, stream: str = CUSTOMERS, kind: RunKind = "fetch", **fields: Any) -> Run:
    started = START + timedelta(seconds=number)
    return filled(
        Run,
        fields,
        id=f"{stream}-{number}",
        integration=SHOP,
        stream=stream,
        kind=kind,
        state="running",
        started_at=started,
    )


def batch(number: int = 0, of: Run | None = None, outcomes: str = "...", **fields: Any) -> Batch:
    """A batch with a record per letter: keys `<number>-0`, `<number>-1` and so on, at version `v1`."""
    of = of or run()
    keys = [f"{number}-{place}" for place in range(len(outcomes))]
    return filled(
        Batch,
        fields,
        id=f"{of.id}.{number}",
        run=of.id,
        integration=of.integration,
        stream=of.stream,
        kind=of.kind,
        lane=0,
        keys=keys,
        versions=["v1"] * len(keys),
        outcomes=outcomes,
        committed_at=START + timedelta(seconds=number),
    )


def settled_batch(number: int, of: Run | None = None, outcomes: str = "iii", **fields: Any) -> Batch:
    """What ended while it was fetched."""
    return batch(number, of, outcomes, state="settled", lane=None, **fields)


def failure(of: Batch, place: int = 0, **fields: Any) -> Failure:
    """The failure of one record of a batch."""
    key, version = of.keys[place], of.versions[place]
    return filled(
        Failure,
        fields,
        id=failure_id(of.integration, of.stream, key, version),
        integration=of.integration,
        stream=of.stream,
        key=key,
        version=version,
        operation="upsert",
        origin=f"origin-{key}",
        position=f"row {place}",
        data={"name": "Zoë", "n": [1, None, {"deep": True}]},
        outcome=Outcome.INVALID,
        number=113,
        reason="no such thing",
        run=of.run,
        batch=of.id,
        place=place,
        first_at=START,
        last_at=START,
    )


def closure(of: Failure, outcome: Outcome = Outcome.DELIVERED) -> Closure:
    return Closure(of.id, of.batch, of.place, outcome)


def cell(key: str, version: str = "v1", **fields: Any) -> Cell:
    return filled(Cell, fields, key=key, version=version, hash="h", target_id="7", run="r", at=START)


def awaited(of: Batch, request: str = "q1", **fields: Any) -> Awaited:
    """A request that carried two records of a batch, and is due half an hour after it."""
    return filled(
        Awaited,
        fields,
        id=request,
        integration=of.integration,
        stream=of.stream,
        batch=of.id,
        records=2,
        sent_at=START,
        look_at=START + timedelta(minutes=30),
    )


def settlement(of: Batch, attempt: str, outcomes: str, **fields: Any) -> Settlement:
    """What an attempt came to: settled unless told otherwise."""
    return filled(
        Settlement,
        fields,
        batch=of.id,
        attempt=attempt,
        outcomes=outcomes,
        settled=True,
        attempts=of.attempts,
        keep=False,
        cells=(),
        failures=(),
        closures=(),
        run=of.run,
        at=START,
    )


def commit(home: Home, of: Run, **parts: Any) -> Run:
    """Commits under the stream's lease, and gives it back."""
    lease = home.leases.take(lease_name(of.integration, of.stream))
    home.runs.commit(lease, of, **parts)
    home.leases.release(lease)
    return of


def commit_batch(home: Home, outcomes: str = "...", number: int = 0, of: Run | None = None, **fields: Any) -> Batch:
    """Commits one open batch with its run."""
    of = of or run()
    made = batch(number, of, outcomes, **fields)
    commit(home, of, batches=[made])
    return made


def settle_another(home: Home, awaited: Sequence[Awaited], number: int = 50, **parts: Any) -> Batch:
    """Settles a batch of its own, which waits for these requests."""
    of = commit_batch(home, "...", number, run(number))
    home.batches.begin(of.id, "one")
    home.batches.settle(settlement(of, "one", "ddd", awaited=awaited, **parts))
    return of


def commit_cells(home: Home, cells: Sequence[Cell], of: Run | None = None) -> None:
    commit(home, of or run(), cells=cells)


def commit_groups(home: Home, stream: str, count: int, after_first: Callable[[], None] = lambda: None) -> None:
    """A run that commits group after group: one batch of two records and their cells each."""
    of = run(stream=stream)
    lease = home.leases.take(lease_name(SHOP, stream))
    for number in range(count):
        made = batch(number, of, "..")
        of.groups, of.fetched, of.after = number + 1, of.fetched + 2, str(number)
        home.runs.commit(lease, of, batches=[made], cells=[cell(key) for key in made.keys])
        if number == 0:
            after_first()
    home.leases.release(lease)


def many_cells(count: int, after_thousand: Callable[[], None]) -> Iterator[Placed]:
    """Entries of a replacement that takes its time."""
    for number in range(count):
        if number == 1000:
            after_thousand()
        yield Placed(SHOP, CUSTOMERS, cell(f"x{number}"))


def unlike_any_store() -> dict[str, Any]:
    """Data that no store can keep: a write that holds it has to fail as a whole."""
    return {"thing": object()}
