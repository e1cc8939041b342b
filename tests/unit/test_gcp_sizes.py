"""What is large: settlements that are cut, batches and failures near the limit of a document, and keys of any text."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.gcp.cutting import cut
from infra.gcp.failures import INLINE_BYTES
from infra.gcp.names import document_id, key_id
from infra.gcp.store import COMMIT_BYTES, Store, Write
from shared.books import Batch, Failure, FailureQuery, Settlement
from shared.confirming import PORTION
from shared.errors import ConfigError, StoreUnavailable
from shared.outcome import Outcome
from shared.stream import MESSAGE_BYTES
from tests.contract import make
from tests.emulators import Emulators
from tests.unit.gcp_homes import Hub


@pytest.fixture
def hub(emulators: Emulators, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(emulators, tmp_path)
    yield hub
    hub.close()


class Keys:
    """Knows the keys of failures without a store."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def keys(self, ids: Sequence[str]) -> dict[str, str]:
        return {id: self.known[id] for id in ids}


def rejected(batch: Batch, place: int, size: int = 10) -> Failure:
    return make.failure(batch, place, outcome=Outcome.REJECTED, data={"long": "x" * size})


def commits(store: Store) -> list[int]:
    """The sizes of the commits from now on."""
    sizes: list[int] = []
    commit = store.commit

    def measured(writes: Sequence[Write]) -> list[Any]:
        sizes.append(sum(write.size for write in writes))
        return commit(writes)

    store.commit = measured  # type: ignore[method-assign]
    return sizes


def test_a_settlement_that_fits_is_left_whole() -> None:
    batch = make.batch(outcomes="...")
    settlement = make.settlement(batch, "one", "rdd", failures=[rejected(batch, 0)])
    assert list(cut(settlement, batch, "...", Keys({}), 1_000_000)) == [settlement]


def test_each_part_of_a_settlement_is_true_by_itself() -> None:
    batch = make.batch(outcomes=".?....", keys=["a", "b", "a", "c", "d", "e"], versions=["1"] * 6)
    cells = [make.cell("a"), make.cell("b"), make.cell("d")]
    failures = [rejected(batch, 1, 500), rejected(batch, 3, 500)]
    closures = [make.closure(make.failure(make.settled_batch(9)))]
    settlement = make.settlement(batch, "one", "drsrdu", cells=cells, failures=failures, closures=closures)
    parts = list(cut(settlement, batch, batch.outcomes, Keys({closures[0].failure: "d"}), 4500))
    assert len(parts) > 1
    assert [part.keep for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.settled for part in parts] == [False] * (len(parts) - 1) + [True]
    stored = batch.outcomes
    for part in parts[:-1]:
        changed = {batch.keys[n] for n in range(6) if part.outcomes[n] != stored[n]}
        told = {cell.key for cell in part.cells} | {failure.key for failure in part.failures}
        assert changed <= told
        stored = part.outcomes
    assert parts[-1].outcomes == settlement.outcomes
    for part in parts:
        assert bool(part.closures) == ("d" in {cell.key for cell in part.cells})
    for name in ("cells", "failures", "closures"):
        written = [each for part in parts for each in getattr(part, name)]
        assert sorted(written, key=str) == sorted(getattr(settlement, name), key=str)


def test_requests_are_cut_too_and_none_is_left_out() -> None:
    batch = make.batch(outcomes="...")
    cells = [make.cell(key) for key in batch.keys]
    awaited = [make.awaited(batch, f"{number} {'q' * 200}", records=1) for number in range(9)]
    settlement = make.settlement(batch, "one", "ddd", cells=cells, awaited=awaited)
    parts = list(cut(settlement, batch, "...", Keys({}), 4500))
    assert [each for part in parts for each in part.awaited] == awaited
    assert [each for part in parts for each in part.cells] == cells
    assert [part.outcomes for part in parts[:-1] if not part.cells] == ["..."] * sum(not part.cells for part in parts)
    assert (parts[-1].outcomes, parts[-1].settled) == ("ddd", True)


def test_a_request_for_each_record_of_a_large_batch_is_written(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports, "." * 3000)
    home.ports.batches.begin(batch.id, "one")
    sizes = commits(home.store)
    awaited = [make.awaited(batch, f"customers/1/offlineUserDataJobs/{n}", records=1) for n in range(3000)]
    home.ports.batches.settle(make.settlement(batch, "one", "d" * 3000, awaited=awaited))
    assert len(sizes) > 1 and max(sizes) <= COMMIT_BYTES
    assert home.ports.confirmations.pending(make.SHOP, make.CUSTOMERS) == (3000, 3000)


def test_what_is_refused_later_may_be_as_large_as_a_batch(hub: Hub) -> None:
    home = hub.home()
    batch = make.commit_batch(home.ports, "." * PORTION)
    home.ports.batches.begin(batch.id, "one")
    cells = [make.cell(key, target_id="q") for key in batch.keys]
    home.ports.batches.settle(make.settlement(batch, "one", "d" * PORTION, cells=cells))
    sizes = commits(home.store)
    data = {"long": "x" * (MESSAGE_BYTES // PORTION)}
    failures = [make.failure(batch, place, outcome=Outcome.REJECTED, data=data) for place in range(PORTION)]
    assert home.ports.batches.refuse_later("q", failures) == PORTION
    assert len(sizes) == 1 and sizes[0] <= COMMIT_BYTES
    assert list(hub.blobs.names("failures/")) == []


def test_a_part_larger_than_the_room_stands_alone() -> None:
    batch = make.batch(outcomes="..")
    failures = [rejected(batch, 0, 5000), rejected(batch, 1)]
    parts = list(cut(make.settlement(batch, "one", "rr", failures=failures), batch, "..", Keys({}), 4000))
    assert [part.failures for part in parts] == [[failures[0]], [failures[1]]]


def large_settlement(hub: Hub) -> tuple[Batch, Settlement]:
    home = hub.home()
    batch = make.commit_batch(home.ports, "." * 9)
    failures = [rejected(batch, place, 600_000) for place in range(8)]
    cells = [make.cell(key) for key in batch.keys]
    return batch, make.settlement(batch, "one", "rrrrrrrru", cells=cells, failures=failures)


def test_a_settlement_of_five_megabytes_is_written_in_parts(hub: Hub) -> None:
    batch, settlement = large_settlement(hub)
    home = hub.home()
    home.ports.batches.begin(batch.id, "one")
    sizes = commits(home.store)
    home.ports.batches.settle(settlement)
    assert len(sizes) == 2
    assert max(sizes) <= COMMIT_BYTES
    stored = home.ports.batches.get(batch.id)
    assert stored is not None
    assert (stored.state, stored.outcomes) == ("settled", settlement.outcomes)
    found = list(home.ports.failures.find(FailureQuery(make.SHOP)))
    assert sorted(found, key=lambda failure: failure.place) == settlement.failures
    assert len(home.ports.ledger.cells(make.SHOP, make.CUSTOMERS, batch.keys)) == 9


def test_a_crash_between_two_parts_leaves_the_rest_in_doubt(hub: Hub) -> None:
    batch, settlement = large_settlement(hub)
    home = hub.home()
    home.ports.batches.begin(batch.id, "one")
    commit, left = home.store.commit, [1]

    def once(writes: Sequence[Write]) -> list[Any]:
        if not left[0]:
            raise StoreUnavailable("gone")
        left[0] -= 1
        return commit(writes)

    home.store.commit = once  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        home.ports.batches.settle(settlement)
    hub.clock.advance(60)
    later = hub.home().ports
    found, earlier = later.batches.begin(batch.id, "two")
    assert found is not None
    assert earlier == "one"
    decided = {key for key, letter in zip(found.keys, found.outcomes, strict=True) if letter != "."}
    assert 0 < len(decided) < 9
    assert {failure.key for failure in later.failures.find(FailureQuery(make.SHOP))} == decided
    assert {cell.key for cell in later.ledger.scan(make.SHOP, make.CUSTOMERS)} == decided


def test_the_largest_batch_of_one_message_fits_into_a_document(hub: Hub) -> None:
    """A message has at most 900,000 bytes; here almost all of them are keys that hardly compress."""
    home = hub.home().ports
    count, noise = 14_000, random.Random(1)
    keys = [base64.b85encode(noise.randbytes(48)).decode() for _ in range(count)]
    assert 800_000 < sum(map(len, keys)) < 900_000
    run = make.run()
    batch = make.batch(0, run, "." * count, keys=keys, versions=["2026-03-01"] * count)
    make.commit(home, run, batches=[batch])
    assert home.batches.get(batch.id) == batch
    begun, _ = home.batches.begin(batch.id, "one")
    assert begun is not None
    home.batches.settle(make.settlement(batch, "one", "u" * count))
    assert home.books.counts(run.id).unchanged == count


@pytest.mark.parametrize("size", [INLINE_BYTES - 1_000, INLINE_BYTES + 1, 3_000_000])
def test_a_record_that_is_too_large_for_a_document_is_kept_whole(hub: Hub, size: int) -> None:
    home = hub.home()
    batch = make.settled_batch(0, outcomes="i")
    failure = make.failure(batch, data={"long": "é" * (size // 2)})
    make.commit(home.ports, make.run(), batches=[batch], failures=[failure])
    (found,) = home.ports.failures.find(FailureQuery(make.SHOP))
    assert found == failure
    assert bool(list(hub.blobs.names("failures/"))) == (size > INLINE_BYTES)
    at = hub.clock.now()
    make.commit(home.ports, make.run(2, touched_at=at), closures=[make.closure(failure)])
    hub.clock.advance(1)
    assert home.ports.failures.remove_closed(make.SHOP, hub.clock.now()) == 1
    assert list(hub.blobs.names("failures/")) == []


def test_a_refused_commit_leaves_a_large_failure_as_it_was(hub: Hub) -> None:
    here, there = hub.home().ports, hub.home().ports
    batch = make.settled_batch(0, outcomes="i")
    failure = make.failure(batch, data={"long": "a" * 800_000})
    make.commit(here, make.run(), batches=[batch], failures=[failure])
    stale = here.leases.take(make.LEASE)
    hub.clock.advance(60)
    there.leases.take(make.LEASE)
    other = msgspec.structs.replace(failure, data={"long": "b" * 800_000})
    with pytest.raises(Exception, match="taken over"):
        here.runs.commit(stale, make.run(), failures=[other])
    (found,) = there.failures.find(FailureQuery(make.SHOP))
    assert found == failure


def test_a_group_full_of_failures_is_committed_whole(hub: Hub) -> None:
    home = hub.home()
    batch = make.settled_batch(0, outcomes="i" * 40)
    failures = [make.failure(batch, place, data={"long": "x" * 200_000}) for place in range(40)]
    sizes = commits(home.store)
    make.commit(home.ports, make.run(), batches=[batch], failures=failures)
    assert max(sizes) <= COMMIT_BYTES
    found = home.ports.failures.find(FailureQuery(make.SHOP))
    assert sorted(found, key=lambda failure: failure.place) == failures


def test_a_group_that_nothing_makes_smaller_is_refused(hub: Hub) -> None:
    home = hub.home().ports
    cells = [make.cell(f"k{number}", origin="o" * 100_000) for number in range(40)]
    with pytest.raises(ConfigError, match="more than the 3500000"):
        make.commit(home, make.run(), cells=cells)
    assert home.runs.get(make.run().id) is None


@pytest.mark.parametrize("write", [{"a": "é" * 1000}, {"a": b"\0" * 5000, "b": None}, {"a": {"b": ["c", 1, True]}}])
def test_the_estimate_of_a_write_is_rather_too_large(hub: Hub, write: dict[str, Any]) -> None:
    client = hub.home().store.client()
    batch = client.batch()
    path = ("streams", document_id("shop", "customers"), "cells", key_id("k"))
    batch.set(client.document(*path), write)
    (encoded,) = batch._write_pbs
    actual = encoded._pb.ByteSize()
    assert actual <= Write(path, write).size <= actual + 200


def test_names_of_any_text_become_ids_that_firestore_takes() -> None:
    names = ["customers-1.0", "a/b", "..", ".", "__x__", "Zoë", "x" * 2000, "", "\x00", "\ud800", "1"]
    ids = [document_id(name) for name in names]
    assert len(set(ids)) == len(names)
    assert ids[0].endswith("-customers-1.0")
    for id in [*ids, document_id("a", "b.c"), *map(key_id, names)]:
        assert id.isascii()
        assert "/" not in id
        assert len(id) < 300
        assert id[0] in "0123456789abcdef"
    assert document_id("a", "b.c") != document_id("a.b", "c")
    assert len({document_id(f"run-{number}")[:4] for number in range(100)}) > 90
