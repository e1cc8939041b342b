"""Leases and batches on Firestore: who may write, what it costs, and what a lost answer does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.gcp.history import WRITES_AT_ONCE
from infra.gcp.home import GoogleHome
from shared.books import Failure, FailureQuery
from shared.errors import Fenced, Leased, StoreUnavailable
from shared.ledger import Cell
from shared.ports import Lease
from shared.snapshot.history import Placed
from tests.contract import make
from tests.contract.suite import at_once, errors_of
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub, lose_answers, lose_contact

pytestmark = pytest.mark.usefixtures("emulators")


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


def cost(home: GoogleHome, work: Callable[[], Any]) -> dict[str, int]:
    """The document operations of some work."""
    before = home.meter.counts()
    work()
    spent = home.meter.since(before)
    return {name: spent.get(name, 0) for name in ("reads", "writes", "deletes")}


def test_of_many_threads_and_processes_one_takes_an_expired_lease(hub: Hub) -> None:
    homes = [hub.home() for _ in range(4)]
    stale = homes[0].ports.leases.take("shop.customers")
    hub.clock.advance(60)
    results = at_once(*(lambda h=h: h.ports.leases.take("shop.customers") for h in homes * 4))  # type: ignore[misc]
    taken = [each for each in results if isinstance(each, Lease)]
    assert [lease.token for lease in taken] == [stale.token + 1]
    assert {type(error) for error in errors_of(results)} == {Leased}


def test_of_writers_with_old_and_new_leases_only_the_newest_gets_through(hub: Hub) -> None:
    homes = [hub.home() for _ in range(4)]
    leases = []
    for home in homes:
        leases.append(home.ports.leases.take(make.LEASE))
        hub.clock.advance(60)

    def write(number: int) -> None:
        homes[number].ports.runs.commit(leases[number], make.run(number))

    results = at_once(*(lambda n=n: write(n) for n in range(4)))  # type: ignore[misc]
    assert [type(result) for result in results] == [Fenced, Fenced, Fenced, type(None)]
    assert [run.id for run in homes[0].ports.runs.recent(make.SHOP, None, 9)] == [make.run(3).id]


def test_a_lease_that_expired_and_that_nobody_took_still_writes(hub: Hub) -> None:
    home = hub.home().ports
    lease = home.leases.take(make.LEASE)
    hub.clock.advance(3600)
    home.runs.commit(lease, make.run())
    with pytest.raises(Leased):
        hub.home().ports.leases.take(make.LEASE)


def test_a_released_lease_writes_no_more(hub: Hub) -> None:
    home = hub.home().ports
    lease = home.leases.take(make.LEASE)
    home.leases.release(lease)
    with pytest.raises(Fenced):
        home.runs.commit(lease, make.run())


def test_every_commit_renews_its_lease(hub: Hub) -> None:
    here, there = hub.home().ports, hub.home().ports
    lease = here.leases.take(make.LEASE)
    for number in range(5):
        hub.clock.advance(59)
        here.runs.commit(lease, make.run(groups=number))
    with pytest.raises(Leased):
        there.leases.take(make.LEASE)


def test_a_commit_whose_answer_was_lost_is_not_fenced_by_itself(hub: Hub) -> None:
    home = hub.home()
    lease = home.ports.leases.take(make.LEASE)
    run = make.run()
    lose_answers(home.store)
    home.ports.runs.commit(lease, run, batches=[make.batch(0, run)], cells=[make.cell("k")])
    home.ports.runs.commit(lease, run, batches=[make.batch(1, run)])
    assert [batch.id for batch in home.ports.batches.of_run(run.id)] == ["customers-1.0", "customers-1.1"]


def test_a_lease_whose_taking_was_not_answered_is_held_by_who_took_it(hub: Hub) -> None:
    home = hub.home()
    lose_answers(home.store)
    lease = home.ports.leases.take(make.LEASE)
    home.ports.runs.commit(lease, make.run())
    assert home.ports.runs.get(make.run().id) is not None


def test_a_begun_batch_whose_answer_was_lost_is_not_taken_for_anothers(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports)
    lose_answers(home.store)
    found, earlier = home.ports.batches.begin(batch.id, "one")
    assert found is not None
    assert earlier == ""
    lose_answers(home.store)
    home.ports.batches.settle(make.settlement(batch, "one", "ddd"))
    assert home.ports.batches.begin(batch.id, "two") == (None, "")


def test_after_a_write_of_unknown_fate_the_same_holder_goes_on(hub: Hub) -> None:
    home = hub.home()
    lease = home.ports.leases.take(make.LEASE)
    run = make.run()
    lose_contact(home.store)
    with pytest.raises(StoreUnavailable):
        home.ports.runs.commit(lease, run)
    home.ports.runs.commit(lease, run, batches=[make.batch(0, run)])
    home.ports.batches.begin("customers-1.0", "one")
    lose_contact(home.store)
    with pytest.raises(StoreUnavailable):
        home.ports.batches.settle(make.settlement(make.batch(0, run), "one", "d..", settled=False, keep=True))
    home.ports.batches.settle(make.settlement(make.batch(0, run), "one", "ddd"))


def test_marking_as_published_fences_off_nobody(hub: Hub) -> None:
    """A push may arrive before the publisher comes to mark the batch."""
    here, there = hub.home().ports, hub.home().ports
    batch = make.commit_batch(here)
    there.batches.begin(batch.id, "one")
    here.batches.published([batch.id], hub.clock.now())
    there.batches.settle(make.settlement(batch, "one", "ddd"))
    stored = here.batches.get(batch.id)
    assert stored is not None
    assert (stored.state, stored.published_at) == ("settled", hub.clock.now())


def test_an_attempt_that_expired_is_taken_over_and_fenced(hub: Hub) -> None:
    here, there = hub.home().ports, hub.home().ports
    batch = make.commit_batch(here)
    here.batches.begin(batch.id, "one")
    hub.clock.advance(59)
    with pytest.raises(Leased) as refused:
        there.batches.begin(batch.id, "two")
    assert refused.value.holder == "one"
    hub.clock.advance(1)
    assert there.batches.begin(batch.id, "two")[1] == "one"
    for write in (
        lambda: here.batches.settle(make.settlement(batch, "one", "ddd")),
        lambda: here.batches.renew(batch.id, "one"),
    ):
        with pytest.raises(Fenced):
            write()
    here.batches.let_go(batch.id, "one")
    there.batches.settle(make.settlement(batch, "two", "ddd"))


def test_progress_renews_an_attempt(hub: Hub) -> None:
    here, there = hub.home().ports, hub.home().ports
    batch = make.commit_batch(here)
    here.batches.begin(batch.id, "one")
    for _ in range(3):
        hub.clock.advance(59)
        here.batches.settle(make.settlement(batch, "one", "d..", settled=False, keep=True))
    with pytest.raises(Leased):
        there.batches.begin(batch.id, "two")


def test_of_many_attempts_at_once_at_an_expired_batch_one_begins(hub: Hub) -> None:
    homes = [hub.home().ports for _ in range(4)]
    batch = make.commit_batch(homes[0])
    homes[0].batches.begin(batch.id, "dead")
    hub.clock.advance(60)

    def begin(number: int) -> str:
        return homes[number % 4].batches.begin(batch.id, f"attempt {number}")[1]

    results = at_once(*(lambda n=n: begin(n) for n in range(12)))  # type: ignore[misc]
    assert [result for result in results if isinstance(result, str)] == ["dead"]


def test_another_failure_in_between_is_not_taken_for_a_lost_lease(hub: Hub) -> None:
    """The commit reads a failure, another stream closes it, and the commit is made again on what is so now."""
    here, there = hub.home(), hub.home()
    origin = make.settled_batch(0)
    failure = make.failure(origin)
    make.commit(here.ports, make.run(), batches=[origin], failures=[failure])
    lease = here.ports.leases.take("shop.other")
    get_all = here.store.get_all

    def slow(*given: Any, **named: Any) -> Any:
        found = get_all(*given, **named)
        here.store.get_all = get_all  # type: ignore[method-assign]
        make.commit(there.ports, make.run(2), closures=[make.closure(failure)])
        return found

    here.store.get_all = slow  # type: ignore[method-assign]
    here.ports.runs.commit(lease, make.run(3, stream="other"), failures=[failure])
    (again,) = there.ports.failures.find(make_query())
    assert (again.attempts, again.closed_at) == (1, None)


def make_query() -> Any:
    from shared.books import FailureQuery

    return FailureQuery(make.SHOP)


def test_the_normal_path_reads_nothing_that_it_wrote_itself(hub: Hub) -> None:
    home = hub.home()
    ports = home.ports
    assert cost(home, lambda: ports.leases.take(make.LEASE)) == {"reads": 2, "writes": 1, "deletes": 0}
    hub.clock.advance(60)
    lease = ports.leases.take(make.LEASE)
    run = make.run()
    batches = [make.batch(number, run) for number in range(4)]
    assert cost(home, lambda: ports.runs.commit(lease, run)) == {"reads": 0, "writes": 2, "deletes": 0}
    assert cost(home, lambda: ports.runs.commit(lease, run, batches)) == {"reads": 0, "writes": 6, "deletes": 0}
    assert cost(home, lambda: ports.leases.renew(lease)) == {"reads": 0, "writes": 1, "deletes": 0}
    (batch, *_) = batches
    assert cost(home, lambda: ports.batches.begin(batch.id, "one")) == {"reads": 1, "writes": 1, "deletes": 0}
    assert cost(home, lambda: ports.batches.renew(batch.id, "one")) == {"reads": 0, "writes": 1, "deletes": 0}
    assert cost(home, lambda: ports.ledger.cells(make.SHOP, make.CUSTOMERS, batch.keys))["reads"] == 3
    settlement = make.settlement(batch, "one", "ddd", cells=[make.cell(key) for key in batch.keys])
    assert cost(home, lambda: ports.batches.settle(settlement)) == {"reads": 0, "writes": 4, "deletes": 0}
    assert cost(home, lambda: ports.batches.let_go(batch.id, "one")) == {"reads": 0, "writes": 0, "deletes": 0}
    assert cost(home, lambda: ports.leases.release(lease)) == {"reads": 0, "writes": 1, "deletes": 0}


def test_a_cell_that_changed_since_it_was_read_is_read_again(hub: Hub) -> None:
    """The delivery has read it, a fetch marks it, and the settlement is made again on what is so now."""
    here, there = hub.home(), hub.home()
    batch = make.commit_batch(here.ports)
    here.ports.batches.begin(batch.id, "one")
    here.ports.ledger.cells(make.SHOP, make.CUSTOMERS, batch.keys)
    make.commit_cells(there.ports, [Cell(batch.keys[0], failed="v9")], make.run(2))
    settlement = make.settlement(batch, "one", "ddd", cells=[make.cell(key) for key in batch.keys])
    assert cost(here, lambda: here.ports.batches.settle(settlement))["reads"] == 4
    found = there.ports.ledger.cells(make.SHOP, make.CUSTOMERS, batch.keys)
    assert [found[key].failed for key in batch.keys] == ["v9", "", ""]


def test_deliveries_and_fetches_at_once_lose_no_mark_and_no_version(hub: Hub) -> None:
    homes = [hub.home().ports for _ in range(4)]
    run = make.run()
    batches = [make.batch(number, run, ".") for number in range(4)]
    make.commit(homes[0], run, batches=batches)

    def deliver(number: int) -> None:
        home, batch = homes[number], batches[number]
        home.batches.begin(batch.id, "one")
        home.ledger.cells(make.SHOP, make.CUSTOMERS, ["k"])
        home.batches.settle(make.settlement(batch, "one", "d", cells=[make.cell("k", "v5")]))

    def mark(number: int) -> None:
        home = homes[number]
        lease = home.leases.take(f"shop.{number}")
        home.runs.commit(lease, make.run(9), cells=[Cell("k", failed=f"v{number + 4}")])

    works = [lambda n=n, w=w: w(n) for n in range(4) for w in (deliver, mark)]  # type: ignore[misc]
    assert errors_of(at_once(*works)) == []
    cell = homes[0].ledger.cells(make.SHOP, make.CUSTOMERS, ["k"])["k"]
    assert (cell.version, cell.failed) == ("v5", "v7")


def test_handing_back_needs_no_letting_go(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    home.ports.batches.settle(make.settlement(batch, "one", "...", settled=False))
    assert cost(home, lambda: home.ports.batches.let_go(batch.id, "one"))["writes"] == 0


def test_letting_go_of_what_the_store_does_not_take_is_left_to_time(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    lose_contact(home.store)
    home.ports.batches.let_go(batch.id, "one")
    hub.clock.advance(60)
    assert hub.home().ports.batches.begin(batch.id, "two")[1] == "one"


def test_of_two_who_replace_the_books_the_one_that_was_overtaken_is_refused(hub: Hub) -> None:
    make.commit_cells(hub.home().ports, [make.cell("old")])
    one, other = hub.home().ports, hub.home().ports

    def placed(*keys: str) -> Iterator[Placed]:
        return (Placed(make.SHOP, make.CUSTOMERS, make.cell(key)) for key in keys)

    def overtaken() -> Iterator[Placed]:
        yield from placed(*(f"k{number}" for number in range(WRITES_AT_ONCE)))
        other.history.replace(b"other", lambda: placed("new"))
        yield from placed("late")

    with pytest.raises(Fenced):
        one.history.replace(b"one", overtaken)
    with pytest.raises(Fenced):
        one.history.finish(b"one")
    left = one.history.unfinished()
    assert left is not None and (left.intent, left.replaced) == (b"other", True)
    assert [cell.key for cell in one.ledger.scan(make.SHOP, make.CUSTOMERS)] == ["new"]
    other.history.finish(b"other")


def test_an_end_whose_answer_is_lost_is_an_end(hub: Hub) -> None:
    home = hub.home()
    home.ports.history.replace(b"x", lambda: iter(()))
    lose_answers(home.store)
    home.ports.history.finish(b"x")
    assert home.ports.history.unfinished() is None


def test_the_data_of_a_failure_that_is_cleaned_away_is_missed_by_nobody(hub: Hub) -> None:
    home, other = hub.home(), hub.home()
    run = make.run()
    batch = make.settled_batch(0, run)
    make.commit(home.ports, run, batches=[batch], failures=[make.failure(batch, data={"text": "x" * 800_000})])
    with other.ports.history.look() as past:
        (failure,) = home.ports.failures.find(FailureQuery(make.SHOP))
        home.failures.remove([failure.id])
        assert list(past.told(Failure, make.SHOP, make.CUSTOMERS)) == [msgspec.structs.replace(failure, data={})]


def test_whoever_replaces_the_books_comes_by_while_the_old_ones_are_deleted(hub: Hub) -> None:
    home = hub.home().ports
    make.commit_cells(home, [make.cell(f"k{number}") for number in range(400)])
    make.commit_cells(home, [make.cell(f"x{number}") for number in range(400)], make.run(2))
    calls = 0

    def watch() -> None:
        nonlocal calls
        calls += 1

    home.history.replace(b"one", lambda: iter(()), watch=watch)
    # Before anything, two commits of cells, and one of runs.
    assert calls == 4


@pytest.mark.parametrize("lost", [lose_answers, lose_contact])
def test_what_was_taken_of_books_that_are_not_replaced_is_given_back(hub: Hub, lost: Callable[[Any], None]) -> None:
    here, there = hub.home(), hub.home()
    batches = [make.commit_batch(here.ports, "..", number, make.run(number)) for number in range(3)]
    there.ports.batches.begin(batches[-1].id, "one")
    take = here.store.commit

    def lose_the_second(writes: Any) -> Any:
        here.store.commit = take  # type: ignore[method-assign]
        done = take(writes)
        lost(here.store)
        return done

    here.store.commit = lose_the_second  # type: ignore[method-assign]
    try:
        here.ports.history.replace(b"x", lambda: iter(()))
    except StoreUnavailable:
        # The contact is lost for good: the replacement is known to be unfinished, and is made by the next one.
        assert there.ports.history.unfinished() is not None
        hub.clock.advance(61)
        there.ports.history.replace(b"x", lambda: iter(()))
        there.ports.history.finish(b"x")
        assert list(there.ports.batches.unsettled(make.SHOP)) == []
    except Leased:
        assert there.ports.history.unfinished() is None
        for batch in batches[:2]:
            assert there.ports.batches.begin(batch.id, "two")[1] == ""
    else:
        raise AssertionError("it was not refused")


def test_what_was_taken_is_given_back_whatever_is_noted_of_it_meanwhile(hub: Hub) -> None:
    """Whoever published a batch notes so when the message is safe."""
    here, there = hub.home(), hub.home()
    batches = [make.commit_batch(here.ports, "..", number, make.run(number)) for number in range(3)]
    there.ports.batches.begin(batches[-1].id, "one")
    commit = here.store.commit

    def noting(writes: Any) -> Any:
        done = commit(writes)
        if writes[0].path[0] == "batches":
            there.ports.batches.published([batch.id for batch in batches], hub.clock.now())
        return done

    here.store.commit = noting  # type: ignore[method-assign]
    with pytest.raises(Leased):
        here.ports.history.replace(b"x", lambda: iter(()))
    assert there.ports.history.unfinished() is None
    for batch in batches[:2]:
        assert there.ports.batches.begin(batch.id, "two")[1] == ""
