"""The fake OKKI keeps what the vendor documents, and every switch does what it says, over real HTTP."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from tests.sandbox import Sandbox
from tests.sandbox.okki_staff import Departments, Users

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EVERYTHING = "user company invoices"


class World:
    """A running sandbox with the clock in its hands, and a session that carries a token."""

    def __init__(self, sandbox: Sandbox, clock: list[float]) -> None:
        self.sandbox, self.clock = sandbox, clock
        self.okki = sandbox.okki
        self.url = sandbox.environment["OKKI_URL"]
        self.session = requests.Session()

    def token(self, form: bool = False, **fields: str) -> requests.Response:
        environment = self.sandbox.environment
        body = {
            "grant_type": "client_credentials",
            "client_id": environment["OKKI_CLIENT_ID"],
            "client_secret": environment["OKKI_CLIENT_SECRET"],
            "scope": EVERYTHING,
            **fields,
        }
        url = self.url + "/v1/oauth2/access_token"
        return requests.post(url, **({"data": body} if form else {"json": body}), timeout=10)  # type: ignore[arg-type]

    def enter(self, **fields: str) -> None:
        self.session.headers["Authorization"] = f"Bearer {self.token(**fields).json()['access_token']}"

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.session.get(self.url + path, params=query, timeout=10)

    def data(self, path: str, **query: Any) -> Any:
        body = self.get(path, **query).json()
        assert (body["code"], body["message"]) == (200, "success"), body
        return body["data"]

    def control(self, action: str, **body: Any) -> Any:
        method = "GET" if action in ("stats", "state") else "POST"
        return requests.request(method, f"{self.url}/_sandbox/{action}", json=body, timeout=10).json()


Start = Callable[..., World]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(**options: Any) -> World:
            clock = [NOW.timestamp()]
            options = {"customers": 1, "users": 60, "departments": 12, "clock": lambda: clock[0]} | options
            world = World(stack.enter_context(Sandbox(**options)), clock)
            world.enter()
            return world

        yield started


# Tokens


@pytest.mark.parametrize("form", [False, True])
def test_a_token_is_given_for_json_and_for_a_form(start: Start, form: bool) -> None:
    answer = start().token(form)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 28_800)
    assert "refresh_token" not in body and "code" not in body


def test_a_password_is_sent_hashed_and_gives_a_token_that_can_be_renewed(start: Start) -> None:
    world = start()
    hashed = hashlib.sha256(world.okki.password.encode()).hexdigest()
    account = {"grant_type": "password", "username": world.okki.username}
    given = world.token(**account, password=hashed).json()
    assert world.token(**account, password=world.okki.password).json()["error"] == "invalid_credentials"
    body = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    body |= {"client_id": world.okki.client_id, "client_secret": world.okki.client_secret}
    renewed = requests.post(world.url + "/v1/oauth2/refresh_token", data=body, timeout=10).json()
    assert renewed["access_token"] != given["access_token"]
    for token, status in ((given, 401), (renewed, 200)):
        world.session.headers["Authorization"] = f"Bearer {token['access_token']}"
        assert world.get("/v1/user/list").status_code == status


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"scope": "user everything"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"grant_type": "password", "username": "x", "password": "y"}, "invalid_credentials"),
    ],
)
def test_a_token_that_is_not_given_is_an_oauth_error(start: Start, fields: dict[str, str], error: str) -> None:
    refusal = start().token(**fields)
    assert (refusal.status_code, refusal.json()["error"]) == (400, error)


def test_asking_again_prolongs_nothing(start: Start) -> None:
    world = start()
    first = world.token().json()
    world.clock[0] += 20_000
    second = world.token().json()
    assert (second["access_token"], second["expires_in"]) == (first["access_token"], 8_800)
    world.clock[0] += 8_800
    assert world.get("/v1/user/list").status_code == 401
    assert world.token().json()["access_token"] != first["access_token"]


def test_a_call_needs_bearer_a_token_that_was_given_and_the_scope_of_its_module(start: Start) -> None:
    world = start()
    text = str(world.session.headers["Authorization"])
    for wrong in ("", "Bearer x", text.replace("Bearer ", ""), text.replace("Bearer", "Basic")):
        world.session.headers["Authorization"] = wrong
        refusal = world.get("/v1/user/list")
        assert (refusal.status_code, refusal.json()["error"]) == (401, "access_denied")
    world.enter(scope="company")
    assert world.data("/v1/company/list")["list"]
    refusal = world.get("/v1/user/list")
    assert (refusal.status_code, refusal.json()["message"]) == (401, "no permission user scopes")


def test_a_token_can_end_early_and_say_nothing_of_it(start: Start) -> None:
    world = start(faults="okki.token_life=60,okki.no_expires_in")
    assert "expires_in" not in world.token().json()
    world.clock[0] += 59
    assert world.get("/v1/user/list").status_code == 200
    world.clock[0] += 1
    assert world.get("/v1/user/list").status_code == 401
    world.control("faults", faults="token_uses=2,denied_body")
    world.enter()
    answers = [world.get("/v1/user/list") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.json().get("error") for answer in answers] == [None, None, "access_denied"]


# Users and departments


def test_users_come_as_a_bare_list_by_state(start: Start) -> None:
    world = start()
    states = {flag: world.data("/v1/user/list", enable_flag=flag) for flag in "012"}
    assert (
        world.data("/v1/user/list") == world.data("/v1/user/list", code="x", now="2023-10-01 00:00:00") == states["1"]
    )
    assert sum(map(len, states.values())) == 60
    assert all(rows and {row["enable_flag"] for row in rows} == {flag} for flag, rows in states.items())
    assert world.get("/v1/user/list", enable_flag=3).json()["code"] == 400
    assert world.control("stats")["users"] == {flag: len(rows) for flag, rows in states.items()}


def test_a_user_has_the_documented_keys_and_the_documented_mixture_of_types(start: Start) -> None:
    users = start().data("/v1/user/list")
    for user in users:
        assert isinstance(user["user_id"], str) and user["gender"] in ("0", "1", "2") and "name" not in user
        assert type(user["department_id"]) is int
        for each in user["departments"]:
            number = each["department_id"]
            assert number == 0 if type(number) is int else number.isdigit() and number != "0"
        first = user["departments"][0]
        assert (str(first["department_id"]), first["department_name"]) == (
            str(user["department_id"]),
            user["department_name"],
        )
    assert any(user["department_id"] == 0 for user in users)
    assert any(user["full_name"] == "" for user in users)
    assert any("\u4e00" <= letter <= "\u9fff" for user in users for letter in user["full_name"])


def test_departments_stand_five_layers_deep_below_a_root_with_the_id_0(start: Start) -> None:
    data = start().data("/v1/user/departmentList")
    rows = {row["id"]: row for row in data["list"]}
    assert data["count"] == len(rows) == 13
    assert rows["0"] == {"id": "0", "layer": 0, "name": "我的企业", "parent_id": "", "parent_name": ""}
    assert {row["layer"] for row in rows.values()} == {0, 1, 2, 3, 4, 5}
    for row in rows.values():
        if row["id"] != "0":
            parent = rows[row["parent_id"]]
            assert (parent["layer"] + 1, parent["name"]) == (row["layer"], row["parent_name"])


def test_one_user_and_one_department_are_found_by_what_they_are_called(start: Start) -> None:
    world = start()
    user = world.data("/v1/user/list")[5]
    for name in ("user_id", "email", "nickname"):
        assert world.data("/v1/user/info", **{name: user[name]})["user_id"] == user["user_id"]
    assert "is_admin" in world.data("/v1/user/info", user_id=user["user_id"])
    row = world.data("/v1/user/departmentList")["list"][3]
    assert world.data("/v1/user/departmentInfo", department_id=row["id"]) == row
    missing = world.get("/v1/user/departmentInfo", department_id=9)
    assert (missing.status_code, missing.json()["code"], missing.json()["message"]) == (200, 404, "Not Found Resource")
    assert world.get("/v1/user/nothing").json()["code"] == 404


@pytest.mark.parametrize("same", [0, 7])
def test_nicknames_are_alike_as_often_as_asked_for(start: Start, same: int) -> None:
    world = start(users=400, same_nicknames=same)
    counted = Counter(user["nickname"] for user in world.data("/v1/user/list"))
    assert sum(count - 1 for count in counted.values()) == same
    repeated = {name: count for name, count in counted.items() if count > 1}
    assert world.control("stats")["repeated_nicknames"] == repeated


def test_the_same_seed_gives_the_same_people() -> None:
    def people(seed: int, count: int) -> list[dict[str, Any]]:
        return Users(seed, Departments(seed, 9), count, 0).rows()

    assert people(3, 50) == people(3, 50) == people(3, 80)[:50]
    assert people(3, 50) != people(4, 50)
    with pytest.raises(ValueError, match="need more users"):
        Users(1, Departments(1, 0), 5, 5)


# Lists with pages


def test_lists_are_paged_by_number_with_the_total_in_two_forms(start: Start) -> None:
    world = start(customers=131)
    for path, number in (("/v1/company/list", "company_id"), ("/v1/invoices/order/list", "order_id")):
        first = world.data(path)
        total = first.get("totalItem", first["count"])
        assert (len(first["list"]), total) == (10, 128)
        pages = [world.data(path, start_index=each, count=10)["list"] for each in range(1, 15)]
        assert [len(page) for page in pages] == [10] * 12 + [8, 0]
        assert len({row[number] for page in pages for row in page}) == 128
        assert len(world.data(path, count=500)["list"]) == 100
        assert len(world.data(path, removed=1)["list"]) == 3
        for wrong in ({"start_index": 0}, {"count": "x"}, {"time_type": 9}, {"start_time": "soon"}):
            assert world.get(path, **wrong).json()["code"] == 400
    assert "totalItem" in world.data("/v1/company/list") and "totalItem" not in world.data("/v1/invoices/order/list")


def test_windows_are_in_the_time_of_china_and_by_the_time_that_was_asked_for(start: Start) -> None:
    world = start(customers=90)
    rows = world.data("/v1/company/list", count=100)["list"]
    for kind, name in ((1, "update_time"), (2, "create_time")):
        times = sorted(row[name] for row in rows)
        window = {"start_time": times[20], "end_time": times[60], "time_type": kind, "count": 100}
        assert world.data("/v1/company/list", **window)["list"] == [r for r in rows if times[20] <= r[name] < times[60]]
    assert world.get("/v1/company/list").json()["now"] == "2026-06-01 20:00:00"
    assert max(row["update_time"] for row in rows) < "2026-06-01 00:00:00"
    repeated = Counter(row["update_time"] for row in rows)
    assert any(count > 1 for count in repeated.values())


# Switches and control


def test_the_envelope_can_say_0_and_can_carry_errors_with_http_200(start: Start) -> None:
    world = start(faults="okki.code_zero")
    assert world.get("/v1/user/list").json()["code"] == 0
    world.control("faults", faults="envelope_errors=50%")
    answers = [world.get("/v1/user/departmentList") for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["code"] for answer in answers} == {200, 404, -1}
    assert all(answer.json()["data"] is None for answer in answers if answer.json()["code"] != 200)


def test_a_token_can_lack_the_scope_for_users(start: Start) -> None:
    world = start(faults="okki.no_user_scope")
    assert "no permission user scopes" in world.get("/v1/user/list").text
    assert world.data("/v1/company/list")


def test_hands_from_outside_work_on_users_and_departments(start: Start) -> None:
    world = start()
    before = {user["user_id"]: user for user in world.control("state")["rows"]}
    department = next(user["department_id"] for user in before.values() if user["department_id"])
    renamed = world.control("edit", kind="departments", ids=[department], fields={"name": "新部门"})
    assert renamed["ids"] == [department]
    after = {user["user_id"]: user for user in world.control("state")["rows"]}
    members = {
        number
        for number, user in before.items()
        if str(department) in [str(each["department_id"]) for each in user["departments"]]
    }
    assert {number for number in before if before[number] != after[number]} == members
    (chosen,) = world.control("edit", count=1, seed=4)["ids"]
    world.control("edit", ids=[chosen], fields={"nickname": "阿香", "department_ids": [0]})
    user = world.data("/v1/user/info", user_id=chosen)
    assert (user["nickname"], user["department_id"], user["position"][-4:]) == ("阿香", 0, "（代理）")
    gone = world.control("delete", count=2)["ids"] + world.control("delete", ids=[chosen])["ids"]
    assert {str(each) for each in gone} <= {user["user_id"] for user in world.data("/v1/user/list", enable_flag=2)}
    (added,) = world.control("add", count=1)["ids"]
    assert str(added) not in before and world.data("/v1/user/info", user_id=added)
    (made,) = world.control("add", kind="departments", count=1, fields={"name": "深圳办事处"})["ids"]
    assert world.data("/v1/user/departmentInfo", department_name="深圳办事处")["id"] == str(made)
    world.control("delete", kind="departments", ids=[made])
    assert world.get("/v1/user/departmentInfo", department_id=made).json()["code"] == 404


def test_hands_from_outside_cannot_do_nonsense(start: Start) -> None:
    world = start()
    for body in (
        {"ids": [1], "fields": {"nickname": "x"}},
        {"ids": [11_858_711], "fields": {"name": "x"}},
        {"kind": "departments", "ids": [0], "fields": {"layer": 3}},
        {"kind": "departments", "ids": [144], "fields": {"parent_id": 148}},
        {"kind": "departments", "ids": [144], "fields": {"parent_id": 999}},
        {"kind": "teams", "count": 1},
    ):
        assert "error" in world.control("edit", **body), body
    for department in (0, 144, 999):
        assert "error" in world.control("delete", kind="departments", ids=[department])
