"""Rows without identity, too large, filtered or invalid, and the batches that the others travel in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ends import Page, Row
from shared.errors import (
    BAD_VERSION,
    NO_IDENTITY,
    NO_SOURCE_ID,
    TOO_LARGE,
    UNMAPPABLE,
)
from shared.group import COMMIT_BYTES, Travelling, in_messages
from shared.outcome import Outcome
from shared.record import Envelope, lane_of
from shared.stream import MESSAGE_BYTES
from tests.unit.fakes import (
    RULES,
    STEADY,
)
from tests.unit.fetch.conftest import (
    Make,
    a_group_per_page,
    assert_books_balance,
    change,
    read_keys,
)


def test_rows_without_an_identity_are_invalid_under_their_place_at_the_source(make: Make) -> None:
    process = make(2)
    process.world.shelf.put(3, 3)
    process.world.shelf.put(4, 4, key="")
    process.world.shelf.put(5, 5, key="K5", problem=(BAD_VERSION, "the date is no date"))
    process.world.shelf.put(6, 6, key="K6", problem=(NO_SOURCE_ID, "it has no id"))
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 6, "delivered": 2, "invalid": 4}
    assert {f.key: (f.number, f.field) for f in process.failures()} == {
        "shelf:3": (NO_IDENTITY, "key"),
        "shelf:4": (NO_IDENTITY, ""),
        "shelf:5": (BAD_VERSION, ""),
        "shelf:6": (NO_SOURCE_ID, ""),
    }
    failure = process.failures()[0]
    assert (failure.location, failure.position, failure.data) == (
        "https://shelf.example/things",
        "things(3)",
        {"name": "name 3"},
    )
    assert_books_balance(process)


def test_a_row_that_is_still_invalid_is_a_duplicate_the_next_time(make: Make) -> None:
    process = make(1, overlap=timedelta(days=1))
    process.world.shelf.put(2, 2)
    process.world.shelf.put(3, 3, key="K3", problem=(BAD_VERSION, "the date is no date"))
    process.run()
    before = process.failures()
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 3, "unchanged": 1, "duplicate": 2}
    assert process.failures() == before
    assert_books_balance(process)


def test_a_later_version_with_an_identity_supersedes_what_failed_without_one(make: Make) -> None:
    process = make(1)
    change(process, 2, key=None)
    process.run()
    (failure,) = process.failures()
    process.world.clock.advance(60)
    change(process, 2)
    process.run()
    assert process.failures() == []
    assert process.present()["shelf:2", failure.version] is Outcome.SUPERSEDED
    assert process.world.target.creations_of("K2") == 1
    assert_books_balance(process)


def test_a_later_version_without_an_identity_leaves_both_failures_open(make: Make) -> None:
    process = make(0)
    change(process, 2, key=None)
    process.run()
    process.world.clock.advance(60)
    change(process, 2, key=None)
    process.run()
    assert len(process.failures()) == 2
    process.world.clock.advance(60)
    change(process, 2)
    process.run()
    assert process.failures() == []
    assert_books_balance(process)


@pytest.mark.parametrize("page_size", [1, 10], ids=["of another page", "of the same page"])
def test_a_later_version_in_the_same_run_supersedes_what_failed_without_an_identity(
    make: Make, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is changed while it is paged moves ahead and is read twice."""
    a_group_per_page(monkeypatch)
    process = make(0, page_size=page_size)
    process.world.shelf.put(1, 1)
    first = process.world.shelf.things[1].row
    process.world.shelf.put(1, 5, key="K1")
    second = process.world.shelf.things[1].row
    pages = [Page([first, second], "b")] if page_size == 10 else [Page([first], "a"), Page([second], "b")]
    process.source.pages = lambda window, after: iter(pages)  # type: ignore[method-assign]
    process.run()
    assert process.failures() == []
    assert process.world.target.creations_of("K1") == 1


def test_rows_without_an_id_at_the_source_are_not_taken_for_versions_of_one_object(make: Make) -> None:
    process = make(0)
    rows = [
        Row("", "v1", "line 2", {"name": "a"}),
        Row("", "v2", "line 3", {"name": "b", "key": "K3"}),
        Row("", "v3", "line 4", {"name": "c"}),
    ]
    process.source.pages = lambda window, after: iter([Page(rows, "end")])  # type: ignore[method-assign]
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 3, "delivered": 1, "invalid": 2}
    assert {failure.key for failure in process.failures()} == {"shelf:line 2", "shelf:line 4"}
    assert_books_balance(process)


def test_a_record_larger_than_a_message_is_invalid_and_its_neighbours_travel(make: Make) -> None:
    process = make(3, lanes=1)
    process.world.shelf.put(2, 0.5, key="K2", text="x" * MESSAGE_BYTES)
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 3, "delivered": 2, "invalid": 1}
    (failure,) = process.failures()
    assert (failure.key, failure.number) == ("K2", TOO_LARGE)
    assert_books_balance(process)


def test_records_that_are_too_large_together_travel_apart_and_in_order(make: Make) -> None:
    process = make(0, lanes=1, batch_size=100)
    for number in range(1, 8):
        process.world.shelf.put(number, number, key=f"K{number}", text="x" * 300_000)
    process.fetch()
    sizes = [batch.length for batch in process.batches()]
    assert len(sizes) == 4
    assert max(sizes) <= MESSAGE_BYTES
    assert read_keys(process) == [f"K{n}" for n in range(1, 8)]
    envelopes = process.envelopes()
    assert [envelope.batch for envelope in envelopes] == [batch.id for batch in process.batches()]
    process.settle()
    assert_books_balance(process)


def test_a_group_ends_before_its_commit_grows_too_heavy(make: Make) -> None:
    process = make(0, page_size=1, batch_size=10_000)
    for number in range(1, 8):
        process.world.shelf.put(number, number, text="x" * (COMMIT_BYTES // 3))
    process.run()
    assert process.runs[0].groups == 3
    assert process.outcomes() == {"invalid": 7}


@pytest.mark.parametrize("flaw", [{"text": "half \ud83d"}, {"half \ud83d": 1}, {"deep": [{"er": "\udc00"}]}], ids=repr)
def test_half_a_character_makes_its_record_invalid_and_no_other(make: Make, flaw: dict[str, Any]) -> None:
    process = make(3)
    process.world.shelf.put(2, 0, key="K2", **{"name": "n", **flaw})
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 3, "delivered": 2, "invalid": 1}
    (failure,) = process.failures()
    assert (failure.key, failure.number) == ("K2", UNMAPPABLE)
    assert_books_balance(process)


def test_half_a_character_in_an_identity_is_no_identity(make: Make) -> None:
    process = make(1)
    process.world.shelf.put(2, 2, key="K\ud83d")
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 2, "delivered": 1, "invalid": 1}
    (failure,) = process.failures()
    assert (failure.key, failure.number) == ("shelf:2", NO_IDENTITY)


@STEADY
@given(st.lists(st.integers(0, MESSAGE_BYTES), min_size=1, max_size=30), st.integers(1, 12))
def test_records_go_into_messages_in_order_within_both_limits(sizes: list[int], batch_size: int) -> None:
    records = [Travelling(f"K{number}", "v", "o", bytes(size)) for number, size in enumerate(sizes)]
    messages = list(in_messages(records, batch_size))
    assert [record for message in messages for record in message] == records
    for message in messages:
        assert 1 <= len(message) <= batch_size
        assert len(message) == 1 or sum(len(record.data) + 1 for record in message) <= MESSAGE_BYTES + 1


def test_a_record_that_grew_too_large_takes_nothing_from_what_is_delivered_meanwhile(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery of an earlier version ends between the reading and the writing of the ledger's cell."""
    a_group_per_page(monkeypatch)
    process = make(0, page_size=1)
    process.world.shelf.put(1, 1, key="K1")
    first = process.world.shelf.things[1].row
    process.world.shelf.put(1, 2, key="K1", text="x" * MESSAGE_BYTES)
    second = process.world.shelf.things[1].row
    other = process.world.shelf.put(2, 3, key="K2").row
    pages = [Page([first], "a"), Page([second, other], "b")]
    process.source.pages = lambda window, after: iter(pages)  # type: ignore[method-assign]
    write = process.embedded.ports.blobs.write

    def while_a_delivery_ends(name: str, data: bytes) -> None:
        write(name, data)
        if name.endswith("-000001"):
            process.pump()

    monkeypatch.setattr(process.embedded.ports.blobs, "write", while_a_delivery_ends)
    process.run()
    assert process.world.target.creations_of("K1") == 1
    assert process.cell("K1").version == first.version
    assert process.cell("K1").target_id
    assert_books_balance(process)


def test_filtered_rows_are_counted_per_rule(make: Make) -> None:
    filters = (("odd", lambda data: data.get("odd")), ("blue", lambda data: data.get("colour") == "blue"))
    process = make(2, rules=msgspec.structs.replace(RULES, filters=filters))
    process.world.shelf.put(3, 3, key="K3", odd=True, colour="blue")
    process.world.shelf.put(4, 4, key="K4", colour="blue")
    process.world.shelf.put(5, 5, colour="blue")
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 5, "delivered": 2, "filtered": 3}
    assert process.embedded.ports.books.rules(run.id) == {"odd": 1, "blue": 2}
    assert process.failures() == []
    assert_books_balance(process)


@pytest.mark.parametrize("rule", ["filter", "identify"])
def test_a_rule_that_falls_over_makes_the_row_invalid_without_quoting_it(make: Make, rule: str) -> None:
    def falls_over(data: dict[str, Any]) -> Any:
        return {"name 1": False, "name 2": False}[data["name"]] or (data["key"] if rule == "identify" else False)

    changes: dict[str, Any] = {"identify": falls_over} if rule == "identify" else {"filters": (("odd", falls_over),)}
    process = make(3, rules=msgspec.structs.replace(RULES, **changes))
    run = process.run()[-1]
    assert process.counts(run.id) == {"fetched": 3, "delivered": 2, "invalid": 1}
    (failure,) = process.failures()
    assert (failure.key, failure.number, failure.reason) == ("shelf:3", UNMAPPABLE, "a rule failed with KeyError")


def test_batches_are_no_larger_than_asked_and_hold_one_lane_each(make: Make) -> None:
    process = make(40, page_size=7, lanes=3, batch_size=4)
    process.fetch()
    for envelope, batch in zip(process.envelopes(), process.batches(), strict=True):
        assert len(envelope.records) <= 4
        assert {lane_of(record.key, 3) for record in envelope.records} == {batch.lane} == {envelope.lane}
        assert [record.key for record in envelope.records] == batch.keys
        assert [record.version for record in envelope.records] == batch.versions
    assert sorted(read_keys(process)) == sorted(f"K{n}" for n in range(1, 41))


def test_messages_of_a_lane_share_an_ordering_key_that_no_other_stream_uses(make: Make) -> None:
    process = make(20)
    process.fetch()
    while (claimed := process.bus.claim(process.topics)) is not None:
        envelope = Envelope.from_bytes(claimed.message.data)
        assert claimed.message.ordering_key == f"things-{envelope.lane}"
        assert claimed.message.attributes == {"run": envelope.run, "batch": envelope.batch}
        process.bus.acknowledge(claimed)


def test_a_slow_source_does_not_keep_its_records_waiting(make: Make) -> None:
    process = make(9, page_size=3)
    process.source.meanwhile = lambda page: process.world.clock.advance(3)
    process.fetch()
    assert process.runs[0].groups == 2
