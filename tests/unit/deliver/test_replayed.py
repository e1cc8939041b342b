"""Failures, the newer versions that close them, and replays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from shared.books import FailureQuery, Run
from shared.deliver import Settled
from shared.errors import (
    IN_DOUBT,
    NO_VERDICT,
    REFUSED,
    UNMAPPABLE,
)
from shared.fetch import publish_again
from shared.outcome import Absent, CannotAsk, Found, Outcome, Verdict, rejected
from shared.replay import replay
from shared.retry import RetryPolicy
from tests.unit.deliver.conftest import (
    BUSY,
    Make,
    assert_balanced,
    carry_out,
    change,
    letters,
    only_failure,
    read_more,
)
from tests.unit.fakes import RULES, Process, Step


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
