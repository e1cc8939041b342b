"""Attempts that are refused, taken over, slow, or told to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shared.deliver import Again, Settled
from shared.errors import (
    REFUSED,
    AuthError,
    Fenced,
    MalformedEnvelope,
    StoreUnavailable,
    TransientError,
)
from shared.outcome import rejected
from shared.record import Envelope
from shared.sending import RECORD_SECONDS
from tests.unit.deliver.conftest import (
    BUSY,
    Make,
    assert_balanced,
    carry_out,
    letters,
)
from tests.unit.fakes import Process, Step


def test_refused_credentials_hand_the_batch_back_and_consume_nothing(make: Make) -> None:
    process = make(5, bulk=2)
    process.sink.calls = [None, AuthError("401")]
    with pytest.raises(AuthError):
        carry_out(process)
    assert letters(process).startswith("dd")
    assert process.batches()[0].state == "open"
    assert process.batches()[0].attempts == 0
    assert process.failures() == []
    assert carry_out(process) == Settled(3)
    assert letters(process) == "ddddd"
    assert_balanced(process)


def test_refused_credentials_make_nothing_unknown_where_the_target_cannot_be_asked(make: Make) -> None:
    process = make(5, bulk=5, askable=False)
    process.sink.calls = [AuthError("401")]
    with pytest.raises(AuthError):
        carry_out(process)
    assert letters(process) == "....."
    assert carry_out(process) == Settled(5)
    assert letters(process) == "ddddd"


def test_refused_credentials_at_a_question_consume_nothing(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [AuthError("401")]
    with pytest.raises(AuthError):
        carry_out(process)
    assert letters(process) == "?d"
    assert carry_out(process) == Settled(0)
    assert process.world.target.creations_of("K1") == 1


@pytest.mark.parametrize("call", ["batches.begin", "ledger.cells", "batches.settle"])
def test_a_store_that_does_not_answer_refuses_the_message_and_nothing_is_sent_twice(
    make: Make, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    process = make(3)
    port, name = call.split(".")
    real = getattr(process.embedded.ports, port)
    found = getattr(real, name)
    failing = [True]

    def falls_out(*arguments: Any, **named: Any) -> Any:
        if failing:
            failing.clear()
            raise StoreUnavailable("it does not answer")
        return found(*arguments, **named)

    monkeypatch.setattr(real, name, falls_out)
    with pytest.raises(StoreUnavailable):
        carry_out(process)
    carry_out(process)
    assert letters(process) == "ddd"
    assert [process.world.target.creations_of(f"K{n}") for n in (1, 2, 3)] == [1, 1, 1]


def take_over(process: Process, envelope: Envelope) -> None:
    """Another attempt takes the batch from one that everybody takes for dead."""
    batch = process.embedded.ports.batches.get(envelope.batch)
    assert batch is not None
    process.embedded.ports.batches.let_go(batch.id, batch.attempt)
    process.embedded.ports.batches.begin(batch.id, "the other")


def test_an_attempt_that_lost_its_batch_writes_nothing(make: Make) -> None:
    process = make(3)
    envelope = process.envelopes()[0]
    process.sink.always = {"K2": rejected(REFUSED, "no")}
    process.sink.meanwhile = lambda: take_over(process, envelope)
    with pytest.raises(Fenced):
        process.deliver(envelope)
    assert letters(process) == "..."
    assert process.failures() == []
    assert process.cell("K1") is None
    assert process.batches()[0].attempt == "the other"


def test_a_batch_in_the_hands_of_a_live_attempt_is_left_to_it(make: Make) -> None:
    process = make(3)
    envelope = process.envelopes()[0]
    seen: list[Any] = []
    process.sink.meanwhile = lambda: seen.append(process.deliver(envelope))
    assert process.deliver(envelope) == Settled(3)
    assert [type(done) for done in seen] == [Again]
    assert [process.world.target.creations_of(f"K{n}") for n in (1, 2, 3)] == [1, 1, 1]


def other_records(envelope: Envelope) -> Envelope:
    return msgspec.structs.replace(envelope, records=envelope.records[:-1])


def other_versions(envelope: Envelope) -> Envelope:
    """The same keys, as they would be after the objects were changed."""
    return msgspec.structs.replace(
        envelope,
        records=[
            msgspec.structs.replace(r, version=f"1999-{r.version}", data=r.data | {"name": "stale"})
            for r in envelope.records
        ],
    )


@pytest.mark.parametrize("twist", [other_records, other_versions])
def test_a_message_that_carries_other_records_than_its_batch_is_refused_and_sends_nothing(
    make: Make, twist: Callable[[Envelope], Envelope]
) -> None:
    process = make(3)
    with pytest.raises(MalformedEnvelope):
        process.deliver(twist(process.envelopes()[0]))
    assert process.sink.sent == []
    assert letters(process) == "..."


@pytest.mark.parametrize("askable", [True, False])
def test_a_message_with_other_records_does_no_harm_to_the_batch_itself(make: Make, askable: bool) -> None:
    process = make(3, askable=askable)
    envelope = process.envelopes()[0]
    with pytest.raises(MalformedEnvelope):
        process.deliver(other_records(envelope))
    assert process.deliver(envelope) == Settled(3)
    assert process.sink.asked == []
    assert letters(process) == "ddd"


def test_a_slow_batch_records_its_progress_on_the_way(make: Make) -> None:
    process = make(6, bulk=1)
    seen: list[str] = []

    def slowly() -> None:
        seen.append(letters(process))
        process.world.clock.advance(RECORD_SECONDS * 0.6)

    process.sink.meanwhile = slowly
    assert carry_out(process) == Settled(6)
    assert seen == ["......", "......", "dd....", "dd....", "dddd..", "dddd.."]
    assert letters(process) == "dddddd"


def test_progress_that_was_recorded_is_not_in_doubt_after_a_crash(make: Make) -> None:
    process = make(6, bulk=1, askable=False)
    calls: list[int] = []

    def slowly() -> None:
        calls.append(1)
        process.world.clock.advance(RECORD_SECONDS)
        if len(calls) == 4:
            raise KeyboardInterrupt

    process.sink.meanwhile = slowly
    with pytest.raises(KeyboardInterrupt):
        carry_out(process)
    process.sink.meanwhile = lambda: None
    assert letters(process) == "ddd..."
    process.pump()
    assert letters(process) == "dddkkk"
    assert process.sink.sent == ["K1", "K2", "K3", "K4"]


def test_an_attempt_that_must_stop_leaves_the_rest_untouched(make: Make) -> None:
    process = make(6, bulk=2)
    done = carry_out(process, lambda: len(process.sink.written) >= 2)
    assert isinstance(done, Again)
    assert not done.outage
    assert letters(process) == "dddd.."
    assert process.batches()[0].attempts == 0
    assert carry_out(process) == Settled(2)
    assert process.sink.asked == []


def test_an_attempt_that_must_stop_while_it_waits_counts_no_attempt(make: Make) -> None:
    process = make(3, max_attempts=1)
    process.sink.always = {"K2": BUSY}
    stop: list[bool] = []
    process.world.clock.while_asleep = lambda: stop.append(True)
    done = carry_out(process, lambda: bool(stop))
    assert isinstance(done, Again)
    assert letters(process) == "d.d"
    assert process.batches()[0].attempts == 0
    assert process.failures() == []


def test_an_attempt_that_must_stop_keeps_what_is_in_doubt_in_doubt(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [TransientError("503")] * 4
    stop: list[bool] = []
    process.world.clock.while_asleep = lambda: stop.append(True)
    carry_out(process, lambda: bool(stop))
    assert letters(process) == "?d"
