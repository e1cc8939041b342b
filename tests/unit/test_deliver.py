"""One delivery of one batch: every outcome, every way to fail, and what is written of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.deliver import Again, Settled
from shared.errors import (
    CREDENTIALS,
    GENERAL,
    IN_DOUBT,
    NO_VERDICT,
    NOT_ASKED,
    NUMBERS,
    RATE_LIMITED,
    REFUSED,
    UNAVAILABLE,
    UNDOCUMENTED_ANSWER,
    UNMAPPABLE,
    UNREACHABLE,
    AuthError,
    ConfigError,
    Fenced,
    MalformedEnvelope,
    ProtocolError,
    StoreUnavailable,
    TransientError,
)
from shared.fetch import publish_again
from shared.outcome import Absent, CannotAsk, Found, Outcome, Passing, Verdict, rejected, unknown
from shared.ports import FailureQuery, Run
from shared.record import Envelope
from shared.replay import replay
from shared.retry import LONGEST_WAIT, RetryPolicy
from shared.sending import RECORD_SECONDS
from tests.unit.fakes import (
    NEVER_ENDS,
    RULES,
    START,
    FakeSink,
    Process,
    Step,
    World,
    make_stream,
    spare_the_disk,
)

Make = Callable[..., Process]

BUSY = Passing("it is busy", UNAVAILABLE, http_status=503)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A process whose fetched records wait in one batch. With none at the source nothing was fetched yet."""
    spare_the_disk(monkeypatch)
    worlds: list[World] = []

    def made(count: int = 5, bulk: int = 5, askable: bool = True, **stream: Any) -> Process:
        settings = {"lanes": 1, "batch_size": 100} | stream
        worlds.append(World(tmp_path / str(len(worlds)), make_stream(**settings), bulk=bulk, askable=askable))
        process = worlds[-1].process()
        process.world.shelf.fill(count)
        if count:
            process.fetch()
        return process

    yield made
    for world in worlds:
        world.close()


def carry_out(process: Process, must_stop: Callable[[], bool] = lambda: False) -> Any:
    """One delivery of the first batch that waits."""
    return process.deliver(process.envelopes()[0], must_stop)


def read_more(process: Process) -> None:
    """The next run, whose window begins where the last one's ended."""
    process.world.clock.advance(60)
    process.fetch()


def change(process: Process, number: int, key: str | None = None, name: str | None = None, **more: Any) -> None:
    """The object is changed at the source at this moment."""
    seconds = (process.world.clock.now() - START).total_seconds()
    process.world.shelf.put(number, seconds, key=key or f"K{number}", name=name or f"changed {number}", **more)


def outcome_of(process: Process, key: str) -> Outcome:
    """Of the newest version of a key."""
    version = max(version for other, version in process.present() if other == key)
    return process.present()[key, version]


def only_failure(process: Process) -> Any:
    (failure,) = process.failures()
    return failure


def letters(process: Process) -> str:
    return process.batches()[-1].outcomes


def assert_balanced(process: Process) -> None:
    for run in process.runs:
        assert process.embedded.ports.books.counts(run.id).balanced
    audit = process.audit()
    assert audit.balanced, audit.unaccounted
    open_failures = {(f.key, f.version): f.outcome for f in process.failures()}
    failed = ("invalid", "rejected", "exhausted", "unknown")
    assert open_failures == {i: o for i, o in process.present().items() if o in failed}


# Outcomes.


def test_confirmed_records_are_delivered_with_their_ids(make: Make) -> None:
    process = make()
    assert carry_out(process) == Settled(5)
    assert letters(process) == "ddddd"
    cell = process.cell("K3")
    assert (cell.version, cell.target_id) == (
        process.world.shelf.things[3].version,
        process.world.target.ids_of("K3")[0],
    )
    assert_balanced(process)


def test_a_settled_batch_is_acknowledged_at_once(make: Make) -> None:
    process = make()
    envelope = process.envelopes()[0]
    process.deliver(envelope)
    process.fuse.calls.clear()
    assert process.deliver(envelope) == Settled(0)
    assert process.fuse.calls == ["batches.begin"]


def test_a_batch_that_nobody_committed_is_acknowledged_and_nothing_sent(make: Make) -> None:
    process = make()
    stranger = msgspec.structs.replace(process.envelopes()[0], batch="things-never.0.0")
    assert process.deliver(stranger) == Settled(0)
    assert process.sink.sent == []


def test_content_that_the_target_has_already_is_unchanged(make: Make) -> None:
    process = make(2)
    process.pump()
    change(process, 1, name="name 1")
    read_more(process)
    assert carry_out(process) == Settled(0)
    assert outcome_of(process, "K1") is Outcome.UNCHANGED
    assert process.cell("K1").version == process.world.shelf.things[1].version
    assert_balanced(process)


def test_a_version_older_than_the_ledgers_is_superseded(make: Make) -> None:
    process = make(2)
    late = process.envelopes()[0]
    change(process, 1)
    read_more(process)
    process.deliver(process.envelopes()[1])
    process.deliver(late)
    assert letters(process) == "d"
    assert process.batches()[0].outcomes == "sd"
    assert process.world.target.contents_of("K1") == [{"name": "changed 1"}]
    assert_balanced(process)


def test_a_version_that_is_read_twice_in_one_run_is_a_duplicate(make: Make) -> None:
    process = make(0)
    process.world.shelf.fill(3)
    process.source.counts, process.source.totals = True, [4, 4]
    process.run()
    assert process.counts(process.runs[0].id) == {"fetched": 6, "delivered": 3, "duplicate": 3}
    assert process.sink.sent == ["K1", "K2", "K3"]
    assert_balanced(process)


def test_the_newest_of_a_key_in_a_batch_is_sent_and_the_others_are_superseded(make: Make) -> None:
    process = make(0)
    for number in (1, 2, 3):
        process.world.shelf.put(number, number, key="same")
    process.fetch()
    carry_out(process)
    assert letters(process) == "ssd"
    assert process.world.target.contents_of("same") == [{"name": "name 3"}]
    assert process.sink.sent == ["same"]
    assert_balanced(process)


def test_the_first_object_of_an_identity_keeps_it_where_the_stream_says_so(make: Make) -> None:
    process = make(0, on_conflict="first")
    for number in (1, 2):
        process.world.shelf.put(number, number, key="same")
    process.fetch()
    carry_out(process)
    change(process, 2, key="same")
    read_more(process)
    carry_out(process)
    change(process, 1, key="same", name="newer")
    read_more(process)
    carry_out(process)
    assert [batch.outcomes for batch in process.batches()] == ["ds", "s", "d"]
    assert process.world.target.contents_of("same") == [{"name": "newer"}]
    assert_balanced(process)


def test_the_object_that_has_an_identity_keeps_it_against_one_read_before_it_in_the_same_batch(make: Make) -> None:
    process = make(1, on_conflict="first")
    process.pump()
    change(process, 2, key="K1", name="the second object's")
    process.world.clock.advance(1)
    change(process, 1, name="newer")
    read_more(process)
    carry_out(process)
    assert letters(process) == "sd"
    assert process.world.target.contents_of("K1") == [{"name": "newer"}]
    assert_balanced(process)


def test_objects_that_share_an_identity_are_invalid_where_the_stream_says_so(make: Make) -> None:
    process = make(0, on_conflict="invalid")
    for number in (1, 2):
        process.world.shelf.put(number, number, key="same")
    process.world.shelf.put(3, 3, key="other")
    process.fetch()
    carry_out(process)
    assert sorted("".join(batch.outcomes for batch in process.batches())) == ["d", "i", "i"]
    assert process.sink.sent == ["other"]


def test_a_record_that_cannot_be_mapped_is_invalid_and_its_neighbours_go_on(make: Make) -> None:
    process = make(3)
    change(process, 2, bad=True)
    read_more(process)
    process.pump()
    failure = only_failure(process)
    assert (failure.key, failure.outcome, failure.number) == ("K2", Outcome.INVALID, UNMAPPABLE)
    assert (failure.reason, failure.field, failure.data["bad"]) == ("it is bad", "bad", True)
    assert_balanced(process)


def test_a_mapping_that_falls_over_makes_the_record_invalid_without_quoting_it(make: Make) -> None:
    def falls_over(data: dict[str, Any]) -> dict[str, Any]:
        return {"name": data["name"][99]} if data["key"] == "K2" else {"name": data["name"]}

    process = make(3, rules=msgspec.structs.replace(RULES, to_target=falls_over))
    assert carry_out(process) == Settled(2)
    failure = only_failure(process)
    assert (failure.key, failure.number, failure.reason) == ("K2", UNMAPPABLE, "a rule failed with IndexError")


@pytest.mark.parametrize("content", [{"name": object()}, {"name": "\ud800"}, {1j: 1}], ids=["object", "text", "key"])
def test_mapped_content_that_cannot_be_written_down_is_invalid_and_its_neighbours_go_on(
    make: Make, content: dict[Any, Any]
) -> None:
    def odd(data: dict[str, Any]) -> dict[str, Any]:
        return content if data["key"] == "K2" else {"name": data["name"]}

    process = make(3, rules=msgspec.structs.replace(RULES, to_target=odd))
    assert carry_out(process) == Settled(2)
    assert letters(process) == "did"
    assert only_failure(process).number == UNMAPPABLE


def test_a_refused_record_is_rejected_with_the_targets_words(make: Make) -> None:
    process = make(3)
    process.sink.always = {"K2": rejected(REFUSED, "no such town", 422)}
    assert carry_out(process) == Settled(3)
    assert letters(process) == "drd"
    failure = only_failure(process)
    assert (failure.outcome, failure.number, failure.http_status) == (Outcome.REJECTED, REFUSED, 422)
    assert (failure.reason, failure.data, failure.attempts) == ("no such town", {"name": "name 2", "key": "K2"}, 1)
    assert process.cell("K2").failed == failure.version
    assert_balanced(process)


def test_a_verdict_that_a_connector_gives_is_taken_as_it_is(make: Make) -> None:
    process = make(1)
    process.sink.always = {"K1": unknown(UNDOCUMENTED_ANSWER, "a create was answered without an id", 201)}
    carry_out(process)
    failure = only_failure(process)
    assert (failure.outcome, failure.number, failure.http_status) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER, 201)


@pytest.mark.parametrize("step", [Step.SILENT_BEFORE, Step.SILENT_AFTER])
def test_a_missing_verdict_is_unknown_and_never_success(make: Make, step: Step) -> None:
    process = make(3)
    process.sink.script = {"K2": [step]}
    assert carry_out(process) == Settled(3)
    assert letters(process) == "dkd"
    assert only_failure(process).number == NO_VERDICT


def test_answers_that_are_missing_at_the_end_are_unknown(make: Make) -> None:
    process = make(5)
    process.sink.shortened = 2
    assert carry_out(process) == Settled(5)
    assert letters(process) == "dddkk"
    assert {failure.number for failure in process.failures()} == {NO_VERDICT}


def test_a_call_that_is_answered_with_nothing_at_all_is_in_doubt(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    process = make(2)
    write = FakeSink.write

    def answers_nothing(self: FakeSink, changes: Sequence[Any]) -> Any:
        write(self, changes)

    monkeypatch.setattr(FakeSink, "write", answers_nothing)
    assert carry_out(process) == Settled(2)
    assert process.world.target.creations_of("K1") == 1


def test_a_part_of_a_call_may_fail_and_only_that_part_is_sent_again(make: Make) -> None:
    process = make(5)
    process.sink.script = {"K2": [BUSY], "K4": [BUSY, BUSY]}
    assert carry_out(process) == Settled(8)
    assert [[c.key for c in call] for call in process.sink.written] == [
        ["K1", "K2", "K3", "K4", "K5"],
        ["K2", "K4"],
        ["K4"],
    ]
    assert letters(process) == "ddddd"


# Deletes.


def test_a_deleted_object_is_deleted_at_the_target_once(make: Make) -> None:
    process = make(2)
    process.pump()
    target_id = process.world.target.ids_of("K1")[0]
    change(process, 1, operation="delete")
    read_more(process)
    carry_out(process)
    assert letters(process) == "d"
    assert process.sink.written[-1][0].target_id == target_id
    assert process.world.target.contents_of("K1") == []
    assert process.cell("K1").deleted
    change(process, 1, operation="delete")
    read_more(process)
    assert carry_out(process) == Settled(0)
    assert letters(process) == "u"
    assert_balanced(process)


def test_a_deleted_object_that_comes_back_is_created_anew(make: Make) -> None:
    process = make(1)
    process.pump()
    for operation in ("delete", "upsert"):
        change(process, 1, name="name 1", operation=operation)
        read_more(process)
        carry_out(process)
    assert process.sink.written[-1][0].target_id == ""
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_balanced(process)


def test_a_delete_in_doubt_is_delivered_if_the_target_does_not_hold_the_key(make: Make) -> None:
    process = make(0)
    process.world.shelf.put(1, 1, key="K1", operation="delete")
    process.fetch()
    process.sink.script = {"K1": [Step.DOUBT_AFTER]}
    assert carry_out(process) == Settled(1)
    assert process.sink.asked == [["K1"]]
    assert letters(process) == "d"


# Passing failures.


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


# Doubt.


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


# Credentials, the store, other attempts.


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


# Slow batches and the end of time.


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


# Failures, newer versions and replays.


def fail_first(make: Make, count: int = 3, **more: Any) -> Process:
    """K2 was rejected, and would pass today."""
    process = make(count, **more)
    process.sink.script = {"K2": [rejected(REFUSED, "not today", 422)]}
    process.pump()
    assert only_failure(process).key == "K2"
    process.world.clock.advance(60)
    return process


def replay_open(process: Process, **query: Any) -> Run:
    run = replay(process.stream, process.home, FailureQuery("shop", "things", **query), "mended", process.notice)
    process.settle()
    return run


def test_the_same_version_is_not_sent_again_while_its_failure_is_open(make: Make) -> None:
    process = fail_first(make, overlap=timedelta(days=1))
    sent = len(process.sink.sent)
    read_more(process)
    process.pump()
    assert len(process.sink.sent) == sent
    assert process.counts(process.runs[0].id) == {"fetched": 3, "duplicate": 1, "unchanged": 2}
    assert only_failure(process).attempts == 1
    assert_balanced(process)


def test_a_newer_version_that_is_delivered_closes_the_older_failures_of_its_key(make: Make) -> None:
    process = fail_first(make)
    failure = only_failure(process)
    change(process, 2)
    read_more(process)
    process.pump()
    assert process.failures() == []
    (closed,) = process.failures(include_closed=True)
    assert (closed.id, closed.closed_as, closed.closed_by) == (failure.id, "superseded", process.runs[0].id)
    assert process.present()["K2", failure.version] is Outcome.SUPERSEDED
    assert process.cell("K2").failed == ""
    assert_balanced(process)


def test_a_newer_version_that_fails_too_leaves_both_failures_open(make: Make) -> None:
    process = fail_first(make)
    process.sink.script = {"K2": [rejected(REFUSED, "nor today")]}
    change(process, 2)
    read_more(process)
    process.pump()
    assert [failure.reason for failure in process.failures()] == ["not today", "nor today"]
    assert_balanced(process)
    replay_open(process)
    assert process.failures() == []
    assert {f.closed_as for f in process.failures(include_closed=True)} == {"delivered", "superseded"}
    assert_balanced(process)


def test_a_replay_delivers_what_failed_and_moves_its_record_in_the_books(make: Make) -> None:
    process = fail_first(make)
    before = process.audit().counts
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 1, "delivered": 1}
    assert process.sink.sent[-1:] == ["K2"]
    after = process.audit().counts
    assert (after.fetched, after.rejected, after.delivered) == (before.fetched, 0, before.delivered + 1)
    (closed,) = process.failures(include_closed=True)
    assert (closed.closed_as, closed.closed_by) == ("delivered", run.id)
    assert_balanced(process)


def test_a_replay_that_fails_again_keeps_the_failure_with_its_history(make: Make) -> None:
    process = fail_first(make)
    first = only_failure(process)
    process.sink.script = {"K2": [rejected(REFUSED, "still not", 422)]}
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 1, "rejected": 1}
    failure = only_failure(process)
    assert (failure.id, failure.first_at, failure.attempts) == (first.id, first.first_at, 2)
    assert failure.last_at > first.last_at
    assert (failure.batch, failure.reason) == (first.batch, "still not")
    assert_balanced(process)


def test_a_replay_of_an_unknown_record_asks_the_target_first(make: Make) -> None:
    process = make(2)
    process.sink.script = {"K1": [Step.SILENT_AFTER], "K2": [Step.SILENT_BEFORE]}
    process.pump()
    assert {failure.number for failure in process.failures()} == {NO_VERDICT}
    process.world.clock.advance(60)
    replay_open(process)
    assert [process.world.target.creations_of(f"K{n}") for n in (1, 2)] == [1, 1]
    assert process.failures() == []
    assert_balanced(process)


def test_a_replay_sends_what_a_human_wants_where_the_target_cannot_be_asked(make: Make) -> None:
    process = make(1, askable=False)
    process.sink.script = {"K1": [Step.DOUBT_BEFORE]}
    process.pump()
    process.world.clock.advance(60)
    replay_open(process)
    assert process.failures() == []
    assert process.world.target.creations_of("K1") == 1


def test_a_replayed_record_in_doubt_once_more_is_unknown_once_more(make: Make) -> None:
    process = make(1, askable=False)
    process.sink.script = {"K1": [Step.DOUBT_BEFORE, Step.DOUBT_AFTER]}
    process.pump()
    process.world.clock.advance(60)
    replay_open(process)
    failure = only_failure(process)
    assert (failure.outcome, failure.attempts) == (Outcome.UNKNOWN, 2)
    assert process.world.target.creations_of("K1") == 1


def test_a_failure_that_is_overtaken_while_it_is_replayed_is_superseded(make: Make) -> None:
    process = fail_first(make)
    run = replay(process.stream, process.home, FailureQuery("shop", "things"), "mended", process.notice)
    late = process.envelopes()[0]
    change(process, 2)
    read_more(process)
    process.deliver(process.envelopes()[1])
    process.deliver(late)
    process.settle()
    assert process.counts(run.id) == {"fetched": 1, "superseded": 1}
    assert process.failures() == []
    assert process.world.target.contents_of("K2") == [{"name": "changed 2"}]
    assert_balanced(process)


def test_a_newer_version_of_a_record_of_unknown_fate_asks_before_it_creates(make: Make) -> None:
    process = make(1)
    process.sink.script = {"K1": [Step.SILENT_AFTER]}
    process.pump()
    assert only_failure(process).outcome is Outcome.UNKNOWN
    change(process, 1)
    read_more(process)
    process.pump()
    assert process.world.target.contents_of("K1") == [{"name": "changed 1"}]
    assert_balanced(process)


def test_after_a_version_of_unknown_fate_nothing_is_created_at_a_target_that_cannot_be_asked(make: Make) -> None:
    process = make(1, askable=False)
    process.sink.script = {"K1": [Step.SILENT_AFTER]}
    process.pump()
    change(process, 1)
    read_more(process)
    process.pump()
    assert process.world.target.creations_of("K1") == 1
    assert {failure.outcome for failure in process.failures()} == {Outcome.UNKNOWN}
    assert_balanced(process)


def test_what_was_applied_last_is_not_taken_for_unchanged_after_a_version_of_unknown_fate(make: Make) -> None:
    process = make(1)
    process.pump()
    process.sink.script = {"K1": [Step.SILENT_AFTER]}
    change(process, 1, name="in between")
    read_more(process)
    process.pump()
    assert only_failure(process).outcome is Outcome.UNKNOWN
    change(process, 1, name="name 1")
    read_more(process)
    process.pump()
    assert process.world.target.contents_of("K1") == [{"name": "name 1"}]
    assert_balanced(process)


def test_a_deletion_is_not_taken_for_unchanged_after_a_version_of_unknown_fate(make: Make) -> None:
    process = make(0)
    for operation, step in (("delete", Step.OK), ("upsert", Step.SILENT_AFTER), ("delete", Step.OK)):
        process.sink.script = {"K1": [step]}
        change(process, 1, operation=operation)
        read_more(process)
        process.pump()
    assert process.world.target.contents_of("K1") == []
    assert_balanced(process)


def test_a_failure_that_comes_to_another_end_at_a_replay_is_in_the_books_as_that(make: Make) -> None:
    process = fail_first(make)
    process.sink.script = {"K2": [Step.SILENT_AFTER]}
    replay_open(process)
    assert only_failure(process).outcome is Outcome.UNKNOWN
    counts = process.audit().counts
    assert (counts.rejected, counts.unknown) == (0, 1)
    assert_balanced(process)


def test_a_mapping_that_is_put_right_makes_a_replayed_record_unchanged_and_clears_its_mark(make: Make) -> None:
    process = make(1, overlap=timedelta(days=1))
    process.pump()
    stream = process.world.stream

    def with_mapping(text: str) -> None:
        rules = msgspec.structs.replace(RULES, to_target=lambda data: {"name": text + data["name"]})
        process.world.stream = msgspec.structs.replace(stream, rules=rules)

    with_mapping("Mr. ")
    process.sink.script = {"K1": [rejected(REFUSED, "no titles")]}
    read_more(process)
    process.pump()
    with_mapping("")
    process.world.clock.advance(60)
    run = replay_open(process)
    assert process.counts(run.id) == {"fetched": 1, "unchanged": 1}
    assert process.failures() == []
    assert process.cell("K1").failed == "", "a mark without an open failure"
    with_mapping("Mx. ")
    read_more(process)
    process.pump()
    assert process.world.target.contents_of("K1") == [{"name": "Mx. name 1"}]
    assert_balanced(process)


def test_two_objects_of_one_identity_that_both_fail_are_not_sent_again_by_the_next_schedule(make: Make) -> None:
    process = make(0, overlap=timedelta(days=1), batch_size=1)
    process.sink.always = {"same": rejected(REFUSED, "no")}
    for number in (1, 2):
        process.world.shelf.put(number, number, key="same")
    process.fetch()
    process.pump()
    sent = len(process.sink.sent)
    assert sent == 2
    read_more(process)
    process.pump()
    assert len(process.sink.sent) == sent
    assert_balanced(process)


def test_what_the_bus_brings_twice_is_sent_once(make: Make) -> None:
    process = make(5)
    for _ in range(3):
        publish_again(process.home, list(process.home.batches.unsettled("shop")))
    process.pump()
    assert len(process.sink.sent) == 5
    assert letters(process) == "ddddd"


def test_waits_and_counts_are_noticed_without_naming_anybody(make: Make) -> None:
    process = make(3)
    process.sink.script = {"K1": [Step.DOUBT_AFTER], "K2": [BUSY]}
    carry_out(process)
    assert process.world.actions("probing")
    assert process.world.actions("waiting")
    said = repr(process.world.notices)
    assert not any(f"K{n}" in said or f"name {n}" in said for n in (1, 2, 3))


def test_an_unmentioned_kind_of_answer_has_no_branch_to_fall_into(make: Make) -> None:
    """Every outcome that a connector can give as a verdict ends as just that outcome."""
    process = make(5)
    process.sink.always = {
        "K1": Verdict(Outcome.DELIVERED, target_id="T1"),
        "K2": Verdict(Outcome.UNCHANGED),
        "K3": Verdict(Outcome.REJECTED, REFUSED, "no"),
        "K4": Verdict(Outcome.INVALID, UNMAPPABLE, "no"),
        "K5": Verdict(Outcome.UNKNOWN, IN_DOUBT, "who knows"),
    }
    assert carry_out(process) == Settled(5)
    assert letters(process) == "durik"


def test_a_target_that_answers_a_question_is_no_outage(make: Make) -> None:
    for probe in (Absent(), Found("T1", True)):
        process = make(1, max_attempts=2, retry=RetryPolicy(1, 1.0))
        process.sink.always = {"K1": BUSY}
        process.sink.finds = [[probe]]
        assert not carry_out(process).outage
    for silence in (CannotAsk(), BUSY):
        process = make(1, max_attempts=2, retry=RetryPolicy(1, 1.0))
        process.sink.always = {"K1": BUSY}
        process.sink.finds = [[silence]]
        assert carry_out(process).outage
