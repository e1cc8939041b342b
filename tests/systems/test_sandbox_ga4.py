"""The fake GA4 says as little as the real one, keeps what it would keep, and validates what is documented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.sandbox.faults import parse
from tests.sandbox.ga4 import Ga4
from tests.sandbox.server import Server
from tests.sandbox.system import Setup

NOW = 1_780_000_000.0
Row = dict[str, Any]


class World:
    def __init__(self, system: Ga4, url: str) -> None:
        self.system, self.url = system, url
        self.keys = {"measurement_id": system.measurement_id, "api_secret": system.api_secret}

    def post(self, body: Any, path: str = "/mp/collect", **keys: str) -> requests.Response:
        return requests.post(self.url + path, json=body, params=self.keys | keys, timeout=10)

    def codes(self, body: Row, **keys: str) -> list[str]:
        answer = self.post(body, "/debug/mp/collect", **keys)
        assert answer.status_code == 200 and self.system.events == []
        return [message["validationCode"] for message in answer.json()["validationMessages"]]


@contextmanager
def world(faults: str = "") -> Iterator[World]:
    system = Ga4(Setup(clock=lambda: NOW))
    system.set_faults(parse(faults, ["ga4"])["ga4"])
    with Server(system) as server:
        yield World(system, server.url)


def body(*events: Row, **fields: Any) -> Row:
    return {"client_id": "1.2", "events": list(events or ({"name": "lead"},)), **fields}


def test_events_are_kept_with_what_is_said_of_all() -> None:
    with world() as ga4:
        given = body({"name": "lead", "params": {"a": 1}}, {"name": "sale"}, user_id="u")
        assert (ga4.post(given).status_code, ga4.post(given).text) == (204, "")
        assert [event["name"] for event in ga4.system.rows()] == ["lead", "sale"] * 2
        assert ga4.system.rows()[0] == {
            "client_id": "1.2", "user_id": "u", "name": "lead", "params": {"a": 1}, "timestamp_micros": int(NOW * 1e6),
        }  # fmt: skip
        ga4.post(given | {"client_id": "3.4"})
        assert list(ga4.system.stats()["repeated"].values()) == [2, 2]
        assert set(ga4.system.environment(ga4.url)) == {"GA4_URL", "GA4_MEASUREMENT_ID", "GA4_API_SECRET"}


@pytest.mark.parametrize(
    ("given", "keys", "reason"),
    [
        (body(), {"api_secret": "x"}, "secret"),
        (body(), {"measurement_id": "G-X"}, "stream"),
        (body(), {"firebase_app_id": "1:2"}, "stream"),
        ({"events": []}, {}, "malformed"),
        ([], {}, "malformed"),
        (body({"name": "1x"}), {}, "event"),
        (body({"name": "first_open"}), {}, "event"),
    ],
)
def test_what_is_wrong_is_taken_and_left_out_in_silence(given: Any, keys: dict[str, str], reason: str) -> None:
    with world() as ga4:
        assert ga4.post(given, **keys).status_code == 204
        assert ga4.system.events == []
        assert {name: count for name, count in ga4.system.stats()["ignored"].items() if count} == {reason: 1}


def test_parameters_beyond_a_limit_and_old_times_are_mended_in_silence() -> None:
    old = int((NOW - 73 * 3600) * 1e6)
    with world() as ga4:
        ga4.post(body({"name": "lead", "params": {"a": "x" * 101, "_b": 1, "c": 1}, "timestamp_micros": old}))
        (event,) = ga4.system.events
        assert event["params"] == {"c": 1} and event["timestamp_micros"] == int((NOW - 72 * 3600) * 1e6)
        assert (ga4.system.ignored["param"], ga4.system.ignored["timestamp"]) == (2, 1)


def test_events_after_the_twenty_fifth_and_bodies_of_130_kilobytes_are_not_taken() -> None:
    with world() as ga4:
        ga4.post(body(*[{"name": f"e{place}"} for place in range(26)]))
        assert (len(ga4.system.events), ga4.system.ignored["event"]) == (25, 1)
        assert ga4.post(body(pad="x" * 130_000)).status_code == 413


def test_one_purchase_is_told_from_two() -> None:
    def purchase(number: int) -> Row:
        return body({"name": "purchase", "params": {"transaction_id": f"T{number}", "value": number}})

    with world() as ga4:
        for number in (1, 1, 2):
            ga4.post(purchase(number))
        (repeated,) = ga4.system.stats()["repeated"]
        assert ga4.system.stats()["same_purchases"] == 1 and '"transaction_id":"T1"' in repeated


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        (body(), []),
        ({"events": [{"name": "lead"}]}, ["VALUE_REQUIRED"]),
        ({"client_id": "1.2"}, ["VALUE_REQUIRED"]),
        (body(*[{"name": "lead"}] * 26), ["EXCEEDED_MAX_ENTITIES"]),
        (body({"name": "_bad"}), ["NAME_INVALID"]),
        (body({"name": "ga_x"}), ["NAME_RESERVED"]),
        (body({"name": "session_start"}), ["NAME_RESERVED"]),
        (body({"name": "lead", "params": {f"p{place}": 1 for place in range(26)}}), ["EXCEEDED_MAX_ENTITIES"]),
        (body({"name": "lead", "params": {"a b": 1}}), ["NAME_INVALID"]),
        (body({"name": "lead", "params": {"a": "x" * 101}}), ["VALUE_OUT_OF_BOUNDS"]),
        (body(user_properties={"a-b": {"value": 1}}), ["NAME_INVALID"]),
        (body(user_properties={f"p{place}": {"value": 1} for place in range(26)}), ["EXCEEDED_MAX_ENTITIES"]),
        (body(timestamp_micros=1), []),
        (body(timestamp_micros=1, validation_behavior="ENFORCE_RECOMMENDATIONS"), ["VALUE_INVALID"]),
        (
            body(user_properties={"a": {"value": "x" * 37}}, validation_behavior="ENFORCE_RECOMMENDATIONS"),
            ["VALUE_OUT_OF_BOUNDS"],
        ),
    ],
)
def test_the_validation_server_says_what_is_wrong_and_keeps_nothing(given: Row, codes: list[str]) -> None:
    with world() as ga4:
        assert ga4.codes(given) == codes
        assert ga4.codes(given, api_secret="wrong") == codes


def test_the_switches_work() -> None:
    with world("drop=100%") as ga4:
        with pytest.raises(requests.ConnectionError):
            ga4.post(body())
        assert len(ga4.system.events) == 1
    with world("503=100%") as ga4:
        assert ga4.post(body()).status_code == 503 and ga4.system.events == []
    with world("429=100%,retry_after=3") as ga4:
        assert ga4.post(body()).headers["Retry-After"] == "3"
    with world("not_json=100%") as ga4:
        assert ga4.post(body(), "/debug/mp/collect").text.startswith("<!DOCTYPE")
        assert ga4.post(body()).status_code == 204
    with world("unauthorized=0") as ga4:
        assert ga4.post(body()).status_code == 401


def test_nobody_works_inside_and_other_paths_are_none() -> None:
    with world() as ga4:
        assert ga4.post(body(), "/g/collect").status_code == 404
        for action in ("edit", "delete", "add"):
            answer = requests.post(f"{ga4.url}/_sandbox/{action}", json={"count": 1}, timeout=10)
            assert answer.status_code == 400
        ga4.post(body())
        state = requests.get(f"{ga4.url}/_sandbox/state", timeout=10).json()
        assert [row["name"] for row in state["rows"]] == ["lead"]
        assert ga4.system.identity(ga4.system.rows()[0]) == (0, "1.2")
