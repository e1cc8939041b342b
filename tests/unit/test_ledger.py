"""The rules of the ledger: whatever comes in whatever order, the version that should stay stays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ends import Page, Row
from shared.group import Group
from shared.ledger import (
    FIRST_WINS,
    NEWEST_WINS,
    Cell,
    applied,
    collapse,
    failed,
    judge_content,
    judge_version,
    undone_since,
)
from shared.outcome import OUTCOMES, Outcome
from shared.record import Operation, Record, version_at
from tests.unit.fakes import IN_MEMORY, STEADY, Process, World, make_stream, spare_the_disk

AT = datetime(2026, 3, 1, tzinfo=UTC)


def a_record(key: str = "K", version: int = 1, origin: str = "1", operation: Operation = "upsert") -> Record:
    return Record(key, f"v{version}", operation, origin, f"things({origin})", {})


def a_cell(version: int = 1, fingerprint: str = "h", failed: int = 0, deleted: bool = False, run: str = "R1") -> Cell:
    return Cell(
        "K", f"v{version}" if version else "", fingerprint, "T1", "1", deleted, f"v{failed}" if failed else "", run
    )


@pytest.mark.parametrize(
    ("cell", "version", "replaying", "outcome"),
    [
        (None, 1, False, None),
        (a_cell(1), 1, False, None),
        (a_cell(1), 2, False, None),
        (a_cell(2), 1, False, Outcome.SUPERSEDED),
        (a_cell(2), 1, True, Outcome.SUPERSEDED),
        (a_cell(1, failed=2), 2, False, Outcome.DUPLICATE),
        (a_cell(1, failed=2), 2, True, None),
        (a_cell(1, failed=2), 3, False, None),
        (a_cell(0, failed=2), 2, False, Outcome.DUPLICATE),
        (a_cell(0, failed=2), 2, True, None),
        (a_cell(0, failed=2), 3, False, None),
    ],
)
def test_the_ledger_judges_a_version(cell: Cell | None, version: int, replaying: bool, outcome: Outcome | None) -> None:
    assert judge_version(a_record(version=version), cell, NEWEST_WINS, replaying=replaying) is outcome


@pytest.mark.parametrize(
    ("cell", "origin", "outcome"),
    [
        (a_cell(1), "1", None),
        (a_cell(1), "2", Outcome.SUPERSEDED),
        (a_cell(0), "2", None),
        (a_cell(1, deleted=True), "2", None),
    ],
)
def test_a_second_object_gives_way_to_the_first_where_that_one_keeps_the_identity(
    cell: Cell, origin: str, outcome: Outcome | None
) -> None:
    assert judge_version(a_record(version=9, origin=origin), cell, FIRST_WINS, replaying=False) is outcome


@pytest.mark.parametrize(
    ("cell", "version", "operation", "fingerprint", "outcome"),
    [
        (None, 1, "upsert", "h", None),
        (a_cell(0), 1, "upsert", "h", None),
        (a_cell(1), 2, "upsert", "h", Outcome.UNCHANGED),
        (a_cell(1), 2, "upsert", "other", None),
        (a_cell(1), 1, "upsert", "h", Outcome.DUPLICATE),
        (a_cell(1, run="R0"), 1, "upsert", "h", Outcome.UNCHANGED),
        (a_cell(1), 1, "upsert", "other", None),
        (a_cell(1), 2, "delete", "", None),
        (a_cell(1, deleted=True), 2, "delete", "", Outcome.UNCHANGED),
        (a_cell(1, deleted=True), 2, "upsert", "h", None),
    ],
)
def test_the_ledger_judges_content(
    cell: Cell | None, version: int, operation: Operation, fingerprint: str, outcome: Outcome | None
) -> None:
    assert judge_content(a_record(version=version, operation=operation), fingerprint, cell, "R1") is outcome


def test_an_applied_version_is_what_the_cell_then_says() -> None:
    assert applied(a_record(version=2), "new", a_cell(1, failed=2), "", "R2", AT) == Cell(
        "K", "v2", "new", "T1", "1", False, "", "R2", AT
    )
    assert applied(a_record(version=2), "new", None, "T2", "R2", AT).target_id == "T2"
    assert applied(a_record(version=2), "new", a_cell(1, failed=3), "", "R2", AT).failed == "v3"
    assert applied(a_record(version=2, operation="delete"), "", a_cell(1), "", "R2", AT).deleted


def test_a_failed_version_is_marked_beside_what_was_applied() -> None:
    cell = failed(a_record(version=2), a_cell(1), "R2", AT)
    assert (cell.version, cell.hash, cell.target_id, cell.failed) == ("v1", "h", "T1", "v2")
    assert failed(a_record(version=1), cell, "R3", AT).failed == "v2"
    assert failed(a_record(version=2), None, "R2", AT) == Cell("K", failed="v2", run="R2", at=AT)


RECORDS = st.lists(
    st.builds(a_record, st.sampled_from("ab"), st.integers(1, 5), st.sampled_from(["1", "2"])), max_size=8
)


@STEADY
@given(RECORDS)
def test_of_each_key_in_a_batch_the_last_read_of_the_newest_version_stays(records: list[Record]) -> None:
    gives_way = collapse(records, NEWEST_WINS)
    stays = [place for place in range(len(records)) if place not in gives_way]
    assert [records[place].key for place in stays] == list(dict.fromkeys(records[p].key for p in stays))
    for place in stays:
        others = [(record.version, at) for at, record in enumerate(records) if record.key == records[place].key]
        assert (records[place].version, place) == max(others)
    assert {record.key for record in records} == {records[place].key for place in stays}


@STEADY
@given(RECORDS)
def test_of_each_key_in_a_batch_the_first_object_stays_where_it_keeps_the_identity(records: list[Record]) -> None:
    gives_way = collapse(records, FIRST_WINS)
    for key in {record.key for record in records}:
        places = [place for place, record in enumerate(records) if record.key == key]
        (stays,) = [place for place in places if place not in gives_way]
        first = records[places[0]].origin
        own = [(records[place].version, place) for place in places if records[place].origin == first]
        assert (records[stays].version, stays) == max(own)


@STEADY
@given(RECORDS, st.sampled_from([NEWEST_WINS, FIRST_WINS]))
def test_what_gives_way_is_a_duplicate_if_it_is_the_same_and_else_superseded(
    records: list[Record], on_conflict: str
) -> None:
    gives_way = collapse(records, on_conflict)
    for place, outcome in gives_way.items():
        (stays,) = [
            r for at, r in enumerate(records) if at not in gives_way and r.key == records[place].key
        ]  # fmt: skip
        same = (stays.version, stays.origin) == (records[place].version, records[place].origin)
        assert outcome is (Outcome.DUPLICATE if same else Outcome.SUPERSEDED)


def test_records_with_keys_of_their_own_do_not_give_way() -> None:
    assert collapse([a_record("a"), a_record("b")], NEWEST_WINS) == {}
    assert collapse([], NEWEST_WINS) == {}


# The same rules at work, on a real ledger and through whole deliveries.

VERSIONS = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 2))
"""Key, version and object."""


def as_row(key: int, version: int, origin: int) -> Row:
    data = {"key": f"K{key}", "name": f"content {version % 3} of {origin}"}
    return Row(str(origin), f"v{version}{origin}", f"things({origin})", data)


def commit(process: Process, batches: Sequence[Sequence[tuple[int, int, int]]]) -> None:
    """Each as a page and a batch of its own."""
    pages = [Page([as_row(*each) for each in batch], f"{number:03d}") for number, batch in enumerate(batches)]
    process.source.pages = lambda window, after: iter(pages)  # type: ignore[method-assign]
    process.fetch()


@STEADY
@given(
    batches=st.lists(st.lists(VERSIONS, min_size=1, max_size=5), min_size=1, max_size=5),
    order=st.permutations(range(5)),
    repeats=st.lists(st.integers(0, 4), max_size=3),
    on_conflict=st.sampled_from([NEWEST_WINS, FIRST_WINS]),
)
def test_in_whatever_order_batches_arrive_the_version_that_should_stay_stays(
    batches: list[list[tuple[int, int, int]]], order: Sequence[int], repeats: list[int], on_conflict: str
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        spare_the_disk(patch)
        patch.setattr(Group, "is_full", lambda self: True)
        world = World(Path(folder), make_stream(lanes=1, batch_size=100, on_conflict=on_conflict))
        process = world.process()
        commit(process, batches)
        envelopes = process.envelopes()
        arrivals = [envelopes[at] for at in [*order, *repeats] if at < len(envelopes)]
        for envelope in arrivals:
            process.deliver(envelope)
        firsts: dict[str, str] = {}
        newest: dict[str, tuple[str, str]] = {}
        for envelope in arrivals:
            for record in envelope.records:
                origin = firsts.setdefault(record.key, record.origin)
                if on_conflict == NEWEST_WINS or record.origin == origin:
                    newest[record.key] = max(newest.get(record.key, ("", "")), (record.version, record.data["name"]))
        for key, (version, name) in newest.items():
            assert process.cell(key).version == version
            assert world.target.contents_of(key) == [{"name": name}]
            assert world.target.creations_of(key) == 1
        outcomes = "".join(batch.outcomes for batch in process.batches())
        assert len(outcomes) == sum(map(len, batches))
        assert {OUTCOMES[letter] for letter in outcomes} <= {
            Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.SUPERSEDED, Outcome.DUPLICATE,
        }  # fmt: skip
        audit = process.audit()
        assert audit.balanced, audit.unaccounted
        world.close()


MOMENTS = st.integers(0, 6).map(lambda minutes: datetime(2026, 1, 1, 12, minutes, tzinfo=UTC))


@given(ours=MOMENTS, theirs=MOMENTS, said=MOMENTS, deleted=st.tuples(st.booleans(), st.booleans()))
def test_what_another_stream_has_undone_is_undone_until_it_is_said_again(
    ours: datetime, theirs: datetime, said: datetime, deleted: tuple[bool, bool]
) -> None:
    record = Record("k", version_at(said, "1"), "upsert", "1", "", {})
    cell = Cell("k", version_at(ours, "1"), "h", deleted=deleted[0], at=ours)
    other = Cell("k", version_at(theirs, "1"), "h", deleted=deleted[1], at=theirs)
    expected = deleted[0] != deleted[1] and ours < theirs < said
    assert undone_since(record, cell, other) is expected
    assert not undone_since(record, cell, None) and not undone_since(record, None, other)
    assert not undone_since(record, cell, Cell("k", failed="1", at=theirs, deleted=deleted[1]))
