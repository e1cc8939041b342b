"""Writing to Qeasy: two counts for a hundred rows, and still exactly one known outcome for each of them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from zlib import crc32

import msgspec
import pytest

from infra.systems.qeasy import open_sink
from infra.systems.qeasy.store import PATIENCE
from shared.ends import Change
from shared.errors import GENERAL, REFUSED, UNDOCUMENTED_ANSWER
from shared.outcome import Absent, CannotAsk, Found, Outcome, Passing, Verdict, delivered
from tests.loopback import FakeClock, Reply, reply
from tests.systems.qeasy_script import (
    Row,
    Script,
    all_taken,
    answer_of,
    change,
    changes,
    connection_to,
    counted,
    listed,
    outcomes,
    platform,
    said,
    scripted,
)


def test_rows_are_stored_in_one_call_with_the_token_where_both_pages_want_it() -> None:
    script = Script(all_taken)
    with scripted(script) as (server, sink):
        assert list(sink.write(changes(100))) == [delivered(str(each)) for each in range(1000, 1100)]
    asked, stored = server.requests
    assert (asked.target, msgspec.json.decode(asked.body)) == (
        "/v2/oauth",
        {"app_key": "012345678911", "app_secret": "s3cr3t"},
    )
    assert urlsplit(stored.target).path == "/v2/open-api/business/0166a725/store"
    assert parse_qs(urlsplit(stored.target).query) == {"access_token": ["t0k3n"]}
    assert stored.headers["authorization"] == "Bearer t0k3n"
    assert script.calls("store") == [{"content": [each.content for each in changes(100)]}]


def test_rows_arrive_and_are_found() -> None:
    with platform() as (sandbox, sink):
        assert set(outcomes(sink.write(changes(100)))) == {Outcome.DELIVERED}
        (scheme,) = sandbox.qeasy.schemes.values()
        assert [row["id"] for row in scheme] == [each.key for each in changes(100)]
        first, other, absent, deleted = sink.find(
            [change(1000), change(1001, name="x"), change(1), Change("1002", "delete", {})]
        )
        assert sandbox.qeasy.stats()["repeated_ids"][sandbox.qeasy.scheme] == {}
    assert isinstance(first, Found) and (first.target_id, first.same, first.current["name"]) == (
        "1000",
        True,
        "用户1000",
    )
    assert isinstance(other, Found) and other.same is False
    assert isinstance(absent, Absent)
    assert isinstance(deleted, Found) and deleted.same is None


@pytest.mark.parametrize("faults", ["bad_store=7", "bad_batch=7", "bad_store=7,wrong_counts=50%", "bad_store=1"])
@pytest.mark.parametrize("count", [1, 2, 99, 100])
def test_each_refused_row_is_found_and_no_other_is_blamed_or_sent_twice(faults: str, count: int) -> None:
    every = int(faults.partition("=")[2].partition(",")[0])
    with platform(faults) as (sandbox, sink):
        answers = sink.write(changes(count))
        repeated = sandbox.qeasy.stats()["repeated_ids"][sandbox.qeasy.scheme]
        there = {row["id"] for row in sandbox.qeasy.schemes[sandbox.qeasy.scheme]}
    bad = {each.key for each in changes(count) if crc32(each.key.encode()) % every == 0}
    delivered_ones = {each.key for each, a in zip(changes(count), answers, strict=True) if a == delivered(each.key)}
    failed = [answer for answer in answers if isinstance(answer, Verdict) and answer.outcome is not Outcome.DELIVERED]
    assert there == delivered_ones == {each.key for each in changes(count)} - bad
    assert len(failed) == len(bad)
    assert {answer.number for answer in failed} <= {REFUSED, UNDOCUMENTED_ANSWER}
    if "wrong_counts" not in faults:
        assert {answer.outcome for answer in failed} <= {Outcome.REJECTED}
    assert repeated == {}


def test_counts_that_do_not_add_up_are_no_success_where_the_row_is_not_there() -> None:
    answer = answer_of(Script(counted(0, 0)))
    assert isinstance(answer, Verdict)
    assert (answer.outcome, answer.number) == (Outcome.UNKNOWN, UNDOCUMENTED_ANSWER)


@pytest.mark.parametrize(
    "odd", [counted(2, 0), counted(1, 1), counted(None, 0), counted("many", 0), said(), reply(200, b"<html>")]
)
def test_odd_counts_are_settled_by_what_qeasy_holds(odd: Reply) -> None:
    there = listed({"_id": "64a1", "created_at": 1, **change(1).content})
    assert answer_of(Script(odd, there)) == delivered("1")
    answer = answer_of(Script(odd))
    assert isinstance(answer, Verdict) and answer.outcome is Outcome.UNKNOWN


def test_rows_of_which_nothing_is_known_are_sent_alone_and_then_left() -> None:
    script = Script(lambda body: counted(1, len(body["content"])))
    with scripted(script) as (_, sink):
        assert set(outcomes(sink.write(changes(4)))) == {Outcome.UNKNOWN}
    assert [len(body["content"]) for body in script.calls("store")] == [4, 2, 1, 1, 2, 1, 1]


def test_counts_may_be_texts() -> None:
    assert answer_of(Script(counted("1", "0"))) == delivered("1")


def test_a_row_that_qeasy_keeps_as_it_is_was_refused() -> None:
    answer = answer_of(Script(counted(0, 0), listed({"id": "1", "name": "before"})))
    assert isinstance(answer, Verdict) and (answer.outcome, answer.number) == (Outcome.REJECTED, REFUSED)


def test_a_row_without_an_id_is_unknown_where_the_counts_do_not_tell() -> None:
    nameless = Change("k", "upsert", {"name": "x"})
    script = Script(lambda body: counted(1, 1))
    with scripted(script) as (_, sink):
        assert set(outcomes(sink.write([nameless, nameless]))) == {Outcome.UNKNOWN}
        assert list(sink.find([nameless])) == [CannotAsk()]
    assert len(script.calls("store")) == 1


def test_the_words_of_a_refusal_are_kept_and_what_the_row_holds_is_not() -> None:
    message = "必填字段缺失: dept_id (张三, 13800138000, a@b.cn, 用户1)"
    answer = answer_of(Script(said(40001, message)), change(1, full_name="张三", mobile="13800138000"))
    assert isinstance(answer, Verdict) and answer.outcome is Outcome.REJECTED
    assert "必填字段缺失: dept_id" in answer.reason
    assert not any(private in answer.reason for private in ("张三", "1380", "a@b", "用户1"))


def test_a_missing_required_field_spoils_its_row_only() -> None:
    with platform() as (sandbox, sink):
        sandbox.qeasy.required = ("id", "dept_id")
        given = [change(each, **({} if each == 13 else {"dept_id": "9"})) for each in range(40)]
        answers = sink.write(given)
    rejected = [place for place, answer in enumerate(answers) if answer != delivered(str(place))]
    assert rejected == [13]
    answer = answers[13]
    assert isinstance(answer, Verdict) and (answer.outcome, "dept_id" in answer.reason) == (Outcome.REJECTED, True)


@pytest.mark.parametrize("seconds", [PATIENCE / 20, PATIENCE / 4, PATIENCE * 2])
def test_looking_for_refused_rows_pauses_after_a_while_and_comes_to_an_end(seconds: float) -> None:
    clock = FakeClock()

    def slow(body: Row) -> Reply:
        clock.at += seconds
        bad = any(each["id"] in ("1007", "1008", "1050") for each in body["content"])
        return said(40001, "no") if bad else all_taken(body)

    found: dict[str, Outcome] = {}
    left, lengths = changes(64), [64]
    with scripted(Script(slow), clock=clock) as (_, sink):
        while left:
            began = clock.at
            answers = sink.write(left)
            assert clock.at - began <= PATIENCE + 8 * seconds
            assert {answer.number for answer in answers if isinstance(answer, Passing)} <= {GENERAL}
            found |= {c.key: a.outcome for c, a in zip(left, answers, strict=True) if isinstance(a, Verdict)}
            left = [c for c, a in zip(left, answers, strict=True) if isinstance(a, Passing)]
            lengths.append(len(left))
            assert lengths[-1] < lengths[-2]
    assert {key for key, outcome in found.items() if outcome is Outcome.REJECTED} == {"1007", "1008", "1050"}
    assert len(found) == 64 and (len(lengths) > 2 or seconds < 2)


def test_a_deletion_is_refused_without_a_call() -> None:
    script = Script(all_taken)
    with scripted(script) as (_, sink):
        answers = list(sink.write([Change("1", "delete", {}), change(2)]))
        assert outcomes(answers) == [Outcome.REJECTED, Outcome.DELIVERED]
    assert [len(body["content"]) for body in script.calls("store")] == [1]


@pytest.mark.parametrize(("size", "bulk"), [(7, 7), (100, 100), (500, 100), (0, 1)])
def test_a_call_takes_at_most_a_hundred_rows(size: int, bulk: int) -> None:
    sink = open_sink(connection_to("http://localhost:1", page_size=size), "store")
    assert sink.bulk == bulk
    sink.close()
