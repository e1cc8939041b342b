"""Writing to Qeasy when answers are lost, tokens end and calls are refused: nothing is said that is not known."""

from __future__ import annotations

from typing import Any

import pytest

from infra.systems import Connection
from infra.systems.qeasy import Nothing, open_sink
from shared.ends import Change
from shared.errors import RATE_LIMITED, AuthError, ConfigError, ProtocolError
from shared.outcome import Absent, Found, InDoubt, Outcome, Passing, Verdict, delivered
from shared.retry import RetryPolicy
from tests.loopback import LOST, FakeClock, Reply, refused_port, reply
from tests.sandbox import Sandbox
from tests.sandbox.faults import parse
from tests.systems.qeasy_script import (
    Row,
    Script,
    all_taken,
    answer_of,
    change,
    changes,
    connection_to,
    counted,
    outcomes,
    platform,
    said,
    scripted,
)

# Doubt


@pytest.mark.parametrize(
    ("id_check", "repeatable"), [({}, False), ({"id_check": True}, False), ({"id_check": False}, True)]
)
def test_only_what_is_overwritten_by_its_id_may_be_repeated(id_check: Row, repeatable: bool) -> None:
    sink = open_sink(connection_to("http://localhost:1", options=id_check), "store")
    assert sink.repeatable(change(1)) is sink.repeatable(Change("1", "upsert", {}, target_id="1")) is repeatable
    sink.close()


@pytest.mark.parametrize("lost", [LOST, reply(500), reply(502), said(50000, "x"), said(50001, "x")])
def test_a_lost_answer_leaves_every_row_of_the_call_in_doubt(lost: Reply) -> None:
    with scripted(Script(lost)) as (_, sink):
        assert all(isinstance(answer, InDoubt) for answer in sink.write(changes(3)))
    with scripted(Script(lost), options={"id_check": False}) as (_, sink):
        assert all(isinstance(answer, Passing) for answer in sink.write(changes(3)))


def test_rows_that_arrived_without_an_answer_are_found_and_the_others_are_not() -> None:
    with platform("drop=100%") as (sandbox, sink):
        sandbox.qeasy.set_faults(parse("", ["qeasy"])["qeasy"])
        sink.write([change(1)])
        sandbox.qeasy.set_faults(parse("drop=100%", ["qeasy"])["qeasy"])
        assert all(isinstance(answer, InDoubt) for answer in sink.write(changes(100)))
        probes = sink.find([*changes(100), change(7)])
    assert [isinstance(probe, Found) and probe.same for probe in probes] == [True] * 100 + [False]
    assert isinstance(probes[-1], Absent)


def test_a_call_in_doubt_leaves_the_rest_for_later() -> None:
    answers = iter([said(40001, "no"), LOST])
    with scripted(Script(lambda body: next(answers))) as (_, sink):
        given = sink.write(changes(4))
    assert [type(answer) for answer in given] == [InDoubt, InDoubt, Passing, Passing]


def test_a_query_that_fails_where_the_counts_do_not_tell_leaves_doubt() -> None:
    for odd in (reply(503), said(40005, "x"), reply(200, b"{}"), said(content={"list": [], "total": 3})):
        with scripted(Script(counted(1, 1), odd)) as (_, sink):
            assert all(isinstance(answer, InDoubt) for answer in sink.write(changes(2)))


def test_a_query_asks_by_id_exactly_and_for_all_time() -> None:
    script = Script()
    with scripted(script, options={"id_field": "user_id"}) as (_, sink):
        assert list(sink.find([Change("k", "upsert", {"user_id": 7})])) == [Absent()]
    (body,) = script.calls("query")
    assert body.pop("end_at") > FakeClock().now().timestamp()
    assert body == {"page": 1, "pageSize": 100, "begin_at": 0, "CONTENT_user_id": {"$in": [7]}}


@pytest.mark.parametrize(
    "content",
    [
        [{"id": "1", "name": "用户1"}],
        {"list": [{"_id": "64a1", "id": 1, "name": "用户1"}], "total": 1},
        {"rows": [{"id": "64a1", "content": {"id": "1", "name": "用户1"}}], "total": "1"},
    ],
)
def test_every_documented_form_of_a_query_is_read(content: Any) -> None:
    def query(body: Row) -> Reply:
        return said(content=content if body["page"] == 1 else [])

    with scripted(Script(query=query)) as (_, sink):
        (found,) = sink.find([Change("1", "upsert", {"name": "用户1", "id": "1"})])
    assert isinstance(found, Found) and found.target_id == "1"


def test_a_query_is_read_to_its_end_and_one_without_an_end_is_not_believed() -> None:
    rows = [{"id": str(each % 3), "n": each} for each in range(250)]

    def query(body: Row) -> Reply:
        part = rows[(body["page"] - 1) * 40 :][:40]
        return said(content={"list": part, "total": 250})

    with scripted(Script(query=query)) as (_, sink):
        (found,) = sink.find([Change("0", "upsert", {"id": "0", "n": 249})])
        assert isinstance(found, Found) and found.same and found.current["n"] == 249
    with scripted(Script(query=said(content=rows[:100]))) as (_, sink), pytest.raises(ProtocolError, match="no end"):
        sink.find([change(1)])


# Calls as a whole


@pytest.mark.parametrize("faults", ["token_uses=2", "token_uses=2,denied_body", "token_uses=1"])
def test_a_token_that_ended_early_is_fetched_anew(faults: str) -> None:
    with platform(faults) as (sandbox, sink):
        for each in range(6):
            assert list(sink.write([change(each)])) == [delivered(str(each))]
        assert sandbox.qeasy.stats()["inserted"] == 6


def test_a_token_is_fetched_before_its_two_hours_are_over() -> None:
    clock = FakeClock()
    script = Script(all_taken)
    with scripted(script, clock=clock) as (_, sink):
        for wait in (0, 7000, 180):
            clock.at += wait
            sink.write([change(1)])
    assert len(script.calls("oauth")) == 2


def test_refused_credentials_and_a_token_refused_twice_stop_the_stream() -> None:
    with platform() as (sandbox, _):
        wrong = open_sink(connection_to(sandbox.urls["qeasy"]), "store")
        with pytest.raises(AuthError, match="40101") as caught:
            wrong.write(changes(2))
        wrong.close()
    assert "s3cr3t" not in str(caught.value)
    with platform("unauthorized=0") as (_, sink), pytest.raises(AuthError):
        sink.write(changes(2))


@pytest.mark.parametrize(
    "refusal",
    [said(40401, "方案 ID 不存在"), said(40003, "方案 ID 不存在"), said(40004, "x"), said(40301, "x"), reply(404)],
)
def test_a_wrong_scheme_or_a_missing_permission_blames_no_row(refusal: Reply) -> None:
    with scripted(Script(refusal)) as (_, sink), pytest.raises(AuthError):
        sink.write(changes(2))


def test_a_refusal_after_rows_were_written_keeps_what_is_known() -> None:
    answers = iter([said(40001, "no"), counted(1, 0), said(40301, "x")])
    with scripted(Script(lambda body: next(answers))) as (_, sink):
        first, second = sink.write(changes(2))
    assert first == delivered("1000") and isinstance(second, Passing)


def test_too_many_calls_wait_as_long_as_qeasy_asks() -> None:
    with Sandbox(customers=1, qeasy_per_minute=2) as sandbox:
        options = {"scheme": sandbox.environment["QEASY_SCHEME"]}
        sink = open_sink(connection_to(sandbox.urls["qeasy"], sandbox.environment, options), "store")
        sink.write([change(1)])
        (answer,) = sink.write([change(2)])
        sink.close()
    assert isinstance(answer, Passing)
    assert (answer.number, answer.after, answer.http_status) == (RATE_LIMITED, 60.0, 429)
    assert isinstance(answer_of(Script(said(42901, "请求过于频繁"))), Passing)


def test_a_qeasy_that_is_not_there_took_nothing() -> None:
    sink = open_sink(connection_to(f"http://localhost:{refused_port()}"), "store")
    assert all(isinstance(answer, Passing) for answer in sink.write(changes(3)))
    sink.close()


@pytest.mark.parametrize("scheme", ["", "  ", None])
def test_a_missing_scheme_is_said_before_anything_is_called(scheme: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(connection_to("http://localhost:1", options={"scheme": scheme}), "store")
    assert "`scheme:`" in caught.value.cure and "QEASY_SCHEME" in caught.value.cure
    with pytest.raises(ConfigError, match="no 'rows'"):
        open_sink(connection_to("http://localhost:1"), "rows")


def test_writing_nowhere_delivers_everything_asks_nobody_and_leaves_no_doubt() -> None:
    connection = Connection("http://localhost:1", {}, None, 100, RetryPolicy(), FakeClock(), None, lambda: False)
    sink = open_sink(connection, "nothing")
    assert isinstance(sink, Nothing)
    given = [change(1), Change("2", "delete", {})]
    assert outcomes(sink.write(given)) == [Outcome.DELIVERED] * 2
    assert all(sink.repeatable(each) for each in given)
    sink.close()


def test_where_there_is_no_query_rows_that_may_be_repeated_go_in_halves_and_others_stay_unknown() -> None:
    for id_check, wanted in ((False, {"delivered", "rejected"}), (True, {"unknown"})):
        script = Script(lambda body: counted_rows(body), reply(404))
        with scripted(script, options={"id_check": id_check}) as (_, sink):
            found = [answer.outcome.value for answer in sink.write(changes(4)) if isinstance(answer, Verdict)]
        assert (len(found), set(found)) == (4, wanted)


def counted_rows(body: dict[str, Any]) -> Any:
    """Everything but the first row is inserted."""
    bad = sum(str(row["id"]) == str(changes(1)[0].content["id"]) for row in body["content"])
    return counted(len(body["content"]) - bad, bad)
