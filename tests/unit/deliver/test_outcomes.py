"""What a delivered record comes to, deletes included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from shared.deliver import Settled
from shared.errors import (
    NO_VERDICT,
    REFUSED,
    UNDOCUMENTED_ANSWER,
    UNMAPPABLE,
)
from shared.outcome import Outcome, rejected, unknown
from tests.unit.deliver.conftest import (
    BUSY,
    Make,
    assert_balanced,
    carry_out,
    change,
    letters,
    only_failure,
    outcome_of,
    read_more,
)
from tests.unit.fakes import RULES, FakeSink, Step


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
