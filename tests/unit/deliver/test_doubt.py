"""Records that may have arrived: asked about, never sent blindly."""

from __future__ import annotations

import pytest

from shared.deliver import Again, Settled
from shared.errors import (
    IN_DOUBT,
    ConfigError,
    ProtocolError,
    TransientError,
)
from shared.outcome import Found, Outcome
from tests.unit.deliver.conftest import (
    Make,
    assert_balanced,
    carry_out,
    change,
    letters,
    only_failure,
    read_more,
)
from tests.unit.fakes import Step


@pytest.mark.parametrize("step", [Step.DOUBT_BEFORE, Step.DOUBT_AFTER])
def test_a_lost_answer_leads_to_a_question_and_never_to_a_second_object(make: Make, step: Step) -> None:
    process = make(3)
    process.sink.script = {"K2": [step]}
    assert isinstance(carry_out(process), Settled)
    assert process.sink.asked == [["K2"]]
    assert process.world.target.creations_of("K2") == 1
    assert letters(process) == "ddd"
    assert process.cell("K2").target_id == process.world.target.ids_of("K2")[0]


@pytest.mark.parametrize("step", [Step.DOUBT_BEFORE, Step.DOUBT_AFTER])
def test_a_lost_answer_of_a_target_that_cannot_be_asked_is_unknown(make: Make, step: Step) -> None:
    process = make(3, askable=False)
    process.sink.script = {"K2": [step]}
    assert carry_out(process) == Settled(3)
    failure = only_failure(process)
    assert (failure.key, failure.outcome, failure.number) == ("K2", Outcome.UNKNOWN, IN_DOUBT)
    assert process.sink.sent.count("K2") == 1


def test_a_lost_answer_to_an_update_by_id_is_simply_sent_again(make: Make) -> None:
    process = make(1)
    process.pump()
    change(process, 1)
    read_more(process)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    assert carry_out(process) == Settled(2)
    assert process.sink.asked == []
    assert process.world.target.contents_of("K1") == [{"name": "changed 1"}]


def test_an_object_found_with_other_content_is_updated_by_its_id(make: Make) -> None:
    process = make(1)
    process.sink.script = {"K1": [Step.DOUBT_BEFORE]}
    process.world.target.objects["T9"] = ("K1", {"name": "somebody else's"})
    carry_out(process)
    assert process.sink.written[-1][0].target_id == "T9"
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]


def test_an_object_found_that_cannot_be_compared_and_not_updated_harmlessly_is_unknown(make: Make) -> None:
    process = make(1, askable=False)
    process.sink.script = {"K1": [Step.DOUBT_BEFORE]}
    process.sink.finds = [[Found("T9", None)]]
    carry_out(process)
    failure = only_failure(process)
    assert (failure.outcome, failure.number) == (Outcome.UNKNOWN, IN_DOUBT)
    assert process.sink.sent == ["K1"]


@pytest.mark.parametrize(
    "error", [ValueError("K1"), ProtocolError("odd"), ConfigError("odd"), KeyError("x"), OSError()]
)
def test_a_connector_that_falls_over_leaves_its_whole_call_in_doubt(make: Make, error: Exception) -> None:
    process = make(4)
    process.sink.script = {"K3": [error]}
    assert isinstance(carry_out(process), Settled)
    assert process.sink.asked == [["K1", "K2", "K3", "K4"]]
    assert [process.world.target.creations_of(f"K{n}") for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert letters(process) == "dddd"


@pytest.mark.parametrize("error", [TransientError("503"), ProtocolError("not JSON")])
def test_a_question_without_an_answer_is_asked_again_before_anything_is_sent(make: Make, error: Exception) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [error]
    carry_out(process)
    assert process.world.target.creations_of("K1") == 1
    assert letters(process) == "dd"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), OSError(), ConfigError("x")])
def test_a_connector_that_falls_over_a_question_is_asked_again_before_anything_is_sent(
    make: Make, error: Exception
) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [error]
    process.pump()
    assert process.world.target.creations_of("K1") == 1
    assert letters(process) == "dd"


def test_answers_to_a_question_that_are_missing_count_as_cannot_ask(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER], "K2": [Step.DOUBT_AFTER]}
    process.sink.finds = [[Found("T1", True)]]
    carry_out(process)
    assert letters(process) == "dk"


def test_records_in_doubt_that_cannot_be_asked_for_are_unknown_after_one_delivery(make: Make) -> None:
    process = make(8, bulk=1, askable=False)
    envelope = process.envelopes()[0]
    process.home.batches.begin(envelope.batch, "the first")
    process.home.batches.let_go(envelope.batch, "the first")
    assert process.deliver(envelope) == Settled(0)
    assert letters(process) == "kkkkkkkk"


def test_what_a_question_left_open_is_in_doubt_at_the_next_delivery(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [TransientError("503")] * 4
    assert isinstance(carry_out(process), Again)
    assert letters(process) == "?d"
    process.sink.finds = []
    assert carry_out(process) == Settled(0)
    assert process.world.target.creations_of("K1") == 1


def test_an_attempt_that_ended_in_the_middle_leaves_its_records_in_doubt(make: Make) -> None:
    process = make(3)
    envelope = process.envelopes()[0]
    process.home.batches.begin(envelope.batch, "the first")
    process.world.target.objects["T1"] = ("K1", {"name": "name 1"})
    process.home.batches.let_go(envelope.batch, "the first")
    assert process.deliver(envelope) == Settled(2)
    assert process.sink.asked == [["K1", "K2", "K3"]]
    assert process.sink.sent == ["K2", "K3"]
    assert all(change.absent for change in process.sink.written[0])


def test_a_record_in_doubt_that_a_newer_version_followed_is_superseded(make: Make) -> None:
    process = make(1)
    late = process.envelopes()[0]
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    process.sink.finds = [TransientError("503")] * 4
    process.deliver(late)
    change(process, 1)
    read_more(process)
    process.deliver(process.envelopes()[1])
    process.sink.finds = []
    process.deliver(late)
    assert [batch.outcomes for batch in process.batches()] == ["s", "d"]
    assert_balanced(process)
