"""Reading OKKI: every user of every state once, with the department that it is in, whatever the answers look like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from infra.systems.okki import open_source
from infra.systems.okki.users import departments_of
from shared.errors import NO_SOURCE_ID, AuthError, ConfigError, GuardTripped, ProtocolError, TransientError
from shared.record import version_at
from tests.loopback import FakeClock, Reply, Request, reply
from tests.sandbox.faults import parse
from tests.systems.okki_script import (
    AGES,
    NOON,
    TOKEN,
    WINDOW,
    Script,
    connection_to,
    okki,
    rows,
    scripted,
    shape,
    source_of,
)

Row = dict[str, Any]

# Users


def test_users_of_all_states_are_read_once_in_the_order_of_their_ids() -> None:
    with okki() as sandbox, source_of(sandbox, page_size=25) as source:
        pages = list(source.pages(WINDOW, ""))
        ids = [row.data["user_id"] for page in pages for row in page.rows]
        states = {row.data["enable_flag"] for page in pages for row in page.rows}
        there = {user["user_id"] for user in sandbox.okki.users.rows()}
    assert [len(page.rows) for page in pages] == [25, 25, 10]
    assert ids == sorted(there, key=int) and len(ids) == 60
    assert states == {"0", "1", "2"}
    assert [page.after for page in pages] == [ids[24], ids[49], ids[59]]
    assert {page.total for page in pages} == {None}
    row = pages[0].rows[3]
    assert (row.origin, row.position) == (ids[3], f"users({ids[3]})")
    assert row.version == version_at(NOON, ids[3])


def test_reading_goes_on_behind_the_last_user_given() -> None:
    with okki() as sandbox, source_of(sandbox, page_size=25) as source:
        pages = list(source.pages(WINDOW, ""))
        rest = list(source.pages(WINDOW, pages[0].after))
        assert list(source.pages(WINDOW, pages[-1].after)) == []
    assert rest == pages[1:]


def test_every_user_carries_its_departments_with_the_way_down_to_them() -> None:
    with okki() as sandbox, source_of(sandbox) as source:
        departments = {row["id"]: row for row in sandbox.okki.departments.rows()}
        users = rows(source)
    assert max(user["department"]["layer"] for user in users) == 5
    for user in users:
        joined = user["department"]
        expected = departments[str(user["department_id"])]
        assert {name: joined[name] for name in expected} == expected
        way = [joined["id"]]
        while departments[way[0]]["parent_id"]:
            way.insert(0, departments[way[0]]["parent_id"])
        assert joined["path"] == [departments[each]["name"] for each in way]
        for each in user["departments"]:
            assert each["department"]["id"] == str(each["department_id"])
            assert each["department"]["name"] == each["department_name"]
    assert any(len(user["departments"]) == 2 for user in users)


def test_department_0_is_one_like_any_other_and_an_unknown_one_is_null() -> None:
    root = {"id": "0", "layer": "0", "name": "我的企业", "parent_id": "", "parent_name": ""}
    users = [
        {"user_id": "7", "department_id": 0, "departments": [{"department_id": 0}, {"department_id": "9"}]},
        {"user_id": 8, "department_id": "9"},
        {"user_id": "9"},
    ]
    script = Script(departmentList={"list": [root], "count": "1"}, list=lambda query: users)
    with scripted(script) as source:
        first, second, third = rows(source)
    joined = {"id": "0", "name": "我的企业", "layer": 0, "parent_id": "", "parent_name": "", "path": ["我的企业"]}
    assert first["department"] == joined
    assert [each["department"] for each in first["departments"]] == [joined, None]
    assert (second["user_id"], second["department"], third["department"]) == ("8", None, None)


def test_departments_that_stand_above_each_other_in_a_circle_end_somewhere() -> None:
    circle = [{"id": "1", "name": "甲", "parent_id": "2"}, {"id": "2", "name": "乙", "parent_id": "1"}]
    assert departments_of(circle)["1"]["path"] == ["乙", "甲"]


def test_a_user_read_in_two_states_is_given_once_as_it_was_read_last() -> None:
    def users(query: Row) -> list[Row]:
        return [{"user_id": "7", "enable_flag": query["enable_flag"]}] if query["enable_flag"] in "10" else []

    with scripted(Script(list=users)) as source:
        assert [user["enable_flag"] for user in rows(source)] == ["0"]


def test_a_row_that_one_list_names_twice_is_given_twice() -> None:
    """So that the books know of it: the engine makes one of them a duplicate."""
    twice = [{"user_id": "7", "nickname": "a"}, {"user_id": "7", "nickname": "b"}, {"user_id": "9"}]
    with scripted(Script(list=lambda query: twice if query["enable_flag"] == "1" else [])) as source:
        assert [user.get("nickname") for user in rows(source)] == ["a", "b", None]


def test_users_without_an_id_come_with_the_last_page_and_say_so() -> None:
    users = [{"user_id": "9"}, {"user_id": None}, {"nickname": "x"}, {"user_id": "7"}, {"user_id": "a7"}, 5]
    script = Script(list=lambda query: users if query["enable_flag"] == "1" else [])
    with scripted(script, page_size=1) as source:
        pages = list(source.pages(WINDOW, ""))
        assert shape(list(source.pages(WINDOW, "7"))) == [(5, "9")]
        assert list(source.pages(WINDOW, "9")) == []
    assert shape(pages) == [(1, "7"), (5, "9")]
    assert [row.problem and row.problem[0] for row in pages[1].rows] == [None, *[NO_SOURCE_ID] * 4]
    assert len({row.position for row in pages[1].rows}) == 5


def test_users_of_whom_none_has_an_id_are_not_lost() -> None:
    script = Script(list=lambda query: [{"user_id": ""}] if query["enable_flag"] == "1" else [])
    with scripted(script) as source:
        assert shape(list(source.pages(WINDOW, ""))) == [(1, "0")]


def test_parameters_of_the_scheme_go_with_every_list_of_users_and_do_not_choose_the_state() -> None:
    script = Script()
    options = {"request": {"code": None, "now": "2023-10-01 00:00:00", "enable_flag": "1"}}
    with scripted(script, options=options) as source:
        assert list(source.pages(WINDOW, "")) == []
    lists = [query for path, query in script.asked if path == "/v1/user/list"]
    assert [query["enable_flag"] for query in lists] == ["1", "0", "2"]
    assert {query["now"] for query in lists} == {"2023-10-01 00:00:00"}
    assert not any("None" in query.values() for query in lists)
    with okki() as sandbox, source_of(sandbox, options=options) as source:
        assert len(rows(source)) == 60


def test_a_renamed_department_changes_its_members_and_nobody_else() -> None:
    with okki() as sandbox, source_of(sandbox) as source:
        before = {user["user_id"]: user for user in rows(source)}
        department = next(user["department"]["id"] for user in before.values() if user["department"]["layer"] == 5)
        sandbox.okki.part("departments").change([int(department)], {"name": "新部门"})
        changed = [user for user in rows(source) if user != before[user["user_id"]]]
    members = [each for each in before.values() if department in [str(d["department_id"]) for d in each["departments"]]]
    assert {user["user_id"] for user in changed} == {user["user_id"] for user in members}


# The token and the envelope


def test_a_token_is_asked_for_with_a_json_body_and_the_one_scope_that_is_needed() -> None:
    bodies: list[Row] = []

    def token(request: Request) -> Reply:
        assert request.headers["content-type"] == "application/json"
        bodies.append(msgspec.json.decode(request.body))
        return reply(200, msgspec.json.encode(TOKEN))

    script = Script()
    script.token = token
    with scripted(script) as source:
        list(source.pages(WINDOW, ""))
    (body,) = bodies
    assert (body["grant_type"], body["scope"]) == ("client_credentials", "user")
    assert (body["client_id"], body["client_secret"]) == ("s3cr3t", "s3cr3t")


@pytest.mark.parametrize("given", [{}, {"expires_in": "28800"}, {"expires_in": None}, {"expires_in": "soon"}])
def test_a_token_is_good_for_eight_hours_whatever_is_said_of_it(given: Row) -> None:
    clock = FakeClock()
    script = Script()
    body = {name: value for name, value in TOKEN.items() if name != "expires_in"} | given
    script.token = lambda request: reply(200, msgspec.json.encode(body))

    def tokens() -> int:
        return len([path for path, _ in script.asked if "oauth2" in path])

    with scripted(script, clock=clock) as source:
        list(source.pages(WINDOW, ""))
        clock.at += 28_000
        list(source.pages(WINDOW, ""))
        assert tokens() == 1
        clock.at += 800
        list(source.pages(WINDOW, ""))
        assert tokens() == 2


@pytest.mark.parametrize("faults", ["token_uses=3", "token_uses=3,denied_body", "token_uses=1,no_expires_in"])
def test_a_token_that_ended_early_is_fetched_anew_and_the_call_repeated(faults: str) -> None:
    with okki(f"okki.{faults}".replace(",", ",okki.")) as sandbox, source_of(sandbox) as source:
        assert len(rows(source)) == 60
        assert sandbox.okki.stats()["tokens"] > 1


@pytest.mark.parametrize("faults", ["okki.unauthorized=0", "okki.no_user_scope", "okki.no_user_scope,okki.denied_body"])
def test_a_second_refusal_is_the_end(faults: str) -> None:
    with okki(faults) as sandbox, source_of(sandbox) as source:
        with pytest.raises(AuthError):
            list(source.pages(WINDOW, ""))
        asked = sandbox.okki.stats()["requests"]
    calls = sum(count for path, count in asked.items() if "oauth2" not in path)
    assert calls == (0 if "unauthorized" in faults else 2)


def test_wrong_credentials_are_said_without_them() -> None:
    with okki() as sandbox:
        source = open_source(connection_to(sandbox.urls["okki"]), "users")
        with pytest.raises(AuthError, match="invalid_client") as caught:
            list(source.pages(WINDOW, ""))
        source.close()
    assert "s3cr3t" not in str(caught.value) + caught.value.cure


def test_an_answer_that_is_no_token_is_asked_for_again_and_then_passes_for_an_outage() -> None:
    script = Script()
    answers = iter([reply(200, b"<html>"), reply(400, b'{"error":"server_error"}')])
    script.token = lambda request: next(answers, None) or reply(200, msgspec.json.encode(TOKEN))
    with scripted(script) as source:
        assert list(source.pages(WINDOW, "")) == []
    script.token = lambda request: reply(200, b"[]")
    with scripted(script) as source, pytest.raises(TransientError, match="without a token"):
        list(source.pages(WINDOW, ""))


def test_the_code_0_is_success_too() -> None:
    with okki("okki.code_zero") as sandbox, source_of(sandbox) as source:
        assert len(rows(source)) == 60


def test_errors_that_come_with_http_200_are_tried_again() -> None:
    with okki("okki.envelope_errors=40%,okki.not_json=10%,okki.no_value=10%", seed=4) as sandbox:
        with source_of(sandbox, attempts=12) as source:
            assert len(rows(source)) == 60
        assert sandbox.okki.stats()["struck"]["envelope_errors"] > 0


@pytest.mark.parametrize(
    ("code", "error", "calls"),
    [
        (400, ProtocolError, 1),
        (404, ProtocolError, 3),
        (-1, ProtocolError, 3),
        (500, TransientError, 3),
        ("404", ProtocolError, 3),
        (None, ProtocolError, 3),
    ],
)
def test_a_code_that_stays_ends_the_run_and_says_nothing_of_the_message(code: Any, error: type, calls: int) -> None:
    body = msgspec.json.encode({"code": code, "message": "张三", "data": []})
    script = Script(departmentList=reply(200, body))
    with scripted(script) as source, pytest.raises(error) as caught:
        list(source.pages(WINDOW, ""))
    assert "张三" not in str(caught.value)
    assert len([path for path, _ in script.asked if path.endswith("departmentList")]) == calls


@pytest.mark.parametrize("data", [None, {}, {"list": None}, "x", 3])
def test_data_without_a_list_is_never_an_empty_one(data: Any) -> None:
    with scripted(Script(list=lambda query: data)) as source, pytest.raises(ProtocolError, match="no list"):
        list(source.pages(WINDOW, ""))


def test_the_clock_is_that_of_the_answers() -> None:
    with okki() as sandbox, source_of(sandbox) as source:
        assert abs((source.now() - sandbox.okki._setup.now).total_seconds()) < 60
    with scripted(Script()) as source:
        assert source.now() == NOON
    nothing = Script(departmentList=reply(200, b'{"code":200,"data":{"list":[],"count":0}}'))
    clock = FakeClock()
    with scripted(nothing, clock=clock) as source:
        assert source.now() == clock.now()


@pytest.mark.parametrize(("read", "size"), [("orders", 10), ("companies", 101), ("companies", 0), ("users", 0)])
def test_what_cannot_be_read_is_a_mistake_of_the_configuration(read: str, size: int) -> None:
    with pytest.raises(ConfigError):
        open_source(connection_to("http://localhost:1", page_size=size), read)


def test_faults_of_every_kind_lose_nobody() -> None:
    faults = "429=3%,503=3%,500=3%,drop_before=3%,not_json=3%,no_value=3%,token_uses=3,retry_after=0"
    with okki(users=500, customers=300) as sandbox:
        sandbox.okki.set_faults(parse(faults, ["okki"])["okki"])
        with source_of(sandbox, attempts=10) as users, source_of(sandbox, "companies", attempts=10) as companies:
            assert len({user["user_id"] for user in rows(users)}) == 500
            assert len({row["company_id"] for row in rows(companies, AGES)}) == companies.total(AGES)


def test_a_list_that_is_shorter_than_it_says_trips_the_guard() -> None:
    users = [{"user_id": "7", "department_id": 1}]
    cut = {"list": [{"id": "0", "name": "x"}], "count": 40}
    for script in (Script(list=users, departmentList=cut), Script(list=users), Script(list={"list": [], "count": 3})):
        with scripted(script) as source, pytest.raises(GuardTripped):
            rows(source)
