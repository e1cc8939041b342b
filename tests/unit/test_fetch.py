"""Reading a window: where it begins and ends, what becomes of each row, and where a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    BAD_VERSION,
    NO_IDENTITY,
    NO_SOURCE_ID,
    TOO_LARGE,
    UNMAPPABLE,
    AuthError,
    Fenced,
    GuardTripped,
    Leased,
    MalformedEnvelope,
    ProtocolError,
    StoreUnavailable,
    TransientError,
)
from shared.fetch import CLOCK_TOLERANCE, TICK, Continuation, Order, decode_continuation, go_on
from shared.group import COMMIT_BYTES, Group, Travelling, in_messages
from shared.outcome import Outcome
from shared.ports import Page, Row, Window, continuation_topic, lease_name
from shared.record import Envelope, lane_of
from shared.stream import MESSAGE_BYTES
from tests.unit.fakes import (
    IN_MEMORY,
    RULES,
    START,
    STEADY,
    FakeClock,
    FakeSource,
    Process,
    World,
    make_stream,
    spare_the_disk,
)

Make = Callable[..., Process]

NOW = START + timedelta(hours=1)
FRACTION = timedelta(milliseconds=700)
YEAR = timedelta(days=365)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_disk(monkeypatch)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A process that did nothing yet, before a shelf of some objects."""
    worlds: list[World] = []

    def made(count: int = 5, page_size: int = 10, now: datetime = NOW, **stream: Any) -> Process:
        folder = tmp_path / str(len(worlds))
        worlds.append(World(folder, make_stream(**stream), page_size=page_size, clock=FakeClock(now)))
        worlds[-1].shelf.fill(count)
        return worlds[-1].process()

    yield made
    for world in worlds:
        world.close()


def a_group_per_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "is_full", lambda self: True)


def change(process: Process, number: int, key: str | None = "", **more: Any) -> None:
    """The object is changed at the source at this moment."""
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, key=f"K{number}" if key == "" else key, **more)


def read_keys(process: Process) -> list[str]:
    """The keys of everything that travels, in the order of their batches."""
    return [key for batch in process.batches() if batch.lane is not None for key in batch.keys]


def assert_books_balance(process: Process) -> None:
    assert all(process.embedded.ports.books.counts(run.id).balanced for run in process.runs)
    audit = process.audit()
    assert audit.balanced, audit.unaccounted


# The window.


def test_a_first_run_reads_from_the_streams_first_date_to_the_second_that_is_not_over(make: Make) -> None:
    process = make(now=NOW + FRACTION)
    (run,) = process.fetch()
    assert run.window == Window(START, NOW + TICK)
    assert process.state.cursor == NOW


def test_a_hold_back_ends_the_window_earlier(make: Make) -> None:
    process = make(now=NOW + FRACTION, hold_back=timedelta(seconds=60, milliseconds=800))
    (run,) = process.fetch()
    end = NOW - timedelta(seconds=61)
    assert run.window == Window(START, end + TICK)
    assert process.state.cursor == end


def test_the_next_run_reads_from_the_cursor_less_the_overlap(make: Make) -> None:
    process = make(overlap=timedelta(minutes=10))
    process.fetch()
    process.world.clock.advance(3600)
    (run,) = process.fetch()
    assert run.window == Window(NOW - timedelta(minutes=10), NOW + timedelta(hours=1) + TICK)


def test_an_overlap_never_reaches_before_the_streams_first_date(make: Make) -> None:
    process = make(overlap=timedelta(days=10))
    process.fetch()
    (run,) = process.fetch()
    assert run.window is not None
    assert run.window.since == START


def test_a_window_is_measured_from_the_cursor_and_not_from_the_last_run(make: Make) -> None:
    process = make()
    process.fetch()
    process.world.clock.advance(86_400)
    process.source.refusal = TransientError("down")
    process.fetch()
    process.source.refusal = None
    process.world.clock.advance(86_400)
    run = process.fetch()[-1]
    assert run.window is not None
    assert run.window.since == NOW


def test_what_changes_in_the_second_that_is_not_over_is_read_now_and_met_again(make: Make) -> None:
    process = make(0, now=NOW + FRACTION)
    change(process, 1)
    process.run()
    process.world.clock.advance(0.1)
    change(process, 2)
    process.run()
    assert process.world.target.creations_of("K1") == process.world.target.creations_of("K2") == 1
    assert process.counts(process.runs[0].id) == {"fetched": 2, "unchanged": 1, "delivered": 1}


def test_a_full_run_reads_everything_again_and_moves_the_cursor(make: Make) -> None:
    process = make()
    process.run()
    process.world.clock.advance(60)
    run = process.run(Order(full=True))[-1]
    assert run.window is not None
    assert run.window.since == START
    assert process.state.cursor == NOW + timedelta(seconds=60)
    assert process.counts(run.id) == {"fetched": 5, "unchanged": 5}


def test_a_since_before_the_cursor_reads_from_there_and_moves_the_cursor(make: Make) -> None:
    process = make()
    process.run()
    process.world.clock.advance(60)
    since = START + timedelta(seconds=1)
    run = process.run(Order(since=since))[-1]
    assert run.window is not None
    assert run.window.since == since
    assert process.state.cursor == NOW + timedelta(seconds=60)


def test_a_since_after_the_cursor_leaves_the_cursor_since_it_passes_over_a_part(make: Make) -> None:
    process = make()
    process.run()
    process.world.clock.advance(600)
    run = process.run(Order(since=NOW + timedelta(seconds=300)))[-1]
    assert run.cursor_after is None
    assert process.state.cursor == NOW


def test_a_since_after_the_first_date_gives_a_first_run_no_cursor(make: Make) -> None:
    process = make()
    process.run(Order(since=START + timedelta(seconds=1)))
    assert process.state.cursor is None


def test_a_since_in_the_future_reads_nothing(make: Make) -> None:
    process = make()
    run = process.run(Order(since=NOW + YEAR))[-1]
    assert process.source.readings == []
    assert (run.fetch_done, run.fetched) == (True, 0)


@pytest.mark.parametrize("page_size", [1, 2, 3, 10])
def test_a_limit_reads_so_many_rows_and_leaves_the_cursor(make: Make, page_size: int) -> None:
    process = make(7, page_size=page_size)
    run = process.run(Order(limit=3))[-1]
    assert process.counts(run.id) == {"fetched": 3, "delivered": 3}
    assert sorted(process.sink.sent) == ["K1", "K2", "K3"]
    assert process.state.cursor is None
    assert run.fetch_done


def test_a_limit_holds_for_a_run_that_is_resumed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a_group_per_page(monkeypatch)
    process = make(7, page_size=2)
    process.fetch(Order(limit=5), stopping=lambda: True)
    assert process.runs[0].fetched == 2
    process.fetch(Order(summoned=True))
    assert process.runs[0].fetched == 5
    assert process.runs[0].fetch_done
    assert process.state.cursor is None


# Clocks.


@pytest.mark.parametrize("skew", [YEAR, CLOCK_TOLERANCE + TICK])
def test_a_source_whose_clock_is_ahead_does_not_carry_the_cursor_far_past_our_own(make: Make, skew: timedelta) -> None:
    process = make()
    process.source.skew = skew
    process.fetch()
    assert process.state.cursor == NOW + CLOCK_TOLERANCE
    assert process.world.actions("clocks_disagree") == [{"stream": "things", "seconds": round(skew.total_seconds())}]


def test_a_source_whose_clock_is_behind_delays_records_and_loses_none(make: Make) -> None:
    process = make(0)
    process.run()
    process.source.skew = -YEAR
    process.world.clock.advance(60)
    change(process, 1)
    process.run()
    assert process.sink.sent == []
    assert process.state.cursor == NOW
    process.source.skew = timedelta()
    process.run()
    assert process.sink.sent == ["K1"]


def test_an_own_clock_that_is_set_back_moves_no_cursor_back_and_loses_nothing(make: Make) -> None:
    process = make(0)
    process.run()
    process.world.clock.jump(-YEAR.total_seconds())
    process.source.skew = YEAR
    process.run()
    assert process.state.cursor == NOW
    process.world.clock.jump(YEAR.total_seconds() + 60)
    process.source.skew = timedelta()
    change(process, 1)
    process.run()
    assert process.sink.sent == ["K1"]
    assert process.state.cursor == NOW + timedelta(seconds=60)


def test_small_differences_of_clocks_are_not_worth_a_notice(make: Make) -> None:
    process = make()
    process.source.skew = timedelta(seconds=30)
    process.fetch()
    assert process.world.actions("clocks_disagree") == []
    assert process.state.cursor == NOW + timedelta(seconds=30)


# Guards.


def test_a_token_that_comes_again_stops_the_run_and_leaves_the_cursor(make: Make) -> None:
    process = make(9, page_size=3)
    second = process.world.shelf.things[6].version
    process.source.tokens = {1: second, 2: second}
    run = process.run()[-1]
    assert (run.state, run.error_class) == ("failed", "GuardTripped")
    assert process.state.cursor is None
    assert process.state.consecutive_failures == 1


def test_tokens_that_go_round_in_a_circle_stop_the_run(make: Make) -> None:
    process = make(9, page_size=3)
    first, second = (process.world.shelf.things[n].version for n in (3, 6))
    rows = [thing.row for thing in process.world.shelf.things.values()][:3]

    def in_a_circle(window: Window, after: str) -> Iterator[Page]:
        for number in range(500):
            yield Page(rows, (first, second)[number % 2])
        raise AssertionError("the source is read for ever")

    process.source.pages = in_a_circle  # type: ignore[method-assign]
    assert process.fetch()[-1].error_class == "GuardTripped"


def test_a_run_whose_guard_tripped_is_given_up_and_the_next_one_reads_the_window_anew(make: Make) -> None:
    process = make(9, page_size=3)
    process.source.faults = {2: GuardTripped("a cap of 6 rows")}
    run = process.run()[-1]
    given_up = process.runs[0]
    assert (given_up.state, given_up.over, given_up.error) == ("failed", True, "a cap of 6 rows")
    assert process.counts(run.id) == {"fetched": 6, "delivered": 6}
    again = process.run()
    assert [each.id for each in again] == [process.runs[0].id] != [run.id]
    assert process.counts(again[0].id) == {"fetched": 9, "unchanged": 6, "delivered": 3}
    assert process.state.cursor == NOW
    assert process.state.consecutive_failures == 0


def test_a_total_that_disagrees_twice_trips_the_guard(make: Make) -> None:
    process = make(6, page_size=3)
    process.source.counts, process.source.hidden = True, {4}
    run = process.run()[-1]
    assert (run.state, run.error_class) == ("failed", "GuardTripped")
    assert "6 rows and gave 5" in run.error
    assert process.state.cursor is None
    assert process.counts(run.id) == {"fetched": 10, "delivered": 5, "duplicate": 5}
    assert len(process.source.readings) == 2
    assert_books_balance(process)


def test_a_total_that_agrees_at_the_second_pass_is_accepted(make: Make) -> None:
    process = make(6)
    process.source.counts, process.source.totals = True, [7, 7, 6, 6]
    run = process.run()[-1]
    assert run.fetch_done
    assert process.counts(run.id) == {"fetched": 12, "delivered": 6, "duplicate": 6}
    assert process.state.cursor == NOW


@pytest.mark.parametrize("totals", [[7, 8], [7, None], [7, 6], [5], [None]])
def test_a_total_that_moved_or_is_not_known_is_left_to_the_next_window(make: Make, totals: list[int | None]) -> None:
    process = make(6)
    process.source.counts, process.source.totals = True, totals
    run = process.run()[-1]
    assert run.fetch_done
    assert process.counts(run.id) == {"fetched": 6, "delivered": 6}
    assert process.state.cursor == NOW


def test_a_source_that_says_rows_and_gives_none_trips_the_guard(make: Make) -> None:
    process = make(3)
    process.source.counts, process.source.hidden = True, {1, 2, 3}
    assert process.run()[-1].error_class == "GuardTripped"
    assert process.state.cursor is None


def test_the_rows_of_a_pass_are_counted_across_a_stop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a_group_per_page(monkeypatch)
    process = make(6, page_size=2)
    process.source.counts = True
    process.fetch(stopping=lambda: True)
    process.fetch(Order(summoned=True))
    assert process.runs[0].fetch_done
    assert process.runs[0].pass_rows == 6
    assert len(process.source.readings) == 2


# Trouble with the source.


@pytest.mark.parametrize("error", [AuthError("401"), TransientError("503"), ProtocolError("not JSON")])
def test_trouble_in_the_middle_leaves_the_cursor_and_the_next_trigger_resumes_the_same_run(
    make: Make, error: Exception
) -> None:
    process = make(9, page_size=3)
    process.source.faults = {2: error}
    (failed,) = process.run()
    assert (failed.state, failed.error_class, failed.error) == ("failed", type(error).__name__, str(error))
    assert failed.cure
    assert process.state.cursor is None
    assert process.counts(failed.id) == {"fetched": 6, "delivered": 6}
    process.world.clock.advance(60)
    resumed, new = process.run()
    assert resumed.id == failed.id != new.id
    assert process.source.readings[1][1] == process.world.shelf.things[6].version
    assert resumed.error == ""
    assert process.counts(resumed.id) == {"fetched": 9, "delivered": 9}
    assert process.state.cursor == NOW + timedelta(seconds=60)
    assert_books_balance(process)


def test_a_run_that_fails_again_when_it_is_resumed_hinders_a_new_one(make: Make) -> None:
    process = make(9, page_size=3)
    process.source.faults = {1: AuthError("401"), 2: AuthError("401")}
    (first,) = process.fetch()
    (second,) = process.fetch()
    assert first.id == second.id
    assert process.state.consecutive_failures == 2


@pytest.mark.parametrize("error", [AuthError("401"), TransientError("503"), ProtocolError("no Date")])
def test_a_source_that_cannot_even_be_asked_leaves_a_run_on_record(make: Make, error: Exception) -> None:
    process = make()
    process.source.refusal = error
    (run,) = process.run()
    assert (run.state, run.error_class, run.fetched) == ("failed", type(error).__name__, 0)
    assert process.runs[0].over
    assert process.state.cursor is None
    assert process.state.consecutive_failures == 1
    process.source.refusal = None
    (run,) = process.run()
    assert run.fetched == 5
    assert process.state.consecutive_failures == 0


def test_a_store_that_does_not_answer_ends_the_fetch_and_the_next_one_resumes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make()
    bus = process.embedded.bus
    publish = bus.publish

    def falls_out(*arguments: Any) -> None:
        monkeypatch.setattr(bus, "publish", publish)
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(bus, "publish", falls_out)
    with pytest.raises(StoreUnavailable):
        process.fetch()
    runs = process.run()
    assert len(runs) == 2
    assert process.counts(runs[0].id) == {"fetched": 5, "delivered": 5}


def test_every_source_that_was_opened_is_closed(make: Make) -> None:
    process = make(9, page_size=3)
    opened: list[FakeSource] = []

    def open_source() -> FakeSource:
        opened.append(FakeSource(process.world.shelf, process.world.clock, 3))
        opened[-1].faults = {1: AuthError("401")} if len(opened) == 1 else {}
        return opened[-1]

    process.open_source = open_source  # type: ignore[method-assign]
    process.fetch()
    process.fetch()
    assert len(opened) == 3
    assert all(source.closed == 1 for source in opened)


# Rows.


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


# Leases.


def test_a_stream_that_another_run_holds_is_left_alone(make: Make) -> None:
    process = make()
    process.home.leases.take(lease_name("shop", "things"))
    with pytest.raises(Leased):
        process.fetch()
    assert process.runs == []


def test_a_run_whose_lease_was_taken_over_writes_nothing_more(make: Make) -> None:
    process = make(9, page_size=3)
    leases = process.embedded.ports.leases

    def take_over(page: int) -> None:
        if page == 1:
            state = process.embedded.state
            state.write(lambda connection: connection.execute("UPDATE leases SET token = token + 1"))

    process.source.meanwhile = take_over
    with pytest.raises(Fenced):
        process.fetch()
    assert process.batches() == []
    assert process.runs[0].fetched == 0
    assert process.embedded.bus.depth(process.topics) == 0
    assert leases.holder(lease_name("shop", "things")) is None


def test_a_long_reading_renews_its_lease_and_ends_when_it_is_lost(make: Make) -> None:
    process = make(9, page_size=1)
    process.source.meanwhile = lambda page: process.world.clock.advance(1.5)
    renewed = []
    leases = process.embedded.ports.leases
    leases.renew = lambda lease: renewed.append(process.world.clock.monotonic())  # type: ignore[method-assign]
    process.source.meanwhile = lambda page: process.world.clock.advance(8)
    process.fetch()
    assert len(renewed) == 3

    def lost(lease: Any) -> None:
        raise Fenced("taken over")

    leases.renew = lost  # type: ignore[method-assign]
    change(process, 1)
    for number in range(20, 25):
        change(process, number)
    with pytest.raises(Fenced):
        process.fetch()


# Stops, slices, continuations and repeated triggers.


def test_a_run_that_is_stopped_saves_what_it_read_and_goes_on_there(make: Make) -> None:
    process = make(9, page_size=3)
    (run,) = process.fetch(stopping=lambda: process.source.given >= 2)
    assert (run.state, run.fetched) == ("stopped", 6)
    assert process.state.cursor is None
    resumed, new = process.fetch()
    assert (resumed.id, resumed.fetched, resumed.fetch_done) == (run.id, 9, True)
    assert new.fetched == 0
    assert sorted(read_keys(process)) == sorted(f"K{n}" for n in range(1, 10))


def test_an_order_to_summoned_opens_no_window(make: Make) -> None:
    process = make()
    assert process.fetch(Order(summoned=True)) == []
    assert process.runs == []


def continuations(process: Process) -> list[Continuation]:
    """The hand-overs that wait on the bus, taken off it."""
    found = []
    while (claimed := process.bus.claim([continuation_topic("shop")])) is not None:
        found.append(decode_continuation(claimed.message.data))
        process.bus.acknowledge(claimed)
    return found


def bring(process: Process, continuation: Continuation, more: bool = True) -> Any:
    return go_on(
        continuation, process.stream, process.open_source, process.home, process.notice, lambda: more, lambda: False
    )


@pytest.fixture
def handed_over(make: Make, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A run of three pages whose first one is read and handed over."""
    a_group_per_page(monkeypatch)
    process = make(9, page_size=3)
    process.world.hands_over = True
    (run,) = process.fetch()
    assert (run.state, run.slice, run.fetched) == ("yielded", 1, 3)
    return process


def test_a_continuation_reads_the_next_slice_of_the_same_run(handed_over: Process) -> None:
    (first,) = continuations(handed_over)
    run = bring(handed_over, first)
    assert (run.id, run.state, run.slice, run.fetched) == (first.run, "yielded", 2, 6)
    (second,) = continuations(handed_over)
    assert (second.slice, second.epoch > first.epoch) == (2, True)
    (third,) = [bring(handed_over, second), *continuations(handed_over)][1:]
    run = bring(handed_over, third, more=False)
    assert (run.fetch_done, run.fetched) == (True, 9)
    assert handed_over.state.cursor == NOW
    assert sorted(read_keys(handed_over)) == sorted(f"K{n}" for n in range(1, 10))


def test_a_continuation_that_comes_twice_is_dropped(handed_over: Process) -> None:
    (first,) = continuations(handed_over)
    bring(handed_over, first)
    assert bring(handed_over, first) is None
    assert handed_over.runs[0].fetched == 6
    assert handed_over.world.actions("continuation_dropped") == [{"run": first.run, "slice": 1}]


@pytest.mark.parametrize(
    "twist", [{"slice": 0}, {"slice": 2}, {"epoch": 0}, {"epoch": 99}, {"run": "things-never"}], ids=str
)
def test_a_continuation_that_the_checkpoint_does_not_expect_is_dropped(
    handed_over: Process, twist: dict[str, Any]
) -> None:
    (first,) = continuations(handed_over)
    assert bring(handed_over, msgspec.structs.replace(first, **twist)) is None
    assert handed_over.runs[0].fetched == 3
    assert bring(handed_over, first).fetched == 6


def test_a_continuation_of_a_run_that_a_trigger_resumed_meanwhile_is_dropped(handed_over: Process) -> None:
    (first,) = continuations(handed_over)
    handed_over.world.hands_over = False
    resumed, _ = handed_over.fetch()
    assert (resumed.id, resumed.fetch_done) == (first.run, True)
    assert bring(handed_over, first) is None
    assert resumed.fetched == 9


def test_a_continuation_waits_while_another_run_holds_the_stream(handed_over: Process) -> None:
    (first,) = continuations(handed_over)
    lease = handed_over.home.leases.take(lease_name("shop", "things"))
    with pytest.raises(Leased):
        bring(handed_over, first)
    handed_over.home.leases.release(lease)
    assert bring(handed_over, first).fetched == 6


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"integration":"shop"}'])
def test_a_message_that_is_no_continuation_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEnvelope):
        decode_continuation(data)


def test_a_run_id_that_comes_twice_starts_one_run(make: Make) -> None:
    process = make()
    (run,) = process.run(Order(run_id="things-0900"))
    assert run.id == "things-0900"
    process.world.clock.advance(60)
    assert process.run(Order(run_id="things-0900")) == []
    assert [each.id for each in process.runs] == ["things-0900"]


def test_a_run_id_that_comes_again_resumes_its_run_if_it_was_stopped(make: Make) -> None:
    process = make(9, page_size=3)
    process.fetch(Order(run_id="things-0900"), stopping=lambda: True)
    (run,) = process.fetch(Order(run_id="things-0900"))
    assert (run.id, run.fetched, run.fetch_done) == ("things-0900", 9, True)


def test_a_refused_trigger_that_comes_again_starts_no_second_run(make: Make) -> None:
    process = make()
    process.source.refusal = AuthError("401")
    process.fetch(Order(run_id="things-0900"))
    process.source.refusal = None
    assert process.fetch(Order(run_id="things-0900")) == []
    assert process.fetch(Order(run_id="things-0910"))[0].fetched == 5


# Properties of paging.


def everything(process: Process) -> list[tuple[str, str]]:
    return sorted(
        (record.key, record.version) for envelope in process.envelopes() for record in envelope.records
    )  # fmt: skip


def expected(process: Process) -> list[tuple[str, str]]:
    return sorted((thing.data["key"], thing.version) for thing in process.world.shelf.things.values())


@STEADY
@given(
    count=st.integers(0, 40),
    sizes=st.lists(st.integers(1, 9), max_size=6),
    page_size=st.integers(1, 15),
    lanes=st.integers(1, 4),
    batch_size=st.integers(1, 9),
    stops=st.lists(st.integers(0, 12), max_size=4),
    per_second=st.integers(1, 5),
)
def test_any_pages_and_any_stops_give_every_row_once(
    count: int, sizes: list[int], page_size: int, lanes: int, batch_size: int, stops: list[int], per_second: int
) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(lanes=lanes, batch_size=batch_size), page_size=page_size)
        world.shelf.fill(count, per_second=per_second)
        process = world.process()
        process.source.sizes = sizes
        for pages in stops:
            until = process.source.given + pages
            process.fetch(stopping=lambda until=until: process.source.given >= until)  # type: ignore[misc]
            if not process.runs[0].resumable:
                break
        runs = process.fetch(Order(summoned=bool(stops)))
        assert everything(process) == expected(process)
        assert len({run.id for run in process.runs if run.fetched}) <= 1
        assert all(run.fetched == len(everything(process)) for run in runs)
        assert process.state.cursor == NOW or not process.runs or process.runs[0].resumable
        world.close()


@STEADY
@given(
    count=st.integers(1, 25),
    page_size=st.integers(1, 6),
    moves=st.dictionaries(st.integers(0, 8), st.integers(1, 25), max_size=6),
)
def test_rows_that_move_while_they_are_paged_are_never_lost(count: int, page_size: int, moves: dict[int, int]) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(), page_size=page_size)
        world.shelf.fill(count)
        process = world.process()

        def move(page: int) -> None:
            number = moves.get(page)
            if number is not None and number <= count:
                world.shelf.put(number, 100 + page, key=f"K{number}", name=f"moved {page}")

        process.source.meanwhile = move
        process.fetch()
        assert set(expected(process)) <= set(everything(process))
        process.settle()
        for thing in world.shelf.things.values():
            assert world.target.contents_of(thing.data["key"]) == [{"name": thing.data["name"]}]
        world.close()


@STEADY
@given(limit=st.integers(1, 30), count=st.integers(0, 25), page_size=st.integers(1, 9))
def test_a_limit_reads_the_first_rows_whatever_the_pages(limit: int, count: int, page_size: int) -> None:
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        world = World(Path(folder), make_stream(), page_size=page_size)
        world.shelf.fill(count)
        process = world.process()
        run = process.fetch(Order(limit=limit))[-1]
        assert run.fetched == min(limit, count)
        assert everything(process) == sorted(
            (thing.data["key"], thing.version) for thing in list(world.shelf.things.values())[:limit]
        )
        world.close()
