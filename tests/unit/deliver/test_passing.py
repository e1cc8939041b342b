"""Failures that pass, and those that do not."""

from __future__ import annotations

import msgspec
import pytest

from shared.deliver import Again, Settled
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    NOT_ASKED,
    NUMBERS,
    RATE_LIMITED,
    UNAVAILABLE,
    UNREACHABLE,
    TransientError,
)
from shared.outcome import Outcome, Passing
from shared.retry import LONGEST_WAIT
from tests.unit.deliver.conftest import (
    BUSY,
    Make,
    assert_balanced,
    carry_out,
    letters,
    only_failure,
)
from tests.unit.fakes import NEVER_ENDS, Step


def test_a_call_that_did_not_take_effect_is_made_again_after_a_wait(make: Make) -> None:
    process = make(3)
    process.sink.calls = [TransientError("429", after=7.0, number=RATE_LIMITED, http_status=429)]
    assert carry_out(process) == Settled(6)
    (slept,) = process.world.clock.slept
    assert 7.0 <= slept <= 8.0
    assert letters(process) == "ddd"


def test_what_never_passes_in_one_delivery_is_handed_back(make: Make) -> None:
    process = make(3)
    process.sink.always = {"K2": BUSY}
    done = carry_out(process)
    assert isinstance(done, Again)
    assert not done.outage
    assert done.wait > 0
    assert done.reason == "it is busy"
    assert letters(process) == "d.d"
    assert process.batches()[0].state == "open"
    assert process.sink.sent.count("K2") == process.stream.retry.attempts


def test_a_wish_to_wait_longer_than_a_function_lives_goes_to_the_queue(make: Make) -> None:
    process = make(2)
    process.sink.always = {"K2": msgspec.structs.replace(BUSY, after=LONGEST_WAIT + 100)}
    done = carry_out(process)
    assert isinstance(done, Again)
    assert done.wait >= LONGEST_WAIT + 100
    assert process.world.clock.slept == []
    assert process.sink.sent == ["K1", "K2"]


@pytest.mark.parametrize("number", [GENERAL, CREDENTIALS, UNAVAILABLE, RATE_LIMITED, UNREACHABLE])
def test_a_record_that_keeps_failing_while_others_pass_is_exhausted_with_its_number(make: Make, number: int) -> None:
    process = make(3, max_attempts=4)
    process.sink.always = {"K2": Passing("again and again", number, http_status=500)}
    process.pump()
    failure = only_failure(process)
    assert (failure.key, failure.outcome, failure.number) == ("K2", Outcome.EXHAUSTED, number)
    assert (failure.reason, failure.http_status) == ("again and again", 500)
    assert process.sink.sent.count("K2") == 4 * process.stream.retry.attempts
    assert letters(process) == "dxd"
    assert NUMBERS[number].kind == "retriable"
    assert_balanced(process)


def test_an_outage_exhausts_nothing_however_long_it_lasts(make: Make) -> None:
    process = make(3, max_attempts=2)
    process.sink.down = TransientError("no connection", number=UNREACHABLE)
    for _ in range(12):
        done = carry_out(process)
        assert isinstance(done, Again)
        assert done.outage
        process.world.clock.advance(done.wait)
    assert letters(process) == "..."
    assert process.batches()[0].attempts == 0
    process.sink.down = None
    process.pump()
    assert letters(process) == "ddd"


def test_a_target_that_falls_silent_is_not_tried_with_the_rest_of_a_batch(make: Make) -> None:
    process = make(20, bulk=2)
    process.sink.down = TransientError("no connection", number=UNREACHABLE)
    carry_out(process)
    assert len(process.sink.written) == 2 * process.stream.retry.attempts


def test_a_lone_record_that_keeps_failing_is_exhausted_while_the_target_answers_for_its_key(make: Make) -> None:
    process = make(1, max_attempts=3)
    process.sink.always = {"K1": BUSY}
    process.pump()
    assert only_failure(process).outcome is Outcome.EXHAUSTED
    assert [delivery.outage for delivery in process.deliveries if isinstance(delivery, Again)] == [False, False]


def test_a_lone_record_that_keeps_failing_is_an_outage_where_the_target_cannot_be_asked(make: Make) -> None:
    process = make(1, askable=False, max_attempts=2)
    process.sink.always = {"K1": BUSY}
    for _ in range(5):
        assert carry_out(process).outage
        process.world.clock.advance(60)
    assert letters(process) == "."


def test_a_lone_record_is_exhausted_where_others_pass_in_other_batches(make: Make) -> None:
    process = make(1, askable=False, max_attempts=3)
    process.sink.always = {"K1": BUSY}
    for _ in range(4):
        carry_out(process)
        process.world.clock.advance(1)
        process.health.answered_at = process.world.clock.now()
        process.world.clock.advance(1)
    assert letters(process) == "x"


def test_attempts_that_made_progress_for_others_still_count_for_the_one_that_is_left(make: Make) -> None:
    process = make(6, max_attempts=3)
    process.sink.script = {"K2": [BUSY] * 4}
    process.sink.always = {"K4": BUSY}
    process.pump()
    assert letters(process) == "dddxdd"


def test_a_record_that_may_have_arrived_is_not_exhausted_but_unknown(make: Make) -> None:
    process = make(3, max_attempts=2)
    process.sink.script = {"K2": [Step.DOUBT_AFTER]}
    process.sink.finds = [TransientError("503")] * NEVER_ENDS
    for _ in range(2):
        carry_out(process)
        process.world.clock.advance(60)
        process.health.answered_at = process.world.clock.now()
    failure = only_failure(process)
    assert (failure.key, failure.outcome, failure.number) == ("K2", Outcome.UNKNOWN, NOT_ASKED)
    assert process.sink.sent.count("K2") == 1


def test_the_wait_before_a_batch_comes_again_grows(make: Make) -> None:
    process = make(3, redeliver_after=10.0, max_attempts=100)
    process.sink.always = {"K2": BUSY}
    waits = [carry_out(process).wait for _ in range(12)]
    assert all(7.5 <= wait <= 600 for wait in waits)
    assert waits[0] <= 10 < 100 < waits[-1]
