"""Leases, stops, slices, continuations and triggers that come twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.errors import (
    AuthError,
    Fenced,
    Leased,
    MalformedEnvelope,
)
from shared.fetch import Continuation, Order, decode_continuation, go_on
from shared.ports import continuation_topic, lease_name
from tests.unit.fakes import (
    Process,
)
from tests.unit.fetch.conftest import (
    NOW,
    Make,
    a_group_per_page,
    change,
    read_keys,
)


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
