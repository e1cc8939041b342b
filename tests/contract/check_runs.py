"""Runs: a commit is all or nothing, fenced by its lease, and the checkpoint never parts from its batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from shared.books import Batch, Closure, Failure, FailureQuery, Run, StreamState, Window
from shared.errors import Fenced
from shared.ledger import Cell
from shared.outcome import Outcome
from shared.ports import Lease
from shared.snapshot.history import Placed
from tests.contract import make
from tests.contract.make import CUSTOMERS, LEASE, SHOP
from tests.contract.suite import (
    Around,
    altered,
    answering,
    at_once,
    breaks,
    contract,
    errors_of,
    eventually,
    refused,
    swallowing,
    without,
)
from tests.contract.world import START, World

EVERY_FIELD = Run(
    id="customers-whole",
    integration=SHOP,
    stream=CUSTOMERS,
    kind="replay",
    state="yielded",
    started_at=START + timedelta(microseconds=123_456),
    window=Window(START - timedelta(days=3, microseconds=1), START),
    cursor_after=START - timedelta(microseconds=7),
    after='{"n": "Zoë/… \\"x\\""}',
    groups=3,
    fetched=1_234_567,
    pass_rows=9,
    total=10,
    passes=1,
    slice=2,
    epoch=5,
    limit=11,
    fetch_done=True,
    abandoned=True,
    touched_at=START + timedelta(seconds=1),
    finished_at=START + timedelta(seconds=2),
    error="it's \n broken",
    error_class="ProtocolError",
    cure="mend it",
    reason="somebody wanted it",
)


class LeavesTheCheckpoint(Around):
    """Refuses the stale lease when the run is written already."""

    def commit(self, lease: Lease, run: Run, **parts: Any) -> None:
        try:
            self.inner.commit(lease, run, **parts)
        except Exception:
            self.leave(run)
            raise

    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        try:
            self.inner.finish(lease, run, state)
        except Fenced:
            self.leave(run)
            raise

    def leave(self, run: Run) -> None:
        before = self.inner.get(run.id)
        self.inner.conclude(msgspec.structs.replace(run, fetched=before.fetched))


class PartByPart(Around):
    def commit(
        self,
        lease: Lease,
        run: Run,
        batches: Sequence[Batch] = (),
        failures: Sequence[Failure] = (),
        cells: Sequence[Cell] = (),
        closures: Sequence[Closure] = (),
    ) -> None:
        for part in ({"batches": batches}, {"cells": cells}, {"closures": closures}, {"failures": failures}):
            self.inner.commit(lease, run, **part)


class FirstCells(Around):
    """Stops at a limit that stores are said to have."""

    def commit(self, lease: Lease, run: Run, cells: Sequence[Cell] = (), **parts: Any) -> None:
        self.inner.commit(lease, run, cells=cells[:500], **parts)


class ForgetsTheCursor(Around):
    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        self.inner.finish(lease, run, StreamState(state.integration, state.stream))


class ForgetsTheRun(Around):
    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        self.inner.finish(lease, self.inner.get(run.id), state)


class OneStateForAll(Around):
    def finish(self, lease: Lease, run: Run, state: StreamState) -> None:
        self.shared["state"] = state
        self.inner.finish(lease, run, state)

    def state(self, integration: str, stream: str) -> StreamState:
        state: StreamState = self.shared.get("state") or self.inner.state(integration, stream)
        return state


class OverRunsToo(Around):
    def unfinished(self, integration: str, stream: str) -> list[Run]:
        return [r for r in reversed(self.inner.recent(integration, stream, 100)) if r.stream == stream]


class OtherStreamsToo(Around):
    def unfinished(self, integration: str, stream: str) -> list[Run]:
        return [r for r in reversed(self.inner.recent(None, None, 100)) if not r.over]


class RecentOfAll(Around):
    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        found: list[Run] = self.inner.recent(None, None, most)
        return found


class RecentWithoutEnd(Around):
    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        found: list[Run] = self.inner.recent(integration, stream, 1000)
        return found


class RunTwice(Around):
    """Writes another run where it should write the same one again."""

    def recent(self, integration: str | None, stream: str | None, most: int) -> list[Run]:
        found: list[Run] = self.inner.recent(integration, stream, most)
        return found * 2


def backwards(found: list[Run]) -> list[Run]:
    return found[::-1]


def everything_of(world: World, run: Run, key: str) -> dict[str, Any]:
    """What is stored of a run, its batches, its failures and the cell of one key, as the other process sees it."""
    home = world.there
    return {
        "run": home.runs.get(run.id),
        "batches": [batch.present for batch in home.batches.of_run(run.id)],
        "failures": [(f.id, f.closed_as) for f in home.failures.find(FailureQuery(SHOP, include_closed=True))],
        "cells": home.ledger.cells(SHOP, CUSTOMERS, [key]),
    }


def one_of_everything(world: World) -> tuple[Run, dict[str, Any]]:
    """A stored run with an open failure, and the parts of a commit that would change each kind of thing."""
    run = make.run()
    origin = make.settled_batch(0, run)
    make.commit(world.here, run, batches=[origin], failures=[make.failure(origin)])
    batch = make.settled_batch(1, run)
    parts = {
        "batches": [batch],
        "failures": [make.failure(batch)],
        "cells": [make.cell("1-0")],
        "closures": [make.closure(make.failure(origin))],
    }
    return msgspec.structs.replace(run, after="next", groups=2, fetched=6), parts


@contract(
    breaks("drops a field", runs=answering("get", lambda run: run and msgspec.structs.replace(run, reason=""))),
    breaks("cuts instants to seconds", runs=answering("get", lambda run: run and msgspec.structs.replace(
        run, started_at=run.started_at.replace(microsecond=0)))),
)  # fmt: skip
def check_a_run_comes_back_as_it_was(world: World) -> None:
    make.commit(world.here, EVERY_FIELD)
    for home in (world.here, world.there):
        assert home.runs.get(EVERY_FIELD.id) == EVERY_FIELD
    assert world.here.runs.get("customers-nobody") is None


@contract(
    breaks("adds a run each time", runs=RunTwice),
    breaks("keeps the first checkpoint", runs=answering("get", lambda run: msgspec.structs.replace(run, after=""))),
)
def check_a_second_commit_moves_the_same_run_on(world: World) -> None:
    run = make.commit(world.here, make.run())
    moved = msgspec.structs.replace(run, after="next", fetched=7)
    make.commit(world.there, moved)
    assert world.here.runs.get(run.id) == moved
    assert [each.id for each in world.here.runs.recent(SHOP, CUSTOMERS, 10)] == [run.id]


@contract(
    breaks("drops the batches", runs=altered("commit", batches=())),
    breaks("drops the failures", runs=altered("commit", failures=())),
    breaks("drops the cells", runs=altered("commit", cells=())),
    breaks("drops the closures", runs=altered("commit", closures=())),
    breaks("drops everything", runs=without("commit")),
)
def check_a_commit_writes_every_part(world: World) -> None:
    moved, parts = one_of_everything(world)
    make.commit(world.here, moved, **parts)
    stored = everything_of(world, moved, "1-0")
    assert stored["run"] == moved
    assert stored["batches"] == ["dii", "iii"]
    assert [closed_as for _, closed_as in stored["failures"]] == ["delivered", ""]
    assert stored["cells"] == {"1-0": make.cell("1-0")}


@contract(
    breaks("takes a stale lease", runs=swallowing("commit", Fenced)),
    breaks("leaves the checkpoint behind", runs=LeavesTheCheckpoint),
)
def check_a_stale_lease_commits_nothing(world: World) -> None:
    moved, parts = one_of_everything(world)
    stale = world.here.leases.take(LEASE)
    world.take_here_for_dead()
    world.there.leases.take(LEASE)
    before = everything_of(world, moved, "1-0")
    with refused(Fenced):
        world.here.runs.commit(stale, moved, **parts)
    assert everything_of(world, moved, "1-0") == before


@contract(
    breaks("takes a stale lease", runs=swallowing("finish", Fenced)),
    breaks("leaves the run behind", runs=LeavesTheCheckpoint),
)
def check_a_stale_lease_finishes_nothing(world: World) -> None:
    run = make.commit(world.here, make.run())
    stale = world.here.leases.take(LEASE)
    world.take_here_for_dead()
    world.there.leases.take(LEASE)
    with refused(Fenced):
        world.here.runs.finish(
            stale, msgspec.structs.replace(run, fetch_done=True), StreamState(SHOP, CUSTOMERS, cursor=START)
        )
    assert world.there.runs.get(run.id) == run
    assert world.there.runs.state(SHOP, CUSTOMERS).cursor is None


@contract(breaks("writes part by part", runs=PartByPart), breaks("leaves the checkpoint", runs=LeavesTheCheckpoint))
def check_a_part_that_fails_leaves_nothing_of_the_others(world: World) -> None:
    moved, parts = one_of_everything(world)
    before = everything_of(world, moved, "1-0")
    parts["failures"] = [make.failure(parts["batches"][0], data=make.unlike_any_store())]
    lease = world.here.leases.take(LEASE)
    with refused(Exception):
        world.here.runs.commit(lease, moved, **parts)
    assert everything_of(world, moved, "1-0") == before


@contract(
    breaks("loses the last batch", batches=answering("of_run", lambda found: list(found)[:-1])),
    breaks("loses cells", ledger=answering("scan", lambda found: list(found)[:-1])),
)
def check_checkpoint_and_batches_move_together_whenever_death_comes(world: World) -> None:
    child = world.child("commit_groups", stream=CUSTOMERS, count=3000)
    run_id = make.run().id
    assert child.said["begun"]
    eventually(lambda: stored_groups(world, run_id) >= 5, "some groups")
    world.kill(child)
    run = world.here.runs.get(run_id)
    assert run is not None
    batches = list(world.here.batches.of_run(run_id))
    assert len(batches) == run.groups
    assert run.fetched == sum(len(batch.keys) for batch in batches)
    assert {cell.key for cell in world.here.ledger.scan(SHOP, CUSTOMERS)} == {k for b in batches for k in b.keys}


def stored_groups(world: World, run_id: str) -> int:
    run = world.here.runs.get(run_id)
    return 0 if run is None else run.groups


@contract(breaks("stops at 500 writes", runs=FirstCells))
def check_a_large_commit_is_written_whole(world: World) -> None:
    run = make.run(groups=1)
    batches = [make.batch(number, run, "." * 400) for number in range(8)]
    cells = [make.cell(key, origin="o" * 100) for batch in batches for key in batch.keys]
    make.commit(world.here, run, batches=batches, cells=cells)
    assert sorted(batch.id for batch in world.there.batches.of_run(run.id)) == sorted(batch.id for batch in batches)
    assert len(world.there.ledger.cells(SHOP, CUSTOMERS, [cell.key for cell in cells])) == 3200


@contract(
    breaks("forgets the cursor", runs=ForgetsTheCursor),
    breaks("forgets the run", runs=ForgetsTheRun),
    breaks("does nothing", runs=without("finish")),
)
def check_finishing_moves_the_cursor_with_the_run(world: World) -> None:
    run = make.commit(world.here, make.run())
    done = msgspec.structs.replace(run, fetch_done=True)
    state = StreamState(SHOP, CUSTOMERS, START + timedelta(microseconds=1), run.id, 2)
    world.here.runs.finish(world.here.leases.take(LEASE), done, state)
    assert world.there.runs.get(run.id) == done
    assert world.there.runs.state(SHOP, CUSTOMERS) == state


@contract(breaks("remembers one state for all", runs=OneStateForAll))
def check_each_stream_remembers_for_itself(world: World) -> None:
    run = make.commit(world.here, make.run())
    state = StreamState(SHOP, CUSTOMERS, cursor=START, last_run=run.id)
    world.here.runs.finish(world.here.leases.take(LEASE), run, state)
    assert world.here.runs.state(SHOP, "tasks") == StreamState(SHOP, "tasks")
    assert world.here.runs.state("market", CUSTOMERS) == StreamState("market", CUSTOMERS)


@contract(
    breaks("gives the newest first", runs=answering("unfinished", backwards)),
    breaks("gives those that are over", runs=OverRunsToo),
    breaks("gives other streams' runs", runs=OtherStreamsToo),
    breaks("gives one only", runs=answering("unfinished", lambda found: found[:1])),
)
def check_unfinished_runs_come_oldest_first(world: World) -> None:
    for number in (1, 2, 3, 4):
        make.commit(world.here, make.run(number))
    make.commit(world.here, make.run(5, stream="tasks"))
    world.here.runs.conclude(make.run(2, state="settled", finished_at=START))
    assert [run.id for run in world.there.runs.unfinished(SHOP, CUSTOMERS)] == [make.run(n).id for n in (1, 3, 4)]
    assert world.there.runs.unfinished("market", CUSTOMERS) == []


@contract(
    breaks("gives the oldest first", runs=answering("recent", backwards)),
    breaks("asks for nothing", runs=RecentOfAll),
    breaks("gives more than was asked for", runs=RecentWithoutEnd),
)
def check_recent_runs_come_newest_first(world: World) -> None:
    for number in (1, 2, 3):
        make.commit(world.here, make.run(number))
    make.commit(world.here, make.run(4, stream="tasks"))
    make.commit(world.here, make.run(5, stream="elsewhere", integration="market"))
    world.here.runs.conclude(make.run(1, state="settled", finished_at=START))

    def recent(integration: str | None, stream: str | None, most: int = 10) -> list[int]:
        return [int(run.id.rpartition("-")[2]) for run in world.there.runs.recent(integration, stream, most)]

    assert recent(SHOP, CUSTOMERS) == [3, 2, 1]
    assert recent(SHOP, CUSTOMERS, 2) == [3, 2]
    assert recent(SHOP, None) == [4, 3, 2, 1]
    assert recent(None, None) == [5, 4, 3, 2, 1]


class ConcludesAllTheSame(Around):
    """Writes how a run ended, whatever became of it."""

    def conclude(self, run: Run) -> None:
        make.commit(self.home, run)


@contract(breaks("writes it all the same", runs=ConcludesAllTheSame))
def check_a_run_of_books_that_were_replaced_is_concluded_by_nobody(world: World) -> None:
    """Whoever has read it may come late: what it fetched is not in the batches of these books."""
    gone, other = make.run(1, fetched=9), make.run(2, fetched=9)
    for run in (gone, other):
        make.commit(world.here, run)
    kept = msgspec.structs.replace(other, fetched=4, state="failed", finished_at=START)
    world.here.history.replace(b"x", lambda: iter([Placed(SHOP, CUSTOMERS, kept)]))
    world.here.history.finish(b"x")
    for run in (gone, other):
        world.there.runs.conclude(msgspec.structs.replace(run, state="settled", finished_at=START))
    assert world.here.runs.recent(SHOP, CUSTOMERS, 9) == [kept]


@contract(breaks("does nothing", runs=without("conclude")))
def check_a_concluded_run_says_how_it_ended(world: World) -> None:
    run = make.commit(world.here, make.run())
    ended = msgspec.structs.replace(run, state="settled", finished_at=START)
    world.here.runs.conclude(ended)
    assert world.there.runs.get(run.id) == ended


class ClosesOnly(Around):
    def present(self, batch: Batch) -> Batch:
        return msgspec.structs.replace(batch, amended={})

    def of_run(self, run: str) -> Any:
        return map(self.present, self.inner.of_run(run))


class Overwrites(Around):
    """Writes the present outcome over the one of its time."""

    def of_run(self, run: str) -> Any:
        return (msgspec.structs.replace(batch, outcomes=batch.present) for batch in self.inner.of_run(run))


def unsigned(found: Any) -> list[Failure]:
    return [msgspec.structs.replace(failure, closed_by="") for failure in found]


@contract(
    breaks("leaves the batch as it is", batches=ClosesOnly),
    breaks("rewrites history", batches=Overwrites),
    breaks("does not say who closed it", failures=answering("find", unsigned)),
    breaks("drops the closures", runs=altered("commit", closures=())),
)
def check_a_closure_amends_the_batch_in_which_the_record_was_fetched(world: World) -> None:
    first, later = make.run(1), make.run(2, touched_at=START + timedelta(minutes=2))
    origin = make.settled_batch(0, first, "ifi")
    failures = [make.failure(origin, 0), make.failure(origin, 2)]
    make.commit(world.here, first, batches=[origin], failures=failures)
    make.commit(world.here, later, closures=[make.closure(failures[1], Outcome.SUPERSEDED)])
    (stored,) = world.there.batches.of_run(first.id)
    assert (stored.outcomes, stored.present) == ("ifi", "ifs")
    closed = [f for f in world.there.failures.find(FailureQuery(SHOP, include_closed=True)) if f.closed_at is not None]
    assert [(f.id, f.closed_as, f.closed_by) for f in closed] == [(failures[1].id, "superseded", later.id)]


class AmendsAgain(Around):
    """Lets the last of two closures have its way with the batch."""

    def commit(self, lease: Lease, run: Run, closures: Sequence[Closure] = (), **parts: Any) -> None:
        self.inner.commit(lease, run, closures=closures, **parts)
        for closure in closures:
            self.shared[closure.batch, str(closure.place)] = "s"


class AmendedAgain(Around):
    def of_run(self, run: str) -> Any:
        for batch in self.inner.of_run(run):
            amended = {place: self.shared.get((batch.id, place), letter) for place, letter in batch.amended.items()}
            yield msgspec.structs.replace(batch, amended=amended)


@contract(breaks("amends for each closure", runs=AmendsAgain, batches=AmendedAgain))
def check_what_is_closed_is_not_closed_again(world: World) -> None:
    run = make.run()
    origin = make.settled_batch(0, run, "i")
    failure = make.failure(origin)
    make.commit(world.here, run, batches=[origin], failures=[failure])
    for outcome in (Outcome.DELIVERED, Outcome.SUPERSEDED):
        make.commit(world.here, run, closures=[make.closure(failure, outcome)])
    (stored,) = world.there.batches.of_run(run.id)
    (closed,) = world.there.failures.find(FailureQuery(SHOP, include_closed=True))
    assert (closed.closed_as, stored.present) == ("delivered", "d")


@contract(
    breaks("loses batches", batches=answering("of_run", lambda found: list(found)[1:])),
    breaks("loses a checkpoint", runs=answering("get", lambda run: msgspec.structs.replace(run, groups=1))),
)
def check_streams_committed_at_once_by_threads_and_processes_lose_nothing(world: World) -> None:
    child = world.child("commit_groups", stream="far", count=40)
    assert child.said["begun"]
    writers = {"near": world.here, "nearer": world.there, "nearest": world.here}
    results = at_once(*(partial(make.commit_groups, home, stream, 40) for stream, home in writers.items()))
    child.end()
    assert errors_of(results) == []
    for stream in [*writers, "far"]:
        run = world.here.runs.get(make.run(stream=stream).id)
        assert run is not None
        assert run.groups == 40
        assert len({batch.id for batch in world.here.batches.of_run(run.id)}) == 40
        assert len({cell.key for cell in world.here.ledger.scan(SHOP, stream)}) == 80
