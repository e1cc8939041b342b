"""Which window a run reads, by whichever clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.books import Window
from shared.errors import (
    TransientError,
)
from shared.fetch import CLOCK_TOLERANCE, TICK, Order
from tests.unit.fakes import (
    START,
)
from tests.unit.fetch.conftest import (
    FRACTION,
    NOW,
    YEAR,
    Make,
    a_group_per_page,
    change,
)


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
