"""Requests on Firestore: what they cost, and what a lost answer or another writer does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.gcp.store import Write
from shared.books import Batch, FailureQuery
from shared.errors import StoreUnavailable
from shared.outcome import Outcome
from shared.ports import Home
from tests.contract import make
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub, lose_answers, lose_contact
from tests.unit.test_gcp_fencing import cost

NAME = (make.SHOP, make.CUSTOMERS)


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


def delivered(home: Home, count: int = 3) -> Batch:
    """A settled batch whose records were delivered by one request."""
    batch = make.commit_batch(home, "." * count)
    home.batches.begin(batch.id, "one")
    cells = [make.cell(key, target_id="q1") for key in batch.keys]
    home.batches.settle(make.settlement(batch, "one", "d" * count, cells=cells, awaited=[make.awaited(batch)]))
    return batch


def test_a_request_costs_a_write_and_no_read(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    plain = make.settlement(batch, "one", "d..", settled=False, keep=True)
    asked = msgspec.structs.replace(plain, awaited=[make.awaited(batch), make.awaited(batch, "q2")])
    usual, more = (cost(home, lambda each=each: home.ports.batches.settle(each)) for each in (plain, asked))
    assert more == {**usual, "writes": usual["writes"] + 2}


def test_an_answer_that_is_lost_adds_nothing_twice(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports)
    home.ports.batches.begin(batch.id, "one")
    for outcomes in ("d..", "dd."):
        lose_answers(home.store)
        part = make.settlement(batch, "one", outcomes, settled=False, keep=True, awaited=[make.awaited(batch)])
        home.ports.batches.settle(part)
    assert home.ports.confirmations.pending(*NAME) == (1, 4)


def test_an_answer_that_is_lost_refuses_nothing_twice_and_still_says_how_many(hub: Hub) -> None:
    home = hub.home()
    batch = delivered(home.ports)
    failures = [make.failure(batch, place, outcome=Outcome.REJECTED) for place in range(3)]
    lose_answers(home.store)
    assert home.ports.batches.refuse_later("q1", failures) == 3
    assert {each.attempts for each in home.ports.failures.find(FailureQuery(make.SHOP))} == {1}


def test_who_never_hears_of_it_finds_nothing_left_to_refuse(hub: Hub) -> None:
    home = hub.home()
    batch = delivered(home.ports)
    failures = [make.failure(batch, place, outcome=Outcome.REJECTED) for place in range(3)]
    lose_contact(home.store)
    with pytest.raises(StoreUnavailable):
        home.ports.batches.refuse_later("q1", failures)
    assert hub.home().ports.batches.refuse_later("q1", failures) == 0
    assert {each.attempts for each in home.ports.failures.find(FailureQuery(make.SHOP))} == {1}


def test_a_cell_that_is_delivered_anew_in_between_is_left_alone(hub: Hub) -> None:
    here, there = hub.home(), hub.home().ports
    batch = delivered(here.ports)
    failures = [make.failure(batch, place, outcome=Outcome.REJECTED) for place in range(3)]
    commit = here.store.commit

    def overtaken(writes: Sequence[Write]) -> list[Any]:
        here.store.commit = commit  # type: ignore[method-assign]
        newer = make.commit_batch(there, ".", 8, make.run(8), keys=[batch.keys[0]], versions=["v2"])
        there.batches.begin(newer.id, "one")
        now = make.cell(batch.keys[0], "v2", target_id="q2")
        there.batches.settle(make.settlement(newer, "one", "d", cells=[now]))
        return commit(writes)

    here.store.commit = overtaken  # type: ignore[method-assign]
    assert here.ports.batches.refuse_later("q1", failures) == 2
    stored = there.batches.get(batch.id)
    assert stored is not None and stored.present == "drr"
    assert there.ledger.cells(*NAME, batch.keys)[batch.keys[0]].target_id == "q2"


def test_a_batch_in_hand_may_be_amended_meanwhile(hub: Hub) -> None:
    here, there = hub.home().ports, hub.home().ports
    batch = make.commit_batch(here)
    here.batches.begin(batch.id, "one")
    first = make.settlement(
        batch, "one", "d..", settled=False, keep=True,
        cells=[make.cell(batch.keys[0], target_id="q1")], awaited=[make.awaited(batch, records=1)],
    )  # fmt: skip
    here.batches.settle(first)
    assert there.batches.refuse_later("q1", [make.failure(batch, 0, outcome=Outcome.REJECTED)]) == 1
    here.batches.settle(make.settlement(batch, "one", "ddd"))
    stored = there.batches.get(batch.id)
    assert stored is not None and (stored.outcomes, stored.present) == ("ddd", "rdd")


def test_what_is_cleaned_up_while_it_is_awaited_again_stays(hub: Hub) -> None:
    here, there = hub.home(), hub.home().ports
    batch = delivered(here.ports)
    ended = msgspec.structs.replace(make.awaited(batch), state="gone", ended_at=hub.clock.now())
    there.confirmations.note(ended)
    commit = here.store.commit

    def overtaken(writes: Sequence[Write]) -> list[Any]:
        here.store.commit = commit  # type: ignore[method-assign]
        there.confirmations.note(make.awaited(batch))
        return commit(writes)

    here.store.commit = overtaken  # type: ignore[method-assign]
    assert here.ports.confirmations.remove_ended(make.SHOP, hub.clock.now() + timedelta(seconds=1)) == 0
    assert there.confirmations.pending(*NAME) == (1, 2)
