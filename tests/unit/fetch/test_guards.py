"""Sources that go round in circles, miscount, fail, or cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from shared.books import Window
from shared.ends import Page
from shared.errors import (
    AuthError,
    GuardTripped,
    ProtocolError,
    StoreUnavailable,
    TransientError,
)
from shared.fetch import Order
from tests.unit.fakes import (
    FakeSource,
)
from tests.unit.fetch.conftest import (
    NOW,
    Make,
    a_group_per_page,
    assert_books_balance,
)


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
