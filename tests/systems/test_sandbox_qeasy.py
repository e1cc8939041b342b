"""The fake Qeasy keeps what the vendor documents, and every switch does what it says, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import pytest
import requests

from tests.sandbox import Sandbox

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class World:
    """A running sandbox with the clock in its hands, and the token of an application."""

    def __init__(self, sandbox: Sandbox, clock: list[float]) -> None:
        self.sandbox, self.clock = sandbox, clock
        self.environment = sandbox.environment
        self.url = self.environment["QEASY_URL"]
        self.token = ""

    def oauth(self, **fields: str) -> requests.Response:
        keys = {"app_key": self.environment["QEASY_APP_KEY"], "app_secret": self.environment["QEASY_APP_SECRET"]}
        return requests.post(f"{self.url}/v2/oauth", json=keys | fields, timeout=10)

    def enter(self) -> None:
        self.token = self.oauth().json()["content"]["access_token"]

    def post(self, action: str, body: Any, scheme: str = "", **named: Any) -> requests.Response:
        url = f"{self.url}/v2/open-api/business/{scheme or self.environment['QEASY_SCHEME']}/{action}"
        named = named or {"params": {"access_token": self.token}}
        return requests.post(url, json=body, timeout=10, **named)

    def store(self, *rows: Any) -> Any:
        return self.post("store", {"content": list(rows)}).json()

    def query(self, **wanted: Any) -> Any:
        body = {"page": 1, "pageSize": 100, "begin_at": 0, "end_at": int(self.clock[0])} | wanted
        return self.post("query", body).json()

    def found(self, **wanted: Any) -> list[str]:
        return [row["id"] for row in self.query(**wanted)["content"]["list"]]

    def control(self, action: str, **body: Any) -> Any:
        method = "GET" if action in ("stats", "state") else "POST"
        return requests.request(method, f"{self.url}/_sandbox/{action}", json=body, timeout=10).json()


Start = Callable[..., World]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(**options: Any) -> World:
            clock = [NOW.timestamp()]
            options = {"customers": 1, "qeasy_per_minute": None, "clock": lambda: clock[0]} | options
            world = World(stack.enter_context(Sandbox(**options)), clock)
            world.enter()
            return world

        yield started


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "name": f"用户{number}", **fields}


def test_a_token_is_given_for_the_keys_of_an_application(start: Start) -> None:
    world = start()
    assert (len(world.environment["QEASY_APP_KEY"]), len(world.environment["QEASY_APP_SECRET"])) == (12, 20)
    body = world.oauth().json()
    assert (body["success"], body["code"], body["content"]["expires_in"]) == (True, 0, 7200)
    refused = world.oauth(app_secret="x").json()
    assert (refused["success"], refused["code"], refused["content"]) == (False, 40101, None)


def test_a_token_goes_in_the_query_or_as_bearer_and_ends_after_two_hours(start: Start) -> None:
    world = start()
    body = {"content": [row(1)]}
    assert world.post("store", body).json()["success"]
    assert world.post("store", body, headers={"Authorization": f"Bearer {world.token}"}).json()["success"]
    for wrong in ({"headers": {"Authorization": world.token}}, {"params": {"access_token": "x"}}, {"params": {}}):
        refusal = world.post("store", body, **wrong)
        assert (refusal.status_code, refusal.json()["code"]) == (401, 40102)
    world.clock[0] += 7200
    assert world.post("store", body).status_code == 401
    world.control("faults", faults="denied_body")
    refusal = world.post("store", body)
    assert (refusal.status_code, refusal.json()["code"], "token" in refusal.json()["message"]) == (200, 40102, True)


def test_rows_are_counted_and_kept_with_their_fields(start: Start) -> None:
    world = start()
    answer = world.store(row(1, arr=[{"x": 1}]), row(2))
    assert (answer["success"], answer["content"]) == (True, {"inserted": 2, "failed": 0})
    content = world.query()["content"]
    assert (content["total"], content["page"], content["pageSize"]) == (2, 1, 100)
    first = content["list"][0]
    assert (first["id"], first["arr"], first["created_at"]) == ("1", [{"x": 1}], int(NOW.timestamp()))
    assert len(first["_id"]) == 24


def test_a_row_with_a_known_id_is_overwritten_and_one_without_is_appended(start: Start) -> None:
    world = start()
    world.store(row(1, dept="A"), {"name": "x"})
    world.clock[0] += 10
    assert world.store(row(1), {"name": "x"})["content"]["inserted"] == 2
    rows = world.query()["content"]["list"]
    assert [each.get("id") for each in rows] == ["1", None, None]
    assert "dept" not in rows[0] and rows[0]["updated_at"] == rows[0]["created_at"] + 10
    stats = world.control("stats")
    scheme = world.environment["QEASY_SCHEME"]
    assert (stats["rows"], stats["repeated_ids"]) == ({scheme: 3}, {scheme: {"1": 2}})
    assert (stats["inserted"], stats["overwritten"], stats["stores"]) == (4, 1, 2)


def test_a_query_has_pages_times_and_the_operators_of_mongodb(start: Start) -> None:
    world = start()
    world.store(*(row(each, n=each) for each in range(60)))
    world.clock[0] += 100
    world.store(*(row(each, n=each) for each in range(60, 120)))
    assert (world.query()["content"]["total"], len(world.found())) == (120, 100)
    assert world.found(page=3, pageSize=50) == [str(each) for each in range(100, 120)]
    assert world.found(begin_at=int(NOW.timestamp()) + 50) == [str(each) for each in range(60, 120)]
    assert world.found(end_at=int(NOW.timestamp()) + 50, pageSize=1) == ["0"]
    assert world.found(CONTENT_id="7", CONTENT_n=7) == ["7"]
    assert world.found(CONTENT_id={"$in": ["1", "11", "x"]}) == ["1", "11"]
    assert world.found(CONTENT_n={"$gte": 58, "$lt": 61, "$ne": 59}) == ["58", "60"]
    assert world.found(CONTENT_missing={"$in": ["1"]}) == []


@pytest.mark.parametrize(
    "wanted", [{"page": 0}, {"pageSize": 101}, {"pageSize": "10"}, {"begin_at": None}, {"CONTENT_id": {"$near": 1}}]
)
def test_a_query_that_is_wrong_is_refused(start: Start, wanted: dict[str, Any]) -> None:
    world = start()
    world.store(row(1))
    refusal = world.query(**wanted)
    assert (refusal["success"], refusal["code"]) == (False, 40005)


def test_a_missing_required_field_refuses_the_whole_call(start: Start) -> None:
    world = start()
    world.sandbox.qeasy.required = ("id", "name")
    refusal = world.store(row(1), row(2, name=""))
    assert (refusal["success"], refusal["code"], refusal["content"]) == (False, 40001, None)
    assert "name" in refusal["message"]
    assert world.query()["content"]["total"] == 0


@pytest.mark.parametrize("body", [{}, {"content": []}, {"content": {"id": 1}}, {"content": [1]}, []])
def test_a_body_without_rows_is_refused(start: Start, body: Any) -> None:
    assert start().post("store", body).json()["code"] == 40001


def test_an_unknown_scheme_or_call_is_refused(start: Start) -> None:
    world = start()
    assert world.post("store", {"content": [row(1)]}, scheme="x").json()["code"] == 40401
    assert world.post("drop", {}).json()["code"] == 40402


def test_sixty_calls_a_minute_are_allowed_and_then_a_wait_is_asked_for(start: Start) -> None:
    world = start(qeasy_per_minute=60)
    answers = [world.post("query", {}) for _ in range(60)]
    assert [answer.status_code for answer in answers] == [200] * 59 + [429]
    assert (answers[-1].headers["Retry-After"], answers[-1].json()["code"]) == ("60", 42901)
    world.clock[0] += 60
    assert world.post("query", {}).status_code == 200


def test_bad_rows_are_only_counted_or_spoil_their_call(start: Start) -> None:
    world = start(faults="qeasy.bad_store=5")
    rows = [row(each) for each in range(50)]
    bad = {each["id"] for each in rows if crc32(each["id"].encode()) % 5 == 0}
    answer = world.store(*rows)
    assert (answer["success"], answer["content"]) == (True, {"inserted": 50 - len(bad), "failed": len(bad)})
    assert set(world.found()) == {each["id"] for each in rows} - bad and bad
    world.control("faults", faults="bad_batch=5")
    before = world.control("stats")["rows"]
    assert world.store(*rows)["code"] == 40001
    assert world.control("stats")["rows"] == before


def test_counts_can_be_wrong_and_a_query_can_be_answered_with_nonsense(start: Start) -> None:
    world = start(faults="qeasy.wrong_counts=100%")
    assert world.store(row(1), row(2))["content"] == {"inserted": 1, "failed": 0}
    assert world.found() == ["1", "2"]
    world.control("faults", faults="drop=100%")
    with pytest.raises(requests.ConnectionError):
        world.store(row(3))
    assert world.found() == ["1", "2", "3"]
    world.control("faults", faults="no_value=100%")
    assert world.query() == {}


def test_hands_from_outside_edit_delete_and_add(start: Start) -> None:
    world = start()
    world.store(*(row(each) for each in range(1, 11)))
    (edited,) = world.control("edit", count=1, seed=3)["ids"]
    assert world.query(CONTENT_remark={"$ne": None})["content"]["list"][0]["id"] == str(edited)
    world.control("edit", ids=[4], fields={"name": "x"})
    assert world.found(CONTENT_name="x") == ["4"]
    gone = world.control("delete", count=2)["ids"] + world.control("delete", ids=[edited])["ids"]
    (added,) = world.control("add", count=1)["ids"]
    assert set(world.found()) == ({str(each) for each in range(1, 11)} - {str(each) for each in gone}) | {str(added)}
    world.store(row(edited))
    assert world.query()["content"]["total"] == len(set(world.found()))
    assert "error" in world.control("delete", ids=[999])
